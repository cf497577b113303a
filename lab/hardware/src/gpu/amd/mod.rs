//! An AMD GPU of the Southern Islands family: Hainan, which the `amdgpu` driver drives.
//!
//! Hainan has no display and no video engines, its DMA engines need no microcode, and its video BIOS is read
//! through two registers: what is left is memory and the engines that move it. The parts, in the order in
//! which the driver meets them:
//!
//! | file | what it is |
//! |---|---|
//! | `register_map`, `registers` | BAR 2: the registers, and what is in them |
//! | `vbios` | the video BIOS |
//! | `firmware` | files that the driver insists on |
//! | `memory`, `address` | VRAM and bus; the GART and the page tables of processes |
//! | `chip` | what all engines share |
//! | `rings` | rings of packets |
//! | `command_processor` | PM4: register writes, fences, small copies |
//! | `dma_engine` | fills, copies, page table writes, fences: what moves buffers |
//! | `interrupts` | the interrupt ring |
//!
//! BAR 0 is VRAM, or the part of it that the window shows. Written after the kernel's driver
//! (`drivers/gpu/drm/amd/amdgpu`: `si.c`, `gmc_v6_0.c`, `gfx_v6_0.c`, `si_dma.c`, `si_ih.c`).

mod address;
mod chip;
mod command_processor;
mod dma_engine;
mod firmware;
mod interrupts;
mod memory;
mod register_map;
mod registers;
mod rings;
mod vbios;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Connections, Driver, GpuConfig};
use crate::bus::DeviceMemory;
use crate::lock;
use crate::pci::{Bar, BarMemory, Capability, Device, Identity, Link};
use chip::Chip;
use memory::Memory;
use register_map::{Effect, word};
use registers::{Registers, Write};

const BAR_VRAM: usize = 0;
const BAR_REGISTERS: usize = 2;

/// What the GPU is for PCI.
pub(super) fn identity(config: &GpuConfig) -> Identity {
    let vram = Bar::Memory64 { size: config.window, prefetchable: true };
    let registers = Bar::Memory64 { size: registers::SIZE, prefetchable: false };
    Identity {
        vendor: 0x1002,
        device: 0x6660,
        subsystem_vendor: 0x1002,
        subsystem: 0x6660,
        // Display controller, neither VGA nor 3D.
        class: 0x03_8000,
        revision: 0,
        bars: [vram, Bar::None, registers, Bar::None, Bar::None, Bar::None],
        capabilities: vec![
            Capability::PowerManagement,
            Capability::PciExpress(Link { speed: 2, width: 8 }),
            Capability::Msi,
        ],
        capabilities_at: 0x50,
        // A vendor-specific extended capability without content, by which the driver finds out whether it
        // reaches extended configuration space.
        registers: vec![(
            0x100,
            [0x0001_000bu32, 0x0100_0001].into_iter().flat_map(u32::to_le_bytes).collect(),
        )],
    }
}

/// Builds the GPU.
///
/// # Errors
/// What the system said when it refused the memory.
pub(super) fn build(config: &GpuConfig, connections: Connections) -> io::Result<Arc<dyn Device>> {
    let Connections { name, memory: bus, vectors, bus: machine, misuse } = connections;
    let vram = machine.device_memory(&name, config.vram)?;
    let registers = Registers::new(config, &name, Arc::clone(&misuse));
    let memory = Memory { vram: Arc::clone(&vram), bus };
    let chip = Chip { name, registers, memory, vectors, misuse, started: Instant::now() };
    Ok(Arc::new(Gpu { vram, window: config.window, chip: Mutex::new(chip) }))
}

/// The driver, its parameters and files.
pub(super) fn drivers(_config: &GpuConfig) -> Vec<Driver> {
    // Only the parts that the model has: common, memory controller, interrupts, graphics, DMA. Power management
    // would need microcode that computes; with `dpm=0` instead the driver's unbinding waits for work that it
    // never set up, and warns (`si_dpm_sw_fini`, kernels 7.2 and 7.3).
    // Up to 6.18 the driver leaves parts of this age to `radeon` unless it is told not to.
    let parameters = [("ip_block_mask", "0x1f"), ("si_support", "1")];
    let parameters = parameters.map(|(name, value)| (name, value.to_owned())).to_vec();
    vec![Driver { module: "amdgpu", parameters, firmware: firmware::files() }]
}

/// The GPU.
struct Gpu {
    vram: Arc<DeviceMemory>,
    window: u64,
    chip: Mutex<Chip>,
}

impl Device for Gpu {
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]) {
        into.fill(0);
        let mut chip = lock(&self.chip);
        if bar != BAR_REGISTERS || !offset.is_multiple_of(4) || !into.len().is_multiple_of(4) {
            return chip
                .misuse(format_args!("{} bytes read from offset {offset:#x} of BAR {bar}", into.len()));
        }
        for (number, bytes) in (offset as u32 / 4..).zip(into.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&chip.read_register(number).to_le_bytes());
        }
    }

    fn write(&self, bar: usize, offset: u64, from: &[u8]) {
        let mut chip = lock(&self.chip);
        if bar != BAR_REGISTERS || !offset.is_multiple_of(4) || !from.len().is_multiple_of(4) {
            return chip
                .misuse(format_args!("{} bytes written to offset {offset:#x} of BAR {bar}", from.len()));
        }
        for (number, bytes) in (offset as u32 / 4..).zip(from.chunks_exact(4)) {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if let Write::Effect(effect) = chip.write_register(number, value) {
                chip.take_effect(effect);
            }
        }
    }

    fn memory(&self) -> Vec<BarMemory> {
        vec![BarMemory { bar: BAR_VRAM, range: 0..self.window, memory: Arc::clone(&self.vram) }]
    }

    fn vectors_changed(&self) {
        lock(&self.chip).remind();
    }

    fn reset(&self) {
        lock(&self.chip).registers.reset();
    }
}

impl Chip {
    /// Does what the write of a register sets going.
    fn take_effect(&mut self, effect: Effect) {
        match effect {
            Effect::CommandProcessor(ring) => command_processor::execute(self, ring),
            Effect::CommandProcessorSetUp(ring) => rings::command_ring_set_up(self, ring),
            Effect::CommandProcessorHalt => command_processor::execute_all(self),
            Effect::DmaEngine(engine) => dma_engine::execute(self, engine),
            Effect::InterruptRing => self.interrupt_ring_set_up(),
            Effect::InterruptsTaken => self.remind(),
            Effect::FaultForgotten => self.forget_fault(),
            Effect::Clock => {
                let clock = self.clock();
                self.registers.set(word::RLC_GPU_CLOCK_COUNT_LSB, clock as u32);
                self.registers.set(word::RLC_GPU_CLOCK_COUNT_MSB, (clock >> 32) as u32);
            }
        }
    }
}
