//! Intel GPUs of the Xe family: Tiger Lake's integrated one, and DG1, DG2 and Battlemage with memory of their
//! own, as the `i915` driver sees them when it submits work by execution lists, and `xe`, which hands it to
//! the microcontroller (GuC).
//!
//! | BAR | what |
//! |---|---|
//! | 0 | 8 MiB of registers, then the page table of the global address space |
//! | 2 | memory of the part; for Tiger Lake the aperture: the first 256 MiB of the global address space |
//!
//! ```text
//! submit queue ─▶ scheduler ─▶ commands ─▶ blitter
//!           guc ─────▲            │           │        global addresses:  graphics_translation
//!                 interrupts ◀────┤           ▼        process addresses: page_tables
//!                                 └───────▶ addressing ──▶ memory: local, or by DMA
//! ```
//!
//! Engines work while the driver writes the register that loads their submit queue. When they have done their
//! share they stop, interrupt, and go on at the driver's next access; so do those that wait for a semaphore.
//! There is no display, no 3D and no video: their commands are passed over.

mod addressing;
mod blitter;
mod commands;
mod context_status;
mod contexts;
mod engine;
mod forcewake;
mod graphics_translation;
mod guc;
mod interrupts;
mod memory;
mod page_tables;
mod parts;
mod registers;
mod scheduler;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex};

use super::{Connections, Driver, Firmware, GpuConfig, KernelDriver, Part};
use crate::bus::DeviceMemory;
use crate::lock;
use crate::misuse::MisuseLog;
use crate::pci::{Bar, BarMemory, Capability, Device, Identity, Link, Vectors};
use addressing::{Address, Addressing};
use commands::Share;
use graphics_translation::GraphicsTranslation;
use guc::{Guc, Order};
use interrupts::Interrupts;
use memory::Memories;
use parts::PartFacts;
use registers::Registers;
use scheduler::Scheduler;

const INTEL: u16 = 0x8086;
/// Display controller, but not a VGA one.
const CLASS: u32 = 0x03_8000;
const REGISTERS_BAR: usize = 0;
const REGISTERS_BAR_SIZE: u64 = registers::SIZE + graphics_translation::TABLE_SIZE;
const MEMORY_BAR: usize = 2;
const APERTURE_SIZE: u64 = 256 << 20;
/// BDW_GMCH_CTL in configuration space: bits 7 to 6 say that the table of the global address space has 8 MiB.
const GRAPHICS_CONTROL: (u16, [u8; 2]) = (0x50, [0xc0, 0x00]);

pub(super) fn identity(config: &GpuConfig) -> Identity {
    let part = parts::facts(config.part);
    let mut bars = [Bar::None; 6];
    bars[REGISTERS_BAR] = Bar::Memory64 { size: REGISTERS_BAR_SIZE, prefetchable: false };
    let size = if part.discrete { config.window } else { APERTURE_SIZE };
    bars[MEMORY_BAR] = Bar::Memory64 { size, prefetchable: true };
    let mut capabilities = vec![Capability::PowerManagement, Capability::Msi];
    if part.discrete {
        capabilities.push(Capability::PciExpress(Link { speed: 4, width: 8 }));
    }
    Identity {
        vendor: INTEL,
        device: part.device,
        subsystem_vendor: INTEL,
        subsystem: part.device,
        class: CLASS,
        revision: part.revision,
        bars,
        capabilities,
        capabilities_at: 0x70,
        registers: vec![(GRAPHICS_CONTROL.0, GRAPHICS_CONTROL.1.to_vec())],
    }
}

/// The drivers and their parameters. `i915` needs no firmware when told not to use the microcontroller; `xe`
/// cannot do without, and takes some parts only when told to.
pub(super) fn drivers(config: &GpuConfig) -> Vec<Driver> {
    let device = || format!("{:x}", parts::facts(config.part).device);
    let firmware = |path: &str| Firmware { path: path.to_owned(), content: guc::firmware() };
    let (module, parameters, firmware) = match (config.driver, config.part) {
        (KernelDriver::I915, Part::TigerLake) => ("i915", Vec::new(), Vec::new()),
        (KernelDriver::I915, _) => ("i915", vec![("enable_guc", "0".to_owned())], Vec::new()),
        (_, Part::Battlemage) => {
            // Without the video microcontroller's; kernels such as 6.18 refuse to go on when it is missing.
            ("xe", vec![("huc_firmware_path", String::new())], vec![firmware("xe/bmg_guc_70.bin")])
        }
        (_, Part::Dg2) => ("xe", vec![("force_probe", device())], vec![firmware("i915/dg2_guc_70.bin")]),
        _ => {
            // That of the video microcontroller (HuC) is as little looked at.
            let files = vec![firmware("i915/dg1_guc_70.bin"), firmware("i915/dg1_huc.bin")];
            ("xe", vec![("force_probe", device())], files)
        }
    };
    vec![Driver { module, parameters, firmware }]
}

/// A driver that would bind to this GPU too, and the parameter that keeps it away.
pub(super) fn rival(config: &GpuConfig) -> Option<(&'static str, &'static str, String)> {
    let claimed_by_both = matches!(config.part, Part::Dg1 | Part::Dg2);
    (config.driver == KernelDriver::Xe && claimed_by_both)
        .then(|| ("i915", "force_probe", format!("!{:x}", parts::facts(config.part).device)))
}

pub(super) fn build(config: &GpuConfig, connections: Connections) -> io::Result<Arc<dyn Device>> {
    Ok(Arc::new(Intel::new(config, connections)?))
}

/// An Intel GPU.
struct Intel {
    name: String,
    part: &'static PartFacts,
    window: u64,
    local: Option<Arc<DeviceMemory>>,
    table: Arc<DeviceMemory>,
    addressing: Addressing,
    vectors: Arc<Vectors>,
    misuse: Arc<MisuseLog>,
    state: Mutex<State>,
}

struct State {
    registers: Registers,
    interrupts: Interrupts,
    engines: Vec<Scheduler>,
    guc: Guc,
}

impl Intel {
    fn new(config: &GpuConfig, connections: Connections) -> io::Result<Intel> {
        let Connections { name, memory, vectors, bus, misuse } = connections;
        let part = parts::facts(config.part);
        let local = if part.discrete { Some(bus.device_memory(&name, config.vram)?) } else { None };
        let table = bus.device_memory(&format!("{name} page table"), REGISTERS_BAR_SIZE)?;
        let addressing = Addressing {
            memories: Memories::new(local.clone(), memory),
            global: GraphicsTranslation::new(Arc::clone(&table), part.discrete),
            levels: part.page_table_levels,
        };
        let mut registers = Registers::new(part, config, &name, Arc::clone(&misuse));
        let mut guc = Guc::new(part.engines);
        guc.reset(&mut registers);
        let engines =
            part.engines.iter().map(|engine| Scheduler::new(*engine, part.context_status)).collect();
        let interrupts = Interrupts::new(part.engines, part.tile_interrupts);
        let state = Mutex::new(State { registers, interrupts, engines, guc });
        Ok(Intel { name, part, window: config.window, local, table, addressing, vectors, misuse, state })
    }

    fn read_register(&self, state: &mut State, offset: u64) -> u32 {
        if Interrupts::has(offset) { state.interrupts.read(offset) } else { state.registers.read(offset) }
    }

    fn write_register(&self, state: &mut State, offset: u64, value: u32) {
        if Interrupts::has(offset) {
            return state.interrupts.write(offset, value);
        }
        state.registers.write(offset, value);
        match engine::register_of(self.part.engines, offset) {
            Some((index, engine::offsets::CONTROL)) if value & engine::offsets::CONTROL_LOAD != 0 => {
                self.load(state, index);
            }
            Some((index, engine::offsets::RESET_CONTROL)) => self.prepare_reset(state, index),
            Some((index, engine::offsets::MI_MODE)) => self.set_idle(state, index),
            Some((_, engine::offsets::CONTEXT_STATUS_POINTER)) => {
                // The upper half tells which bits of the lower half are written.
                state.registers.set(offset, value & value >> 16);
            }
            None if offset == registers::offsets::RESET => self.reset_domains(state, value),
            None if offset == guc::DMA_CONTROL => state.guc.load(&mut state.registers, value),
            None if offset == guc::DOORBELL => self.ring_guc(state),
            _ => {}
        }
    }

    /// The driver loads the submit queue of an engine.
    fn load(&self, state: &mut State, index: usize) {
        let State { registers, engines, interrupts, .. } = state;
        let Some(engine) = engines.get_mut(index) else { return };
        match engine.load(&self.addressing, registers) {
            Ok(raised) => interrupts.raise(engine.engine, raised),
            Err(fault) => {
                engine.reset();
                let engine = engine.engine;
                self.misuse.record(&self.name, format_args!("{engine} cannot load contexts: {fault}"));
            }
        }
    }

    /// The driver rings the microcontroller's doorbell.
    fn ring_guc(&self, state: &mut State) {
        let State { registers, engines, interrupts, guc } = state;
        let answer = guc.ring(&self.addressing, registers);
        for order in answer.orders {
            let (Order::Run { engine, descriptor } | Order::Stop { engine, descriptor }) = order;
            let Some(scheduler) = engines.iter_mut().find(|scheduler| scheduler.engine == engine) else {
                continue;
            };
            let result = match order {
                Order::Run { .. } => scheduler.add(&self.addressing, descriptor),
                Order::Stop { .. } => scheduler.remove(&self.addressing, descriptor),
            };
            if let Err(fault) = result {
                self.misuse.record(&self.name, format_args!("{engine}: {fault}"));
            }
        }
        for misuse in answer.misuse {
            self.misuse.record(&self.name, format_args!("{misuse}"));
        }
        if answer.interrupts {
            interrupts.raise(guc::GUC, guc::TO_HOST);
        }
    }

    /// Lets the engines work as long as one of them gets on, and their share lasts.
    fn work(&self, state: &mut State) {
        let State { registers, interrupts, engines, .. } = state;
        let mut share = Share::WHOLE;
        loop {
            let mut progress = false;
            for engine in engines.iter_mut().filter(|engine| engine.is_busy()) {
                let outcome = engine.run(&self.addressing, registers, &mut share);
                if let Some(fault) = outcome.fault {
                    self.misuse.record(&self.name, format_args!("{} stopped: {fault}", engine.engine));
                }
                if outcome.shaders {
                    let told = format_args!("{}: shaders pass without effect", engine.engine);
                    self.misuse.trace(&self.name, told);
                }
                interrupts.raise(engine.engine, outcome.raised);
                progress |= outcome.progress && !outcome.unfinished;
            }
            if !progress {
                return;
            }
        }
    }

    /// An engine is always ready to be reset.
    fn prepare_reset(&self, state: &mut State, index: usize) {
        let Some(engine) = self.part.engines.get(index) else { return };
        let register = engine.base + engine::offsets::RESET_CONTROL;
        let requested = state.registers.get(register) & engine::offsets::RESET_REQUEST != 0;
        let ready = if requested { engine::offsets::RESET_READY } else { 0 };
        state.registers.set(register, ready | state.registers.get(register) & engine::offsets::RESET_REQUEST);
    }

    /// An engine that is told to stop is idle.
    fn set_idle(&self, state: &mut State, index: usize) {
        let Some(engine) = self.part.engines.get(index) else { return };
        let register = engine.base + engine::offsets::MI_MODE;
        state.registers.set(register, state.registers.get(register) | engine::offsets::MI_MODE_IDLE);
    }

    /// Resets the engines that are ready for it, or all, and the microcontroller.
    fn reset_domains(&self, state: &mut State, domains: u32) {
        if domains & (registers::offsets::RESET_ALL | registers::offsets::RESET_GUC) != 0 {
            state.guc.reset(&mut state.registers);
        }
        for engine in &mut state.engines {
            let register = engine.engine.base + engine::offsets::RESET_CONTROL;
            let ready = state.registers.get(register) & engine::offsets::RESET_READY != 0;
            if ready || domains & registers::offsets::RESET_ALL != 0 {
                engine.reset();
                state.registers.set(register, 0);
            }
        }
    }

    /// What is at an offset of the aperture: the memory that the global address space has there.
    fn aperture(&self, offset: u64, access: impl FnOnce(&Addressing, Address) -> Result<(), memory::Fault>) {
        if let Err(fault) = access(&self.addressing, Address::global(offset)) {
            self.misuse.record(&self.name, format_args!("aperture at {offset:#x}: {fault}"));
        }
    }

    /// After an access: engines that could not go on try again, and what is new is told.
    fn settle(&self, state: &mut State) {
        if state.engines.iter().any(Scheduler::is_busy) {
            self.work(state);
        }
        state.interrupts.tell(|| self.vectors.signal(0));
    }
}

/// The words that an access touches: offset of each, and which bytes of it are which of the access.
fn words(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let end = offset + length as u64;
    (offset / 4..end.div_ceil(4)).map(move |index| {
        let word = index * 4;
        let (from, to) = (word.max(offset), (word + 4).min(end));
        (word, (from - word) as usize..(to - word) as usize, (from - offset) as usize)
    })
}

impl Device for Intel {
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]) {
        if bar != REGISTERS_BAR {
            into.fill(0);
            return self.aperture(offset, |addressing, address| addressing.read(address, into));
        }
        let mut state = lock(&self.state);
        self.settle(&mut state);
        for (word, bytes, at) in words(offset, into.len()) {
            let value = self.read_register(&mut state, word).to_le_bytes();
            into[at..at + bytes.len()].copy_from_slice(&value[bytes]);
        }
    }

    fn write(&self, bar: usize, offset: u64, from: &[u8]) {
        if bar != REGISTERS_BAR {
            return self.aperture(offset, |addressing, address| addressing.write(address, from));
        }
        let mut state = lock(&self.state);
        for (word, bytes, at) in words(offset, from.len()) {
            let part = &from[at..at + bytes.len()];
            let mut value =
                if bytes.len() < 4 { self.read_register(&mut state, word).to_le_bytes() } else { [0; 4] };
            value[bytes].copy_from_slice(part);
            self.write_register(&mut state, word, u32::from_le_bytes(value));
        }
        self.settle(&mut state);
    }

    fn memory(&self) -> Vec<BarMemory> {
        let table = BarMemory {
            bar: REGISTERS_BAR,
            range: registers::SIZE..REGISTERS_BAR_SIZE,
            memory: Arc::clone(&self.table),
        };
        let local = self.local.as_ref().map(|memory| BarMemory {
            bar: MEMORY_BAR,
            range: 0..self.window,
            memory: Arc::clone(memory),
        });
        std::iter::once(table).chain(local).collect()
    }

    fn vectors_changed(&self) {
        let mut state = lock(&self.state);
        state.interrupts.vectors_changed();
        self.settle(&mut state);
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        state.registers.reset();
        let State { guc, registers, .. } = &mut *state;
        guc.reset(registers);
        state.interrupts = Interrupts::new(self.part.engines, self.part.tile_interrupts);
        for engine in &mut state.engines {
            engine.reset();
        }
    }
}
