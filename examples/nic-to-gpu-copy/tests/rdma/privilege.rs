//! A user without privilege, to whom the nodes of the devices are open: RDMA takes no more.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::ensure;
use crate::guest::{ADDRESS, Failure, Outcome, TOOL, file, printed_object, run, spawn, text, wait};

/// The tool, run by nobody, who may lock so many KiB.
fn by_nobody(locked: u32, arguments: &str) -> Command {
    let mut command = Command::new("su");
    let script = format!("ulimit -l {locked}; exec {TOOL} {arguments}");
    // The lab shows where pages are only to root.
    command.args(["-s", "/bin/sh", "nobody", "-c", &script]).env_remove("DEVMEM_LAB_SOCKET");
    command
}

/// What the distribution's udev rules do for users at a seat.
fn open_nodes() -> Result<(), Failure> {
    for entry in std::fs::read_dir("/dev/dri")? {
        let path = entry?.path();
        if path.to_string_lossy().contains("renderD") {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        }
    }
    Ok(())
}

fn receiver() -> Command {
    let options = "--path rdma --provider amdgpu --size 16M --require device-local --timeout 20 --json";
    by_nobody(8192, &format!("receive --listen {ADDRESS} {options}"))
}

fn sender(locked: u32) -> Result<Command, Failure> {
    let file = file(20 << 20)?;
    Ok(by_nobody(locked, &format!("send --path rdma --rdma efa_1 --connect {ADDRESS} {}", file.display())))
}

pub(crate) fn the_usual_limit_on_locked_memory_is_enough() -> Outcome {
    open_nodes()?;
    let receiving = spawn(&mut receiver())?;
    let sent = run(&mut sender(8192)?)?;
    let received = wait(receiving)?;
    ensure!(sent.status.success() && received.status.success(), "{}{}", text(&sent), text(&received));
    let summary = printed_object(&received)?;
    ensure!(summary["sha256_match"] == true && summary["residency_after"] == "device-local", "{summary}");
    Ok(())
}

pub(crate) fn a_lower_limit_is_told_with_the_remedy() -> Outcome {
    open_nodes()?;
    let receiving = spawn(&mut receiver())?;
    let sent = run(&mut sender(64)?)?;
    let said = text(&sent);
    ensure!(!sent.status.success(), "{said}");
    ensure!(said.contains("the limit on locked memory is too low") && said.contains("ulimit -l"), "{said}");
    let received = wait(receiving)?;
    ensure!(text(&received).contains("the peer closed the connection"), "{}", text(&received));
    Ok(())
}
