//! Who may use which GPU.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use devmem_backends::discover;
use devmem_provider::ErrorKind;

use crate::ensure;
use crate::harness::{Outcome, skip};

/// Set for a copy of this program that only says what it finds.
const CHILD: &str = "DEVMEM_TEST_DISCOVERS";
const NOBODY: u32 = 65534;

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Says of each DRM backend that found nothing why.
pub(crate) fn child() -> ExitCode {
    for missing in discover().unavailable {
        println!("{} {:?} {}", missing.backend, missing.reason.kind(), missing.reason);
    }
    ExitCode::SUCCESS
}

/// Who may not open the node is told which, and what to do.
pub(crate) fn without_permission() -> Outcome {
    let found = discover();
    let nodes: Vec<(&str, String)> = found
        .providers
        .iter()
        .map(|provider| (provider.identity().backend, provider.identity().node.display().to_string()))
        .filter(|(_, node)| node.starts_with("/dev/dri"))
        .collect();
    if nodes.is_empty() {
        return skip("this guest has no DRM device");
    }
    let output = Command::new(std::env::current_exe()?).env(CHILD, "1").uid(NOBODY).gid(NOBODY).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{output:?}");
    for (backend, _) in &nodes {
        let line = said.lines().find(|line| line.split(' ').next() == Some(backend)).unwrap_or_default();
        ensure!(line.contains("PermissionDenied") && line.contains("render"), "{backend}: {said}");
        let named = nodes.iter().any(|(other, node)| other == backend && line.contains(node));
        ensure!(named, "{backend}: none of its nodes is in {line:?}");
    }
    Ok(())
}

pub(crate) fn a_device_that_does_not_exist() -> Outcome {
    for selector in ["0000:7f:1f.7", "/dev/dri/renderD999", "no-such-driver"] {
        let error = discover().find(selector).err().ok_or(format!("{selector} was found"))?;
        ensure!(error.kind() == ErrorKind::NotFound && error.to_string().contains(selector), "{error}");
    }
    Ok(())
}
