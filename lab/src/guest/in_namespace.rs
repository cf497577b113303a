//! The command `in-peer COMMAND…`: runs a program where the peer's network card is.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::network::NAMESPACES;
use super::{Context, Result};

/// Becomes the command, so it returns only if it cannot.
pub(super) fn execute(namespace: &str, arguments: &[OsString]) -> i32 {
    let [program, arguments @ ..] = arguments else {
        eprintln!(
            "usage: in-{namespace} COMMAND [ARGUMENT]…\nRuns a command in the network namespace '{namespace}'."
        );
        return 2;
    };
    if let Err(reason) = enter(namespace) {
        eprintln!("in-{namespace}: {reason}");
        return 125;
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("in-{namespace}: cannot start {}: {error}", program.to_string_lossy());
    127
}

fn enter(namespace: &str) -> Result<()> {
    let path = format!("{NAMESPACES}/{namespace}");
    let file = File::open(&path).context(|| format!("open {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).context(|| format!("enter {path}"))?;
    // /sys shows the network devices of the namespace in which it was mounted.
    unshare(CloneFlags::CLONE_NEWNS).context(|| "leave the mount namespace".into())?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context(|| "keep mounts private".into())?;
    umount2("/sys", MntFlags::MNT_DETACH).context(|| "unmount /sys".into())?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), nothing).context(|| "mount /sys".into())?;
    // Some kernels lack it; nothing of the network depends on it.
    let _ = mount(Some("debugfs"), "/sys/kernel/debug", Some("debugfs"), MsFlags::empty(), nothing);
    Ok(())
}
