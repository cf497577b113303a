//! A GPU over vfio-user.

use devmem_lab_hardware::{Hardware, HardwareConfig};

use crate::client::{Client, GET_REGION_INFO, words};

const MEMORY_IN_PART: u32 = 0xf;
const SPARSE_MMAP_VERSION_1: u32 = 1 | 1 << 16;

#[test]
fn of_a_bar_that_is_memory_in_part_is_said_which_part() {
    let gpus = vec!["i915:dg1".parse().unwrap()];
    let config = HardwareConfig { nics: Vec::new(), gpus, ..HardwareConfig::default() };
    let sockets = tempfile::tempdir().unwrap();
    let hardware = Hardware::start(&config, sockets.path()).unwrap();
    let mut client = Client::connect(&hardware.functions()[0].socket);
    let mut ask = |room: u32| {
        let reply = client.call(GET_REGION_INFO, &words(&[room, 0, 0, 0, 0, 0, 0, 0]), &[]).unwrap();
        let word = |at: usize| u32::from_ne_bytes(reply[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(reply[at..at + 8].try_into().unwrap());
        let head = [word(0), word(4), word(12)];
        (head, (reply.len() > 32).then(|| (word(32), word(40), long(48)..long(48) + long(56))))
    };
    // QEMU refuses a capability that has no place, even in an answer that only tells how much room to leave.
    assert_eq!(ask(32), ([64, MEMORY_IN_PART, 32], None));
    let table = (SPARSE_MMAP_VERSION_1, 1, 8 << 20..16 << 20);
    assert_eq!(ask(64), ([64, MEMORY_IN_PART, 32], Some(table)));
}
