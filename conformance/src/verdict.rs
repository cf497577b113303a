//! What a check found.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// What the check proves holds.
    Pass,
    /// It works, but the memory is not where it was asked to be.
    Degraded,
    /// Nothing can be said here.
    Skip,
    /// It failed, as is known of this driver and kernel.
    Known,
    /// What the check proves does not hold.
    Fail,
}

impl Verdict {
    /// All verdicts, as they are counted in summaries.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Degraded, Self::Skip, Self::Known, Self::Fail];

    /// The word for it, as reports print it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Degraded => "degraded",
            Self::Skip => "skip",
            Self::Known => "known",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a check that came to its end says.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// What the check proves holds.
    Pass,
    /// It works, but the memory is not where it was asked to be; with what was looked at.
    Degraded(String),
    /// What the check proves holds, and this was measured, which nobody judges.
    Measured(Vec<Figure>),
}

/// Something that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, in words.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In which unit, such as `MiB/s`.
    pub unit: String,
}

impl Figure {
    /// A figure.
    #[must_use]
    pub fn new(name: &str, value: f64, unit: &str) -> Self {
        Self { name: name.to_owned(), value, unit: unit.to_owned() }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2} {}", self.name, self.value, self.unit)
    }
}

/// Why nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// What is missing.
    pub reason: String,
    /// What was tried to find that out.
    pub found_by: String,
    /// What would change it.
    pub remedy: Option<String>,
}

/// Why a check did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// What it proves does not hold.
    Fail(String),
    /// Nothing can be said.
    Skip(Skip),
}

impl Stop {
    /// A failure.
    #[must_use]
    pub fn fail(reason: impl fmt::Display) -> Self {
        Self::Fail(reason.to_string())
    }

    /// A skip because an attempt was refused; the error says what was tried and what would help.
    #[must_use]
    pub fn skip(error: &devmem_provider::Error) -> Self {
        Self::Skip(Skip {
            reason: error.to_string(),
            found_by: error.operation().to_owned(),
            remedy: error.remedy_text().map(str::to_owned),
        })
    }

    /// A skip if this is not supported here, and a failure otherwise.
    #[must_use]
    pub fn unless_supported(error: devmem_provider::Error) -> Self {
        match error.kind() {
            devmem_provider::ErrorKind::Unsupported => Self::skip(&error),
            _ => error.into(),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(reason) => f.write_str(reason),
            Self::Skip(skip) => f.write_str(&skip.reason),
        }
    }
}

impl From<devmem_provider::Error> for Stop {
    fn from(error: devmem_provider::Error) -> Self {
        Self::fail(error)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::fail(error)
    }
}

/// What the function of a check returns.
pub type Outcome = Result<Finding, Stop>;

/// Stops a check as failed unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::Stop::Fail(format!($($message)+)));
        }
    };
}
