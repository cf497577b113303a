//! The tutorial's backend in the lab, with every receive path on an emulated NIC.

use std::fmt::Write;
use std::time::Duration;

use devmem_conformance::Verdict;
use devmem_conformance::report::{Report, json, text};
use devmem_lab::{Machine, Outcome};

use crate::package::Package;
use crate::tutorial::Tutorial;

/// What is checked of the backend as it is: what a backend writes, and that a NIC takes what it gets.
const FILTERS: [&str; 9] = [
    "identity::",
    "=allocate::one_buffer",
    "=allocate::exact_sizes",
    "=allocate::impossible_sizes",
    "=allocate::no_device_memory_is_refused",
    "export::",
    "=pin::one_buffer",
    "=pin::requirement_is_kept",
    "=receive::one_mebibyte",
];

/// What a run in the guest came to.
struct Ran {
    status: i32,
    report: Report,
    printed: String,
}

#[test]
fn it_passes_with_a_nic_and_what_is_broken_is_found() {
    let breaks = Tutorial::read().breaks();
    assert!(breaks.len() >= 3, "{breaks:?}");
    let mut machine = machine();
    let mut script = String::new();
    let mut add = |name: &str, package: &Package, filters: &[&str]| {
        let guest = format!("/usr/bin/{name}");
        let filters: String = filters.iter().map(|filter| format!(" --filter {filter}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            script,
            "{guest} --nic eth0 --peer-namespace /run/netns/peer{filters} --json /tmp/{name}.json >/tmp/{name}.txt; \
             echo $? >/tmp/{name}.status"
        );
        let with = machine.clone().file(&package.build(), &guest);
        machine = ["json", "txt", "status"]
            .into_iter()
            .fold(with, |machine, kind| machine.bring_back(&format!("/tmp/{name}.{kind}")));
    };
    add("whole", &Package::original(), &FILTERS);
    for (index, how) in breaks.iter().enumerate() {
        let name = format!("broken-{index}");
        add(&name, &Package::broken(&name, how), &[&format!("={}", how.check)]);
    }
    let outcome = machine.command(["sh", "-c", &script]).run().unwrap();
    assert!(outcome.is_success(), "{}", outcome.report());

    let whole = ran(&outcome, "whole");
    println!("{}", whole.printed);
    assert_eq!(whole.status, 0, "{}", whole.printed);
    assert!(whole.report.entries.len() > 20, "{} checks ran", whole.report.entries.len());
    for entry in &whole.report.entries {
        let is_told =
            entry.verdict == Verdict::Pass || entry.verdict == Verdict::Skip && entry.reason.is_some();
        assert!(is_told, "{}", text::explain(entry));
    }
    let received = whole.report.entries.iter().filter(|entry| entry.check == "receive::one_mebibyte");
    let received: Vec<_> = received.collect();
    assert_eq!(received.len(), 2, "{received:?}");
    assert!(received.iter().all(|entry| entry.verdict == Verdict::Pass), "{received:?}");

    for (index, how) in breaks.iter().enumerate() {
        let broken = ran(&outcome, &format!("broken-{index}"));
        // On every receive path.
        assert!(!broken.report.entries.is_empty(), "{}: {}", how.check, broken.printed);
        for entry in &broken.report.entries {
            assert!(entry.check == how.check && entry.verdict == Verdict::Fail, "{}", broken.printed);
        }
        assert_eq!(broken.status, 1, "{}", broken.printed);
        for line in how.report.lines() {
            let is_said = broken.printed.lines().any(|said| without_numbers(said) == without_numbers(line));
            assert!(is_said, "the tutorial shows\n{line}\nand the report says\n{}", broken.printed);
        }
    }
}

/// Two NICs, of which the second is in the namespace of the peer.
fn machine() -> Machine {
    let machine = Machine::new().nic("gve:queues=4").nic("gve:queues=4").timeout(Duration::from_secs(300));
    machine.kernel_of_environment().unwrap()
}

fn ran(outcome: &Outcome, name: &str) -> Ran {
    let file = |kind: &str| String::from_utf8(outcome.files[&format!("/tmp/{name}.{kind}")].clone()).unwrap();
    let mut reports = json::read(&file("json")).unwrap();
    assert_eq!(reports.len(), 1, "{name}");
    Ran { status: file("status").trim().parse().unwrap(), report: reports.remove(0), printed: file("txt") }
}

/// A line without what differs from run to run: the numbers of DMA-bufs.
fn without_numbers(line: &str) -> String {
    let mut plain = String::new();
    for letter in line.trim().chars() {
        match letter {
            '0'..='9' if plain.ends_with('#') => {}
            '0'..='9' => plain.push('#'),
            other => plain.push(other),
        }
    }
    plain
}
