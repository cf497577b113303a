//! The NIC's settings after a receiver that did not end by itself.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::Duration;

use devmem_receive::nic::Snapshot;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ensure;
use crate::guest::{
    ADDRESS, Failure, NIC, Outcome, receive, run, same_settings, settings, spawn, succeed, text, wait,
};
use crate::nic_changes::wait_for_change;

pub(crate) fn signal(child: &Child, signal: Signal) -> Outcome {
    Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
}

fn start() -> Result<Child, Failure> {
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

/// Until when after its start a receiver changes settings, in milliseconds, on this machine: twice the time to
/// the first change, and more.
fn moments(before: &Snapshot) -> Result<u64, Failure> {
    let child = start()?;
    let first_change = wait_for_change(NIC, before)?;
    signal(&child, Signal::SIGKILL)?;
    wait(child)?;
    restore()?;
    Ok(u64::try_from(2 * first_change.as_millis() + 200)?)
}

pub(crate) fn after_sigkill_at_twenty_moments() -> Outcome {
    let before = settings(NIC)?;
    let moments = moments(&before)?;
    let mut changed = 0;
    let mut state = 20;
    for moment in 0..20 {
        let child = start()?;
        // However slow the machine is just now, half of the moments meet changes.
        if moment % 2 == 1 {
            wait_for_change(NIC, &before)?;
        }
        std::thread::sleep(Duration::from_millis(pseudo_random(&mut state, moments)));
        signal(&child, Signal::SIGKILL)?;
        wait(child)?;
        changed += usize::from(!before.diff(&settings(NIC)?).is_empty());
        restore()?;
        same_settings(NIC, &before)?;
    }
    ensure!(changed >= 10, "only {changed} of 20 moments found the NIC changed");
    Ok(())
}

pub(crate) fn the_next_receiver_restores_first() -> Outcome {
    let before = settings(NIC)?;
    let child = start()?;
    wait_for_change(NIC, &before)?;
    signal(&child, Signal::SIGKILL)?;
    wait(child)?;
    ensure!(!before.diff(&settings(NIC)?).is_empty(), "the kill restored the NIC");
    let output = run(&mut receive(&["--nic", NIC, "--listen", ADDRESS, "--size", "4M", "--timeout", "1"]))?;
    ensure!(text(&output).contains("nobody connected"), "{}", text(&output));
    same_settings(NIC, &before)
}

pub(crate) fn after_signals_that_can_be_caught() -> Outcome {
    let before = settings(NIC)?;
    let moments = moments(&before)?;
    let mut state = 7;
    for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // Once while the NIC is certainly changed, then at any moment: also in the midst of the changes and of
        // the bind, which go on in another thread than that which undoes them.
        for round in 0..5 {
            let child = start()?;
            if round == 0 {
                wait_for_change(NIC, &before)?;
            } else {
                std::thread::sleep(Duration::from_millis(pseudo_random(&mut state, moments)));
            }
            signal(&child, number)?;
            let output = wait(child)?;
            ensure!(output.status.signal() == Some(number as i32), "{number}: {}", text(&output));
            same_settings(NIC, &before)?;
        }
    }
    Ok(())
}
