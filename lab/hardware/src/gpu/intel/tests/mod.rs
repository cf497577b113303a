//! The model without a machine: what a driver would do, and what none should.

mod bench;
mod engines;
mod hostile;
mod microcontroller;
mod translation;

use super::interrupts::offsets::{IDENTITY, MASTER, SELECTOR, TILE, WORDS};
use super::registers::offsets::{FLAT_CCS_BASE, PCODE_DATA, PCODE_MAILBOX, RESET, USABLE_END};
use super::{Device, drivers, engine, interrupts};
use bench::{Bench, COPY, RENDER};

#[test]
fn domains_wake_at_once() {
    let bench = Bench::new("i915");
    for (request, acknowledgement) in
        [(0xa278, 0xd84), (0xa188, 0x13_0044), (0xa188, 0xdfc), (0xa544, 0xd54), (0x38_a188, 0x38_0dfc)]
    {
        bench.write(request, 0x0001_0001);
        bench.write(request, 0x0004_0004);
        assert_eq!(bench.read(acknowledgement), 5, "{request:#x}");
        bench.write(request, 0x0001_0000);
        assert_eq!(bench.read(acknowledgement), 4, "{request:#x}");
    }
}

#[test]
fn the_power_controller_answers() {
    let bench = Bench::new("i915:dg1");
    bench.write(PCODE_MAILBOX, 1 << 31 | 0x7e);
    assert_eq!((bench.read(PCODE_MAILBOX) >> 31, bench.read(PCODE_DATA)), (0, 1));
}

#[test]
fn registers_of_any_width_and_unknown_ones_are_memory() {
    let bench = Bench::new("i915");
    bench.gpu.write(0, 0x12341, &[0xab]);
    assert_eq!(bench.read(0x12340), 0xab00);
    let mut long = [0; 8];
    bench.gpu.read(0, 0x12340, &mut long);
    assert_eq!(u64::from_le_bytes(long), 0xab00);
    bench.gpu.reset();
    assert_eq!(bench.read(0x12340), 0);
}

#[test]
fn memory_is_told_as_each_driver_reads_it() {
    let dg1 = Bench::new("i915:dg1");
    assert_eq!(dg1.read(USABLE_END), 240 << 20);
    let dg2 = Bench::new("xe:dg2,vram=256M");
    assert_eq!(dg2.read(FLAT_CCS_BASE), 240 << 20 >> 16 << 8);
    assert_eq!(Bench::new("xe").read(USABLE_END), (1 << 30) - (16 << 20));
}

#[test]
fn an_engine_is_idle_when_stopped_and_ready_when_asked() {
    let bench = Bench::new("i915");
    let base = bench.engine(RENDER).base;
    bench.write(base + engine::offsets::MI_MODE, 0x0100_0100);
    assert_eq!(bench.read(base + engine::offsets::MI_MODE), 0x300);
    bench.write(base + engine::offsets::RESET_CONTROL, 0x0001_0001);
    assert_eq!(bench.read(base + engine::offsets::RESET_CONTROL), 3);
    bench.write(RESET, 1 << 1);
    assert_eq!((bench.read(RESET), bench.read(base + engine::offsets::RESET_CONTROL)), (0, 0));
}

/// MI_USER_INTERRUPT, and a NOOP that keeps the tail aligned.
const INTERRUPT: [u32; 2] = [0x0100_0000, 0];

#[test]
fn the_interrupt_tree_is_read_from_the_top() {
    for (part, top) in [("i915", MASTER), ("i915:dg1", TILE)] {
        let mut bench = Bench::new(part);
        bench.execute(&INTERRUPT);
        assert_eq!(bench.messages(), 0, "nothing is enabled");
        bench.enable_interrupts();
        bench.execute(&INTERRUPT);
        assert_eq!(bench.messages(), 1);
        bench.execute(&INTERRUPT);
        assert_eq!(bench.messages(), 0, "told already");
        bench.write(top, 0);
        assert_eq!((bench.read(top), bench.read(MASTER)), (1, 1));
        assert_eq!((bench.read(WORDS), bench.read(WORDS + 4)), (1 << 15, 0));
        bench.write(SELECTOR, 1 << 15);
        assert_eq!(bench.read(IDENTITY), 1 << 31 | 3 << 16 | 0x101, "copy engine 0: user, context switch");
        bench.write(IDENTITY, u32::MAX);
        // Raised again after it was read and before it is acknowledged.
        bench.execute(&INTERRUPT);
        bench.write(WORDS, 1 << 15);
        assert_eq!(bench.read(WORDS), 1 << 15);
        bench.write(top, 1 << 31);
        assert_eq!(bench.messages(), 1, "{part}");
        bench.write(SELECTOR, 1 << 15);
        bench.write(WORDS, 1 << 15);
        assert_eq!((bench.read(WORDS), bench.read(MASTER) & 3), (0, 0));
    }
}

#[test]
fn masked_interrupts_are_not_raised() {
    let mut bench = Bench::new("i915");
    bench.enable_interrupts();
    bench.write(bench.engine(COPY).base + engine::offsets::INTERRUPT_MASK, u32::MAX);
    bench.execute(&INTERRUPT);
    assert_eq!((bench.messages(), bench.read(WORDS)), (0, 0));
    bench.write(bench.engine(COPY).base + engine::offsets::INTERRUPT_MASK, 0);
    bench.write(interrupts::offsets::MASK_COPY, u32::MAX);
    bench.execute(&INTERRUPT);
    assert_eq!((bench.messages(), bench.read(WORDS)), (0, 0));
}

#[test]
fn each_part_has_its_driver() {
    let of = |gpu: &str| drivers(&gpu.parse().unwrap()).remove(0);
    assert_eq!((of("i915").module, of("i915").parameters.len()), ("i915", 0));
    assert_eq!(of("i915:dg1").parameters, [("enable_guc", "0".to_owned())]);
    assert_eq!(of("xe").firmware[0].path, "xe/bmg_guc_70.bin");
    let (name, value) = &of("xe:dg2").parameters[0];
    assert_eq!((*name, value.as_str()), ("force_probe", "56a0"));
}
