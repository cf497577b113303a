//! The NIC's settings after a receiver that did not end by itself.

use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ensure;
use crate::guest::{
    ADDRESS, NIC, Outcome, receive, run, same_settings, settings, spawn, succeed, text, wait,
};

fn signal(child: &Child, signal: Signal) -> Outcome {
    Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
}

fn start() -> Result<Child, crate::guest::Failure> {
    spawn(&mut receive(&["--nic", NIC, "--listen", ADDRESS, "--queues", "4", "--size", "4M"]))
}

fn restore() -> Outcome {
    succeed(Command::new("/usr/bin/nic-to-gpu-copy").args(["restore", NIC]))?;
    Ok(())
}

/// A number below `limit`, from a fixed sequence: a failure can be repeated.
fn pseudo_random(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % limit
}

pub(crate) fn after_sigkill_at_twenty_moments() -> Outcome {
    let before = settings(NIC)?;
    let mut changed = 0;
    let mut state = 20;
    for _ in 0..20 {
        let child = start()?;
        std::thread::sleep(Duration::from_millis(pseudo_random(&mut state, 700)));
        signal(&child, Signal::SIGKILL)?;
        wait(child)?;
        changed += usize::from(!before.diff(&settings(NIC)?).is_empty());
        restore()?;
        same_settings(NIC, &before)?;
    }
    // Otherwise the moments were all too early, and nothing was tried.
    ensure!(changed >= 3, "only {changed} of 20 moments found the NIC changed");
    Ok(())
}

pub(crate) fn the_next_receiver_restores_first() -> Outcome {
    let before = settings(NIC)?;
    let child = start()?;
    std::thread::sleep(Duration::from_millis(1500));
    signal(&child, Signal::SIGKILL)?;
    wait(child)?;
    ensure!(!before.diff(&settings(NIC)?).is_empty(), "the killed receiver had changed nothing");
    let output = run(&mut receive(&["--nic", NIC, "--listen", ADDRESS, "--size", "4M", "--timeout", "1"]))?;
    ensure!(text(&output).contains("nobody connected"), "{}", text(&output));
    same_settings(NIC, &before)
}

pub(crate) fn after_signals_that_can_be_caught() -> Outcome {
    let before = settings(NIC)?;
    for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let child = start()?;
        std::thread::sleep(Duration::from_millis(1500));
        ensure!(!before.diff(&settings(NIC)?).is_empty(), "nothing was changed before {number}");
        signal(&child, number)?;
        let output = wait(child)?;
        use std::os::unix::process::ExitStatusExt;
        ensure!(output.status.signal() == Some(number as i32), "{number}: {}", text(&output));
        same_settings(NIC, &before)?;
    }
    Ok(())
}
