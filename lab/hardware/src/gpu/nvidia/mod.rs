//! NVIDIA GPUs as `nouveau` meets them: memory, its windows, and nothing that computes.
//!
//! Written after what the Linux driver reads and writes (`drivers/gpu/drm/nouveau/nvkm`). With its parameter
//! `noaccel` it uses no engine and copies with the processor, so that a part needs no more than this:
//!
//! | file | what it is |
//! |---|---|
//! | `chip` | the parts and their generations |
//! | `registers` | BAR 0: the register map |
//! | `vbios` | the video BIOS |
//! | `video_memory` | the memory, and what its windows show of it |
//! | `page_tables` | by which page tables they show it |
//!
//! BAR 1 is the window of buffers. On NV44 it is the memory itself, from its start on; from Fermi on page tables
//! translate it, and the driver maps every buffer that the processor touches. BAR 3 is a second window, which
//! the driver uses for page tables and the like; on NV44 it shows the end of the memory (here it has memory of
//! its own, for nothing but the driver ever looks at it).
//!
//! There are no interrupts, and the GPU does no DMA.

mod chip;
mod page_tables;
mod registers;
#[cfg(test)]
mod tests;
mod vbios;
mod video_memory;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Connections, Driver, GpuConfig};
use crate::bus::DeviceMemory;
use crate::lock;
use crate::misuse::MisuseLog;
use crate::pci::{Bar, BarMemory, Capability, Device, Identity, PlainRegisters};
use chip::{Chip, Generation};
use page_tables::Format;
use registers::{Effect, Register, Window};
use video_memory::VideoMemory;

const VENDOR: u16 = 0x10de;
/// A 3D controller: no outputs, and no part in who owns the VGA ranges.
const CLASS: u32 = 0x03_0200;

const BAR_REGISTERS: usize = 0;
const BAR_FRAME: usize = 1;
const BAR_INSTANCE: usize = 3;

/// Bytes of BAR 0.
const REGISTERS_SIZE: u32 = 16 << 20;
/// The video BIOS, as part of BAR 0.
const PROM: u64 = 0x30_0000;
/// 1 MiB of the memory, as part of BAR 0.
const PRAMIN: u64 = 0x70_0000;
const PRAMIN_SIZE: u64 = 1 << 20;
/// Index and data of the display's registers that a VGA has (NV4x).
const CRTC_INDEX: u64 = 0x60_13d4;
const CRTC_DATA: u64 = 0x60_13d5;
/// Those that say that the video BIOS has run: total width and height are set.
const CRTC_AFTER_BOOT: [(u8, u8); 4] = [(0x00, 1), (0x06, 0x5f), (0x07, 0x01), (0x1a, 1)];

pub(super) fn identity(config: &GpuConfig) -> Identity {
    let chip = Chip::of(config.part);
    let memory = |size| Bar::Memory64 { size, prefetchable: true };
    Identity {
        vendor: VENDOR,
        device: chip.device,
        subsystem_vendor: VENDOR,
        subsystem: chip.device,
        class: CLASS,
        revision: 0xa1,
        bars: [
            Bar::Memory32(REGISTERS_SIZE),
            memory(config.window),
            Bar::None,
            memory(chip.generation.instance_window()),
            Bar::None,
            Bar::None,
        ],
        capabilities: vec![Capability::PowerManagement, Capability::Msi],
        capabilities_at: 0x60,
        registers: Vec::new(),
    }
}

pub(super) fn drivers(_config: &GpuConfig) -> Vec<Driver> {
    let parameters = [
        // No engines: the processor copies.
        ("noaccel", "1"),
        // No displays.
        ("modeset", "2"),
        // The GPU does not suspend when nobody uses it.
        ("runpm", "0"),
    ];
    let parameters = parameters.map(|(name, value)| (name, value.to_owned())).to_vec();
    vec![Driver { module: "nouveau", parameters, firmware: Vec::new() }]
}

pub(super) fn build(config: &GpuConfig, connections: Connections) -> io::Result<Arc<dyn Device>> {
    Ok(Arc::new(Gpu::new(config, connections)?))
}

/// An NVIDIA GPU.
struct Gpu {
    name: String,
    chip: Chip,
    /// Bytes of memory.
    memory: u64,
    vbios: Vec<u8>,
    windows: [BarMemory; 2],
    misuse: Arc<MisuseLog>,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    registers: PlainRegisters,
    crtc_index: u8,
    crtc: [u8; 256],
    /// `None` where nothing is translated.
    video_memory: Option<VideoMemory>,
}

impl Gpu {
    fn new(config: &GpuConfig, connections: Connections) -> io::Result<Gpu> {
        let Connections { name, bus, misuse, .. } = connections;
        let chip = Chip::of(config.part);
        let home = bus.device_memory(&name, config.vram)?;
        let instance_size = chip.generation.instance_window();
        let instance = bus.device_memory(&name, instance_size)?;
        let (frame, video_memory) = if chip.generation == Generation::Curie {
            (home, None)
        } else {
            let frame = bus.device_memory(&name, config.window)?;
            let video_memory = VideoMemory::new(home, Arc::clone(&frame), Arc::clone(&instance));
            (frame, Some(video_memory))
        };
        let window = |bar, size, memory: Arc<DeviceMemory>| BarMemory { bar, range: 0..size, memory };
        let gpu = Gpu {
            chip,
            memory: config.vram,
            vbios: vbios::image(chip),
            windows: [window(BAR_FRAME, config.window, frame), window(BAR_INSTANCE, instance_size, instance)],
            started: Instant::now(),
            state: Mutex::new(State {
                registers: PlainRegisters::new(&name, REGISTERS_SIZE.into(), Arc::clone(&misuse)),
                crtc_index: 0,
                crtc: [0; 256],
                video_memory,
            }),
            name,
            misuse,
        };
        gpu.reset();
        Ok(gpu)
    }

    fn misuse(&self, what: fmt::Arguments<'_>) {
        self.misuse.record(&self.name, what);
    }

    /// The 32 bits at an offset that is a multiple of 4.
    fn read_word(&self, state: &mut State, offset: u64) -> u32 {
        if let Some(rom) = offset.checked_sub(PROM).filter(|offset| *offset < vbios::SIZE as u64) {
            let bytes = self.vbios.get(rom as usize..rom as usize + 4);
            return bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        }
        if let (Some(address), Some(memory)) = (pramin(state, offset), &state.video_memory) {
            let mut word = [0; 4];
            memory.read(address, &mut word);
            return u32::from_le_bytes(word);
        }
        match registers::find(self.chip.generation, offset) {
            Some(register) => {
                let nanoseconds = self.started.elapsed().as_nanos() as u64;
                register.value(self.chip, self.memory, nanoseconds, state.registers.get(offset))
            }
            None => state.registers.read_unknown(offset),
        }
    }

    fn write_word(&self, state: &mut State, offset: u64, value: u32) {
        if let (Some(address), Some(memory)) = (pramin(state, offset), &state.video_memory) {
            return memory.write(address, &value.to_le_bytes());
        }
        let Some(register) = registers::find(self.chip.generation, offset) else {
            return state.registers.write_unknown(offset, value);
        };
        state.registers.set(offset, value);
        match register.effect {
            Effect::None => {}
            Effect::Window(window) => {
                self.misuse.trace(&self.name, format_args!("{} written: {value:#x}", register.name));
                self.translate(state, window);
            }
            Effect::Invalidate => self.invalidate(state, value),
        }
    }

    /// The driver changed page tables: windows that are translated by them may show something else.
    fn invalidate(&self, state: &mut State, value: u32) {
        let registers = &state.registers;
        let meant = match self.chip.generation {
            Generation::Turing => u64::from(registers.get(registers::PF_PAGE_DIRECTORY)) << 8,
            _ => {
                let high = u64::from(registers.get(registers::MMU_PAGE_DIRECTORY_HIGH)) << 32;
                (high | u64::from(registers.get(registers::MMU_PAGE_DIRECTORY)) & !0xf) << 8
            }
        };
        for window in [Window::Frame, Window::Instance] {
            let Some(memory) = &state.video_memory else { return };
            let directory = self.instance(state, window).and_then(|at| page_tables::directory(memory, at));
            if value & registers::INVALIDATE_ALL != 0 || directory == Some(meant) {
                self.translate(state, window);
            }
        }
    }

    /// The instance of a window, if the driver enabled it.
    fn instance(&self, state: &State, window: Window) -> Option<u64> {
        let Register { offset, .. } = registers::of_window(self.chip.generation, window)?;
        let block = state.registers.get(*offset);
        let instance = u64::from(block & registers::BLOCK_INSTANCE) << 12;
        (block & registers::BLOCK_ENABLED != 0).then_some(instance)
    }

    /// Lets a window show what its page tables say now.
    fn translate(&self, state: &mut State, window: Window) {
        let format = match self.chip.generation {
            Generation::Curie | Generation::Maxwell => {
                Format::Fermi { small_large_pages: state.registers.get(registers::MMU_CONTROL) & 1 != 0 }
            }
            Generation::Pascal | Generation::Turing => Format::Pascal,
        };
        let instance = self.instance(state, window);
        let Some(memory) = &mut state.video_memory else { return };
        let translation = match instance.map(|instance| page_tables::directory(memory, instance)) {
            Some(Some(directory)) => page_tables::translate(memory, window, directory, format),
            Some(None) => {
                self.misuse(format_args!("page directory of {window:?} is not in the GPU's memory"));
                Vec::new()
            }
            None => Vec::new(),
        };
        if let Err(error) = memory.show(window, &translation) {
            self.misuse(format_args!("cannot move what {window:?} shows: {error}"));
        }
    }

    /// A byte of the display's VGA registers.
    fn is_crtc(&self, offset: u64, length: usize) -> bool {
        let curie = self.chip.generation == Generation::Curie;
        curie && length == 1 && (offset == CRTC_INDEX || offset == CRTC_DATA)
    }
}

/// The address in memory that an offset in BAR 0 shows, if it is in `PRAMIN`.
fn pramin(state: &State, offset: u64) -> Option<u64> {
    let within = offset.checked_sub(PRAMIN).filter(|within| *within < PRAMIN_SIZE)?;
    let window = state.registers.get(registers::PRAMIN_WINDOW) & 0x00ff_ffff;
    Some((u64::from(window) << 16) + within)
}

impl Device for Gpu {
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]) {
        into.fill(0);
        if bar != BAR_REGISTERS {
            return;
        }
        let mut state = lock(&self.state);
        if self.is_crtc(offset, into.len()) {
            let index = state.crtc_index;
            into[0] = if offset == CRTC_INDEX { index } else { state.crtc[usize::from(index)] };
            return;
        }
        let mut word = None;
        for (at, byte) in (offset..).zip(into) {
            let aligned = at & !3;
            let value = match word {
                Some((known, value)) if known == aligned => value,
                _ => self.read_word(&mut state, aligned),
            };
            word = Some((aligned, value));
            *byte = value.to_le_bytes()[(at % 4) as usize];
        }
    }

    fn write(&self, bar: usize, offset: u64, from: &[u8]) {
        if bar != BAR_REGISTERS {
            return;
        }
        let mut state = lock(&self.state);
        if self.is_crtc(offset, from.len()) {
            let index = usize::from(state.crtc_index);
            match offset {
                CRTC_INDEX => state.crtc_index = from[0],
                _ => state.crtc[index] = from[0],
            }
            return;
        }
        let mut rest = (offset, from);
        while !rest.1.is_empty() {
            let (at, bytes) = rest;
            let start = (at % 4) as usize;
            let (part, following) = bytes.split_at(bytes.len().min(4 - start));
            let mut word = [0; 4];
            if part.len() < 4 {
                word = self.read_word(&mut state, at & !3).to_le_bytes();
            }
            word[start..start + part.len()].copy_from_slice(part);
            self.write_word(&mut state, at & !3, u32::from_le_bytes(word));
            rest = (at + part.len() as u64, following);
        }
    }

    fn memory(&self) -> Vec<BarMemory> {
        self.windows.to_vec()
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        state.registers.clear();
        state.crtc_index = 0;
        state.crtc = [0; 256];
        for (index, value) in CRTC_AFTER_BOOT {
            state.crtc[usize::from(index)] = value;
        }
        // The windows are not enabled any more, so what they showed goes home.
        for window in [Window::Frame, Window::Instance] {
            self.translate(&mut state, window);
        }
    }
}
