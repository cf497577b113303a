//! `list` and `explain`.

use std::fmt::Write;

use devmem_conformance::checks::CHECKS;
use devmem_provider::{Error, ErrorKind, Result};

use super::Status;
use super::arguments::{ExplainOptions, ListOptions};
use super::run::print;

pub(super) fn list(options: &ListOptions) -> Result<Status> {
    let mut text = String::new();
    for check in CHECKS.iter().filter(|check| check.is_meant_by(&options.filters)) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<48} {}", check.full_name(), check.proves);
    }
    print(&text)?;
    Ok(Status::Success)
}

pub(super) fn explain(options: &ExplainOptions) -> Result<Status> {
    let found = CHECKS.iter().find(|check| check.full_name() == options.check || check.name == options.check);
    let check = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find a check")
            .on(format!("{:?}", options.check))
            .remedy("`devmem-conformance list` shows them all")
    })?;
    let mut text = format!("{}\n\n{}\n\n", check.full_name(), check.proves);
    let mut line = |what: &str, of: Vec<String>| {
        let of = if of.is_empty() { "nothing".to_owned() } else { of.join(", ") };
        let _ = writeln!(text, "{what:<12} {of}");
    };
    line("needs", check.needs.iter().map(ToString::to_string).collect());
    line("builds on", check.after.iter().map(ToString::to_string).collect());
    line("catches", check.catches.iter().map(|fault| format!("{fault:?}")).collect());
    line("time limit", vec![format!("{} s", check.limit.as_secs())]);
    print(&text)?;
    Ok(Status::Success)
}
