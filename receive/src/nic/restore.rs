//! Undoing what a process left behind.

use devmem_provider::{Error, ErrorKind, Result};

use super::device::Nic;
use super::identity::{self, Selector};
use super::journal::{self, Files, Journal};
use super::lock::Lock;
use super::report::Report;
use super::state_directory;
use super::transaction::Transaction;
use crate::netlink::Route;

/// Undoes the changes that a process left on a NIC when it was killed. `None` if there are none.
///
/// # Errors
/// - [`Busy`](ErrorKind::Busy): the process that prepared the NIC is alive;
/// - a change could not be undone: the others are, and the journal is kept.
pub fn restore(selector: impl Into<Selector>) -> Result<Option<Report>> {
    restore_nic(&Nic::open(selector)?)
}

/// Undoes the changes that processes left on any NIC of this network namespace; one result for each.
///
/// NICs whose process is alive, and journals of other network namespaces, are errors in the list: run it
/// there to undo those.
///
/// # Errors
/// The folder of the journals cannot be read.
pub fn restore_all() -> Result<Vec<Result<Report>>> {
    let folder = state_directory::open()?;
    let here = identity::namespace_inode()?;
    let mut results = Vec::new();
    for (namespace, ifindex) in Files::list(&folder)? {
        let files = Files::of(&folder, namespace, ifindex);
        if namespace == here {
            results.extend(restore_number(&files, ifindex).transpose());
        } else if let Some(journal) = Journal::read(&files.journal)? {
            results.push(Err(Error::new(ErrorKind::NotFound, "restore the NIC")
                .on(&journal.nic)
                .because(format!("it is in another network namespace (inode {namespace})"))
                .remedy("restore it from there (`ip netns exec ...`)")));
        }
    }
    Ok(results)
}

/// By the number of the interface, which may not exist any more.
fn restore_number(files: &Files, ifindex: u32) -> Result<Option<Report>> {
    let failed = |error: crate::netlink::Error| error.during("find the NIC");
    let link = Route::open().map_err(failed)?.links().map_err(failed)?;
    if let Some(link) = link.into_iter().find(|link| link.ifindex == ifindex) {
        return restore_nic(&Nic::open(Selector::Name(link.name))?);
    }
    let _lock = Lock::take(&files.lock, &format!("interface {ifindex}"))?;
    let journal = Journal::read(&files.journal)?;
    journal::remove(&files.journal)?;
    Ok(journal.map(|journal| gone(journal.nic)))
}

fn restore_nic(nic: &Nic) -> Result<Option<Report>> {
    let folder = state_directory::open()?;
    let files = Files::of(&folder, nic.identity().namespace_inode, nic.ifindex());
    let lock = Lock::take(&files.lock, nic.name())?;
    match Journal::read(&files.journal)? {
        Some(journal) => recover(nic, files, lock, journal)?.0.into_result().map(Some),
        None => {
            // One of an earlier boot may lie there.
            journal::remove(&files.journal)?;
            Ok(None)
        }
    }
}

/// Undoes the changes of a journal whose process is dead, which holding the lock proves.
pub(super) fn recover(nic: &Nic, files: Files, lock: Lock, journal: Journal) -> Result<(Report, Lock)> {
    if !journal.nic.is_same_nic(nic.identity()) {
        // The number was given to another NIC; the one that was changed is gone.
        journal::remove(&files.journal)?;
        return Ok((gone(journal.nic), lock));
    }
    let mut transaction = Transaction::recover(nic, files, lock, journal);
    let report = transaction.undo()?;
    Ok((report, transaction.into_lock()))
}

fn gone(nic: identity::Identity) -> Report {
    Report { gone: true, ..Report::new(nic) }
}
