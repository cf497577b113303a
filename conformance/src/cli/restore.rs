//! `restore`.

use devmem_provider::Result;
use devmem_receive::nic;

use super::Status;
use super::arguments::RestoreOptions;
use super::run::print;

pub(super) fn restore(options: &RestoreOptions) -> Result<Status> {
    let results = match &options.nic {
        Some(nic) => nic::restore(nic.as_str()).transpose().into_iter().collect(),
        None => nic::restore_all()?,
    };
    if results.is_empty() {
        print("nothing to restore\n")?;
        return Ok(Status::Success);
    }
    let mut status = Status::Success;
    for result in results {
        match result {
            Ok(report) => {
                if !report.is_complete() {
                    status = Status::Failure;
                }
                print(&format!("{report}\n"))?;
            }
            Err(error) => {
                eprintln!("devmem-conformance: {error}");
                status = Status::Failure;
            }
        }
    }
    Ok(status)
}
