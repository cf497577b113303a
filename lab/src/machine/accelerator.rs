//! How the guest's processor is run: by the host's own (KVM) or in software.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::builder::Machine;
use crate::cache::{Cache, write_whole};
use crate::error::{Error, Result};

/// What runs the guest's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// KVM where a trial shows that it works, else software.
    #[default]
    Auto,
    /// The host's processor.
    Kvm,
    /// Software emulation.
    Tcg,
}

impl FromStr for Accelerator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            other => Err(Error::option(format!("accelerator '{other}'"), "known are: auto, kvm, tcg")),
        }
    }
}

/// An accelerator that has been decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Kvm,
    Tcg,
}

/// What a trial showed, which holds until the host is started again.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    boot_id: String,
    works: bool,
    reason: String,
}

/// Long enough for a working KVM, which boots in one or two seconds; one that crawls is no gain.
const TRIAL: Duration = Duration::from_secs(12);

impl Accelerator {
    pub(super) fn decide(self, machine: &Machine, cache: &Cache) -> Result<Decided> {
        match self {
            Self::Kvm => Ok(Decided::Kvm),
            Self::Tcg => Ok(Decided::Tcg),
            Self::Auto => Ok(if kvm_works(machine, cache)? { Decided::Kvm } else { Decided::Tcg }),
        }
    }
}

/// That `/dev/kvm` can be opened proves nothing: inside some virtual machines it is there, and kernels
/// die or crawl in it. So the very machine is booted once.
fn kvm_works(machine: &Machine, cache: &Cache) -> Result<bool> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let path = cache.kvm_verdict();
    if let Ok(text) = fs::read(&path)
        && let Ok(verdict) = serde_json::from_slice::<Verdict>(&text)
        && verdict.boot_id == boot_id
    {
        return Ok(verdict.works);
    }
    machine.progress().step("trying whether KVM works here, once until the next start of this host");
    let (works, reason) = match machine.trial().accelerator(Accelerator::Kvm).timeout(TRIAL).run() {
        Ok(outcome) => (outcome.is_success(), outcome.trouble().unwrap_or_default()),
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => (false, error.to_string()),
    };
    machine.progress().step(if works {
        "KVM works"
    } else {
        "KVM does not work here; the processor is emulated"
    });
    let verdict = Verdict { boot_id, works, reason };
    let text =
        serde_json::to_vec_pretty(&verdict).map_err(|error| Error::format(&path, error.to_string()))?;
    write_whole(&path, &text)?;
    Ok(works)
}
