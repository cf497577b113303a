//! Checks whether a provider of device memory works with the NIC receive path, and says what exactly does not.
//!
//! ```no_run
//! # fn main() -> devmem_provider::Result<()> {
//! let provider = devmem_backends::find("udmabuf")?; // or one of your own
//! let report = devmem_conformance::run(&*provider, &devmem_conformance::Environment::default());
//! print!("{}", devmem_conformance::report::text::write(&[report.clone()]));
//! std::process::exit(if report.is_success() { 0 } else { 1 });
//! # }
//! ```
//!
//! A [`Check`] proves one sentence. It names what it needs, which is found by trying, and checks that it builds on.
//! It runs in a process of its own with a time limit, so that a driver that hangs or crashes is a verdict; the lines that
//! the kernel logs meanwhile are kept. What it finds is a [`Verdict`]:
//!
//! | verdict | meaning |
//! |---|---|
//! | pass | what it proves holds |
//! | degraded | it works, but the memory is not where it was asked to be |
//! | skip | nothing can be said: why, how that was found, what would change it |
//! | known | it failed, as is known of this driver and kernel; that it passes would be a failure |
//! | fail | what it proves does not hold |
//!
//! Who checks the checks? For every one there is a [`Fault`] of a provider that it catches, and a test that it does.

mod af_xdp;
mod check;
pub mod checks;
mod context;
pub mod doctor;
mod environment;
pub mod faults;
mod isolation;
mod kernel_log;
mod known;
mod need;
mod nic_guard;
mod nic_reset;
mod nic_under_test;
pub mod path;
mod pci_function;
pub mod peer;
pub mod rdma_device;
pub mod rdma_transfers;
mod remembered_nic;
pub mod report;
mod rtnetlink;
mod run;
mod setup;
mod verdict;
mod xdp;

pub use check::{Check, Group};
pub use context::Context;
pub use environment::{Environment, Shard};
pub use faults::Fault;
pub use need::Need;
pub use nic_under_test::{Family, NicUnderTest};
pub use report::Report;
pub use run::{Progress, Quiet, act_as_peer, run, run_with};
pub use verdict::{Figure, Finding, Outcome, Skip, Stop, Verdict};
