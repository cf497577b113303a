//! `--require device-local`: kept, or refused before any byte arrives.

use std::process::Output;

use crate::ensure;
use crate::guest::{ADDRESS, Failure, NIC, Outcome, copy, receive, run, same_settings, settings, text};
use crate::place::{Place, is_in};

/// Runs a receiver that must refuse, and looks that the NIC is as it was.
fn refusal(arguments: &[&str]) -> Result<Output, Failure> {
    let before = settings(NIC)?;
    let mut command = receive(&["--listen", ADDRESS, "--json", "--size", "4M"]);
    let output = run(command.args(arguments))?;
    ensure!(!output.status.success(), "{}", text(&output));
    ensure!(output.stdout.is_empty(), "{}", text(&output));
    same_settings(NIC, &before)?;
    Ok(output)
}

/// The refusal names the importer, the exporter, and the place that the memory went to.
fn is_refused(provider: &str, place: &str) -> Outcome {
    let output =
        refusal(&["--provider", provider, "--placement", "device-local", "--require", "device-local"])?;
    let said = text(&output);
    for word in ["devmem TCP on eth0", provider, place, "peer-to-peer"] {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    Ok(())
}

pub(crate) fn device_local_memory_that_stays() -> Outcome {
    let arguments = ["--provider", "virtio-gpu", "--require", "device-local", "--size", "16M"];
    is_in(&copy(32 << 20, &arguments, &["--connections", "2"])?, Place::Device, Place::Device)
}

pub(crate) fn amdgpu_is_refused() -> Outcome {
    is_refused("amdgpu", "gtt")
}

pub(crate) fn i915_is_refused() -> Outcome {
    is_refused("i915", "system0")
}

pub(crate) fn xe_is_refused() -> Outcome {
    is_refused("xe", "gtt")
}

pub(crate) fn nouveau_is_refused() -> Outcome {
    is_refused("nouveau", "gart")
}

/// i915 and xe refuse the attachment itself for memory without a fallback in system memory.
pub(crate) fn memory_that_may_lie_nowhere_else() -> Outcome {
    for provider in ["i915", "xe"] {
        let output = refusal(&["--provider", provider, "--placement", "device-local", "--placement-only"])?;
        let said = text(&output);
        ensure!(said.contains("Operation not supported") || said.contains("EOPNOTSUPP"), "{said}");
    }
    Ok(())
}
