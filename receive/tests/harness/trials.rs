//! Tests, their names and their run.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What went wrong in a test.
pub(crate) type Failure = Box<dyn std::error::Error>;
pub(crate) type Outcome = Result<(), Failure>;

/// A test and its path, which begins with the program's name.
pub(crate) type Test = (&'static str, fn() -> Outcome);

/// Fails a test unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!("{}: {}", stringify!($condition), format_args!($($message)+)).into());
        }
    };
}
pub(crate) use ensure;

/// Tests by modules, each with its path.
macro_rules! tests {
    ($($module:ident :: { $($test:ident),+ $(,)? }),+ $(,)?) => {
        &[$($((
            concat!(module_path!(), "::", stringify!($module), "::", stringify!($test)),
            $module::$test as fn() -> $crate::harness::Outcome,
        )),+),+]
    };
}
pub(crate) use tests;

/// Runs the tests one after the other, for they share the NICs. A hindrance keeps all of them from running
/// and is told for each.
pub(crate) fn run(arguments: Arguments, tests: &[Test], hindrance: Option<&str>) -> ExitCode {
    let trials = tests.iter().map(|&(path, test)| {
        let name = path.split_once("::").map_or(path, |(_program, name)| name);
        let hindrance = hindrance.map(ToOwned::to_owned);
        Trial::ignorable_test(name, move || match hindrance {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => match test() {
                Ok(()) => Ok(Completion::Completed),
                Err(failure) => Err(Failed::from(failure.to_string())),
            },
        })
    });
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
