//! Reset, features, objects and their order, events of management, misuse.

use super::super::fields::{Fields, Structure};
use super::driver::{Machine, SRD};
use std::time::Duration;

fn body() -> Structure {
    Structure::new(60)
}

#[test]
fn a_reset_forgets_everything() {
    let mut machine = Machine::new(1);
    let driver = &mut machine.drivers[0];
    assert_eq!(driver.read_register(0x00), 3, "version 0.3");
    driver.buffer(4096);
    driver.queue_pair(SRD);
    assert_eq!(driver.device.statistics().queue_pairs, 1);
    driver.start();
    let statistics = driver.device.statistics();
    assert_eq!((statistics.queue_pairs, statistics.regions, statistics.completion_queues), (0, 0, 0));
    assert_eq!(statistics.counters.resets, 2);
    assert!(machine.misuse.entries().is_empty(), "{:?}", machine.misuse.entries());
}

#[test]
fn features_and_statistics_are_told() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    let feature = |number| driver.command(11, 0, body().u8(13, number));
    let (status, device) = feature(1);
    assert_eq!((status, Fields(&device).u64(0)), (0, 0x2fe));
    let (_, network) = feature(3);
    assert_eq!((network[..2].to_vec(), Fields(&network).u32(16)), (vec![0xfe, 0x80], 8928));
    assert_eq!(feature(8).0, 3, "not supported");
    let (status, statistics) = driver.command(13, 0, body());
    assert_eq!((status, Fields(&statistics).u64(0)), (0, 0));
    assert_eq!(driver.command(13, 0, body().u8(12, 9)).0, 5);
    // The driver tells of its host in a buffer.
    let host = driver.allocate(4096);
    assert_eq!(driver.command(12, 2, body().u32(0, 180).u64(4, host).u8(13, 6)).0, 0);
    assert!(machine.misuse.entries().is_empty());
}

#[test]
fn commands_complete_with_an_interrupt_unless_it_is_masked() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    driver.interrupts(0);
    driver.number(14, body());
    assert_eq!(driver.interrupts(0), 1);
    driver.write_register(0x4c, 1);
    driver.number(14, body());
    assert_eq!(driver.interrupts(0), 0);
}

#[test]
fn signs_of_life_come_as_long_as_they_are_wanted() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    let set = |groups| driver.command(12, 0, body().u8(13, 2).u32(20, groups)).0;
    assert_eq!(set(1 << 4), 0);
    driver.interrupts(0);
    let mut came = 0;
    for _ in 0..60 {
        std::thread::sleep(Duration::from_millis(50));
        came += driver.interrupts(0);
        if came >= 1 {
            break;
        }
    }
    assert!(came >= 1, "one at once, and a second one");
    assert_eq!(Fields(&driver.succeed(11, 0, body().u8(13, 2))).u32(4), 1 << 4);
    assert_eq!(set(1 << 8), 5, "no such group");
    assert_eq!(set(0), 0);
}

#[test]
fn what_is_in_use_is_not_destroyed() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    let program = driver.queue_pair(SRD);
    let handle = driver.address_handle(driver);
    let (_, key, _) = driver.buffer(4096);
    let status = |opcode, body| driver.command(opcode, 0, body).0;
    assert_eq!(status(10, body().u16(0, program.queue)), 7);
    assert_eq!(status(15, body().u16(0, driver.domain)), 7);
    assert_eq!(status(17, body().u16(0, driver.page)), 7);
    assert_eq!(status(19, body().u16(0, driver.event_queue)), 7);
    assert_eq!(machine.misuse.entries().len(), 4);
    assert_eq!(status(4, body().u32(0, program.number.into())), 0);
    assert_eq!(status(10, body().u16(0, program.queue)), 0);
    assert_eq!(status(6, body().u16(0, handle).u16(2, driver.domain)), 0);
    assert_eq!(status(8, body().u32(0, key)), 0);
    assert_eq!(status(15, body().u16(0, driver.domain)), 0);
    assert_eq!(status(17, body().u16(0, driver.page)), 0);
    assert_eq!(status(19, body().u16(0, driver.event_queue)), 0);
    // A second time there is nothing.
    assert_eq!(status(8, body().u32(0, key)), 5);
    assert_eq!(status(19, body().u16(0, driver.event_queue)), 5);
}

#[test]
fn a_driver_that_does_wrong_is_told_of() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    let mut known = 0;
    let mut told = |part: &str| {
        let entries = machine.misuse.entries();
        assert_eq!(entries.len(), known + 1, "{part}: {entries:?}");
        assert!(entries[known].starts_with("efa0: ") && entries[known].contains(part), "{}", entries[known]);
        known += 1;
    };
    driver.write_register(0x0c, 1);
    told("offset 0xc");
    driver.write_register(0x5c, 0x10 << 16);
    told("read register 0x10");
    driver.write_register(0x68, 9);
    told("event queue 9");
    super::super::Device::write(&*driver.device, 0, 0x2c, &[0; 2]);
    told("2 bytes written");
    super::super::Device::read(&*driver.device, 0, 0, &mut [0; 4]);
    told("4 bytes read");
    // A region of a protection domain that does not exist, and one whose list is not in memory.
    let register = || body().u16(0, driver.domain).u64(36, 4096).u8(44, 12);
    assert_eq!(driver.command(7, 0, register().u16(0, 77)).0, 5);
    told("protection domain 77");
    assert_eq!(driver.command(7, 2, register().u32(4, 8).u64(8, 1 << 40)).0, 5);
    told("no memory at bus address");
    assert_eq!(driver.command(7, 2, register().u32(4, 16).u64(8, 1 << 40)).0, 5);
    told("16 bytes of page list where 8 are expected");
    assert_eq!(driver.command(18, 0, body().u16(0, 16).u8(2, 17).u8(3, 4).u32(12, 1)).0, 5);
    told("vector 17");
    driver.write_register(0x2c, 1000);
    told("doorbell 1000");
}

#[test]
fn limits_are_kept() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    let mut statuses = (0..300).map(|_| driver.command(14, 0, body()).0);
    assert_eq!(statuses.position(|status| status == 1), Some(255), "one domain was there");
    // A huge region is one of many small pages.
    let huge = body().u16(0, driver.domain).u64(36, 1 << 40).u8(44, 12);
    assert_eq!(driver.command(7, 2, huge).0, 1);
    assert!(machine.misuse.entries().is_empty(), "a program may well ask for it");
}
