//! `devmem-conformance doctor` on the machine that runs the tests, whatever it has.

// The helpers outside of #[test] functions are test code too.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};
use std::sync::Arc;

use devmem_conformance::doctor::{Ability, Conclusion, Diagnosis, Subjects, examine};
use devmem_provider::{
    Buffer, Capabilities, DeviceKind, Error, ErrorKind, Heap, Identity, Placement, Provider, Request, Result,
};

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_devmem-conformance")).arg("doctor").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A provider that gives nothing.
#[derive(Debug)]
struct Empty {
    identity: Identity,
}

impl Empty {
    fn new() -> Self {
        Self {
            identity: Identity {
                name: "empty".to_owned(),
                backend: "empty",
                description: "a device without memory".to_owned(),
                kind: DeviceKind::Software,
                driver: "empty".to_owned(),
                driver_version: None,
                node: "/dev/empty".into(),
                pci: None,
                numa_node: None,
            },
        }
    }
}

impl Provider for Empty {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn heaps(&self) -> Result<Vec<Heap>> {
        Ok(vec![Heap {
            name: "nothing".to_owned(),
            placement: Placement::System,
            size: Some(0),
            used: None,
            cpu_visible: None,
            maximum_allocation: None,
            granularity: 4096,
        }])
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn allocate(&self, _: &Request) -> Result<Box<dyn Buffer>> {
        Err(Error::new(ErrorKind::OutOfMemory, "allocate").because("it is empty").remedy("fill it"))
    }
}

#[test]
fn it_ends_with_a_verdict_and_the_status_that_fits() {
    let output = doctor(&[]);
    let said = text(&output.stdout);
    let json = doctor(&["--json"]);
    let diagnosis: Diagnosis = serde_json::from_slice(&json.stdout).unwrap();
    let expected = if diagnosis.can_receive { 0 } else { 3 };
    assert_eq!((output.status.code(), json.status.code()), (Some(expected), Some(expected)), "{said}");
    assert!(said.contains(&diagnosis.kernel) && said.contains("privilege"), "{said}");
    assert_eq!(diagnosis.pairs.len(), diagnosis.providers.len() * diagnosis.nics.len());
    if !diagnosis.can_receive {
        assert!(said.contains("What to do"), "{said}");
    }
}

#[test]
fn every_finding_has_words_and_evidence() {
    let diagnosis: Diagnosis = serde_json::from_slice(&doctor(&["--json"]).stdout).unwrap();
    for (of, finding) in diagnosis.findings() {
        assert!(!finding.says.is_empty() && !finding.evidence.is_empty(), "{of:?}: {finding:?}");
    }
}

#[test]
fn loopback_cannot_receive() {
    let output = doctor(&["--nic", "lo", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(diagnosis.nics.len(), 1);
    assert_eq!(diagnosis.nics[0].able, Ability::No);
}

#[test]
fn what_does_not_exist_is_bad_usage() {
    for arguments in [["--nic", "nosuch0"], ["--provider", "nosuch"]] {
        let output = doctor(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(arguments[1]), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_provider_without_memory_is_told_with_its_own_reason() {
    let providers: [Arc<dyn Provider>; 1] = [Arc::new(Empty::new())];
    let nics = ["lo".to_owned()];
    let subjects = Subjects { providers: &providers, nics: &nics, named_only: true, ..Subjects::default() };
    let diagnosis = examine(&subjects).unwrap();
    assert!(!diagnosis.can_receive);
    assert_eq!(diagnosis.providers[0].able, Ability::No);
    let pair = &diagnosis.pairs[0];
    assert_eq!((pair.conclusion, pair.name().as_str()), (Conclusion::Impossible, "empty and lo"));
    let said = devmem_conformance::doctor::text::write(&diagnosis);
    assert!(said.contains("it is empty") && said.contains("fill it"), "{said}");
}
