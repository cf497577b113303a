//! The kernel's file systems, as programs expect them.

use std::fs;
use std::os::unix::fs::symlink;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::{Context, Result};

/// Type, place, options, and whether a kernel may lack it.
const FILE_SYSTEMS: [(&str, &str, &str, bool); 9] = [
    ("devtmpfs", "/dev", "", false),
    ("proc", "/proc", "", false),
    ("sysfs", "/sys", "", false),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666", false),
    ("tmpfs", "/dev/shm", "mode=1777", false),
    ("tmpfs", "/tmp", "mode=1777", false),
    ("tmpfs", "/run", "mode=755", false),
    ("debugfs", "/sys/kernel/debug", "", true),
    ("tracefs", "/sys/kernel/tracing", "", true),
];

pub(super) fn mount_all() -> Result<()> {
    for (kind, place, options, may_lack) in FILE_SYSTEMS {
        // Those below /sys exist if the kernel has the file system, and no folder can be made there.
        if !may_lack {
            fs::create_dir_all(place).context(|| format!("create {place}"))?;
        }
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), Some(options)) {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(Errno::ENODEV | Errno::ENOENT) if may_lack => {}
            Err(error) => return Err(format!("cannot mount {kind} on {place}: {error}")),
        }
    }
    for (place, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "fd/0"),
        ("/dev/stdout", "fd/1"),
        ("/dev/stderr", "fd/2"),
    ] {
        symlink(target, place).context(|| format!("create {place}"))?;
    }
    Ok(())
}
