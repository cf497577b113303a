//! Page tables.

use super::super::addressing::{Address, Space};
use super::super::memory::{Fault, Place, Stretch};
use super::bench::{Bench, RAM};

const LARGE: u64 = 1 << 7;
const TABLE_OF_64K: u64 = 1 << 6;
const NULL: u64 = 1 << 9;
const LOCAL: u64 = 1 << 11;

fn translate(bench: &Bench, at: u64) -> Result<Stretch, Fault> {
    bench.gpu.addressing.translate(Address { space: Space::Process(bench.root() | 0x1b), at })
}

#[test]
fn pages_of_every_size() {
    for part in ["xe:dg2", "xe"] {
        let mut bench = Bench::new(part);
        let high = 1 << 47;
        bench.map_process(high + 0x1_2345_6000, 0, RAM + 0x7000);
        let found = translate(&bench, high + 0x1_2345_6123);
        assert_eq!(found, Ok(Stretch { place: Place::System(RAM + 0x7123), length: 0xedd }));
        bench.map_process(high + 0x4000_0000, 1, 6 << 20 | LARGE | LOCAL);
        let found = translate(&bench, high + 0x4012_3456);
        assert_eq!(found, Ok(Stretch { place: Place::Local(0x72_3456), length: 0x20_0000 - 0x12_3456 }));
        bench.map_process(high + (5 << 30), 2, LARGE | LOCAL);
        let found = translate(&bench, high + (5 << 30) + 0x1234_5678);
        assert_eq!(found, Ok(Stretch { place: Place::Local(0x1234_5678), length: (1 << 30) - 0x1234_5678 }));
        bench.map_process(high + (6 << 30), 2, LARGE | NULL);
        assert_eq!(translate(&bench, high + (6 << 30)).unwrap().place, Place::Null);
        let sign = 0xffff << 48;
        assert_eq!(translate(&bench, sign + high + (5 << 30)).unwrap().place, Place::Local(0));
    }
}

#[test]
fn a_table_of_64_kib_pages_has_32_entries() {
    let mut bench = Bench::new("xe:dg2");
    let table = bench.new_table();
    bench.map_process(0x20_0000, 1, table | TABLE_OF_64K);
    bench.put_entry(table, 31, 3 << 16 | LOCAL | 1);
    let found = translate(&bench, 0x20_0000 + (31 << 16) + 0x1234);
    assert_eq!(found, Ok(Stretch { place: Place::Local((3 << 16) + 0x1234), length: 0x1_0000 - 0x1234 }));
    assert!(matches!(translate(&bench, 0x20_0000), Err(Fault::Unmapped { level: 0, .. })));
}

#[test]
fn tables_that_lead_nowhere_are_faults() {
    let mut bench = Bench::new("xe");
    assert!(matches!(translate(&bench, 0x1000), Err(Fault::Unmapped { level: 4, .. })));
    // A table that is its own entry, and one beyond the memory.
    let root = bench.root();
    bench.put_entry(root, 0, root | 1);
    assert!(translate(&bench, 0x123).is_ok());
    bench.put_entry(root, 0, 0);
    bench.map_process(0, 1, 1 << 45);
    assert_eq!(translate(&bench, 0), Err(Fault::BeyondMemory(1 << 45)));
}

#[test]
fn global_addresses() {
    let bench = Bench::new("xe");
    bench.map_global(0x80_0000, RAM | 1);
    let global = |at| bench.gpu.addressing.translate(Address::global(at));
    assert_eq!(global(0x80_0010), Ok(Stretch { place: Place::System(RAM + 0x10), length: 4096 - 0x10 }));
    assert_eq!(global(0x4010), Ok(Stretch { place: Place::Local(0x4010), length: 4096 - 0x10 }));
    assert_eq!(global(0x90_0000), Err(Fault::GlobalUnmapped(0x90_0000)));
    assert_eq!(global(1 << 32), Err(Fault::GlobalUnmapped(1 << 32)));
}
