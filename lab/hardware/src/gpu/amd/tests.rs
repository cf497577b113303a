//! The GPU on a bench: guest memory, VRAM and rings laid out as a driver would, without a virtual machine.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;
use crate::bus::{Bus, PAGE_SIZE, SharedMemory};
use crate::misuse::MisuseLog;
use crate::pci::Vectors;

/// Guest memory, at bus address 0.
const GUEST: u64 = 16 << 20;
/// The GART's table, at this offset of VRAM, for 4096 pages from address 0 on.
const GART_TABLE: u64 = 0x1_0000;
const GART_PAGES: u32 = 4096;
/// Pages of the GART: rings of the DMA engines and of the command processor, the interrupt ring, pointers, and
/// a buffer of 64 KiB.
const GART_RINGS: u64 = 100 * PAGE_SIZE;
const GART_INTERRUPTS: u64 = 110 * PAGE_SIZE;
const GART_POINTERS: u64 = 111 * PAGE_SIZE;
pub(super) const GART_BUFFER: u64 = 120 * PAGE_SIZE;
/// Bytes of a ring.
const RING: u64 = PAGE_SIZE;

/// A GPU with a driver's most basic set-up.
pub(super) struct Bench {
    pub(super) chip: Chip,
    ram: SharedMemory,
    messages: UnixStream,
    /// Write pointers of the rings, in words.
    pointers: [u32; 5],
    _bus: Arc<Bus>,
}

impl Bench {
    pub(super) fn new() -> Bench {
        let config: GpuConfig = "amdgpu:vram=64M".parse().unwrap();
        let bus = Bus::new();
        let ram = SharedMemory::create("guest", GUEST).unwrap();
        let space = bus.address_space();
        space.map(0, GUEST, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        let misuse = Arc::new(MisuseLog::new(false));
        let vectors = Arc::new(Vectors::new(1));
        let (messages, event) = UnixStream::pair().unwrap();
        messages.set_nonblocking(true).unwrap();
        vectors.set(0, vec![Some(File::from(OwnedFd::from(event)))]).unwrap();
        let memory = Memory { vram: bus.device_memory("gpu0", config.vram).unwrap(), bus: space };
        let registers = Registers::new(&config, "gpu0", Arc::clone(&misuse));
        let (name, started) = ("gpu0".to_owned(), Instant::now());
        let chip = Chip { name, registers, memory, vectors, misuse, started };
        let mut bench = Bench { chip, ram, messages, pointers: [0; 5], _bus: bus };
        bench.set_up();
        bench
    }

    fn set_up(&mut self) {
        let vram = self.vram_address();
        let page = |address: u64| (address >> 12) as u32;
        self.register(word::MC_VM_SYSTEM_APERTURE_LOW_ADDR, page(vram));
        self.register(word::MC_VM_SYSTEM_APERTURE_HIGH_ADDR, page(vram + (64 << 20) - 1));
        self.register(word::VM_CONTEXT0_PAGE_TABLE_BASE_ADDR, page(vram + GART_TABLE));
        self.register(word::VM_CONTEXT0_PAGE_TABLE_END_ADDR, GART_PAGES - 1);
        self.register(word::VM_CONTEXT0_CNTL, 1);
        // What the bench itself needs is at the same addresses of guest memory.
        for page in GART_RINGS / PAGE_SIZE..GART_BUFFER / PAGE_SIZE + 16 {
            self.set_gart(page, (page * PAGE_SIZE) | 0x67);
        }
        self.register(word::IH_RB_BASE, (GART_INTERRUPTS >> 8) as u32);
        self.register(word::IH_RB_WPTR_ADDR_LO, GART_POINTERS as u32);
        self.register(word::IH_RB_CNTL, 1 | 1 << 8 | 10 << 1);
        self.register(word::IH_CNTL, 1);
        for engine in 0..2 {
            let first = engine * word::DMA_INSTANCE;
            self.register(first + word::DMA_GFX_RB_BASE, (self.ring(engine as usize) >> 8) as u32);
            self.register(first + word::DMA_GFX_RB_RPTR_ADDR_LO, GART_POINTERS as u32 + 0x40);
            self.register(first + word::DMA_GFX_RB_CNTL, 1 | 10 << 1 | 1 << 12);
        }
        let command = [word::CP_RB0_BASE, word::CP_RB1_BASE, word::CP_RB2_BASE];
        for (index, base) in command.into_iter().enumerate() {
            self.register(base, (self.ring(2 + index) >> 8) as u32);
            self.register(base + 1, 9 | 1 << 27);
        }
    }

    /// The driver writes a register.
    fn register(&mut self, number: u32, value: u32) {
        if let Write::Effect(effect) = self.chip.write_register(number, value) {
            self.chip.take_effect(effect);
        }
    }

    fn ring(&self, index: usize) -> u64 {
        GART_RINGS + index as u64 * RING
    }

    /// Where VRAM is for VMID 0.
    pub(super) fn vram_address(&self) -> u64 {
        self.chip.registers.framebuffer().0
    }

    pub(super) fn vram(&self) -> &SharedMemory {
        self.chip.memory.vram.memory()
    }

    pub(super) fn put_vram(&self, offset: u64, entry: u64) {
        self.vram().write(offset, &entry.to_le_bytes()).unwrap();
    }

    pub(super) fn put_guest(&self, address: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.ram.write(address, &bytes).unwrap();
    }

    pub(super) fn guest(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.ram.read(address, &mut bytes).unwrap();
        bytes
    }

    pub(super) fn set_gart(&self, page: u64, entry: u64) {
        self.put_vram(GART_TABLE + page * 8, entry);
    }

    /// Puts a page of guest memory into the GART and returns its address for VMID 0.
    pub(super) fn gart_page(&self, page: u64, bus: u64) -> u64 {
        self.set_gart(page, bus | 0x67);
        page * PAGE_SIZE
    }

    /// Writes packets where [`GART_BUFFER`] leads to.
    pub(super) fn put_buffer(&self, packets: &[u32]) {
        self.put_guest(GART_BUFFER, packets);
    }

    /// Gives a process a page directory at this offset of VRAM.
    pub(super) fn enable_process(&mut self, vmid: u8, directory: u64) {
        let base = match u32::from(vmid) {
            low @ 0..8 => word::VM_CONTEXT0_PAGE_TABLE_BASE_ADDR + low,
            high => word::VM_CONTEXT8_PAGE_TABLE_BASE_ADDR + high - 8,
        };
        let directory = self.vram_address() + directory;
        self.register(base, (directory >> 12) as u32);
        self.register(word::VM_CONTEXT1_PAGE_TABLE_END_ADDR, (1 << 24) - 1);
        self.register(word::VM_CONTEXT1_CNTL, 1 | 1 << 1);
    }

    pub(super) fn enable_fault_interrupt(&mut self) {
        let control = self.chip.registers.get(word::VM_CONTEXT1_CNTL);
        self.register(word::VM_CONTEXT1_CNTL, control | 1 << 3 | 1 << 9 | 1 << 12 | 1 << 15 | 1 << 18);
    }

    pub(super) fn forget_fault(&mut self) {
        self.register(word::VM_CONTEXT1_CNTL2, 4 | 1);
    }

    pub(super) fn enable_dma_interrupt(&mut self, engine: u32) {
        self.register(word::DMA_CNTL + engine * word::DMA_INSTANCE, 1);
    }

    pub(super) fn halt_command_processor(&mut self, halt: bool) {
        self.register(word::CP_ME_CNTL, if halt { 1 << 28 | 1 << 26 | 1 << 24 } else { 0 });
    }

    /// Puts packets into the ring of a DMA engine and rings its doorbell.
    pub(super) fn dma(&mut self, engine: usize, packets: &[u32]) {
        let pointer = self.submit(engine, packets);
        self.register(word::DMA_GFX_RB_WPTR + engine as u32 * word::DMA_INSTANCE, pointer * 4);
    }

    /// Puts packets into a ring of the command processor and rings its doorbell.
    pub(super) fn command(&mut self, ring: usize, packets: &[u32]) {
        let pointer = self.submit(2 + ring, packets);
        self.register([word::CP_RB0_WPTR, word::CP_RB1_WPTR, word::CP_RB2_WPTR][ring], pointer);
    }

    fn submit(&mut self, ring: usize, packets: &[u32]) -> u32 {
        for packet in packets {
            let pointer = self.pointers[ring];
            self.put_guest(self.ring(ring) + u64::from(pointer) * 4, &[*packet]);
            self.pointers[ring] = (pointer + 1) % (RING / 4) as u32;
        }
        self.pointers[ring]
    }

    /// How many entries the interrupt ring has got.
    pub(super) fn interrupts(&self) -> u32 {
        let pointer = self.guest(GART_POINTERS, 4);
        u32::from_le_bytes(pointer.try_into().unwrap()) / 16
    }

    pub(super) fn interrupt_entry(&self, index: u64) -> [u32; 4] {
        let bytes = self.guest(GART_INTERRUPTS + index * 16, 16);
        [0, 4, 8, 12].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
    }

    pub(super) fn misuse(&self) -> Vec<String> {
        self.chip.misuse.entries()
    }

    /// Whether a message came that was not asked for yet.
    fn message(&mut self) -> bool {
        self.messages.read(&mut [0; 8]).is_ok_and(|length| length == 8)
    }
}

#[test]
fn a_message_comes_with_an_entry_and_again_while_some_are_left() {
    let mut bench = Bench::new();
    bench.enable_dma_interrupt(1);
    for _ in 0..2 {
        bench.dma(1, &[0x7000_0000]);
        assert!(bench.message());
    }
    assert_eq!((bench.interrupts(), bench.interrupt_entry(1)[0]), (2, 244));
    bench.register(word::IH_RB_RPTR, 16);
    assert!(bench.message(), "one entry is left");
    bench.register(word::IH_RB_RPTR, 32);
    assert!(!bench.message());
    assert_eq!(bench.chip.registers.get(word::DMA_GFX_RB_RPTR + word::DMA_INSTANCE), 8);
    assert_eq!(bench.guest(GART_POINTERS + 0x40, 4), [8, 0, 0, 0]);
}

#[test]
fn entries_that_find_no_room_are_told_of() {
    let mut bench = Bench::new();
    bench.register(word::IH_RB_CNTL, 1 | 1 << 8 | 4 << 1);
    bench.enable_dma_interrupt(0);
    bench.dma(0, &[0x7000_0000; 5]);
    assert_eq!(bench.guest(GART_POINTERS, 4), [0x31, 0, 0, 0], "three of four, and lost entries");
    bench.register(word::IH_RB_CNTL, 1 << 31 | 1 | 1 << 8 | 4 << 1);
    bench.register(word::IH_RB_RPTR, 0x30);
    bench.dma(0, &[0x7000_0000]);
    assert_eq!(bench.guest(GART_POINTERS, 4), [0, 0, 0, 0], "once around");
}

#[test]
fn a_copy_reaches_the_window_of_another_gpu() {
    let mut bench = Bench::new();
    let peer = bench._bus.device_memory("gpu1", 1 << 20).unwrap();
    let window = 0xf_0000_0000;
    bench._bus.place_window(&peer, Some(window), 0..1 << 20);
    bench.set_gart(9, (window + 0x3000) | 0x67);
    bench.vram().write(0x40_0000, b"from GPU to GPU").unwrap();
    let from = bench.vram_address() + 0x40_0000;
    bench.dma(0, &[0x3400_000f, 9 << 12, from as u32, 0, 0]);
    let mut bytes = [0; 15];
    peer.memory().read(0x3000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"from GPU to GPU");
}

#[test]
fn a_ring_goes_around() {
    let mut bench = Bench::new();
    let to = bench.vram_address() as u32;
    for value in 0..1000 {
        // Five words, so that packets go across the end of the ring too.
        bench.dma(0, &[0xf000_0000, 0x2000_0001, to, 0, value]);
    }
    let mut bytes = [0; 4];
    bench.vram().read(0, &mut bytes).unwrap();
    assert_eq!((u32::from_le_bytes(bytes), bench.misuse()), (999, Vec::new()));
    // A driver that comes anew begins at the beginning.
    bench.command(1, &[0x8000_0000; 7]);
    assert_eq!(bench.chip.registers.get(word::CP_RB1_RPTR), 7);
    bench.register(word::CP_RB1_CNTL, 1 << 31 | 9);
    assert_eq!(bench.chip.registers.get(word::CP_RB1_RPTR), 0);
}

#[test]
fn registers_through_the_bar() {
    let config: GpuConfig = "amdgpu:vram=512M,window=128M".parse().unwrap();
    let bus = Bus::new();
    let misuse = Arc::new(MisuseLog::new(false));
    let vectors = Arc::new(Vectors::new(1));
    let (name, memory) = ("gpu0".to_owned(), bus.address_space());
    let connections = Connections { name, memory, vectors, bus, misuse: Arc::clone(&misuse) };
    let gpu = build(&config, connections).unwrap();
    let read = |number: u32| {
        let mut bytes = [0; 4];
        gpu.read(BAR_REGISTERS, u64::from(number) * 4, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    let write = |number: u32, value: u32| {
        gpu.write(BAR_REGISTERS, u64::from(number) * 4, &value.to_le_bytes());
    };
    assert_eq!((read(word::CONFIG_MEMSIZE), gpu.memory()[0].range.end), (512, 128 << 20));
    // The last word of VRAM, which the window does not show.
    write(word::MM_INDEX, 0x8000_0000 | ((512 << 20) - 4));
    write(word::MM_DATA, 0x1234_5678);
    assert_eq!(read(word::MM_DATA), 0x1234_5678);
    write(word::RLC_CAPTURE_GPU_CLOCK_COUNT, 1);
    let before = read(word::RLC_GPU_CLOCK_COUNT_LSB);
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert_eq!(read(word::RLC_GPU_CLOCK_COUNT_LSB), before);
    write(word::RLC_CAPTURE_GPU_CLOCK_COUNT, 1);
    assert!(read(word::RLC_GPU_CLOCK_COUNT_LSB) > before);
    gpu.reset();
    assert_eq!(read(word::RLC_GPU_CLOCK_COUNT_LSB), 0);
    write(word::MM_INDEX, 0x8000_0000 | ((512 << 20) - 4));
    assert_eq!(read(word::MM_DATA), 0x1234_5678, "memory keeps its content");
    assert_eq!(misuse.entries(), [""; 0]);
    write(word::MM_INDEX, 0xffff_ffff);
    assert_eq!(read(word::MM_DATA), 0xffff_ffff);
    gpu.read(BAR_REGISTERS, 2, &mut [0; 2]);
    assert_eq!(misuse.entries().len(), 2);
}

/// First words of packets, more probable than chance to be some that the engines know.
fn packet_words() -> impl Strategy<Value = Vec<u32>> {
    let head = prop_oneof![
        (2u32..16, any::<u32>()).prop_map(|(command, rest)| command << 28 | rest & 0x0fff_ffff),
        (0u32..256, 0u32..8).prop_map(|(operation, count)| 3 << 30 | count << 16 | operation << 8),
        Just(0x4000_0000),
        (0u32..0x20_0000).prop_map(|address| address & !3),
        any::<u32>(),
    ];
    proptest::collection::vec(head, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in rings, buffers and page tables, the engines come to an end.
    #[test]
    fn any_packets_are_survived(packets in packet_words(), buffer in packet_words(), table in any::<[u64; 16]>()) {
        let mut bench = Bench::new();
        bench.enable_process(4, 0x10_0000);
        bench.enable_fault_interrupt();
        bench.enable_dma_interrupt(0);
        for (index, entry) in (0..).zip(table) {
            bench.set_gart(index, entry);
            bench.put_vram(0x10_0000 + index * 8, entry);
        }
        bench.put_buffer(&buffer);
        bench.dma(0, &packets);
        bench.dma(1, &buffer);
        for ring in 0..3 {
            bench.command(ring, &packets);
        }
        prop_assert!(bench.misuse().len() <= 101);
    }

    /// Whatever is written to registers, nothing panics.
    #[test]
    fn any_registers_are_survived(writes in proptest::collection::vec((0u32..0x1_0000, any::<u32>()), 0..200), known in any::<[u32; 64]>()) {
        let mut bench = Bench::new();
        for ((number, ..), value) in register_map::MAP.into_iter().zip(known) {
            bench.register(number, value);
            bench.chip.read_register(number);
        }
        for (number, value) in writes {
            bench.register(number, value);
            bench.chip.read_register(number);
        }
    }
}
