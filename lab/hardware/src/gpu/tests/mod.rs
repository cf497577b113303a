//! Every part as a PCI function in the hands of a guest that does anything: it answers, works no longer than it may,
//! and is as new once the client has gone.

mod bench;

use proptest::prelude::*;

use crate::bus::work;
use bench::Bench;

const GPUS: [&str; 10] = [
    "amdgpu:vram=64M",
    "i915:tgl",
    "i915:dg1,vram=64M",
    "xe:dg2,vram=64M",
    "xe:bmg,vram=64M",
    "nouveau:nv44,vram=64M",
    "nouveau:gm107,vram=64M",
    "nouveau:gp107,vram=64M,window=32M",
    "nouveau:tu117,vram=64M",
    "virtio-gpu:vram=64M",
];

/// Work that one access may cause: the most that an engine copies, once read and once written, and its commands.
const MOST_WORK: u64 = 3 << 30;

/// What a guest does.
#[derive(Clone, Debug)]
enum Action {
    /// Uses a register of those that do something.
    Register {
        place: u64,
        value: u64,
        length: usize,
        write: bool,
    },
    /// Uses any part of a BAR.
    Bar {
        bar: usize,
        place: u64,
        value: u64,
        length: usize,
        write: bool,
    },
    Configuration {
        offset: u64,
        value: u64,
        length: usize,
        write: bool,
    },
    /// Fills a part of a page of its memory.
    Ram {
        page: u64,
        words: Vec<u64>,
    },
    /// Fills a part of a page of the memory in which rings and tables are.
    Memory {
        page: u64,
        words: Vec<u64>,
    },
    /// Fills a part of a page of the memory that a BAR shows.
    Window {
        bar: usize,
        page: u64,
        words: Vec<u64>,
    },
    /// Rings a doorbell of the part.
    Doorbell {
        which: usize,
        value: u64,
    },
    Reset,
    Reconnect,
}

/// Numbers that often mean something: small ones, flags, pages of memory, table entries.
fn number() -> impl Strategy<Value = u64> {
    let flags = || (0..64u32).prop_map(|bit| 1 << bit);
    let entry = (0..256u64, prop::sample::select(vec![0u64, 1, 3, 5, 0x67, 0x61, 0x801, 0x881]));
    prop_oneof![
        0..20u64,
        flags(),
        (flags(), flags(), 0..32u64).prop_map(|(one, other, rest)| one | other | rest),
        entry.prop_map(|(page, flags)| page << 12 | flags),
        (0..256u64).prop_map(|page| page << 4 | 1 << 31),
        (0..256u64).prop_map(|page| 0xf400_0000 | page << 12),
        (0..600u64, 0..8u64, 0..4u64).prop_map(|(length, flags, next)| length | flags << 32 | next << 48),
        (0..64u64, any::<u32>())
            .prop_map(|(command, rest)| command << 26 | u64::from(rest & 0x00c8_00ff) << 4),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn words() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        prop::collection::vec(number(), 1..64),
        number().prop_map(|word| vec![word; 512]),
        commands(&DMA_PACKETS),
        commands(&COMMAND_PACKETS),
        commands(&STREAMER_COMMANDS),
    ]
}

/// Commands of an engine: the first word, and how many follow.
type Commands = [(u32, usize)];

/// Of AMD's DMA engines: writes, page tables, copies, indirect buffers, fences, traps, registers, fills.
const DMA_PACKETS: [(u32, usize); 10] = [
    (0x2000_0002, 4),
    (0x2420_0040, 8),
    (0x3000_0100, 4),
    (0x3400_ffff, 4),
    (0x4000_0000, 2),
    (0x4010_0000, 2),
    (0x6000_0000, 3),
    (0x7000_0000, 0),
    (0x9000_0000, 2),
    (0xd000_0100, 3),
];
/// Of AMD's command processor: indirect buffers, conditions, writes, copies, fences, registers.
const COMMAND_PACKETS: [(u32, usize); 7] = [
    (0xc002_3f00, 3),
    (0xc002_2200, 3),
    (0xc004_3700, 5),
    (0xc004_4100, 5),
    (0xc004_4700, 5),
    (0xc001_6800, 2),
    (0x0001_0f80, 2),
];
/// Of Intel's: stores, batches, semaphores, registers, flushes, interrupts; copies and fills.
const STREAMER_COMMANDS: [(u32, usize); 14] = [
    (0x1040_0002, 3),
    (0x1880_0001, 2),
    (0x1880_0101, 2),
    (0x18c0_0001, 2),
    (0x0e40_4003, 4),
    (0x1100_0001, 2),
    (0x1240_0002, 3),
    (0x1740_0003, 4),
    (0x1300_4002, 3),
    (0x0100_0000, 0),
    (0x5080_0008, 9),
    (0x54c0_0008, 9),
    (0x5400_0005, 6),
    (0x5680_0008, 9),
];

/// Commands in a row, with what follows them mostly a 0, a page's address or something small.
fn commands(known: &'static Commands) -> impl Strategy<Value = Vec<u64>> {
    let operand = || {
        prop_oneof![
            4 => Just(0),
            2 => (0..256u32).prop_map(|page| page << 12),
            2 => (0..256u32).prop_map(|page| 0xf400_0000 | page << 12),
            2 => 0..64u32,
            1 => (0..64u32, 0..64u32).prop_map(|(high, low)| high << 16 | low),
            1 => any::<u32>(),
        ]
    };
    let command = (prop::sample::select(known), prop::collection::vec(operand(), 9))
        .prop_map(|((first, following), operands)| [&[first][..], &operands[..following]].concat());
    prop::collection::vec(command, 1..40).prop_map(|commands| {
        let pair = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32;
        commands.concat().chunks(2).map(pair).collect()
    })
}

fn action() -> impl Strategy<Value = Action> {
    let length = || prop_oneof![4 => Just(4usize), 2 => Just(8), 2 => 0..17usize];
    let writes = || prop::bool::weighted(0.8);
    let page = || prop_oneof![0..4u64, 0..256u64];
    prop_oneof![
        12 => (any::<u64>(), number(), length(), writes())
            .prop_map(|(place, value, length, write)| Action::Register { place, value, length, write }),
        2 => (0..6usize, any::<u64>(), number(), length(), writes())
            .prop_map(|(bar, place, value, length, write)| Action::Bar { bar, place, value, length, write }),
        2 => (0..0x1010u64, number(), 0..9usize, writes())
            .prop_map(|(offset, value, length, write)| Action::Configuration { offset, value, length, write }),
        3 => (page(), words()).prop_map(|(page, words)| Action::Ram { page, words }),
        6 => (page(), words()).prop_map(|(page, words)| Action::Memory { page, words }),
        2 => (0..6usize, page(), words()).prop_map(|(bar, page, words)| Action::Window { bar, page, words }),
        8 => (0..20usize, prop_oneof![0..1024u64, number()]).prop_map(|(which, value)| Action::Doorbell { which, value }),
        1 => prop_oneof![Just(Action::Reset), Just(Action::Reconnect)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_a_guest_does_is_answered_and_forgotten(
        gpu in prop::sample::select(GPUS.to_vec()),
        actions in prop::collection::vec(action(), 1..120),
    ) {
        let bench = Bench::new(gpu);
        let new = bench.seen();
        bench.set_up();
        for action in &actions {
            let work = work::of(|| bench.act(action));
            prop_assert!(work < MOST_WORK, "{}: {:?} is {} bytes of work", gpu, action, work);
        }
        bench.function.disconnected();
        for (now, then) in bench.seen().iter().zip(&new) {
            prop_assert_eq!(now, then, "of {}", gpu);
        }
    }
}
