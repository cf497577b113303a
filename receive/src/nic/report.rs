//! What restoring a NIC did.

use std::fmt;

use devmem_provider::{Error, ErrorKind, Result};

use super::identity::Identity;
use super::snapshot::FieldDifference;

/// One change and what became of undoing it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Step {
    /// The change that was undone, in words.
    pub change: String,
    /// Why it could not be undone.
    pub error: Option<Error>,
}

/// What restoring a NIC did, step by step.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The NIC.
    pub nic: Identity,
    /// The changes in the order in which they were undone.
    pub steps: Vec<Step>,
    /// In what the settings now differ from those before the NIC was prepared. Besides what could not be
    /// undone these may be changes that somebody else made meanwhile.
    pub differences: Vec<FieldDifference>,
    /// The NIC does not exist any more, so there was nothing to undo.
    pub gone: bool,
}

impl Report {
    pub(super) fn new(nic: Identity) -> Self {
        Self { nic, steps: Vec::new(), differences: Vec::new(), gone: false }
    }

    /// Whether every setting is as it was before, or the NIC is gone.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.gone || (self.failures().next().is_none() && self.differences.is_empty())
    }

    /// The steps that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.error.is_some())
    }

    /// The report, unless a step failed.
    ///
    /// # Errors
    /// Names every step that failed.
    pub fn into_result(self) -> Result<Self> {
        let Some(first) = self.failures().find_map(|step| step.error.as_ref()) else {
            return Ok(self);
        };
        let kind = match first.kind() {
            ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::WrongState,
        };
        let errno = first.errno();
        let failures: Vec<_> = self
            .failures()
            .filter_map(|step| Some(format!("{}: {}", step.change, step.error.as_ref()?)))
            .collect();
        let mut error = Error::new(kind, "restore every setting")
            .on(&self.nic)
            .because(failures.join("; "))
            .remedy("remove the cause and restore again; the journal is kept");
        if let Some(errno) = errno {
            error = error.with_errno(errno);
        }
        Err(error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.gone {
            return write!(f, "{}: the NIC is gone, nothing to restore", self.nic);
        }
        write!(f, "{}: {} changes undone", self.nic, self.steps.len() - self.failures().count())?;
        for step in &self.steps {
            if let Some(error) = &step.error {
                write!(f, "\n  not undone: {}: {error}", step.change)?;
            }
        }
        for difference in &self.differences {
            write!(f, "\n  differs: {difference}")?;
        }
        Ok(())
    }
}
