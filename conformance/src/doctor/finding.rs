//! One thing that was found out.

use std::fmt;

use devmem_provider::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// What shows what is hidden.
pub(super) const AS_ROOT: &str = "run this as root, outside of a container that takes capabilities away";

/// What a finding means for receiving into device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// It is as it must be.
    Ok,
    /// Good to know; nothing stands in the way.
    Note,
    /// It works, but not as well as it could, or not for long.
    Caution,
    /// It stands in the way.
    Obstacle,
    /// It could not be seen.
    Unknown,
}

impl State {
    /// Its name in reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Caution => "caution",
            Self::Obstacle => "obstacle",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One thing that was found out, how, and what would change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about: "header split".
    pub about: String,
    /// What it means.
    pub state: State,
    /// What was found, in plain words.
    pub says: String,
    /// What was tried or read, and what that said.
    pub evidence: String,
    /// What to do about it, where there is something.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn new(
        state: State,
        about: impl Into<String>,
        says: impl Into<String>,
        evidence: impl Into<String>,
    ) -> Self {
        Self { about: about.into(), state, says: says.into(), evidence: evidence.into(), remedy: None }
    }

    /// Something that was tried and failed.
    pub(super) fn failed(
        state: State,
        about: impl Into<String>,
        says: impl Into<String>,
        error: &Error,
    ) -> Self {
        // For want of privilege nothing is known.
        let state = if error.kind() == ErrorKind::PermissionDenied { State::Unknown } else { state };
        let finding = Self::new(state, about, says, without_remedy(error));
        match error.remedy_text() {
            Some(remedy) => finding.remedy(remedy),
            None => finding,
        }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// What an error tells of what was tried; its remedy has a place of its own.
pub(super) fn without_remedy(error: &Error) -> String {
    let text = error.to_string();
    match error.remedy_text().and_then(|remedy| text.strip_suffix(remedy)) {
        Some(rest) => rest.trim_end_matches([' ', ';']).to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_told_once() {
        let error = Error::new(ErrorKind::Unsupported, "open").on("/dev/udmabuf").remedy("load the module");
        let finding = Finding::failed(State::Obstacle, "udmabuf", "is missing", &error);
        assert_eq!(finding.evidence, "cannot open on /dev/udmabuf");
        assert_eq!(finding.remedy.as_deref(), Some("load the module"));
        assert_eq!(finding.state, State::Obstacle);
    }

    #[test]
    fn what_was_not_permitted_is_unknown() {
        let error = Error::new(ErrorKind::PermissionDenied, "open");
        assert_eq!(Finding::failed(State::Obstacle, "node", "is closed", &error).state, State::Unknown);
    }
}
