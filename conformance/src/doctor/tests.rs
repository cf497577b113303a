//! A diagnosis to try its forms on.

use super::*;

/// One GPU with a small window, one NIC.
pub(super) fn stand_in() -> Diagnosis {
    let small = Finding::new(State::Caution, "memory vram", "small window", "the driver's answer")
        .remedy("turn on resizable BAR");
    let device = |name: &str, driver: &str, pci: &str, findings: Vec<Finding>| Device {
        name: name.to_owned(),
        description: "a device".to_owned(),
        driver: driver.to_owned(),
        driver_version: Some("3.64.0".to_owned()),
        pci: Some(pci.to_owned()),
        numa_node: Some(0),
        able: Ability::Yes,
        findings,
    };
    let pair = Pair {
        provider: "gpu".to_owned(),
        nic: "eth0".to_owned(),
        conclusion: Conclusion::NotInDeviceMemory,
        says: "its driver moves it".to_owned(),
        findings: vec![Finding::new(State::Note, "peer-to-peer", "not asked for", "sysfs")],
    };
    Diagnosis {
        schema: SCHEMA,
        suite: "0.1.0".to_owned(),
        kernel: "7.3.4".to_owned(),
        root: true,
        can_receive: true,
        machine: vec![Finding::new(State::Ok, "devmem TCP", "the kernel has it", "bind-rx on lo")],
        providers: vec![device("gpu", "amdgpu", "0000:03:00.0", vec![small])],
        without_provider: Vec::new(),
        nics: vec![device("eth0", "gve", "0000:04:00.0", Vec::new())],
        without_nic: Vec::new(),
        pairs: vec![pair],
    }
}

#[test]
fn the_schema_is_what_is_documented() {
    let text = stand_in().to_json();
    let expected = include_str!("example.json");
    assert_eq!(text, expected, "keys are only ever added, and a change of meaning raises the schema");
    assert_eq!(serde_json::from_str::<Diagnosis>(&text).unwrap(), stand_in());
}
