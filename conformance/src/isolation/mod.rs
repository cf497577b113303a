//! A check in a process of its own, so that a driver that hangs or crashes is a verdict and not the end of the run.
//!
//! The program is started again with the same arguments and a variable in its environment, which says what to
//! check. It gets to [`run`](crate::run) as the first one did, and there does that
//! one check and ends. So each check has a provider that was opened afresh, in a process without its past: drivers
//! of user space (Vulkan's) do not survive a `fork`.

mod child;
mod companion;
mod descriptor_passing;
mod parent;
mod sys;

use serde::{Deserialize, Serialize};

use crate::verdict::{Figure, Finding, Outcome, Skip, Stop};

pub(crate) use child::Assignment;
pub(crate) use companion::{Companion, Link, Role};
pub(crate) use parent::{Ended, Subject, in_a_process_of_its_own};
pub(crate) use sys::fork_idle;

/// Says which provider, receive path and check, with a line feed between them; the path may be empty.
const ASSIGNMENT: &str = "DEVMEM_CONFORMANCE_CHECK";

/// Begins, in place of a check's name, the name of a companion's role.
const COMPANION: &str = "companion ";

/// Likewise, of a companion that ends by itself when the check has ended.
const APART: &str = "companion apart ";

/// What a child writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "details", rename_all = "lowercase")]
enum Message {
    Pass,
    Degraded(String),
    Measured(Vec<Figure>),
    Skip(Skip),
    Fail(String),
}

impl From<Outcome> for Message {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(Finding::Pass) => Self::Pass,
            Ok(Finding::Degraded(evidence)) => Self::Degraded(evidence),
            Ok(Finding::Measured(figures)) => Self::Measured(figures),
            Err(Stop::Skip(skip)) => Self::Skip(skip),
            Err(Stop::Fail(reason)) => Self::Fail(reason),
        }
    }
}

impl From<Message> for Outcome {
    fn from(message: Message) -> Self {
        match message {
            Message::Pass => Ok(Finding::Pass),
            Message::Degraded(evidence) => Ok(Finding::Degraded(evidence)),
            Message::Measured(figures) => Ok(Finding::Measured(figures)),
            Message::Skip(skip) => Err(Stop::Skip(skip)),
            Message::Fail(reason) => Err(Stop::Fail(reason)),
        }
    }
}
