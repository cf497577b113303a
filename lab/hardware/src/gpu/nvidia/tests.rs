//! The models as their driver sees them, through BAR 0 and the windows.

use proptest::prelude::*;

use super::*;
use crate::bus::{Bus, PAGE_SIZE};
use crate::pci::Vectors;

/// Where the tests build page tables.
const INSTANCE: u64 = 0x10_0000;
const DIRECTORY: u64 = 0x10_1000;
const TABLES: [u64; 3] = [0x11_0000, 0x12_0000, 0x13_0000];
const SMALL: u64 = 0x20_0000;
const LARGE: u64 = 0x30_0000;

fn build(part: &str) -> Gpu {
    let config: GpuConfig = format!("nouveau:{part},vram=64M,window=32M").parse().unwrap();
    let bus = Bus::new();
    let memory = bus.address_space();
    let vectors = Arc::new(Vectors::new(1));
    let misuse = Arc::new(MisuseLog::new(false));
    Gpu::new(&config, Connections { name: "gpu0".to_owned(), memory, vectors, bus, misuse }).unwrap()
}

impl Gpu {
    fn get(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.read(BAR_REGISTERS, offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn set(&self, offset: u64, value: u32) {
        self.write(BAR_REGISTERS, offset, &value.to_le_bytes());
    }

    /// Writes memory as a driver does that has no window yet.
    fn poke(&self, address: u64, value: u64) {
        self.set(registers::PRAMIN_WINDOW, (address >> 16) as u32);
        self.write(BAR_REGISTERS, PRAMIN + address % 0x1_0000, &value.to_le_bytes());
    }

    fn peek(&self, address: u64) -> u64 {
        self.set(registers::PRAMIN_WINDOW, (address >> 16) as u32);
        let mut word = [0; 8];
        self.read(BAR_REGISTERS, PRAMIN + address % 0x1_0000, &mut word);
        u64::from_le_bytes(word)
    }

    /// What the processor finds at a page of the window of buffers.
    fn in_window(&self, page: u64) -> u64 {
        let mut word = [0; 8];
        self.windows[0].memory.memory().read(page * PAGE_SIZE, &mut word).unwrap();
        u64::from_le_bytes(word)
    }

    fn enable(&self) {
        let Register { offset, .. } = registers::of_window(self.chip.generation, Window::Frame).unwrap();
        self.set(*offset, registers::BLOCK_ENABLED | (INSTANCE >> 12) as u32);
    }

    fn misuse_count(&self) -> usize {
        self.misuse.entries().len()
    }

    /// Directories of Pascal that lead to tables for the first 2 MiB.
    fn pascal_directories(&self) {
        self.poke(INSTANCE + 0x200, DIRECTORY | 1 << 10);
        let mut at = DIRECTORY;
        for table in TABLES {
            self.poke(at, table >> 4 | 1 << 1);
            at = table;
        }
        self.poke(at, LARGE >> 4 | 1 << 1);
        self.poke(at + 8, SMALL >> 4 | 1 << 1);
    }
}

/// Marks pages of memory with their numbers.
fn mark(gpu: &Gpu, pages: &[u64]) {
    pages.iter().for_each(|page| gpu.poke(page * PAGE_SIZE, 0xabc0_0000 + page));
}

#[test]
fn registers_and_video_bios() {
    let gpu = build("nv44");
    assert_eq!((gpu.get(0), gpu.get(0x10_020c)), (0x0440_00a1, 64 << 20));
    assert_eq!(gpu.get(PROM) & 0xffff, 0xaa55);
    let mut across = [0; 3];
    gpu.read(BAR_REGISTERS, PROM + 1, &mut across);
    assert_eq!(across, [0xaa, 8, 0], "any bytes of it");
    let first = gpu.get(0x9400);
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert_ne!(gpu.get(0x9400), first, "time passes");
    // A register that means nothing keeps what is written to it, byte by byte.
    gpu.write(BAR_REGISTERS, 0x60_0002, &[7, 8, 9]);
    assert_eq!((gpu.get(0x60_0000), gpu.get(0x60_0004)), (0x0807_0000, 9));
    gpu.set(0, 5);
    assert_eq!(gpu.get(0), 0x0440_00a1, "read only");
}

#[test]
fn the_display_was_set_up_by_the_video_bios() {
    let gpu = build("nv44");
    let crtc = |index: u8| {
        gpu.write(BAR_REGISTERS, CRTC_INDEX, &[index]);
        let mut value = [0];
        gpu.read(BAR_REGISTERS, CRTC_DATA, &mut value);
        value[0]
    };
    assert_eq!([crtc(0), crtc(6), crtc(7), crtc(0x1a), crtc(0x44)], [1, 0x5f, 1, 1, 0]);
    crtc(0x44);
    gpu.write(BAR_REGISTERS, CRTC_DATA, &[3]);
    assert_eq!(crtc(0x44), 3);
    gpu.reset();
    assert_eq!((crtc(0x44), crtc(6)), (0, 0x5f));
}

#[test]
fn the_window_of_nv44_is_its_memory() {
    let gpu = build("nv44");
    gpu.windows[0].memory.memory().write(0x1000, b"data").unwrap();
    gpu.reset();
    let mut bytes = [0; 4];
    gpu.windows[0].memory.memory().read(0x1000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"data");
}

#[test]
fn pages_of_fermi() {
    let gpu = build("gm107");
    mark(&gpu, &[0x500, 0x501, 0x602, 0x700, 0x71f, 0x800, 0x840]);
    gpu.poke(INSTANCE + 0x200, DIRECTORY);
    gpu.poke(DIRECTORY, SMALL << 24 | 1 << 32 | LARGE >> 8 | 1);
    let entry = |page: u64| page << 4 | 1;
    gpu.poke(SMALL, entry(0x500));
    gpu.poke(SMALL + 8, entry(0x602));
    gpu.poke(SMALL + 2 * 8, entry(0x501) | 2 << 33);
    // The second large page, of 128 KiB, goes before the small ones; the third hides them.
    gpu.poke(SMALL + 32 * 8, entry(0x800));
    gpu.poke(LARGE + 8, entry(0x700));
    gpu.poke(SMALL + 64 * 8, entry(0x840));
    gpu.poke(LARGE + 2 * 8, 1 << 1);
    assert_eq!(gpu.in_window(0), 0, "not enabled");
    gpu.enable();
    let shown = [0, 1, 2, 32, 63, 64].map(|page| gpu.in_window(page));
    assert_eq!(shown, [0xabc0_0500, 0xabc0_0602, 0, 0xabc0_0700, 0xabc0_071f, 0]);
    // With large pages of 64 KiB the same entries are of other addresses.
    gpu.set(registers::MMU_CONTROL, 1);
    gpu.enable();
    assert_eq!([0, 16, 31, 32].map(|page| gpu.in_window(page)), [0xabc0_0500, 0xabc0_0700, 0, 0]);
    assert_eq!(gpu.misuse_count(), 0);
}

#[test]
fn pages_of_pascal() {
    let gpu = build("gp107");
    mark(&gpu, &[0x500, 0x602, 0x700, 0x70f, 0x800, 0x840, 0x1000, 0x11ff]);
    gpu.pascal_directories();
    let entry = |page: u64| page << 8 | 1;
    gpu.poke(SMALL, entry(0x500));
    gpu.poke(SMALL + 511 * 8, entry(0x602));
    gpu.poke(SMALL + 16 * 8, entry(0x800));
    gpu.poke(LARGE + 8, entry(0x700));
    gpu.poke(SMALL + 32 * 8, entry(0x840));
    gpu.poke(LARGE + 2 * 8, 1 << 5);
    // The next 2 MiB are one page.
    gpu.poke(TABLES[2] + 16, entry(0x1000));
    gpu.enable();
    let shown = [0, 16, 31, 32, 511, 512, 1023].map(|page| gpu.in_window(page) as u32 & 0xffff);
    assert_eq!(shown, [0x500, 0x700, 0x70f, 0, 0x602, 0x1000, 0x11ff]);
    assert_eq!(gpu.peek(0x70f * PAGE_SIZE), 0xabc0_070f, "the memory is the same through PRAMIN");
}

#[test]
fn page_tables_are_read_again_when_the_driver_says_so() {
    for (part, invalidate, directory, value) in
        [("gp107", 0x10_0cbc, 0x10_0cb8, DIRECTORY >> 8), ("tu117", 0xb8_30b0, 0xb8_30a0, DIRECTORY >> 8)]
    {
        let gpu = build(part);
        mark(&gpu, &[0x500, 0x600]);
        gpu.pascal_directories();
        gpu.enable();
        gpu.poke(SMALL, 0x500 << 8 | 1);
        assert_eq!(gpu.in_window(0), 0, "{part}");
        gpu.set(directory, 0x7777_0000);
        gpu.set(invalidate, 1 << 31 | 1);
        assert_eq!(gpu.in_window(0), 0, "{part}: another directory");
        gpu.set(directory, value as u32);
        gpu.set(invalidate, 1 << 31 | 1);
        assert_eq!(gpu.in_window(0), 0xabc0_0500, "{part}");
        assert_eq!(gpu.get(invalidate) & 1 << 31, 0, "{part}: done");
        gpu.windows[0].memory.memory().write(0, &7u64.to_le_bytes()).unwrap();
        gpu.poke(SMALL, 0x600 << 8 | 1);
        gpu.set(directory, 0);
        gpu.set(invalidate, 1 << 31 | registers::INVALIDATE_ALL);
        assert_eq!((gpu.in_window(0), gpu.peek(0x500 * PAGE_SIZE)), (0xabc0_0600, 7), "{part}");
    }
}

#[test]
fn a_reset_closes_the_windows_and_keeps_the_memory() {
    let gpu = build("gp107");
    mark(&gpu, &[0x500]);
    gpu.pascal_directories();
    gpu.poke(SMALL, 0x500 << 8 | 1);
    gpu.enable();
    assert_eq!(gpu.in_window(0), 0xabc0_0500);
    gpu.reset();
    assert_eq!((gpu.in_window(0), gpu.peek(0x500 * PAGE_SIZE)), (0, 0xabc0_0500));
    assert_eq!(gpu.get(0x1704), 0);
}

#[test]
fn a_directory_elsewhere_is_told() {
    let gpu = build("gm107");
    gpu.poke(INSTANCE + 0x200, DIRECTORY | 2);
    gpu.enable();
    assert_eq!(gpu.misuse_count(), 1);
}

#[test]
fn page_tables_that_lead_to_themselves_end() {
    for part in ["gm107", "gp107", "tu117"] {
        let gpu = build(part);
        gpu.poke(INSTANCE + 0x200, DIRECTORY);
        for offset in (0..0x1000).step_by(8) {
            gpu.poke(DIRECTORY + offset, DIRECTORY >> 4 | 3);
        }
        gpu.enable();
        gpu.enable();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_register_write_does_harm(
        part in prop::sample::select(vec!["nv44", "gm107", "gp107", "tu117"]),
        tables in prop::collection::vec((0u64..0x1000, any::<u64>()), 0..64),
        writes in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>(), 1usize..9), 0..32),
    ) {
        const INTERESTING: [u64; 13] = [
            0, 0x1700, 0x1704, 0x1714, 0x10_0cb8, 0x10_0cbc, 0x10_0c80, 0xb8_0f40, 0xb8_30a0, 0xb8_30b0,
            PRAMIN, CRTC_INDEX, 0xff_fffc,
        ];
        let gpu = build(part);
        for (offset, value) in tables {
            gpu.poke(offset * 8, value);
        }
        for (index, value, length) in writes {
            let offset = INTERESTING[index.index(INTERESTING.len())];
            // Most instances are where the tables are.
            let value = if value & 3 == 0 { value } else { value & 0x8000_0007 };
            let bytes = u64::from(value).to_le_bytes();
            gpu.write(BAR_REGISTERS, offset, &bytes[..length]);
            let mut back = [0; 8];
            gpu.read(BAR_REGISTERS, offset, &mut back[..length]);
        }
        gpu.reset();
    }
}
