//! What no driver does: neither panic nor work without end may come of it.

use proptest::prelude::*;

use super::super::commands::Share;
use super::super::{Device, State};
use super::bench::{Bench, COPY, RAM, RENDER, RING_SIZE, SCRATCH};

const START_BATCH: u32 = 0x31 << 23 | 1;

#[test]
fn a_batch_that_starts_itself_gives_way() {
    let mut bench = Bench::new("i915");
    bench.put(SCRATCH, &[0, START_BATCH, SCRATCH as u32, 0]);
    bench.enable_interrupts();
    bench.execute(&[START_BATCH, SCRATCH as u32, 0, 0]);
    assert_eq!(bench.messages(), 1, "the driver shall look at it");
    bench.put_context(1, 0, &[0x20 << 23 | 1 << 22 | 2, SCRATCH as u32 + 0x100, 0, 3]);
    bench.submit(RENDER, &[1]);
    assert_eq!(bench.word(SCRATCH + 0x100), 3, "other engines work");
    bench.submit(COPY, &[1]);
    assert_eq!(bench.context_status(COPY).0, 3, "and it can be switched away from");
}

#[test]
fn batches_do_not_nest_without_end() {
    let bench = Bench::new("i915");
    bench.put(SCRATCH, &[START_BATCH | 1 << 22, SCRATCH as u32, 0, 0]);
    bench.execute(&[START_BATCH, SCRATCH as u32, 0, 0]);
    assert_eq!(bench.misuse(), ["gpu0: bcs0 stopped: batches are nested too deep"]);
}

#[test]
fn a_fault_stops_an_engine_until_something_else_is_submitted() {
    let bench = Bench::new("xe");
    bench.execute(&[2 << 29 | 0x42 << 22 | 8, 3 << 24 | 4096, 0, 1 << 16 | 4, 0, 0, 0, 4096, 0, 0]);
    assert_eq!(bench.misuse().len(), 1);
    bench.read(0);
    assert_eq!((bench.misuse().len(), bench.context_status(COPY).0), (1, 1));
    bench.put_context(1, 0, &[0, 0]);
    bench.submit(COPY, &[1]);
    assert_eq!(bench.context_status(COPY).0, 3);
}

#[test]
fn rings_and_contexts_anywhere() {
    let bench = Bench::new("xe");
    bench.submit(COPY, &[900]);
    assert_eq!(bench.misuse().len(), 1, "no page for the context");
    let image = bench.descriptor(0) & 0xffff_f000;
    bench.put(image + 0x1000, &[u32::MAX; 64]);
    bench.submit(COPY, &[0]);
}

/// MI_SEMAPHORE_WAIT for what never comes.
const WAIT: [u32; 6] = [0x1c << 23 | 1 << 22 | 1 << 15 | 4 << 12 | 3, 1, SCRATCH as u32, 0, 0, 0];

#[test]
fn contexts_that_wait_use_up_the_share() {
    let bench = Bench::new("xe");
    bench.put_context(0, 0, &WAIT);
    let mut state = bench.gpu.state.lock().unwrap();
    let State { engines, registers, .. } = &mut *state;
    let mut left = Share::WHOLE;
    for context in 0..3000 {
        // The same context under other names.
        engines[COPY].add(&bench.gpu.addressing, bench.descriptor(0) ^ context << 40).unwrap();
    }
    let outcome = engines[COPY].run(&bench.gpu.addressing, registers, &mut left);
    assert!(!outcome.progress && !outcome.unfinished, "each had its turn");
    assert!(left.words < Share::WHOLE.words / 2);
    let outcome = engines[COPY].run(&bench.gpu.addressing, registers, &mut left);
    assert!(outcome.unfinished && left.words == 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_ring(words in prop::collection::vec(any_word(), 0..200), head in 0..RING_SIZE / 4) {
        let mut bench = Bench::new("xe");
        bench.map_process(0, 2, 1 << 7 | 1 << 11);
        bench.map_process(1 << 30, 1, RAM | 1 << 7);
        bench.put_context(0, head * 4, &words);
        bench.submit(COPY, &[0]);
        bench.gpu.reset();
    }

    #[test]
    fn any_registers(writes in prop::collection::vec((any::<u64>(), any::<u64>(), 1..9usize), 0..300)) {
        let bench = Bench::new("i915:dg1");
        let places = [0x2_2000u64, 0x19_0000, 0xa000, 0x13_8000, 0x9000, 0];
        for (place, value, length) in writes {
            let base = places[(place >> 32) as usize % places.len()];
            let span = if base == 0 { (8 << 20) - 8 } else { 0x600 };
            let offset = base + place % span;
            bench.gpu.write(0, offset, &value.to_le_bytes()[..length]);
            bench.gpu.read(0, offset, &mut vec![0; length]);
        }
    }
}

/// Words that are likely to be commands.
fn any_word() -> impl Strategy<Value = u32> {
    let operations = [0x0au32, 0x1c, 0x20, 0x22, 0x24, 0x26, 0x29, 0x2a, 0x2e, 0x31];
    prop_oneof![
        any::<u32>(),
        0..64u32,
        (prop::sample::select(operations.to_vec()), any::<u32>())
            .prop_map(|(operation, rest)| operation << 23 | rest & 0x0040_0107),
        (prop::sample::select(vec![0x41u32, 0x42, 0x44, 0x50, 0x53, 0x5a, 0x5b]), any::<u32>())
            .prop_map(|(operation, rest)| 2 << 29 | operation << 22 | rest & 0x000a_001f),
        Just(0x7a00_0004),
    ]
}
