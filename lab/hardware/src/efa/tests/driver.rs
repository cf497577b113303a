//! A small driver and a small program of an EFA, as much of them as the tests need.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::super::fields::{Fields, Structure};
use super::super::*;
use crate::bus::{Bus, PAGE_SIZE, SharedMemory};

/// Guest memory: above 4 GiB, so that addresses need all their bits.
const BASE: u64 = 0x1_4000_0000;
const SIZE: u64 = 64 << 20;

pub(super) const UD: u8 = 1;
pub(super) const SRD: u8 = 2;
pub(super) const QUEUE_KEY: u32 = 0x1111_1111;
/// Local write, remote write, remote read.
pub(super) const ALL: u8 = 7;
const ENTRIES: u16 = 32;

/// A machine with EFAs, each with a driver that has probed it.
pub(super) struct Machine {
    pub(super) bus: Arc<Bus>,
    pub(super) ground_truth: Arc<GroundTruth>,
    pub(super) misuse: Arc<MisuseLog>,
    pub(super) drivers: Vec<Driver>,
    clock: Arc<Clock>,
}

impl Machine {
    pub(super) fn new(count: usize) -> Machine {
        Machine::with(count, "efa")
    }

    pub(super) fn with(count: usize, config: &str) -> Machine {
        let bus = Bus::new();
        let ram = SharedMemory::create("ram", SIZE).unwrap();
        let clock = Clock::start().unwrap();
        let ground_truth = Arc::new(GroundTruth::new(0, count));
        let misuse = Arc::new(MisuseLog::new(false));
        let fabric = Arc::new(Fabric::default());
        let next = Rc::new(Cell::new(BASE));
        let drivers = (0..count).map(|index| {
            let memory = bus.address_space();
            memory.map(BASE, SIZE, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
            let vectors = Arc::new(Vectors::new(Efa::vector_count()));
            let connections = Connections {
                memory: Arc::clone(&memory),
                vectors: Arc::clone(&vectors),
                fabric: Arc::clone(&fabric),
                clock: Arc::clone(&clock),
                ground_truth: Arc::clone(&ground_truth),
                misuse: Arc::clone(&misuse),
            };
            let device = Efa::new(index, config.parse().unwrap(), connections).unwrap();
            Driver::probe(device, memory, &vectors, Rc::clone(&next))
        });
        let drivers = drivers.collect();
        Machine { bus, ground_truth, misuse, drivers, clock }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.clock.stop();
    }
}

pub(super) struct Driver {
    pub(super) device: Arc<Efa>,
    pub(super) memory: Arc<AddressSpace>,
    next: Rc<Cell<u64>>,
    events: Vec<File>,
    commands: Cell<u16>,
    rings: u64,
    answer: u64,
    requests: Cell<u16>,
    pub(super) domain: u16,
    pub(super) page: u16,
    pub(super) event_queue: u16,
    pub(super) event_ring: u64,
}

/// A completion as a program reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: u16,
    pub(super) status: u8,
    /// Without the phase.
    pub(super) flags: u8,
    pub(super) length: u32,
    pub(super) handle: u16,
    pub(super) source: u16,
    pub(super) immediate: u32,
    pub(super) bytes: [u8; 32],
}

impl Driver {
    fn probe(device: Arc<Efa>, memory: Arc<AddressSpace>, vectors: &Vectors, next: Rc<Cell<u64>>) -> Driver {
        let events: Vec<File> = (0..Efa::vector_count())
            .map(|vector| {
                let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
                let event = File::from(OwnedFd::from(event));
                vectors.set(vector, vec![Some(event.try_clone().unwrap())]).unwrap();
                event
            })
            .collect();
        let mut driver = Driver {
            device,
            memory,
            next,
            events,
            commands: Cell::new(0),
            rings: 0,
            answer: 0,
            requests: Cell::new(0),
            domain: 0,
            page: 0,
            event_queue: 0,
            event_ring: 0,
        };
        driver.rings = driver.allocate(3 * PAGE_SIZE);
        driver.answer = driver.allocate(8);
        driver.start();
        driver
    }

    /// Resets the device, sets its rings up and creates what every program needs.
    pub(super) fn start(&mut self) {
        self.place_answers();
        assert_eq!(self.read_register(0x58) & 1, 1, "the device is ready");
        self.write_register(0x54, 1);
        self.place_answers();
        assert_eq!(self.read_register(0x58) & 8, 8, "a reset is in progress");
        self.write_register(0x54, 0);
        assert_eq!(self.read_register(0x58) & 8, 0, "the reset has ended");
        self.commands.set(0);
        self.memory.write(self.rings, &[0; 3 * 4096]).unwrap();
        for (low, address) in [(0x10, self.rings), (0x20, self.rings + PAGE_SIZE)] {
            self.write_register(low, address as u32);
            self.write_register(low + 4, (address >> 32) as u32);
        }
        self.write_register(0x18, 64 << 16 | u32::from(ENTRIES));
        self.write_register(0x28, 64 << 16 | u32::from(ENTRIES));
        self.write_register(0x38, (self.rings + 2 * PAGE_SIZE) as u32);
        self.write_register(0x3c, ((self.rings + 2 * PAGE_SIZE) >> 32) as u32);
        self.write_register(0x34, 64 << 16 | 16);
        self.domain = self.number(14, Structure::new(60));
        self.page = self.number(16, Structure::new(60));
        self.event_ring = self.allocate(PAGE_SIZE);
        let create = Structure::new(60).u16(0, 16).u8(2, 1).u8(3, 4).u64(4, self.event_ring).u32(12, 1);
        self.event_queue = self.number(18, create);
    }

    fn place_answers(&self) {
        self.write_register(0x60, self.answer as u32);
        self.write_register(0x64, (self.answer >> 32) as u32);
    }

    /// New pages.
    pub(super) fn allocate(&self, bytes: u64) -> u64 {
        let address = self.next.get();
        self.next.set(address + bytes.next_multiple_of(PAGE_SIZE));
        assert!(self.next.get() <= BASE + SIZE, "the test needs more memory");
        address
    }

    pub(super) fn bytes(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory.read(address, &mut bytes).unwrap();
        bytes
    }

    pub(super) fn write_register(&self, offset: u64, value: u32) {
        self.device.write(0, offset, &value.to_le_bytes());
    }

    pub(super) fn read_register(&self, offset: u32) -> u32 {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        self.write_register(0x5c, offset << 16 | u32::from(number));
        let answer = self.bytes(self.answer, 8);
        assert_eq!(Fields(&answer).u32(0), offset << 16 | u32::from(number));
        Fields(&answer).u32(4)
    }

    /// Interrupts of a vector since last asked.
    pub(super) fn interrupts(&self, vector: usize) -> u64 {
        let mut count = [0; 8];
        let read = (&self.events[vector]).read_exact(&mut count);
        read.map_or(0, |()| u64::from_ne_bytes(count))
    }

    /// Executes a command; its status and its answer.
    pub(super) fn command(&self, opcode: u8, flags: u8, body: Structure) -> (u8, Vec<u8>) {
        let count = self.commands.get();
        let slot = u64::from(count % ENTRIES) * 64;
        let body = body.bytes();
        let entry = Structure::new(64).u16(0, count).u8(2, opcode).u8(3, flags).put(4, &body);
        self.memory.write(self.rings + slot, &entry.bytes()).unwrap();
        self.commands.set(count + 1);
        self.write_register(0x2c, u32::from(count + 1));
        let completion = self.bytes(self.rings + PAGE_SIZE + slot, 64);
        let fields = Fields(&completion);
        assert_eq!(fields.u16(0), count & 0xfff, "the command is done");
        assert_eq!(u16::from(fields.u8(3)), 1 - count / ENTRIES % 2, "its phase");
        (fields.u8(2), completion[8..].to_vec())
    }

    /// Executes a command that succeeds.
    pub(super) fn succeed(&self, opcode: u8, flags: u8, body: Structure) -> Vec<u8> {
        let (status, answer) = self.command(opcode, flags, body);
        assert_eq!(status, 0, "command {opcode}");
        answer
    }

    pub(super) fn number(&self, opcode: u8, body: Structure) -> u16 {
        Fields(&self.succeed(opcode, 0, body)).u16(0)
    }

    /// Registers pages one after the other as a region by an array of their addresses; its two keys.
    pub(super) fn register(&self, pages: &[u64], address: u64, length: u64, permissions: u8) -> (u32, u32) {
        let list = self.allocate(pages.len() as u64 * 8);
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.memory.write(list, &bytes).unwrap();
        let body = Structure::new(60).u16(0, self.domain).u32(4, bytes.len() as u32).u64(8, list);
        let body = body.u64(36, length).u8(44, 12).u8(45, permissions).u64(52, address);
        let answer = self.succeed(7, 2, body);
        (Fields(&answer).u32(0), Fields(&answer).u32(4))
    }

    /// New memory that is a region under its own address; address and keys.
    pub(super) fn buffer(&self, bytes: u64) -> (u64, u32, u32) {
        let address = self.allocate(bytes);
        let pages: Vec<u64> = (0..bytes.div_ceil(PAGE_SIZE)).map(|page| address + page * PAGE_SIZE).collect();
        let (key, remote) = self.register(&pages, address, bytes, ALL);
        (address, key, remote)
    }

    pub(super) fn address_handle(&self, to: &Driver) -> u16 {
        self.number(5, Structure::new(60).put(0, &to.device.gid).u16(16, self.domain))
    }

    /// A queue pair that is ready to send, with a completion queue of its own that has events.
    pub(super) fn queue_pair(&self, transport: u8) -> Program<'_> {
        self.queue_pair_with(transport, 0)
    }

    pub(super) fn queue_pair_with(&self, transport: u8, flags: u8) -> Program<'_> {
        let completion_ring = self.allocate(u64::from(ENTRIES) * 32);
        let create = Structure::new(60)
            .u8(0, 1 << 5)
            .u8(1, 8 | 1 << 5)
            .u16(2, ENTRIES)
            .u16(4, self.event_queue)
            .u64(8, completion_ring)
            .u16(20, 1)
            .u16(22, self.page);
        let answer = self.succeed(9, 0, create);
        let (queue, completion_doorbell) = (Fields(&answer).u16(0), Fields(&answer).u32(4));
        let receive_ring = self.allocate(u64::from(ENTRIES) * 16);
        let create = Structure::new(60)
            .u16(0, self.domain)
            .u8(2, transport)
            .u8(3, flags)
            .u64(12, receive_ring)
            .u32(20, queue.into())
            .u32(24, queue.into())
            .u32(36, u32::from(ENTRIES) * 64)
            .u32(40, ENTRIES.into())
            .u32(44, u32::from(ENTRIES) * 16)
            .u32(48, ENTRIES.into())
            .u16(52, self.page);
        let answer = self.succeed(1, 0, create);
        let fields = Fields(&answer);
        let program = Program {
            driver: self,
            number: fields.u16(4),
            queue,
            completion_ring,
            completion_doorbell,
            send_doorbell: fields.u32(12),
            receive_doorbell: fields.u32(16),
            send_ring: fields.u32(20).into(),
            receive_ring,
            sent: Cell::new(0),
            posted: Cell::new(0),
            taken: Cell::new(0),
        };
        for state in [1, 2, 3] {
            program.modify(|body| body.u32(0, 1 | 1 << 2).u32(8, state).u32(16, QUEUE_KEY));
        }
        program
    }
}

/// A program with a queue pair.
pub(super) struct Program<'a> {
    pub(super) driver: &'a Driver,
    pub(super) number: u16,
    pub(super) queue: u16,
    completion_ring: u64,
    completion_doorbell: u32,
    pub(super) send_doorbell: u32,
    receive_doorbell: u32,
    send_ring: u64,
    receive_ring: u64,
    sent: Cell<u16>,
    posted: Cell<u16>,
    taken: Cell<u16>,
}

/// What a program sends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Send {
    pub(super) operation: u8,
    pub(super) to: u16,
    pub(super) handle: u16,
    pub(super) immediate: Option<u32>,
    /// Length, key, address.
    pub(super) local: (u32, u32, u64),
    pub(super) remote: Option<(u32, u32, u64)>,
}

impl Program<'_> {
    pub(super) fn modify(&self, fill: impl FnOnce(Structure) -> Structure) {
        self.driver.succeed(2, 0, fill(Structure::new(60)).u32(4, self.number.into()));
    }

    pub(super) fn ring(&self, doorbell: u32, value: u32) {
        self.driver.device.write(0, doorbell.into(), &value.to_le_bytes());
    }

    /// Posts an entry of 64 bytes, whatever is in it.
    pub(super) fn post(&self, entry: &[u8]) {
        let count = self.sent.get();
        let place = self.send_ring + u64::from(count % ENTRIES) * 64;
        self.driver.device.queues.memory().write(place, entry).unwrap();
        self.sent.set(count + 1);
        self.ring(self.send_doorbell, u32::from(count + 1));
    }

    /// Posts a request whose identifier is 100 and how many were posted.
    pub(super) fn send(&self, send: &Send) {
        let immediate = if send.immediate.is_some() { 1 << 4 } else { 0 };
        let buffer = |bytes: Structure, at: usize, (length, key, address): (u32, u32, u64)| {
            bytes.u32(at, length).u32(at + 4, key).u64(at + 8, address)
        };
        let entry = Structure::new(64)
            .u16(0, 100 + self.sent.get())
            .u8(2, 1 << 7 | immediate | send.operation)
            .u8(3, 1 << 2 | 1 << 3 | 1 << 4)
            .u16(4, send.to)
            .u16(6, 1)
            .u32(8, send.immediate.unwrap_or(0))
            .u16(12, send.handle)
            .u32(16, QUEUE_KEY);
        let entry = match send.remote {
            None => buffer(entry, 32, send.local),
            Some(remote) => buffer(buffer(entry, 32, remote), 48, send.local),
        };
        self.post(&entry.bytes());
    }

    /// Posts a receive of one buffer.
    pub(super) fn receive(&self, id: u16, (length, key, address): (u16, u32, u64)) {
        let count = self.posted.get();
        let entry = Structure::new(16).u64(0, address).u16(8, id).u16(10, length).u32(12, key | 3 << 30);
        let place = self.receive_ring + u64::from(count % ENTRIES) * 16;
        self.driver.memory.write(place, &entry.bytes()).unwrap();
        self.posted.set(count + 1);
        self.ring(self.receive_doorbell, u32::from(count + 1));
    }

    /// Takes the next completion, if there is one.
    pub(super) fn poll(&self) -> Option<Seen> {
        let count = self.taken.get();
        let place = self.completion_ring + u64::from(count % ENTRIES) * 32;
        let bytes: [u8; 32] = self.driver.memory.read_array(place).unwrap();
        if u16::from(bytes[3] & 1) != 1 - count / ENTRIES % 2 {
            return None;
        }
        self.taken.set(count + 1);
        let fields = Fields(&bytes);
        Some(Seen {
            id: fields.u16(0),
            status: fields.u8(2),
            flags: fields.u8(3) & !1,
            length: u32::from(fields.u16(6)) | u32::from(fields.u16(16)) << 16,
            handle: fields.u16(8),
            source: fields.u16(10),
            immediate: fields.u32(12),
            bytes,
        })
    }

    /// The next completion, which is there or comes soon.
    pub(super) fn wait(&self) -> Seen {
        for _ in 0..5000 {
            if let Some(seen) = self.poll() {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no completion");
    }

    /// Asks to be told of the next completion.
    pub(super) fn arm(&self) {
        self.ring(self.completion_doorbell, 1 << 31 | u32::from(self.taken.get()));
    }
}
