//! Changes to a NIC that are undone together.

use devmem_provider::{Error, ErrorKind, Result};

use super::change::Change;
use super::device::Nic;
use super::journal::{self, Files, Journal};
use super::lock::Lock;
use super::report::{Report, Step};
use super::snapshot::Snapshot;
use crate::netdev::release_all_bindings;
use crate::netlink;
use crate::zcrx::release_all_queues;

/// Changes that were made to a NIC, and the lock that keeps others away.
#[derive(Debug)]
pub(super) struct Transaction {
    nic: Nic,
    files: Files,
    journal: Journal,
    lock: Lock,
}

impl Transaction {
    /// Begins with no change.
    pub(super) fn new(
        nic: &Nic,
        files: Files,
        lock: Lock,
        before: Snapshot,
        queues: Vec<u32>,
    ) -> Result<Self> {
        let journal = Journal::new(nic.identity().clone(), before, queues)?;
        Ok(Self { nic: nic.clone(), files, journal, lock })
    }

    /// Takes up the changes that a process left behind.
    pub(super) fn recover(nic: &Nic, files: Files, lock: Lock, journal: Journal) -> Self {
        Self { nic: nic.clone(), files, journal, lock }
    }

    /// Gives the lock back; the changes must have been undone.
    pub(super) fn into_lock(self) -> Lock {
        self.lock
    }

    pub(super) fn before(&self) -> &Snapshot {
        &self.journal.before
    }

    /// The number of the RSS context that was made last.
    pub(super) fn last_context(&self) -> Option<u32> {
        self.journal.changes.iter().rev().find_map(|change| match change {
            Change::RssContext { context, .. } => *context,
            _ => None,
        })
    }

    /// The entries of each receive ring, if they were changed.
    pub(super) fn receive_ring_entries(&self) -> Option<u32> {
        self.journal.changes.iter().rev().find_map(|change| match change {
            Change::ReceiveRings { entries, .. } => *entries,
            _ => None,
        })
    }

    /// Makes a change, with the journal written before.
    ///
    /// # Errors
    /// In the outer result, the journal could not be written, and nothing was changed. In the inner one, the
    /// kernel refused; the change stays in the journal, as it may have been made in part.
    pub(super) fn make(&mut self, change: Change) -> Result<netlink::Result<()>> {
        let mut made = change.clone();
        self.journal.changes.push(change);
        self.journal.write(&self.files.journal)?;
        let result = made.make(&self.nic);
        if let (Ok(()), Some(last)) = (&result, self.journal.changes.last_mut())
            && *last != made
        {
            *last = made;
            self.journal.write(&self.files.journal)?;
        }
        Ok(result)
    }

    /// As [`make`](Self::make), with the refusal as an error.
    pub(super) fn must_make(&mut self, change: Change) -> Result<()> {
        let operation = change.to_string();
        self.make(change)?.map_err(|error| explain(error, operation).on(&self.nic))
    }

    /// Undoes every change, the last one first; goes on when one cannot be undone.
    ///
    /// The journal is removed once everything is undone.
    pub(super) fn undo(&mut self) -> Result<Report> {
        let mut report = Report::new(self.nic.identity().clone());
        // While a queue is bound the kernel keeps header split on.
        release_all_bindings(self.nic.ifindex(), self.nic.identity().namespace_cookie);
        release_all_queues(self.nic.ifindex(), self.nic.identity().namespace_cookie);
        for change in self.journal.changes.iter().rev() {
            if self.is_gone(&mut report)? {
                break;
            }
            let operation = format!("undo \"{change}\"");
            let result = change.undo(&self.nic, &self.journal);
            let error = result.err().map(|error| explain(error, operation));
            report.steps.push(Step { change: change.to_string(), error });
        }
        if !self.is_gone(&mut report)? && !self.journal.changes.is_empty() {
            report.differences = self.journal.before.diff_known(self.nic.snapshot()?);
        }
        if report.gone || report.failures().next().is_none() {
            self.journal.changes.clear();
            journal::remove(&self.files.journal)?;
        }
        Ok(report)
    }

    fn is_gone(&self, report: &mut Report) -> Result<bool> {
        match self.nic.link() {
            Err(error) if error.kind() == ErrorKind::Gone => report.gone = true,
            link => drop(link?),
        }
        Ok(report.gone)
    }
}

fn explain(error: netlink::Error, operation: String) -> Error {
    let error = error.during(operation);
    match error.kind() {
        ErrorKind::PermissionDenied => error.remedy("run it as root, or with CAP_NET_ADMIN"),
        _ => error,
    }
}
