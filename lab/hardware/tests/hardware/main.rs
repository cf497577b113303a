//! The hardware seen from outside: a client that speaks vfio-user as QEMU does, guest memory in a
//! memfd, and a small gve driver.

// The helpers outside of #[test] functions are test code too.
#![allow(clippy::unwrap_used)]

mod client;
mod driver;
mod memory;
mod packets;

mod control;
mod flows;
mod gpu;
mod link;
mod misuse;
mod rdma;
mod receive;
mod transmit;

use std::path::Path;

use devmem_lab_hardware::{Hardware, HardwareConfig, NicConfig};
use serde_json::Value;

use driver::Driver;
use memory::Memory;

/// A machine with running NICs, each with a driver that has probed it.
struct Machine {
    hardware: Hardware,
    memory: Memory,
    drivers: Vec<Driver>,
    _sockets: tempfile::TempDir,
}

impl Machine {
    fn new(config: &HardwareConfig) -> Machine {
        let sockets = tempfile::tempdir().unwrap();
        let hardware = Hardware::start(config, sockets.path()).unwrap();
        let memory = Memory::new();
        let paths: Vec<_> = hardware.functions().iter().map(|function| function.socket.clone()).collect();
        let drivers = paths.iter().map(|path| Driver::probe(path, &memory)).collect();
        Machine { hardware, memory, drivers, _sockets: sockets }
    }

    /// Two NICs with what is common to most tests.
    fn pair() -> Machine {
        Machine::new(&two_nics())
    }

    fn request(&self, request: Value) -> Value {
        let reply = self.hardware.request(&request);
        assert!(reply.get("error").is_none(), "{request}: {reply}");
        reply
    }

    /// A counter of a NIC.
    fn counter(&self, nic: usize, pointer: &str) -> u64 {
        let statistics = self.request(serde_json::json!({"op": "statistics"}));
        let value = statistics["nics"][nic].pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no counter {pointer} in {statistics}"))
    }
}

fn two_nics() -> HardwareConfig {
    HardwareConfig { nics: vec![NicConfig::default(); 2], ..HardwareConfig::default() }
}

#[test]
fn sockets_exist_while_the_hardware_does() {
    let folder = tempfile::tempdir().unwrap();
    let hardware = Hardware::start(&two_nics(), folder.path()).unwrap();
    let sockets: Vec<_> = hardware.functions().iter().map(|function| function.socket.clone()).collect();
    assert_eq!(sockets.len(), 2);
    assert!(sockets.iter().all(|socket| socket.exists()));
    let again = Hardware::start(&two_nics(), folder.path()).err().expect("the sockets are taken");
    assert!(again.to_string().contains("gve0.sock"), "{again}");
    let client = client::Client::connect(&sockets[0]); // a client that is there does not keep it from ending
    drop(hardware);
    drop(client);
    assert!(!sockets.iter().any(|socket| socket.exists()));
    assert!(Hardware::start(&two_nics(), Path::new("/nonexistent")).is_err());
}

#[test]
fn two_nics_with_one_address_are_refused() {
    let mut config = two_nics();
    config.nics[0].mac = Some([2, 0, 0, 0, 0, 5]);
    config.nics[1].mac = Some([2, 0, 0, 0, 0, 5]);
    let error = Hardware::start(&config, &std::env::temp_dir()).err().unwrap();
    assert!(error.to_string().contains("same MAC"), "{error}");
}
