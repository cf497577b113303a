//! Whatever a driver or a program writes, the device neither panics nor stops.

use proptest::prelude::*;

use super::super::fields::Structure;
use super::driver::{Machine, SRD, UD};
use crate::pci::Device;

#[test]
fn a_program_rings_only_its_own_doorbells() {
    let machine = Machine::new(1);
    let driver = &machine.drivers[0];
    let program = driver.queue_pair(SRD);
    for offset in [
        program.send_doorbell + 0x1000, // of another page
        program.send_doorbell + 8,      // of no queue pair
        0x1000 + 0x800 + 4 * 100,       // of no completion queue
        0x1000 + 0x802,
    ] {
        program.ring(offset, 1);
    }
    program.ring(program.send_doorbell, 33);
    let counters = driver.device.statistics().counters;
    assert_eq!(counters.bad_doorbells, 5);
    assert!(machine.misuse.entries().is_empty(), "it is no fault of the driver");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_command_is_completed(
        commands in prop::collection::vec(
            (1u8..30, any::<u8>(), prop::collection::vec((0usize..60, any::<u8>()), 0..12)), 1..12,
        ),
    ) {
        let machine = Machine::new(1);
        let driver = &machine.drivers[0];
        driver.queue_pair(UD);
        for (opcode, flags, bytes) in commands {
            let body = bytes.into_iter().fold(Structure::new(60), |body, (at, byte)| body.u8(at, byte));
            driver.command(opcode, flags, body);
        }
    }

    #[test]
    fn any_entry_is_executed(
        entries in prop::collection::vec((prop::collection::vec(any::<u8>(), 64), 0u8..4, any::<bool>()), 1..20),
        receive in prop::collection::vec(any::<u8>(), 16),
        values in prop::collection::vec((0u64..0x3000, any::<u32>()), 0..12),
    ) {
        let machine = Machine::new(2);
        let [first, second] = machine.drivers.as_slice() else { panic!() };
        let handle = first.address_handle(second);
        second.address_handle(first);
        let (here, there) = (first.queue_pair(SRD), second.queue_pair(SRD));
        let (address, key, _) = second.buffer(4096);
        there.receive(u16::from_le_bytes([receive[0], receive[1]]), (receive[2].into(), key, address));
        for (mut entry, operation, sane) in entries {
            if sane {
                entry[2] = 1 << 7 | entry[2] & 0x30 | operation;
                entry[3] = 0x1c;
                let length = entry[6] % 3;
                entry[4..8].copy_from_slice(&[there.number as u8, 0, length, 0]);
                entry[12..14].copy_from_slice(&handle.to_le_bytes());
                entry[16..20].copy_from_slice(&super::driver::QUEUE_KEY.to_le_bytes());
            }
            here.post(&entry);
        }
        for (offset, value) in values {
            first.device.write(0, 0x1000 + (offset & !3), &value.to_le_bytes());
        }
    }

    #[test]
    fn any_register_is_written(values in prop::collection::vec((0u64..0x80, any::<u32>()), 0..40)) {
        let machine = Machine::new(1);
        for (offset, value) in values {
            machine.drivers[0].device.write(0, offset & !3, &value.to_le_bytes());
            machine.drivers[0].device.write(0, offset, &value.to_le_bytes()[..1]);
        }
    }
}
