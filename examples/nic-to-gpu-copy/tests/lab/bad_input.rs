//! Bad input and bad states: a clear error with a remedy, and the NIC and the memory as before.

use std::fs::Permissions;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ask_lab::{count_anew, wait_for_a_mebibyte};
use crate::faults::Undo;
use crate::guest::{
    ADDRESS, Failure, NIC, Outcome, receive, run, same_settings, settings, spawn, succeed, text, wait,
};
use crate::nic_changes::wait_for_change;
use crate::restore::signal;
use crate::{ensure, xdp};

/// The NIC that cannot split headers.
const NIC_WITHOUT_SPLIT: &str = "eth2";

/// The lab puts every NIC but the first into a network namespace of its own; fetches one into ours.
pub(crate) fn fetch_nic_without_split() -> Outcome {
    succeed(Command::new("in-peer2").args(["ip", "link", "set", NIC_WITHOUT_SPLIT, "netns", "1"]))?;
    // Linux answers ARP for any address on any interface unless it is told not to.
    std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1")?;
    succeed(Command::new("ip").args(["link", "set", NIC_WITHOUT_SPLIT, "up"]))?;
    Ok(())
}

/// Keeps something alive that is undone by its own drop.
fn keep(value: impl Sized + 'static) -> Undo {
    Undo::by(move || {
        let _ = &value;
    })
}

struct Row {
    name: &'static str,
    arguments: &'static [&'static str],
    /// What the error must say: the reason, and the remedy.
    says: &'static [&'static str],
    /// What is wrong with the machine, not with the arguments.
    state: fn() -> Result<Undo, Failure>,
    /// Who runs it.
    user: u32,
}

const fn row(name: &'static str, arguments: &'static [&'static str], says: &'static [&'static str]) -> Row {
    Row { name, arguments, says, state: || Ok(keep(())), user: 0 }
}

const NOBODY: u32 = 65534;
const UDMABUF_LIMIT: &str = "/sys/module/udmabuf/parameters/size_limit_mb";

const TABLE: &[Row] = &[
    row("unknown NIC", &["--nic", "eth9"], &["eth9"]),
    row("unknown PCI address", &["--nic", "0000:99:00.0"], &["0000:99:00.0"]),
    row("an address of nobody", &["--nic", "192.0.2.77"], &["192.0.2.77"]),
    row(
        "unknown provider",
        &["--provider", "voodoo"],
        &["voodoo", "this machine has udmabuf", "name a provider"],
    ),
    row("unknown heap", &["--provider", "dma-heap:cma"], &["dma-heap:cma", "this machine has"]),
    row("unknown provider to gather", &["--gather=voodoo"], &["voodoo", "this machine has udmabuf"]),
    row("no GPU to gather", &["--gather=amdgpu"], &["no DRM device"]),
    row("gather what is in no buffer", &["--gather", "--path", "host"], &["use --path devmem-tcp, zcrx"]),
    row("size not page-aligned", &["--size", "5000"], &["multiple of 4096", "ask for 4096 or 8192"]),
    row("size 0", &["--size", "0"], &["0 bytes", "ask for a multiple"]),
    // Kernels since 7.3 have no limit unless somebody sets one.
    Row {
        state: || {
            let before = std::fs::read_to_string(UDMABUF_LIMIT)?;
            std::fs::write(UDMABUF_LIMIT, "64")?;
            Ok(Undo::by(move || drop(std::fs::write(UDMABUF_LIMIT, &before))))
        },
        ..row("size beyond udmabuf's limit", &["--size", "65M"], &["67108864", "size_limit_mb"])
    },
    row("no GPU", &["--provider", "amdgpu"], &["no DRM device", "load the GPU's kernel driver"]),
    row(
        "size beyond the machine",
        &["--size", "1024G", "--provider", "dma-heap:system"],
        &["size of the whole heap", "ask for at most"],
    ),
    row("more queues than the NIC has", &["--queues", "100"], &["queue"]),
    row(
        "huge pages that nobody reserved",
        &["--pages", "huge", "--size", "4M"],
        &["huge pages", "nr_hugepages"],
    ),
    row(
        "device-local memory from udmabuf",
        &["--require", "device-local"],
        &["system", "drop the requirement"],
    ),
    row("output into nowhere", &["--output", "/nowhere/file"], &["/nowhere"]),
    row("header split refused", &["--nic", NIC_WITHOUT_SPLIT], &["header split", NIC_WITHOUT_SPLIT]),
    Row { user: NOBODY, ..row("no access to the node", &["--nic", NIC], &["/dev/udmabuf", "run as root"]) },
    Row {
        user: NOBODY,
        state: || {
            std::fs::set_permissions("/dev/udmabuf", Permissions::from_mode(0o666))?;
            Ok(Undo::by(|| drop(std::fs::set_permissions("/dev/udmabuf", Permissions::from_mode(0o600)))))
        },
        ..row("no privilege", &["--nic", NIC], &["CAP_NET_ADMIN"])
    },
    Row {
        state: || {
            let taken = TcpListener::bind(ADDRESS)?;
            Ok(keep(taken))
        },
        ..row("port in use", &[], &[ADDRESS, "another program", "choose another port"])
    },
    Row {
        state: || {
            let program = xdp::attach(NIC)?;
            Ok(keep(program))
        },
        ..row("XDP attached", &["--nic", NIC], &["XDP program is attached", "detach"])
    },
    Row {
        state: || {
            succeed(Command::new("ip").args(["link", "set", NIC, "down"]))?;
            Ok(Undo::by(|| up(NIC)))
        },
        ..row("interface down", &["--nic", NIC], &["the interface is down", "set it up"])
    },
];

fn up(nic: &str) {
    let _ = Command::new("ip").args(["link", "set", nic, "up"]).status();
    // Taking an interface down takes its IPv6 address away.
    let _ = Command::new("ip").args(["-6", "addr", "add", "fd77::1/64", "dev", nic, "nodad"]).status();
}

pub(crate) fn table() -> Outcome {
    let mut failures = Vec::new();
    for row in TABLE {
        if let Err(failure) = check(row) {
            failures.push(format!("{}: {failure}", row.name));
        }
    }
    ensure!(failures.is_empty(), "\n  {}", failures.join("\n  "));
    Ok(())
}

fn check(row: &Row) -> Outcome {
    let _undo = (row.state)()?;
    let nic = if row.arguments.contains(&NIC_WITHOUT_SPLIT) { NIC_WITHOUT_SPLIT } else { NIC };
    let before = settings(nic)?;
    let memory = shared_memory()?;
    let mut command = receive(&["--timeout", "2"]);
    for (option, value) in [("--listen", ADDRESS), ("--size", "1M")] {
        if !row.arguments.contains(&option) {
            command.args([option, value]);
        }
    }
    command.args(row.arguments).uid(row.user).gid(row.user);
    if row.user != 0 {
        // Only root may ask the lab, and keep a journal in /run.
        command.env_remove("DEVMEM_LAB_SOCKET").env("DEVMEM_STATE_DIR", state_directory(row.user)?);
    }
    let output = run(&mut command)?;
    let said = text(&output);
    ensure!(output.status.code() == Some(1), "exit {:?}: {said}", output.status);
    ensure!(output.stdout.is_empty(), "an error belongs on stderr: {said}");
    for expected in row.says {
        ensure!(said.contains(expected), "{expected:?} is not in: {said}");
    }
    ensure!(!said.contains("nobody connected"), "nothing was refused: {said}");
    same_settings(nic, &before)?;
    ensure!(shared_memory()? <= memory + 64, "memory was left behind: {said}");
    Ok(())
}

/// A folder of a user's own for locks and journals.
fn state_directory(user: u32) -> Result<&'static str, Failure> {
    let path = "/tmp/state";
    std::fs::create_dir_all(path)?;
    std::os::unix::fs::chown(path, Some(user), Some(user))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    Ok(path)
}

/// Memory of memfds and the like, in KiB.
fn shared_memory() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with("Shmem:")).ok_or("no Shmem")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

pub(crate) fn a_nic_in_use_names_its_user() -> Outcome {
    let before = settings(NIC)?;
    let first = spawn(&mut receive(&["--nic", NIC, "--listen", ADDRESS, "--size", "1M"]))?;
    wait_for_change(NIC, &before)?;
    let output = run(&mut receive(&["--nic", NIC, "--listen", "10.77.0.1:5301", "--size", "1M"]))?;
    let said = text(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains(&first.id().to_string()), "the holder {} is not in: {said}", first.id());
    signal(&first, Signal::SIGTERM)?;
    wait(first)?;
    same_settings(NIC, &before)
}

pub(crate) fn a_peer_that_disconnects_midway() -> Outcome {
    // Far more than can arrive in the time; a file without content takes no memory.
    disconnect_midway(4 << 30, &["--output", NEVER])
}

pub(crate) fn a_peer_that_disconnects_from_a_gathering_receiver() -> Outcome {
    // Room for it is made.
    disconnect_midway(256 << 20, &["--gather=dma-heap:system", "--output", NEVER])
}

/// An output that must not appear.
const NEVER: &str = "/tmp/never";

fn disconnect_midway(bytes: u64, arguments: &[&str]) -> Outcome {
    let before = settings(NIC)?;
    count_anew()?;
    let receiving = spawn(
        receive(&["--nic", NIC, "--listen", ADDRESS, "--size", "1M", "--timeout", "20"]).args(arguments),
    )?;
    let file = std::path::Path::new("/tmp/sparse");
    std::fs::File::create(file)?.set_len(bytes)?;
    let mut sender = spawn(&mut crate::guest::send(ADDRESS, file, &[]))?;
    wait_for_a_mebibyte("dmabuf_bytes", &mut sender)?;
    sender.kill()?;
    wait(sender)?;
    let received = wait(receiving)?;
    let said = text(&received);
    ensure!(received.status.code() == Some(1), "{said}");
    ensure!(said.contains("closed the connection after") || said.contains("connection is lost"), "{said}");
    ensure!(!std::path::Path::new(NEVER).exists(), "a file that never arrived was kept");
    let left: Vec<_> = std::fs::read_dir("/tmp")?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.contains("never"))
        .collect();
    ensure!(left.is_empty(), "{left:?} is left");
    same_settings(NIC, &before)
}

pub(crate) fn a_peer_that_speaks_something_else() -> Outcome {
    let before = settings(NIC)?;
    let receiving = spawn(&mut receive(&[
        "--path",
        "copy",
        "--listen",
        "127.0.0.1:5401",
        "--size",
        "1M",
        "--timeout",
        "5",
    ]))?;
    let mut peer = loop {
        match TcpStream::connect("127.0.0.1:5401") {
            Ok(peer) => break peer,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    peer.write_all(&[b'x'; 100])?;
    let output = wait(receiving)?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    ensure!(text(&output).contains("nic-to-gpu-copy send"), "{}", text(&output));
    same_settings(NIC, &before)
}

pub(crate) fn auto_says_why_it_copies() -> Outcome {
    let before = settings(NIC_WITHOUT_SPLIT)?;
    let receiving = spawn(&mut receive(&[
        "--path",
        "auto",
        "--nic",
        NIC_WITHOUT_SPLIT,
        "--listen",
        ADDRESS,
        "--size",
        "1M",
        "--json",
    ]))?;
    let file = crate::guest::file(1 << 20)?;
    succeed(&mut crate::guest::send(ADDRESS, &file, &[]))?;
    let output = wait(receiving)?;
    ensure!(output.status.success(), "{}", text(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(summary["path"] == "copy", "{summary}");
    let reason = summary["path_reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("header split"), "{summary}");
    same_settings(NIC_WITHOUT_SPLIT, &before)
}
