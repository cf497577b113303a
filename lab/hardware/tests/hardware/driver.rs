//! A small gve driver, as much of it as the tests need.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::client::Client;
use crate::memory::{BASE, Memory, SIZE};

const REGISTERS: u32 = 0;
const DOORBELLS: u32 = 2;
pub(crate) const QUEUES: u32 = 4;
pub(crate) const PASSED: u32 = 1;
pub(crate) const RING: u16 = 64;
pub(crate) const BUFFER: usize = 4096;
pub(crate) const HEADER: usize = 128;

pub(crate) struct Driver {
    pub(crate) client: Client,
    pub(crate) memory: Memory,
    pub(crate) mac: [u8; 6],
    admin: u64,
    commands: u32,
    interrupt_doorbells: Vec<u32>,
    events: Vec<EventFd>,
}

/// Fields of a command, each at its offset, big-endian.
#[derive(Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Body {
        self.0.resize(self.0.len().max(at + bytes.len()), 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn u16(self, at: usize, value: u16) -> Body {
        self.put(at, &value.to_be_bytes())
    }

    pub(crate) fn u32(self, at: usize, value: u32) -> Body {
        self.put(at, &value.to_be_bytes())
    }

    pub(crate) fn u64(self, at: usize, value: u64) -> Body {
        self.put(at, &value.to_be_bytes())
    }
}

impl Driver {
    /// Connects, maps memory, resets the device and configures everything but queues.
    pub(crate) fn probe(socket: &Path, memory: &Memory) -> Driver {
        let mut client = Client::connect(socket);
        client.map(BASE, SIZE, Some((memory.file().as_raw_fd(), 0)), true).unwrap();
        let events: Vec<EventFd> = (0..QUEUES * 2 + 1)
            .map(|vector| {
                let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
                client.set_vector(vector, Some(event.as_fd().as_raw_fd())).unwrap();
                event
            })
            .collect();
        let admin = memory.allocate(4096);
        let interrupt_doorbells = Vec::new();
        let memory = memory.clone();
        let mut driver =
            Driver { client, memory, mac: [0; 6], admin, commands: 0, interrupt_doorbells, events };
        driver.start();
        driver
    }

    /// Resets the device and configures everything but queues.
    pub(crate) fn start(&mut self) {
        self.write_register(4, &2u32.to_be_bytes());
        assert_eq!(self.read_register(0) & 1 << 4, 1 << 4, "the device is reset");
        self.commands = 0;
        let admin = self.admin.to_be_bytes();
        self.write_register(40, &4096u16.to_be_bytes());
        self.write_register(32, &admin[..4]);
        self.write_register(36, &admin[4..]);
        self.write_register(4, &1u32.to_be_bytes());
        assert_eq!(self.read_register(24), 0, "no command yet");
        let answer = self.memory.allocate(4096);
        let describe = Body::default().u64(0, answer).u32(8, 1).u32(12, 4096);
        assert_eq!(self.command(1, describe), PASSED);
        self.mac = self.memory.array(answer + 24);
        let doorbells = self.memory.allocate(4096);
        let resources = Body::default().u64(8, doorbells).u32(20, QUEUES * 2).u32(24, 64).put(32, &[3]);
        assert_eq!(self.command(2, resources), PASSED);
        let index = |block: u64| u32::from_be_bytes(self.memory.array(doorbells + block * 64));
        self.interrupt_doorbells = (0..u64::from(QUEUES * 2)).map(index).collect();
    }

    pub(crate) fn read_register(&mut self, offset: u64) -> u32 {
        let bytes = self.client.read(REGISTERS, offset, 4).unwrap();
        u32::from_be_bytes(bytes.try_into().unwrap())
    }

    pub(crate) fn write_register(&mut self, offset: u64, bytes: &[u8]) {
        self.client.write(REGISTERS, offset, bytes).unwrap();
    }

    pub(crate) fn ring(&mut self, doorbell: u32, value: u32) {
        self.client.write(DOORBELLS, u64::from(doorbell) * 4, &value.to_le_bytes()).unwrap();
    }

    /// Executes a command; its status.
    pub(crate) fn command(&mut self, opcode: u32, body: Body) -> u32 {
        let slot = self.admin + u64::from(self.commands % 64) * 64;
        let mut bytes = [&opcode.to_be_bytes()[..], &[0; 4], &body.0].concat();
        bytes.resize(64, 0);
        self.memory.write(slot, &bytes);
        self.commands += 1;
        self.write_register(20, &self.commands.to_be_bytes());
        assert_eq!(self.read_register(24), self.commands, "the command is done");
        u32::from_be_bytes(self.memory.array(slot + 4))
    }

    pub(crate) fn enable_interrupt(&mut self, block: u32) {
        let (enable, no_interval) = (1, 3 << 3);
        self.ring(self.interrupt_doorbells[block as usize], enable | no_interval);
    }

    pub(crate) fn connect_vector(&mut self, vector: u32) {
        let event = self.events[vector as usize].as_fd().as_raw_fd();
        self.client.set_vector(vector, Some(event)).unwrap();
    }

    pub(crate) fn disconnect_vector(&mut self, vector: u32) {
        self.client.set_vector(vector, None).unwrap();
    }

    /// How often a vector fired since last asked.
    pub(crate) fn interrupts(&self, vector: u32) -> u64 {
        self.events[vector as usize].read().unwrap_or(0)
    }

    /// Waits for a vector to fire.
    pub(crate) fn wait_for_interrupt(&self, vector: u32) {
        while self.interrupts(vector) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub(crate) fn create_transmit_queue(&mut self, queue: u32) -> TransmitQueue {
        let memory = self.memory.clone();
        let (resources, ring, completions) = (
            memory.allocate(64),
            memory.allocate(u64::from(RING) * 16),
            memory.allocate(u64::from(RING) * 8),
        );
        let body = Body::default()
            .u32(0, queue)
            .u64(8, resources)
            .u64(16, ring)
            .u32(24, u32::MAX)
            .u32(28, queue)
            .u64(32, completions)
            .u16(40, RING)
            .u16(42, RING);
        assert_eq!(self.command(5, body), PASSED);
        let doorbell = u32::from_be_bytes(memory.array(resources));
        TransmitQueue { memory, doorbell, ring, completions, tail: 0, next: 0, generation: 1, tags: 0 }
    }

    pub(crate) fn create_receive_queue(&mut self, queue: u32, setup: &ReceiveSetup) -> ReceiveQueue {
        let (status, queue) = self.try_create_receive_queue(queue, setup);
        assert_eq!(status, PASSED);
        queue
    }

    pub(crate) fn try_create_receive_queue(
        &mut self,
        queue: u32,
        setup: &ReceiveSetup,
    ) -> (u32, ReceiveQueue) {
        let memory = self.memory.clone();
        let size = u64::from(RING);
        let (resources, completions, ring) =
            (memory.allocate(64), memory.allocate(size * 32), memory.allocate(size * 32));
        let header_size = if setup.header_split { HEADER as u16 } else { 0 };
        let body = Body::default()
            .u32(0, queue)
            .u32(12, QUEUES + queue)
            .u64(16, resources)
            .u64(24, completions)
            .u64(32, ring)
            .u32(40, u32::MAX)
            .u16(44, RING)
            .u16(46, setup.buffer_size)
            .u16(48, RING)
            .put(50, &[u8::from(setup.coalescing)])
            .u16(52, header_size);
        let status = self.command(6, body);
        let doorbell = u32::from_be_bytes(memory.array(resources));
        let (buffers, headers) =
            (memory.allocate(size * BUFFER as u64), memory.allocate(size * HEADER as u64));
        let queue = ReceiveQueue {
            memory,
            doorbell,
            ring,
            completions,
            buffers,
            headers,
            tail: 0,
            next: 0,
            generation: 1,
        };
        (status, queue)
    }

    pub(crate) fn destroy_receive_queue(&mut self, queue: u32) {
        assert_eq!(self.command(8, Body::default().u32(0, queue)), PASSED);
    }

    /// Posts as many buffers as the ring holds at once.
    pub(crate) fn post_all(&mut self, queue: &mut ReceiveQueue) {
        self.post(queue, RING - 1);
    }

    pub(crate) fn post(&mut self, queue: &mut ReceiveQueue, count: u16) {
        for _ in 0..count {
            let index = u64::from(queue.tail);
            let mut descriptor = [0; 32];
            descriptor[0..2].copy_from_slice(&(queue.tail + 1000).to_le_bytes());
            descriptor[8..16].copy_from_slice(&(queue.buffers + index * BUFFER as u64).to_le_bytes());
            descriptor[16..24].copy_from_slice(&(queue.headers + index * HEADER as u64).to_le_bytes());
            queue.memory.write(queue.ring + index * 32, &descriptor);
            queue.tail = (queue.tail + 1) % RING;
        }
        self.ring(queue.doorbell, queue.tail.into());
    }

    /// Sends a packet in pieces of at most `piece` bytes.
    pub(crate) fn send(
        &mut self,
        queue: &mut TransmitQueue,
        packet: &[u8],
        offload: Offload,
        piece: usize,
    ) -> u16 {
        let tag = queue.put(packet, offload, piece);
        self.ring(queue.doorbell, queue.tail.into());
        tag
    }
}

#[derive(Clone, Copy)]
pub(crate) struct ReceiveSetup {
    pub(crate) header_split: bool,
    pub(crate) coalescing: bool,
    pub(crate) buffer_size: u16,
}

pub(crate) const PLAIN: ReceiveSetup =
    ReceiveSetup { header_split: false, coalescing: false, buffer_size: BUFFER as u16 };
pub(crate) const SPLIT: ReceiveSetup = ReceiveSetup { header_split: true, coalescing: true, ..PLAIN };

#[derive(Clone, Copy, Default)]
pub(crate) struct Offload {
    pub(crate) checksum: bool,
    /// Payload of a segment and length of the headers.
    pub(crate) segmentation: Option<(u16, u8)>,
}

pub(crate) struct TransmitQueue {
    memory: Memory,
    pub(crate) doorbell: u32,
    pub(crate) ring: u64,
    completions: u64,
    pub(crate) tail: u16,
    next: u16,
    generation: u16,
    tags: u16,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    Packet(u16),
    Descriptors(u16),
}

impl TransmitQueue {
    /// Writes the descriptors of a packet without telling the device.
    pub(crate) fn put(&mut self, packet: &[u8], offload: Offload, piece: usize) -> u16 {
        self.tags += 1;
        if let Some((size, header)) = offload.segmentation {
            let mut context = [0; 16];
            context[4..6].copy_from_slice(&size.to_le_bytes());
            context[6] = header;
            context[8] = 5 | 1 << 5;
            self.put_descriptor(&context);
        }
        let mut context = [0; 16];
        context[8] = 4;
        self.put_descriptor(&context);
        let address = self.memory.allocate(packet.len() as u64);
        self.memory.write(address, packet);
        let pieces = packet.len().div_ceil(piece);
        for (index, part) in packet.chunks(piece).enumerate() {
            let end = index + 1 == pieces;
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&(address + (index * piece) as u64).to_le_bytes());
            descriptor[8] = 0xc | u8::from(end) << 5 | u8::from(offload.checksum) << 6 | u8::from(end) << 7;
            descriptor[12..14].copy_from_slice(&self.tags.to_le_bytes());
            descriptor[14..16].copy_from_slice(&(part.len() as u16).to_le_bytes());
            self.put_descriptor(&descriptor);
        }
        self.tags
    }

    pub(crate) fn put_descriptor(&mut self, descriptor: &[u8; 16]) {
        self.memory.write(self.ring + u64::from(self.tail) * 16, descriptor);
        self.tail = (self.tail + 1) % RING;
    }

    /// New completions.
    pub(crate) fn poll(&mut self) -> Vec<Completion> {
        let mut found = Vec::new();
        loop {
            let bytes: [u8; 8] = self.memory.array(self.completions + u64::from(self.next) * 8);
            let first = u16::from_le_bytes([bytes[0], bytes[1]]);
            if first >> 15 != self.generation {
                return found;
            }
            let value = u16::from_le_bytes([bytes[2], bytes[3]]);
            found.push(match first >> 11 & 7 {
                2 => Completion::Packet(value),
                4 => Completion::Descriptors(value),
                other => panic!("completion of type {other}"),
            });
            self.next = (self.next + 1) % RING;
            self.generation ^= u16::from(self.next == 0);
        }
    }
}

pub(crate) struct ReceiveQueue {
    memory: Memory,
    pub(crate) doorbell: u32,
    pub(crate) ring: u64,
    completions: u64,
    pub(crate) buffers: u64,
    headers: u64,
    tail: u16,
    next: u16,
    generation: u16,
}

/// A packet as the driver puts it together from its completions.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) header: Option<Vec<u8>>,
    pub(crate) data: Vec<u8>,
    /// Bytes in each buffer.
    pub(crate) buffers: Vec<usize>,
    pub(crate) segment_size: Option<u16>,
    pub(crate) hash: u32,
    pub(crate) packet_type: u16,
    /// Checksums were looked at, and that of TCP or UDP was good.
    pub(crate) checksum_good: bool,
    pub(crate) overflow: bool,
    pub(crate) error: bool,
}

impl Received {
    /// All bytes of the packet.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.header.as_deref().unwrap_or_default(), &self.data].concat()
    }
}

impl ReceiveQueue {
    /// New packets, all of them complete.
    pub(crate) fn poll(&mut self) -> Vec<Received> {
        let (mut packets, mut packet, mut open) = (Vec::new(), Received::default(), false);
        loop {
            let index = u64::from(self.next);
            let bytes: [u8; 32] = self.memory.array(self.completions + index * 32);
            let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            if u16_at(4) >> 14 & 1 != self.generation {
                assert!(!open, "a packet without an end");
                return packets;
            }
            assert_eq!((bytes[0], bytes[8] & 1), (1, 1), "descriptor format and done bit");
            let id = u64::from(u16_at(12)) - 1000;
            let length = usize::from(u16_at(4) & 0x3fff);
            packet.data.extend(self.memory.read(self.buffers + id * BUFFER as u64, length));
            packet.buffers.push(length);
            if u16_at(6) >> 11 & 1 == 1 {
                assert!(packet.header.is_none(), "only the first buffer has a header");
                // Drivers look for the header by the index of the completion.
                packet.header = Some(
                    self.memory.read(self.headers + index * HEADER as u64, usize::from(u16_at(6) & 0x3ff)),
                );
            }
            packet.overflow |= bytes[8] >> 2 & 1 == 1;
            packet.error |= bytes[1] >> 2 & 1 == 1;
            self.next = (self.next + 1) % RING;
            self.generation ^= u16::from(self.next == 0);
            open = bytes[8] >> 1 & 1 == 0;
            if !open {
                packet.segment_size = (u16_at(6) >> 10 & 1 == 1).then(|| u16_at(14));
                packet.hash = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
                packet.packet_type = u16_at(2);
                packet.checksum_good = bytes[8] >> 3 & 1 == 1 && bytes[8] >> 5 & 1 == 0;
                packets.push(std::mem::take(&mut packet));
            }
        }
    }
}
