//! The numbers and layouts of the kernel's interfaces, and of rdma-core's, compared with their headers by a C compiler.
//!
//! What the headers or a missing compiler keep from being compared is told test by test.

mod expectations;
#[cfg(feature = "rdma-core")]
mod verbs;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    #[cfg(feature = "rdma-core")]
    let of_libraries = verbs::all();
    #[cfg(not(feature = "rdma-core"))]
    let of_libraries = Vec::new();
    let trials = expectations::all().into_iter().chain(of_libraries).map(|header| {
        Trial::ignorable_test(header.path(), move || {
            let comparison = header.compare().map_err(|failure| Failed::from(failure.to_string()))?;
            Ok(if comparison.missing.is_empty() {
                Completion::Completed
            } else {
                Completion::ignored_with(comparison.to_string())
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
