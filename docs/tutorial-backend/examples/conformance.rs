//! Runs the checks of `devmem-conformance` on this backend.
//!
//! ```sh
//! cargo run --example conformance                            # without a NIC
//! cargo run --example conformance -- --nic eth1 --peer-namespace /run/netns/peer --filter pin::
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use devmem_conformance::peer::PeerChoice;
use devmem_conformance::{Environment, NicUnderTest, report, run};
use system_heap::SystemHeap;

const USAGE: &str = "usage: conformance [--nic NIC] [--peer-namespace FILE] [--filter TEXT]... [--json FILE]";

/// Exits with 0 if nothing failed, 1 if a check failed, 2 for bad usage, 3 if there is nothing to check here.
fn main() -> ExitCode {
    let Some((environment, json)) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let provider = match SystemHeap::open() {
        Ok(provider) => provider,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(3);
        }
    };
    let reports = [run(&provider, &environment)];
    print!("{}", report::text::write(&reports));
    if let Some(path) = json
        && let Err(error) = std::fs::write(&path, report::json::write(&reports))
    {
        eprintln!("cannot write {}: {error}", path.display());
        return ExitCode::from(2);
    }
    if reports.iter().all(|report| report.is_success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the arguments ask for, and where the report goes as JSON; `None` if they make no sense.
fn options() -> Option<(Environment, Option<PathBuf>)> {
    let (mut environment, mut json) = (Environment::default(), None);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next()?;
        match option.as_str() {
            "--nic" => environment.nic = Some(NicUnderTest::new(value)),
            "--peer-namespace" => environment.peer = Some(PeerChoice::Namespace(value.into())),
            "--filter" => environment.filters.push(value),
            "--json" => json = Some(value.into()),
            _ => return None,
        }
    }
    Some((environment, json))
}
