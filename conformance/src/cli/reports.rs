//! `compare` and `merge`.

use std::path::Path;

use devmem_conformance::Report;
use devmem_conformance::report::{compare::compare as differences, json};
use devmem_provider::{Error, Result};

use super::Status;
use super::arguments::{CompareOptions, MergeOptions};
use super::run::{print, publish};

pub(super) fn compare(options: &CompareOptions) -> Result<Status> {
    let changes = differences(&read(&options.before)?, &read(&options.after)?);
    let lines: String = changes.iter().map(|change| format!("{change}\n")).collect();
    print(&lines)?;
    let regressed = changes.iter().any(devmem_conformance::report::compare::Change::is_regression);
    Ok(if regressed { Status::Failure } else { Status::Success })
}

pub(super) fn merge(options: &MergeOptions) -> Result<Status> {
    let mut reports = Vec::new();
    for path in &options.reports {
        reports.extend(read(path)?);
    }
    publish(&reports, options.format, options.out.as_deref())
}

fn read(path: &Path) -> Result<Vec<Report>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::from_io(error, "read a report").on(path.display()))?;
    json::read(&text).map_err(|error| error.on(path.display()))
}
