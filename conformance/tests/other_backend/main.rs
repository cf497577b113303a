//! A backend that lives in another repository: the one of `docs/adding-a-backend.md`.
//!
//! It is built as that repository builds it, alone and without the network, and checked on this machine and in the lab.
//! What the tutorial quotes is compared with the source, and what it breaks is broken and must be found.

// The helpers outside of #[test] functions are test code too.
#![allow(clippy::unwrap_used)]

mod lab;
mod package;
mod tutorial;

use std::process::Command;

use devmem_conformance::checks::CHECKS;

use package::Package;
use tutorial::Tutorial;

#[test]
fn what_the_tutorial_quotes_is_in_the_source() {
    let (tutorial, package) = (Tutorial::read(), Package::original());
    let quotes = tutorial.quotes();
    assert!(quotes.len() > 8, "{} pieces of code were found", quotes.len());
    for quote in quotes {
        let sources = package.files_with(quote.extension);
        let is_there = sources.iter().any(|(_, source)| quote.is_part_of(source));
        assert!(is_there, "no file of the package has this code:\n{}", quote.text);
    }
}

#[test]
fn the_tutorial_names_checks_that_there_are() {
    let names = Tutorial::read().checks();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(CHECKS.iter().any(|check| check.full_name() == name), "there is no check {name}");
    }
}

#[test]
fn it_says_on_this_machine_what_it_finds() {
    let program = Package::original().build();
    let output = Command::new(&program).args(["--filter", "identity::"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => assert!(String::from_utf8_lossy(&output.stdout).contains("system-heap"), "{output:?}"),
        Some(3) => {
            assert!(said.contains("/dev/dma_heap/system") && said.contains("; run as root"), "{said}");
            println!("the checks are skipped here: {said}");
        }
        other => panic!("{other:?}: {output:?}"),
    }
    let output = Command::new(&program).arg("--no-such-option").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
