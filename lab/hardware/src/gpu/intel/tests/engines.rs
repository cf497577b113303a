//! Contexts, commands and moves of memory.

use super::super::commands::Share;
use super::super::registers::offsets::RESET;
use super::super::{Device, State};
use super::bench::{Bench, COPY, RAM, RENDER, RING_SIZE, SCRATCH};

/// Commands.
const NOOP: u32 = 0;
const BATCH_END: u32 = 0x0a << 23;
const LOCAL: u64 = 1 << 11;

fn store(at: u64, value: u32) -> [u32; 4] {
    [0x20 << 23 | 1 << 22 | 2, at as u32, 0, value]
}

fn wait_until(at: u64, value: u32) -> [u32; 6] {
    [0x1c << 23 | 1 << 22 | 1 << 15 | 4 << 12 | 3, value, at as u32, 0, 0, NOOP]
}

fn start_batch(at: u64) -> [u32; 4] {
    [0x31 << 23 | 1 << 8 | 1, at as u32, (at >> 32) as u32, NOOP]
}

#[test]
fn contexts_run_in_turn_and_are_told_of() {
    for (part, none, new_queue) in [("i915", 0x7ff_u64 << 15, 1), ("xe:dg2", 0xffff << 10, 1 << 33)] {
        let bench = Bench::new(part);
        bench.put_context(0, 0, &store(SCRATCH, 11));
        bench.put_context(1, 0, &store(SCRATCH + 4, 22));
        bench.submit(COPY, &[0, 1]);
        assert_eq!((bench.word(SCRATCH), bench.word(SCRATCH + 4)), (11, 22));
        assert_eq!((bench.head(0), bench.head(1)), (16, 16));
        let (last, entries) = bench.context_status(COPY);
        let shift = if part == "i915" { 15 } else { 10 };
        let of = |context: u64| (context + 1) << shift;
        assert_eq!(last, 3);
        assert_eq!(
            entries[1..4],
            [of(0) | none << 32 | new_queue, of(1) | of(0) << 32, none | of(1) << 32],
            "{part}"
        );
    }
}

#[test]
fn the_context_status_buffer_has_twelve_entries() {
    let bench = Bench::new("i915");
    bench.put_context(0, 0, &[NOOP, NOOP]);
    // Two entries each, and the first is number 1.
    for submission in 0..30 {
        bench.submit(COPY, &[0]);
        let (last, entries) = bench.context_status(COPY);
        assert_eq!(last, (submission * 2 + 2) % 12);
        assert_eq!(entries[last as usize], 0x7ff << 15 | 1 << 47, "from the context to none");
    }
}

#[test]
fn a_command_may_cross_the_end_of_the_ring() {
    let bench = Bench::new("xe");
    for words_before_the_end in 0..=4 {
        let value = 100 + words_before_the_end as u32;
        bench.put_context(0, RING_SIZE - words_before_the_end * 4, &store(SCRATCH, value));
        bench.submit(COPY, &[0]);
        assert_eq!(bench.word(SCRATCH), value, "{words_before_the_end} words before the end");
        assert_eq!(bench.head(0), (RING_SIZE - words_before_the_end * 4 + 16) % RING_SIZE);
    }
    assert!(bench.misuse().is_empty());
}

#[test]
fn a_ring_goes_round_many_times() {
    let bench = Bench::new("xe");
    let mut head = 0;
    // 20 words each: the ring's 4096 words are not a multiple.
    for turn in 0..3 * RING_SIZE as u32 / 80 {
        let commands: Vec<u32> = (0..5).flat_map(|index| store(SCRATCH + index * 4, turn)).collect();
        bench.put_context(0, head, &commands);
        bench.submit(COPY, &[0]);
        assert_eq!([0, 1, 2, 3, 4].map(|index| bench.word(SCRATCH + index * 4)), [turn; 5]);
        head = bench.head(0);
    }
    assert!(bench.misuse().is_empty());
}

#[test]
fn a_semaphore_is_waited_for_and_another_engine_may_give_it() {
    let bench = Bench::new("i915");
    let commands = [&wait_until(SCRATCH, 7)[..], &store(SCRATCH + 8, 1)].concat();
    bench.put_context(0, 0, &commands);
    bench.submit(COPY, &[0]);
    assert_eq!((bench.word(SCRATCH + 8), bench.context_status(COPY).0), (0, 1), "it waits");
    bench.put_context(1, 0, &store(SCRATCH, 7));
    bench.submit(RENDER, &[1]);
    assert_eq!((bench.word(SCRATCH + 8), bench.context_status(COPY).0), (1, 2));
}

#[test]
fn a_context_that_waits_can_be_switched_away_from_and_goes_on_later() {
    let mut bench = Bench::new("i915");
    bench.map_process(0x20_0000, 0, RAM + SCRATCH);
    let batch = [&wait_until(SCRATCH + 0x800, 7)[..], &store(SCRATCH + 0x804, 5), &[BATCH_END]].concat();
    bench.put(SCRATCH, &batch);
    let commands =
        [&store(SCRATCH + 0x810, 4)[..], &start_batch(0x20_0000), &store(SCRATCH + 0x808, 6)].concat();
    bench.put_context(0, 0, &commands);
    bench.submit(COPY, &[0]);
    assert_eq!(bench.word(SCRATCH + 0x810), 4);
    bench.put(SCRATCH + 0x810, &[0]);
    bench.put_context(1, 0, &store(SCRATCH + 0x80c, 9));
    bench.submit(COPY, &[1]);
    assert_eq!((bench.word(SCRATCH + 0x80c), bench.word(SCRATCH + 0x808)), (9, 0));
    bench.put(SCRATCH + 0x800, &[7]);
    bench.submit(COPY, &[0]);
    assert_eq!((bench.word(SCRATCH + 0x804), bench.word(SCRATCH + 0x808)), (5, 6));
    assert_eq!(bench.word(SCRATCH + 0x810), 0, "what was done before is not done again");
    assert!(bench.misuse().is_empty(), "{:?}", bench.misuse());
}

#[test]
fn flushes_write_into_memory_and_status_page() {
    let bench = Bench::new("i915");
    let status = bench.descriptor(0) & 0xffff_f000;
    let mut commands = vec![0x26 << 23 | 1 << 14 | 2, SCRATCH as u32 | 4, 0, 0x55];
    commands.extend([0x26 << 23 | 1 << 14 | 1 << 21 | 2, 0xd0, 0, 0x66]);
    commands.extend([0x7a00_0004, 1 << 24 | 1 << 14, SCRATCH as u32 + 8, 0, 0x77, 0x88]);
    commands.extend([0x7a00_0004, 1 << 21 | 1 << 14, 0xd8, 0, 0x99, 0]);
    bench.execute(&commands);
    assert_eq!([0, 8, 12].map(|at| bench.word(SCRATCH + at)), [0x55, 0x77, 0x88]);
    assert_eq!([0xd0, 0xd8].map(|at| bench.word(status + at)), [0x66, 0x99]);
    assert!(bench.misuse().is_empty(), "{:?}", bench.misuse());
}

#[test]
fn registers_are_loaded_and_stored() {
    let bench = Bench::new("i915");
    let mut commands = vec![0x22 << 23 | 1 << 19 | 1, 0x600, 0x1234];
    commands.extend([0x24 << 23 | 1 << 22 | 1 << 19 | 2, 0x600, SCRATCH as u32, 0]);
    commands.extend([0x29 << 23 | 1 << 22 | 2, 0x2_2608, SCRATCH as u32, 0, NOOP]);
    bench.execute(&commands);
    assert_eq!((bench.word(SCRATCH), bench.read(0x2_2600), bench.read(0x2_2608)), (0x1234, 0x1234, 0x1234));
}

/// Maps 4 pages at 0x20_0000 of the process in local memory and 4 at 0x40_0000 in guest memory, neither in
/// order.
fn with_pages(part: &str) -> (Bench, u64) {
    let mut bench = Bench::new(part);
    const LOCAL_PAGES: u64 = 4 << 20;
    for page in 0..4 {
        bench.map_process(0x20_0000 + page * 4096, 0, (LOCAL_PAGES + (3 - page) * 4096) | LOCAL);
        bench.map_process(0x40_0000 + page * 4096, 0, RAM + (2 << 20) + (page ^ 1) * 4096);
    }
    (bench, LOCAL_PAGES)
}

/// Fills 4 pages of local memory with `value` and copies them to guest memory.
fn fill_and_copy(part: &str) -> Vec<u32> {
    let (local, guest, rows, row) = (0x20_0000, 0x40_0000, 4 << 16 | 1024, 4096);
    let mut commands = match part {
        "i915:dg1" => vec![2 << 29 | 0x50 << 22 | 5, 3 << 24 | 0xf0 << 16 | row, 0, rows, local, 0, 0xabcd],
        "xe:dg2" => {
            [&[2 << 29 | 0x44 << 22 | 2 << 19 | 14, row - 1, 0, rows, local, 0, 0, 0xabcd][..], &[0; 8]]
                .concat()
        }
        _ => vec![2 << 29 | 0x5b << 22 | 1 << 17 | 5, row - 1, 3, row - 1, local, 0, 0xcd << 24],
    };
    commands.extend(match part {
        "xe" => [2 << 29 | 0x5a << 22 | 1 << 19 | 8, 63, 3, row - 1, row - 1, local, 0, guest, 0, 0],
        "i915:dg1" => {
            [2 << 29 | 0x53 << 22 | 8, 3 << 24 | 0xcc << 16 | row, 0, rows, guest, 0, 0, row, local, 0]
        }
        _ => [2 << 29 | 0x42 << 22 | 8, 3 << 24 | row, 0, rows, guest, 0, 0, row, local, 0],
    });
    commands.extend(vec![NOOP; commands.len() % 2]);
    commands
}

#[test]
fn memory_is_filled_and_copied_between_local_and_guest_memory() {
    for (part, bytes) in [("i915:dg1", [0xcd, 0xab, 0, 0]), ("xe:dg2", [0xcd, 0xab, 0, 0]), ("xe", [0xcd; 4])]
    {
        let (bench, local) = with_pages(part);
        bench.execute(&fill_and_copy(part));
        assert!(bench.misuse().is_empty(), "{part}: {:?}", bench.misuse());
        let expected = bytes.repeat(4096);
        let mut found = vec![0; 4 * 4096];
        bench.shown().read(local, &mut found).unwrap();
        assert!(found == expected, "{part}: filled");
        bench.ram.read(2 << 20, &mut found).unwrap();
        assert!(found == expected, "{part}: copied");
    }
}

#[test]
fn a_copy_follows_the_page_tables_both_ways() {
    let (bench, local) = with_pages("xe:dg2");
    let pattern: Vec<u8> = (0..4 * 4096u32).map(|index| (index / 4096 * 16 + index % 7) as u8).collect();
    for page in 0..4 {
        let part = &pattern[page * 4096..][..4096];
        bench.ram.write((2 << 20) + (page as u64 ^ 1) * 4096, part).unwrap();
    }
    // From guest memory into local memory, which begins in the midst of a row.
    let rows = 3 << 16 | 1024;
    bench.execute(&[2 << 29 | 0x42 << 22 | 8, 3 << 24 | 4096, 0, rows, 0x20_0800, 0, 0, 4096, 0x40_0000, 0]);
    assert!(bench.misuse().is_empty(), "{:?}", bench.misuse());
    let mut found = Vec::new();
    for page in 0..4 {
        let mut bytes = [0; 4096];
        bench.shown().read(local + (3 - page) * 4096, &mut bytes).unwrap();
        found.extend(bytes);
    }
    assert!(found[0x800..][..3 * 4096] == pattern[..3 * 4096]);
    assert!(found[..0x800].iter().chain(&found[0x800 + 3 * 4096..]).all(|byte| *byte == 0));
}

/// XY_BLOCK_COPY_BLT of bytes: layout of the destination, corners, origin; layout of the source, corner, origin.
fn block_copy(target: [u32; 3], origin: u32, source: [u32; 2], from: u32) -> [u32; 22] {
    let mut command = [0; 22];
    command[..7].copy_from_slice(&[
        2 << 29 | 0x41 << 22 | 20,
        target[0],
        target[1],
        target[2],
        0x20_0000,
        0,
        origin,
    ]);
    command[7..12].copy_from_slice(&[source[1], source[0], 0x40_0000, 0, from]);
    command
}

#[test]
fn a_block_is_copied_from_corner_to_corner() {
    let (bench, local) = with_pages("xe");
    // Page 0 of the process is page 1 of guest memory here.
    let pattern: Vec<u8> = (0..4096u32).map(|index| (index * 7 + index / 256) as u8).collect();
    bench.ram.write((2 << 20) + 4096, &pattern).unwrap();
    // Two rows of three bytes, from (1 + 4, 2 + 1) with 64 bytes a row to (8 + 2, 1 + 1) with 128.
    let (corners, origin) = ([127, 1 << 16 | 8, 3 << 16 | 11], 1 << 16 | 2);
    bench.execute(&block_copy(corners, origin, [63, 2 << 16 | 1], 1 << 16 | 4));
    assert!(bench.misuse().is_empty(), "{:?}", bench.misuse());
    let mut found = vec![0; 4096];
    bench.shown().read(local + 3 * 4096, &mut found).unwrap();
    for (row, at) in [(3, 2 * 128 + 10), (4, 3 * 128 + 10)] {
        assert_eq!(found[at..at + 3], pattern[row * 64 + 5..][..3]);
        found[at..at + 3].fill(0);
    }
    assert_eq!(found, [0; 4096]);
}

#[test]
fn blocks_that_are_tiled_or_compressed_are_refused() {
    for bit in [29, 30, 31] {
        let (bench, _) = with_pages("xe");
        bench.execute(&block_copy([127 | 1 << bit, 0, 1 << 16 | 1], 0, [63, 0], 0));
        assert_eq!(bench.misuse().len(), 1, "{:?}", bench.misuse());
    }
}

#[test]
fn commands_after_shaders_are_executed() {
    for (header, shaders) in
        [(0x7b00_0005, true), (0x7105_0005, true), (0x7208_0005, true), (0x7905_0005, false)]
    {
        let bench = Bench::new("xe");
        // A command of seven words, then one that can be seen.
        bench.put_context(0, 0, &[&[header][..], &[0; 7], &store(SCRATCH, 3)].concat());
        let mut state = bench.gpu.state.lock().unwrap();
        let State { engines, registers, .. } = &mut *state;
        engines[RENDER].add(&bench.gpu.addressing, bench.descriptor(0)).unwrap();
        let outcome = engines[RENDER].run(&bench.gpu.addressing, registers, &mut { Share::WHOLE });
        drop(state);
        assert_eq!((outcome.shaders, bench.word(SCRATCH)), (shaders, 3), "{header:#x}");
    }
}

#[test]
fn a_reset_forgets_contexts_and_keeps_memory() {
    let bench = Bench::new("xe");
    bench.put_context(0, 0, &wait_until(SCRATCH, 1));
    bench.submit(COPY, &[0]);
    bench.write(RESET, 1);
    bench.put(SCRATCH, &[1]);
    bench.read(0);
    assert_eq!(bench.head(0), 0, "it does not go on");
    bench.gpu.reset();
    assert_eq!(bench.word(SCRATCH), 1);
}

#[test]
fn the_aperture_shows_the_global_address_space() {
    let bench = Bench::new("i915");
    bench.gpu.write(2, SCRATCH + 4094, &[1, 2, 3, 4]);
    assert_eq!(bench.word(SCRATCH + 4096), 0x0403);
    let mut bytes = [0; 4];
    bench.gpu.read(2, SCRATCH + 4094, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 4]);
    bench.gpu.read(2, 200 << 20, &mut bytes);
    assert_eq!((bytes, bench.misuse().len()), ([0; 4], 1), "nothing is mapped there");
}
