//! Where a buffer's pages are, and how that was found.

use std::fmt;

/// Where the pages of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Residency {
    /// In the device's own memory.
    DeviceLocal,
    /// In system memory.
    System,
    /// The kernel gives no way to tell.
    Unknown,
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceLocal => "device-local",
            Self::System => "system",
            Self::Unknown => "unknown",
        })
    }
}

/// One look at where a buffer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidencyEvidence {
    /// What the look showed.
    pub residency: Residency,
    /// The driver's name for that place, for example `vram`, `gtt` or `system0`.
    pub region: Option<String>,
    /// What was looked at and what it said, for people.
    pub evidence: String,
}

impl fmt::Display for ResidencyEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.residency)?;
        if let Some(region) = &self.region {
            write!(f, " ({region})")?;
        }
        Ok(())
    }
}
