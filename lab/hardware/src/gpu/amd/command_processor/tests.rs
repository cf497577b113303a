use super::super::tests::{Bench, GART_BUFFER};
use super::*;

#[test]
fn the_rings_work_once_the_processors_run() {
    let mut bench = Bench::new();
    for ring in 0..3 {
        bench.chip.registers.set(word::SCRATCH_REG0, 0xcafe_dead);
        bench.halt_command_processor(true);
        bench.command(ring, &[0xc001_6800, 0x140, 0xdead_beef]);
        assert_eq!(bench.chip.registers.get(word::SCRATCH_REG0), 0xcafe_dead);
        bench.halt_command_processor(false);
        assert_eq!(bench.chip.registers.get(word::SCRATCH_REG0), 0xdead_beef);
    }
}

#[test]
fn the_end_of_the_pipe_writes_and_interrupts() {
    let mut bench = Bench::new();
    let fence = bench.gart_page(7, 0x30_0000) as u32;
    bench.chip.registers.set(word::CP_INT_CNTL_RING0 + 2, END_OF_PIPE_ENABLE);
    for ring in [1, 2] {
        bench.command(ring, &[0xc004_4700, 0x514, fence, 2 << 29 | 2 << 24, 5, 6]);
    }
    assert_eq!(bench.guest(0x30_0000, 8), [5, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(bench.interrupts(), 1, "not enabled for ring 1");
    assert_eq!(bench.interrupt_entry(0), [181, 0, 2, 0]);
}

#[test]
fn a_condition_skips_what_comes_after() {
    let mut bench = Bench::new();
    let flag = bench.gart_page(7, 0x30_0000) as u32;
    for (value, expected) in [(0, 2), (1, 1)] {
        bench.put_guest(0x30_0000, &[value]);
        let set = |value| [0xc001_6800, 0x140, value];
        let packets = [&[0xc002_2200, flag, 0, 3][..], &set(1), &[0x8000_0000]].concat();
        bench.command(0, &[&set(2)[..], &packets].concat());
        assert_eq!(bench.chip.registers.get(word::SCRATCH_REG0), expected);
    }
}

#[test]
fn copies_of_a_process_stay_in_its_memory() {
    let mut bench = Bench::new();
    let vram = bench.vram_address();
    bench.enable_process(1, 0x10_0000);
    bench.put_vram(0x10_0000, (vram + 0x11_0000) | 1);
    bench.put_vram(0x11_0000 + 8, 0x5000 | 0x61);
    bench.put_vram(0x11_0000 + 16, 0x20_0000 | 0x63);
    bench.vram().write(0x5000, b"copied").unwrap();
    // Its page 1 is VRAM, its page 2 guest memory; it has no other.
    let copy = |to: u32| [0xc004_4100, 0x1000, 0, to, 0, 6];
    bench.put_guest(0x20_0800, &[copy(0x2000), copy(0x3000)].concat());
    bench.command(0, &[0xc002_3f00, 0x2800, 0, 1 << 24 | 12]);
    assert_eq!(bench.guest(0x20_0000, 6), b"copied");
    assert_eq!(bench.misuse(), ["gpu0: VMID 1: Write of address 0x3000 failed: Valid"]);
}

#[test]
fn a_buffer_in_a_process_s_buffer_is_the_process_s_too() {
    let mut bench = Bench::new();
    bench.enable_process(1, 0x10_0000);
    bench.put_vram(0x10_0000, (bench.vram_address() + 0x11_0000) | 1);
    bench.put_vram(0x11_0000 + 8, 0x20_0000 | 0x63);
    // It names VMID 0, whose address 0x3000 is not mapped either.
    bench.put_guest(0x20_0000, &[0xc002_3f00, 0x3000, 0, 4]);
    bench.command(0, &[0xc002_3f00, 0x1000, 0, 1 << 24 | 4]);
    assert_eq!(bench.misuse(), ["gpu0: VMID 1: Read of address 0x3000 failed: Valid"]);
}

#[test]
fn buffers_end_somewhere() {
    let mut bench = Bench::new();
    let itself = [0xc002_3f00, GART_BUFFER as u32, 0, 4];
    bench.put_buffer(&itself);
    bench.command(0, &itself);
    assert_eq!(bench.misuse(), ["gpu0: command ring 0: an indirect buffer too deep in others"]);
}

#[test]
fn a_chained_buffer_goes_on_elsewhere() {
    let mut bench = Bench::new();
    let (second, third) = (GART_BUFFER as u32 + 0x1000, GART_BUFFER as u32 + 0x2000);
    let page = bench.gart_page(7, 0x30_0000) as u32;
    let write = |to: u32, value| [0xc003_3700, 5 << 8, page + to, 0, value];
    let chain = |to: u32, words: u32| [0xc002_3200, to, 0, 1 << 20 | words];
    // At any length, and what comes after the packet that chains is not executed.
    bench.put_buffer(&[&write(0, 1)[..], &chain(second, 9), &write(0, 9)].concat());
    bench.put_guest(second.into(), &[&write(4, 2)[..], &chain(third, 5)].concat());
    bench.put_guest(third.into(), &write(8, 3));
    bench.command(0, &[&[0xc002_3f00, GART_BUFFER as u32, 0, 14][..], &write(12, 4)].concat());
    let written: Vec<u8> = [1u32, 2, 3, 4].into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!((bench.guest(0x30_0000, 16), bench.misuse()), (written, Vec::new()));
}

#[test]
fn chains_end_somewhere() {
    let mut bench = Bench::new();
    let chip = &mut bench.chip;
    let itself = [0xc002_3200, GART_BUFFER as u32, 0, 1 << 20 | 4];
    let mut run = Run { chip, ring: 1, budget: Budget::of(4000, 0), shaders: false };
    let words = itself.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    run.chip.write(0, GART_BUFFER, &words).unwrap();
    run.packets(&itself, 0, 1);
    assert_eq!(bench.misuse(), ["gpu0: command ring 1: more packets than anybody needs"]);
}

#[test]
fn words_are_copied_and_stamped() {
    let mut bench = Bench::new();
    let page = bench.gart_page(7, 0x30_0000) as u32;
    bench.put_guest(0x30_0000, &[1, 2, 3, 4]);
    let copy = |control: u32, from, high, to| [0xc004_4000, control, from, high, page + to, 0];
    let packets = [copy(5 << 8 | 1, page, 0, 0x10), copy(1 << 16 | 1 << 8 | 5, 7, 8, 0x20)].concat();
    bench.command(0, &packets);
    bench.command(1, &copy(1 << 16 | 5 << 8 | 9, 0, 0, 0x30));
    let words: Vec<u8> = [1, 0, 0, 0, 7, 8].into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(bench.guest(0x30_0010, 24), words);
    assert_ne!(bench.guest(0x30_0030, 8), [0; 8], "the clock");
}

#[test]
fn fences_after_shaders_come() {
    let mut bench = Bench::new();
    let fence = bench.gart_page(7, 0x30_0000) as u32;
    let dispatch = [0xc003_1502, 1, 1, 1, 1];
    bench.command(1, &[&dispatch[..], &[0xc004_4700, 0x514, fence, 1 << 29, 5, 0]].concat());
    assert_eq!((bench.guest(0x30_0000, 4), bench.misuse()), (vec![5, 0, 0, 0], Vec::new()));
}
