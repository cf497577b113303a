//! A GPU with guest memory and a context, as a driver would set them up.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::super::engine::{self, EngineIdentity};
use super::super::{Device, Intel, identity, interrupts, registers};
use crate::bus::{Bus, SharedMemory};
use crate::gpu::{Connections, GpuConfig};
use crate::misuse::MisuseLog;
use crate::pci::Vectors;

/// Where guest memory is on the bus, and its size.
pub(super) const RAM: u64 = 0x4000_0000;
pub(super) const RAM_SIZE: u64 = 8 << 20;
/// Global addresses from 0 on are the first MiB of local memory, or of guest memory where there is none.
const SHOWN: u64 = 1 << 20;

/// Places in the shown memory.
const STATUS_PAGES: u64 = 0x1000;
const CONTEXTS: u64 = 0x1_0000;
const RINGS: u64 = 0x4_0000;
pub(super) const RING_SIZE: u64 = 0x4000;
/// Scratch memory for tests.
pub(super) const SCRATCH: u64 = 0x8_0000;
/// The tables of the process's address space.
pub(super) const TABLES: u64 = 0x9_0000;

const PRESENT: u64 = 1;
const GLOBAL_LOCAL: u64 = 2;

pub(super) struct Bench {
    pub(super) gpu: Intel,
    pub(super) ram: SharedMemory,
    event: File,
    /// Pages used for tables so far.
    tables: u64,
}

impl Bench {
    pub(super) fn new(gpu: &str) -> Bench {
        let config: GpuConfig = gpu.parse().unwrap();
        let bus = Bus::new();
        let memory = bus.address_space();
        let ram = SharedMemory::create("ram", RAM_SIZE).unwrap();
        memory.map(RAM, RAM_SIZE, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        let vectors = Arc::new(Vectors::new(identity(&config).interrupts().count()));
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let event = File::from(std::os::fd::OwnedFd::from(event));
        vectors.set(0, vec![Some(event.try_clone().unwrap())]).unwrap();
        let misuse = Arc::new(MisuseLog::new(false));
        let name = "gpu0".to_owned();
        let gpu = Intel::new(&config, Connections { name, memory, vectors, bus, misuse }).unwrap();
        let bench = Bench { gpu, ram, event, tables: 1 };
        for page in 0..SHOWN / 4096 {
            let entry =
                (bench.base() + page * 4096) | PRESENT | if bench.discrete() { GLOBAL_LOCAL } else { 0 };
            bench.map_global(page * 4096, entry);
        }
        bench
    }

    fn discrete(&self) -> bool {
        self.gpu.part.discrete
    }

    /// Where the shown memory is: in local memory or on the bus.
    fn base(&self) -> u64 {
        if self.discrete() { 0 } else { RAM }
    }

    pub(super) fn map_global(&self, address: u64, entry: u64) {
        let table = self.gpu.table.memory();
        table.write(registers::SIZE + address / 4096 * 8, &entry.to_le_bytes()).unwrap();
    }

    /// The memory that global addresses from 0 on show.
    pub(super) fn shown(&self) -> &SharedMemory {
        self.gpu.local.as_ref().map_or(&self.ram, |local| local.memory())
    }

    pub(super) fn put(&self, at: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.shown().write(at, &bytes).unwrap();
    }

    pub(super) fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.shown().read(at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(super) fn read(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.gpu.read(0, offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn write(&self, offset: u64, value: u32) {
        self.gpu.write(0, offset, &value.to_le_bytes());
    }

    /// Messages sent since the last call.
    pub(super) fn messages(&mut self) -> u64 {
        let mut count = [0; 8];
        self.event.read(&mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    pub(super) fn misuse(&self) -> Vec<String> {
        self.gpu.misuse.entries()
    }

    pub(super) fn engine(&self, index: usize) -> EngineIdentity {
        self.gpu.part.engines[index]
    }

    /// Enables all interrupts.
    pub(super) fn enable_interrupts(&self) {
        for offset in (interrupts::offsets::ENABLE..interrupts::offsets::ENABLE_END).step_by(4) {
            self.write(offset, u32::MAX);
        }
        let top = if self.gpu.part.tile_interrupts {
            interrupts::offsets::TILE
        } else {
            interrupts::offsets::MASTER
        };
        self.write(top, 1 << 31);
    }

    /// Sets an entry in a table of the process's address space, whose uppermost is at [`TABLES`].
    pub(super) fn put_entry(&self, table: u64, index: u64, entry: u64) {
        self.shown().write(table - self.base() + index * 8, &entry.to_le_bytes()).unwrap();
    }

    /// Address of the uppermost table.
    pub(super) fn root(&self) -> u64 {
        self.base() + TABLES
    }

    /// Maps an address of the process by an entry at `level`, and makes the tables above it.
    pub(super) fn map_process(&mut self, address: u64, level: u32, entry: u64) {
        let mut table = self.root();
        for above in (level + 1..self.gpu.part.page_table_levels).rev() {
            let index = address >> (12 + 9 * above) & 0x1ff;
            let mut bytes = [0; 8];
            self.shown().read(table - self.base() + index * 8, &mut bytes).unwrap();
            let mut next = u64::from_le_bytes(bytes) & !0xfff;
            if next == 0 {
                next = self.new_table();
                self.put_entry(table, index, next | PRESENT | 2);
            }
            table = next;
        }
        self.put_entry(table, address >> (12 + 9 * level) & 0x1ff, entry | PRESENT | 2);
    }

    pub(super) fn new_table(&mut self) -> u64 {
        self.tables += 1;
        self.root() + (self.tables - 1) * 4096
    }

    fn status_page(&self, engine: usize) -> u64 {
        STATUS_PAGES + engine as u64 * 4096
    }

    /// The descriptor of a context.
    pub(super) fn descriptor(&self, context: u64) -> u64 {
        let identifier = context + 1;
        let shift = if self.gpu.part.device == 0x56a0 || self.gpu.part.device == 0xe20b { 39 } else { 37 };
        (CONTEXTS + context * 0x2000) | 1 | identifier << shift
    }

    pub(super) fn ring(&self, context: u64) -> u64 {
        RINGS + context * RING_SIZE
    }

    pub(super) fn context_status(&self, engine: usize) -> (u32, Vec<u64>) {
        let page = self.status_page(engine);
        let long = |at: u64| u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32;
        (self.word(page + 0xbc), (0..12).map(|index| long(page + 0x40 + index * 8)).collect())
    }

    /// Writes a context whose ring holds `commands` from `head` on.
    pub(super) fn put_context(&self, context: u64, head: u64, commands: &[u32]) {
        let image = CONTEXTS + context * 0x2000 + 0x1000;
        for (index, word) in commands.iter().enumerate() {
            self.put(self.ring(context) + (head + index as u64 * 4) % RING_SIZE, &[*word]);
        }
        let tail = (head + commands.len() as u64 * 4) % RING_SIZE;
        let control = (RING_SIZE as u32 - 0x1000) | 1;
        let root = self.root() as u32;
        for (index, value) in
            [(5, head as u32), (7, tail as u32), (9, self.ring(context) as u32), (11, control), (0x33, root)]
        {
            self.put(image + index * 4, &[value]);
        }
    }

    pub(super) fn head(&self, context: u64) -> u64 {
        self.word(CONTEXTS + context * 0x2000 + 0x1000 + 5 * 4).into()
    }

    /// Loads contexts into the submit queue of an engine.
    pub(super) fn submit(&self, engine: usize, contexts: &[u64]) {
        let base = self.engine(engine).base;
        self.write(base + engine::offsets::STATUS_PAGE, self.status_page(engine) as u32);
        for port in 0..2 {
            let descriptor = contexts.get(port).map_or(0, |context| self.descriptor(*context));
            let register = base + engine::offsets::SUBMIT_QUEUE + port as u64 * 8;
            self.write(register, descriptor as u32);
            self.write(register + 4, (descriptor >> 32) as u32);
        }
        self.write(base + engine::offsets::CONTROL, engine::offsets::CONTROL_LOAD);
    }

    /// Runs commands in a context of the first copy engine.
    pub(super) fn execute(&self, commands: &[u32]) {
        self.put_context(0, 0, commands);
        self.submit(COPY, &[0]);
    }
}

/// Index of engines in [`crate::gpu::intel::parts`].
pub(super) const RENDER: usize = 0;
pub(super) const COPY: usize = 1;
