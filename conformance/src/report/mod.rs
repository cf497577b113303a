//! What a run came to.

pub mod compare;
pub mod html;
pub mod json;
pub mod junit;
pub mod ktap;
pub mod machine;
pub mod text;

use devmem_provider::Identity;
use serde::{Deserialize, Serialize};

use crate::verdict::{Figure, Verdict};

pub use machine::Machine;

/// The form of a report in JSON. Keys are only ever added; a change of what one means raises it.
pub const SCHEMA: u32 = 1;

/// The provider that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// See [`Identity`].
    pub name: String,
    /// See [`Identity`].
    pub description: String,
    /// See [`Identity`].
    pub driver: String,
    /// See [`Identity`].
    pub driver_version: Option<String>,
    /// See [`Identity`].
    pub pci: Option<String>,
}

impl From<&Identity> for Checked {
    fn from(identity: &Identity) -> Self {
        Self {
            name: identity.name.clone(),
            description: identity.description.clone(),
            driver: identity.driver.clone(),
            driver_version: identity.driver_version.clone(),
            pci: identity.pci.map(|pci| pci.to_string()),
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The receive path that it was checked on, such as `devmem-tcp`; `None` for the provider alone, or with an RDMA
    /// device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The check's full name.
    pub check: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// Why, unless it passed.
    pub reason: Option<String>,
    /// How that was found, if it was skipped.
    pub found_by: Option<String>,
    /// What would change it.
    pub remedy: Option<String>,
    /// What it measured, if it is one that measures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// How long it took.
    pub seconds: f64,
    /// What it printed.
    pub output: String,
    /// What the kernel logged meanwhile.
    pub kernel_log: Vec<String>,
}

impl Entry {
    /// Its name as reports print it: `devmem-tcp/receive::order`, or the check's alone.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => format!("{path}/{}", self.check),
            None => self.check.clone(),
        }
    }

    /// The name of the check's group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.check.split("::").next().unwrap_or_default()
    }
}

/// What a run over one provider came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// The version of this suite.
    pub suite: String,
    /// The machine.
    pub machine: Machine,
    /// The provider.
    pub provider: Checked,
    /// What the checks found, in the order in which they ran.
    pub entries: Vec<Entry>,
}

impl Report {
    /// A report without entries yet.
    #[must_use]
    pub fn new(machine: Machine, provider: &Identity) -> Self {
        Self {
            schema: SCHEMA,
            suite: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            provider: provider.into(),
            entries: Vec::new(),
        }
    }

    /// How many checks have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.entries.iter().filter(|entry| entry.verdict == verdict).count()
    }

    /// Whether no check failed. Known failures and skips do not count as failures.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.count(Verdict::Fail) == 0
    }
}

#[cfg(test)]
impl Entry {
    pub(crate) fn stand_in(check: &str, verdict: Verdict) -> Self {
        Self {
            path: None,
            check: check.to_owned(),
            verdict,
            reason: (verdict != Verdict::Pass).then(|| "a reason with <marks> & \"quotes\"".to_owned()),
            found_by: None,
            remedy: None,
            figures: Vec::new(),
            seconds: 0.25,
            output: String::new(),
            kernel_log: Vec::new(),
        }
    }
}

#[cfg(test)]
impl Report {
    /// One entry of each verdict, and one of a receive path.
    pub(crate) fn stand_in() -> Self {
        let machine = Machine::stand_in();
        let provider = Checked {
            name: "udmabuf".to_owned(),
            description: "memory of this process".to_owned(),
            driver: "udmabuf".to_owned(),
            driver_version: None,
            pci: None,
        };
        let mut entries =
            Verdict::ALL.map(|verdict| Entry::stand_in(&format!("export::{verdict}"), verdict)).to_vec();
        entries.push(Entry {
            path: Some("devmem-tcp".to_owned()),
            ..Entry::stand_in("receive::order", Verdict::Pass)
        });
        Self { schema: SCHEMA, suite: "0.1.0".to_owned(), machine, provider, entries }
    }
}
