//! The numbers and layouts of the kernel's interfaces, compared with the kernel's headers by a C compiler.
//!
//! The headers are those of the system, or those in the folder that `UAPI_HEADERS` names (the `include`
//! folder of `make headers_install`, or what a distribution's package of newer headers unpacks to). What
//! they or a missing compiler keep from being compared is told test by test.

mod compiler;
mod expectations;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use compiler::Compared;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = expectations::all().into_iter().map(|group| {
        Trial::ignorable_test(group.header, move || {
            match compiler::compare(&group).map_err(|failure| Failed::from(failure.to_string()))? {
                Compared::All => Ok(Completion::Completed),
                Compared::AllBut(names) => Ok(Completion::ignored_with(format!(
                    "{} of {} are right, {} not in these headers: {}",
                    group.expected.len() - names.len(),
                    group.expected.len(),
                    names.len(),
                    names.join(", ")
                ))),
                Compared::Nothing(reason) => {
                    Ok(Completion::ignored_with(format!("0 of {}: {reason}", group.expected.len())))
                }
            }
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
