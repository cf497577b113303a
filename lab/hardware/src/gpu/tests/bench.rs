//! A GPU with guest memory, a client, and a driver that has set it up.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::super::*;
use super::Action;
use crate::bus::SharedMemory;
use crate::pci::Function;

/// Guest memory, from bus address 0 on.
const RAM_SIZE: u64 = 1 << 20;

const PAGE: u64 = 4096;

/// Registers that do something: BAR, first offset, bytes. What tells the time is left out, and so is what shows
/// memory: both are not as new when the client has gone.
fn registers(part: Part) -> &'static [(usize, u64, u64)] {
    match part {
        Part::Hainan => &[
            (2, 0x0000, 0x1c),
            (2, 0x00a8, 8),
            (2, 0x1410, 0x180),
            (2, 0x2034, 8),
            (2, 0x3e00, 0x1c),
            (2, 0x86d8, 4),
            (2, 0xc100, 0xc0),
            (2, 0xd000, 0x40),
            (2, 0xd800, 0x40),
        ],
        Part::TigerLake | Part::Dg1 | Part::Dg2 | Part::Battlemage => &[
            (0, 0x2_2030, 0x100),
            (0, 0x2_2230, 0x10),
            (0, 0x2_2510, 0x44),
            (0, 0x2080, 4),
            (0, 0x2510, 0x44),
            (0, 0xc000, 4),
            (0, 0xc314, 4),
            (0, 0x941c, 4),
            (0, 0x13_8124, 8),
            (0, 0x19_0000, 0x120),
            (0, 0x19_01f0, 4),
            (0, 0x19_0240, 0x10),
        ],
        Part::Nv44 | Part::Gm107 | Part::Gp107 | Part::Tu117 => &[
            (0, 0x1700, 0x18),
            (0, 0x10_0c80, 0x40),
            (0, 0x10_0ce0, 0x10),
            (0, 0xb8_0f40, 0xc),
            (0, 0xb8_30a0, 0x14),
            (0, 0x30_0ff0, 0x20),
            (0, 0x60_13d4, 2),
        ],
        Part::VirtioGpu => &[(0, 0, 56), (0, 0x1000, 1), (0, 0x2000, 16), (0, 0x3000, 8)],
    }
}

/// A GPU with guest memory and a client.
pub(super) struct Bench {
    part: Part,
    pub(super) function: Function,
    vectors: usize,
    ram: SharedMemory,
    _bus: Arc<Bus>,
}

impl Bench {
    pub(super) fn new(gpu: &str) -> Bench {
        let config: GpuConfig = gpu.parse().unwrap();
        let (bus, identity) = (Bus::new(), identity(&config));
        let count = identity.interrupts().count();
        let (memory, vectors) = (bus.address_space(), Arc::new(Vectors::new(count)));
        let connections = Connections {
            name: "gpu0".to_owned(),
            memory: Arc::clone(&memory),
            vectors: Arc::clone(&vectors),
            bus: Arc::clone(&bus),
            misuse: Arc::new(MisuseLog::new(false)),
        };
        let device = build(&config, connections).unwrap();
        let function = Function::new(device, identity, vectors, memory);
        let ram = SharedMemory::create("ram", RAM_SIZE).unwrap();
        let bench = Bench { part: config.part, function, vectors: count, ram, _bus: bus };
        bench.connect();
        bench
    }

    pub(super) fn connect(&self) {
        let file = self.ram.file().try_clone().unwrap();
        self.function.address_space().map(0, RAM_SIZE, Some((file, 0)), true).unwrap();
        let event = || File::from(OwnedFd::from(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()));
        self.function.set_vectors(0, (0..self.vectors).map(|_| Some(event())).collect()).unwrap();
    }

    pub(super) fn act(&self, action: &Action) {
        match action {
            Action::Register { place, value, length, write } => {
                let registers = registers(self.part);
                let (bar, first, size) = registers[(place >> 32) as usize % registers.len()];
                // Mostly whole registers.
                let offset = place % size;
                let offset = first + if place & 1 << 31 != 0 { offset & !3 } else { offset };
                self.access(bar, offset, &bytes(&[*value; 3])[..*length], *write);
            }
            Action::Bar { bar, place, value, length, write } => {
                let size = self.function.bar_size(*bar).max(1);
                self.access(*bar, place % size, &bytes(&[*value; 3])[..*length], *write);
            }
            Action::Configuration { offset, value, length, write } => {
                let mut data = value.to_le_bytes()[..*length].to_vec();
                let _ = match write {
                    true => self.function.write_configuration(*offset, &data),
                    false => self.function.read_configuration(*offset, &mut data),
                };
            }
            Action::Ram { page, words } => self.ram.write(page * PAGE, &bytes(words)).unwrap(),
            Action::Memory { page, words } => self.put(*page, 0, words),
            Action::Window { bar, page, words } => {
                if let Some(memory) = self.function.bar_memory(*bar) {
                    let offset = memory.range.start + page * PAGE;
                    self.function.write_bar(*bar, offset, &bytes(words)).unwrap();
                }
            }
            Action::Doorbell { which, value } => self.ring(*which, *value),
            Action::Reset => self.function.reset(),
            Action::Reconnect => {
                self.function.disconnected();
                self.connect();
            }
        }
    }

    fn word(&self, bar: usize, offset: u64, value: u32) {
        self.function.write_bar(bar, offset, &value.to_le_bytes()).unwrap();
    }

    /// Writes into a page of the memory in which the part finds its rings and tables.
    fn put(&self, page: u64, offset: u64, words: &[u64]) {
        let (bar, start) = match self.part {
            Part::Hainan => (0, 0),
            Part::Dg1 | Part::Dg2 | Part::Battlemage => (2, 0),
            // 1 MiB of the memory is a part of BAR 0.
            Part::Nv44 | Part::Gm107 | Part::Gp107 | Part::Tu117 => (0, 0x70_0000),
            Part::TigerLake | Part::VirtioGpu => {
                return self.ram.write(page * PAGE + offset, &bytes(words)).unwrap();
            }
        };
        self.function.write_bar(bar, start + page * PAGE + offset, &bytes(words)).unwrap();
    }

    /// What a driver does before it uses the part: rings and tables are in the first pages.
    pub(super) fn set_up(&self) {
        match self.part {
            Part::Hainan => self.set_up_amd(),
            Part::TigerLake => self.set_up_intel(1),
            Part::Dg1 | Part::Dg2 | Part::Battlemage => self.set_up_intel(3),
            Part::Nv44 => {}
            Part::Gm107 => self.set_up_nvidia((0x20 | 1) << 32, |page| page << 4 | 1),
            Part::Gp107 | Part::Tu117 => self.set_up_nvidia(0x102, |page| page << 8 | 1),
            Part::VirtioGpu => self.set_up_virtio(),
        }
    }

    /// Rings in VRAM: of the DMA engines at pages 0 and 1, of the command processor at 2, interrupts at 8; the
    /// GART's table at page 16.
    fn set_up_amd(&self) {
        const VRAM: u32 = 0xf400_0000;
        let register = |number: u64, value: u32| self.word(2, number * 4, value);
        register(0x80d, VRAM >> 12);
        register(0x80e, (VRAM >> 12) + 0x3fff);
        register(0x54f, (VRAM >> 12) + 16);
        register(0x55f, 0xf_ffff);
        register(0x504, 1);
        register(0xf81, (VRAM >> 8) + 0x80);
        register(0xf80, 1 | 8 << 1);
        register(0xf86, 1);
        for engine in 0..2 {
            register(0x3401 + engine * 0x200, (VRAM >> 8) + 0x10 * engine as u32);
            register(0x3400 + engine * 0x200, 1 | 10 << 1);
        }
        for ring in [0x3040, 0x3060, 0x3065] {
            register(ring, (VRAM >> 8) + 0x20);
            register(ring + 1, 9 | 1 << 27);
        }
    }

    /// The global address space shows the first pages. A context is at pages 0 and 1, its ring at 2, the tables of
    /// its process at 3, which is each other's entry.
    fn set_up_intel(&self, flags: u64) {
        let entries: Vec<u64> = (0..256).map(|page| page << 12 | flags).collect();
        self.function.write_bar(0, 8 << 20, &bytes(&entries)).unwrap();
        let image = [(0x09, 0x2000u64), (0x0b, 1), (0x33, 0x3000)];
        image.into_iter().for_each(|(word, value)| self.put(1, word * 4, &[value]));
        self.put(3, 0, &[0x3803]);
        for base in [0x2000, 0x2_2000] {
            self.word(0, base + 0x80, 0x4000);
            self.word(0, base + 0x510, 1);
        }
    }

    /// The instance of both windows is page 0, and the directory at page 1 leads to itself as often as it takes, then
    /// to a table at page 2.
    fn set_up_nvidia(&self, directory: u64, entry: fn(u64) -> u64) {
        self.put(0, 0x200, &[0x1000]);
        self.put(1, 0, &[directory, 0x202]);
        self.put(2, 0, &(0..256).map(entry).collect::<Vec<_>>());
    }

    /// The control queue: descriptors at page 0, what is available at 1, what is used at 2.
    fn set_up_virtio(&self) {
        let set = |offset: u64, data: &[u8]| self.function.write_bar(0, offset, data).unwrap();
        for half in 0..2u32 {
            set(8, &half.to_le_bytes());
            set(12, &[[0x19, 0, 0, 0x10], [3, 0, 0, 0]][half as usize]);
        }
        set(20, &[0xb]);
        for (field, page) in [(32, 0), (40, PAGE), (48, 2 * PAGE)] {
            set(field, &page.to_le_bytes());
        }
        set(28, &[1, 0]);
        set(20, &[0xf]);
    }

    /// Lets the part look at what is in its rings and tables, from their beginning on.
    fn ring(&self, which: usize, value: u64) {
        let (low, ring) = (value as u32, value & 0xffc);
        match self.part {
            Part::Hainan => {
                let (read, write) = [
                    (0x3402, 0x3403),
                    (0x3602, 0x3603),
                    (0x21c0, 0x3045),
                    (0x21bf, 0x3064),
                    (0x21be, 0x3069),
                ][which % 5];
                self.word(2, read * 4, 0);
                self.word(2, write * 4, if which % 5 < 2 { ring as u32 } else { ring as u32 / 4 });
            }
            Part::TigerLake | Part::Dg1 | Part::Dg2 | Part::Battlemage => {
                self.put(1, 0x14, &[0, ring]);
                self.word(0, [0x2000, 0x2_2000][which % 2] + 0x550, 1);
            }
            Part::Nv44 | Part::Gm107 | Part::Gp107 | Part::Tu117 => {
                let block = [[0x1704, 0x1714], [0xb8_0f40, 0xb8_0f48]][usize::from(self.part == Part::Tu117)];
                match which % 4 {
                    0 | 1 => self.word(0, block[which % 2], 1 << 31 | low & 1),
                    2 => self.word(0, 0x10_0cbc, low),
                    _ => self.word(0, 0xb8_30b0, low),
                }
            }
            Part::VirtioGpu => {
                self.ram.write(PAGE + 2, &(low as u16).to_le_bytes()).unwrap();
                self.function.write_bar(0, 0x3000, &[0, 0]).unwrap();
            }
        }
    }

    fn access(&self, bar: usize, offset: u64, data: &[u8], write: bool) {
        // What goes beyond the end, or where there is no BAR, is refused.
        let _ = match write {
            true => self.function.write_bar(bar, offset, data),
            false => self.function.read_bar(bar, offset, &mut data.to_vec()),
        };
    }

    /// What the driver reads first.
    pub(super) fn seen(&self) -> Vec<(usize, u64, [u8; 4])> {
        let read = |(bar, offset)| {
            let mut word = [0; 4];
            let _ = self.function.read_bar(bar, offset, &mut word);
            (bar, offset, word)
        };
        let words = registers(self.part).iter().flat_map(|(bar, first, size)| {
            (0..size.div_ceil(4)).map(move |index| (*bar, first / 4 * 4 + index * 4))
        });
        let configuration = (0..64).map(|index| {
            let mut word = [0; 4];
            self.function.read_configuration(index * 4, &mut word).unwrap();
            (usize::MAX, index * 4, word)
        });
        words.map(read).chain(configuration).collect()
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
