//! What goes wrong is told, on both sides, and nothing is left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use crate::ask_lab::{ask_lab, count_anew, wait_for_a_mebibyte};
use crate::ensure;
use crate::guest::{ADDRESS, Failure, Outcome, copy, file, receive, run, send, spawn, text, wait};

const RDMA: [&str; 2] = ["--path", "rdma"];

fn receiver(options: &[&str]) -> Command {
    let mut command = receive(&["--listen", ADDRESS, "--json", "--timeout", "20"]);
    command.args(options);
    command
}

fn sender(file: &Path, options: &[&str]) -> Command {
    send(ADDRESS, file, options)
}

/// A command fails, and says all of this.
fn fails(output: &Output, words: &[&str]) -> Outcome {
    let said = text(output);
    ensure!(!output.status.success(), "{said}");
    for words in words {
        ensure!(said.contains(words), "it does not say {words:?}: {said}");
    }
    Ok(())
}

/// After whatever went wrong, no device has a region any more, and a file can be copied.
fn still_works() -> Outcome {
    for device in 0..2 {
        let answer = ask_lab(&json!({ "op": "rdma_regions", "rdma": device }))?;
        ensure!(answer["regions"].as_array().is_some_and(Vec::is_empty), "{answer}");
    }
    let options = ["--path", "rdma", "--provider", "amdgpu", "--size", "4M", "--require", "device-local"];
    let summary = copy(1 << 20, &options, &RDMA)?;
    ensure!(summary["sha256_match"] == true, "{summary}");
    Ok(())
}

pub(crate) fn devices_without_rdma() -> Outcome {
    let sent = run(&mut sender(&file(1000)?, &["--path", "rdma", "--rdma", "efa_2"]))?;
    fails(&sent, &["efa_2", "does not write to peers' memory", "over TCP"])?;
    let received = run(&mut receiver(&["--path", "rdma", "--rdma", "efa_2"]))?;
    fails(&received, &["efa_2", "the device does not offer this access"])
}

pub(crate) fn devices_that_are_not_there() -> Outcome {
    for mut command in [
        receiver(&["--path", "rdma", "--rdma", "mlx5_7"]),
        sender(&file(1000)?, &["--path", "rdma", "--rdma", "mlx5_7"]),
    ] {
        fails(&run(&mut command)?, &["mlx5_7", "there are efa_0 at"])?;
    }
    Ok(())
}

pub(crate) fn libraries_that_are_not_there() -> Outcome {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libibverbs.so.1";
    let hidden = format!("{LIBRARY}.hidden");
    std::fs::rename(LIBRARY, &hidden)?;
    let outcomes = [run(&mut receiver(&RDMA)), run(&mut sender(&file(1000)?, &RDMA))];
    std::fs::rename(&hidden, LIBRARY)?;
    for output in outcomes {
        fails(&output?, &["libibverbs.so.1", "install", "ibverbs-providers"])?;
    }
    still_works()
}

pub(crate) fn peers_of_another_path() -> Outcome {
    for (one, other) in [(&RDMA[..], &[][..]), (&["--path", "copy"][..], &RDMA[..])] {
        let receiving = spawn(&mut receiver(one))?;
        // What TCP has taken may be all that a sender over TCP has.
        let sent = run(&mut sender(&file(100_000)?, other))?;
        fails(&wait(receiving)?, &["the peer does not speak this"])?;
        if other == RDMA {
            fails(&sent, &["the peer closed the connection without an offer"])?;
        }
    }
    Ok(())
}

pub(crate) fn buffers_that_are_too_small() -> Outcome {
    let receiving = spawn(&mut receiver(&["--path", "rdma", "--size", "16K"]))?;
    let sent = run(&mut sender(&file(100_000)?, &["--path", "rdma", "--connections", "3"]))?;
    fails(&wait(receiving)?, &["cannot divide a buffer of 16384 bytes among 3 connections"])?;
    fails(&sent, &["tells the reason on its side"])?;
    still_works()
}

/// A file that takes longer to send than the test runs.
fn endless() -> Result<PathBuf, Failure> {
    let path = PathBuf::from("/tmp/endless");
    std::fs::File::create(&path)?.set_len(64 << 30)?;
    Ok(path)
}

pub(crate) fn senders_that_die() -> Outcome {
    let options = ["--provider", "amdgpu", "--size", "4M", "--require", "device-local"];
    count_anew()?;
    let receiving = spawn(&mut receiver(&[&RDMA[..], &options].concat()))?;
    // Not through `in-peer`, which a kill would leave the sender of.
    let address = ["send", "--connect", ADDRESS, "--wait", "60"];
    let mut command = Command::new(crate::guest::TOOL);
    let mut sending = spawn(command.args(address).args(RDMA).arg(endless()?))?;
    wait_for_a_mebibyte("device_window_bytes", &mut sending)?;
    sending.kill()?;
    sending.wait()?;
    let received = wait(receiving)?;
    let said = text(&received);
    ensure!(!received.status.success(), "{said}");
    ensure!(said.contains("closed the connection after") || said.contains("connection is lost"), "{said}");
    still_works()
}

pub(crate) fn receivers_that_die() -> Outcome {
    let options = ["--provider", "amdgpu", "--size", "4M", "--require", "device-local"];
    count_anew()?;
    let mut receiving = spawn(&mut receiver(&[&RDMA[..], &options].concat()))?;
    let mut sending = spawn(&mut sender(&endless()?, &RDMA))?;
    wait_for_a_mebibyte("device_window_bytes", &mut sending)?;
    receiving.kill()?;
    receiving.wait()?;
    let sent = wait(sending)?;
    let said = text(&sent);
    ensure!(!sent.status.success(), "{said}");
    // Whichever is noticed first: the end of the connection, or that the writes go nowhere.
    ensure!(said.contains("gave up") || said.contains("write into the receiver's buffer"), "{said}");
    still_works()
}
