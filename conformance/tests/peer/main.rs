//! Runs whose peer is another machine: `devmem-conformance peer` in the namespace of the second NIC; and what becomes of
//! impairments when somebody is killed.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use devmem_provider::ErrorKind;
use devmem_receive::netlink::{Route, TrafficControl};
use devmem_receive::nic::{self, Nic};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What is tried.
type Test = fn() -> Outcome;

const PROGRAM: &str = "/usr/bin/devmem-conformance";
const NAMESPACE: &str = "/run/netns/peer";
const ADDRESS: &str = "10.77.0.2:5300";
const ROOT: u32 = 0;
const NOBODY: u32 = 65534;

/// The keys in words, so that they are found in what is printed.
const KEY: &str = "a key that nobody may see printed anywhere";
const ANOTHER_KEY: &str = "another key, that is of no use with the first";

/// Longer than anything takes that nobody holds up.
const PATIENCE: Duration = Duration::from_secs(60);

type Outcome = Result<(), Failed>;

fn ensure(holds: bool, what: impl std::fmt::Debug) -> Outcome {
    if holds { Ok(()) } else { Err(format!("{what:?}").into()) }
}

/// Does something in the network namespace of the second NIC.
fn in_the_namespace<T: Send>(work: impl FnOnce() -> Result<T, Failed> + Send) -> Result<T, Failed> {
    let thread = || {
        setns(File::open(NAMESPACE)?, CloneFlags::CLONE_NEWNET)?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap_or_else(|_| Err("a thread failed".into())))
}

/// A file with a key, which this user can read.
fn key(content: &str, user: u32) -> Result<String, Failed> {
    let path = format!("/tmp/key-{user}-{}", content.len());
    fs::write(&path, content)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    chown(&path, Some(user), Some(user))?;
    Ok(path)
}

/// A peer that listens. It is told to end when it is dropped.
struct Peer {
    child: Child,
    lines: Receiver<String>,
    told: Vec<String>,
}

impl Peer {
    fn start(user: u32, options: &[&str]) -> Result<Self, Failed> {
        let key = key(KEY, user)?;
        let mut child = in_the_namespace(|| {
            let mut command = Command::new(PROGRAM);
            command.args(["peer", "--listen", ADDRESS, "--key", &key]).args(options);
            Ok(command.uid(user).gid(user).stderr(Stdio::piped()).spawn()?)
        })?;
        let (tell, lines) = channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    println!("peer: {line}");
                    // A test that has failed listens no more.
                    let _ = tell.send(line);
                }
            });
        }
        let mut peer = Self { child, lines, told: Vec::new() };
        peer.says(&format!("listening on {ADDRESS}"))?;
        Ok(peer)
    }

    /// Waits for a line that has this in it.
    fn says(&mut self, part: &str) -> Outcome {
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).map_err(|_| format!("the peer does not say {part:?}"))?;
            let is_it = line.contains(part);
            self.told.push(line);
            if is_it {
                return Ok(());
            }
        }
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A run of these checks with the peer.
fn checks(key: &str, filters: &[&str]) -> Command {
    let mut command = run(filters);
    command.args(["--peer", ADDRESS, "--key", key]);
    command
}

fn run(filters: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--provider", "udmabuf", "--nic", "eth0", "--format", "json"]);
    // A peer sends the same to every receive path.
    command.args(["--path", "devmem-tcp"]);
    for filter in filters {
        command.args(["--filter", filter]);
    }
    command
}

/// The verdict of each check, with its reason and remedy.
fn verdicts(output: &Output) -> Result<Vec<(String, String, String)>, Failed> {
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    ensure(!printed.contains(KEY) && !told.contains(KEY), "the key is in the output")?;
    let report: Value =
        serde_json::from_str(&printed).map_err(|error| format!("{error}: {printed}{told}"))?;
    let mut entries = Vec::new();
    collect(&report, &mut entries);
    Ok(entries)
}

/// The entries of a report, wherever it has them.
fn collect(value: &Value, entries: &mut Vec<(String, String, String)>) {
    match value {
        Value::Object(object) if object.contains_key("verdict") => {
            let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            entries.push((text("check"), text("verdict"), format!("{} {}", text("reason"), text("remedy"))));
        }
        Value::Object(object) => object.values().for_each(|value| collect(value, entries)),
        Value::Array(array) => array.iter().for_each(|value| collect(value, entries)),
        _ => {}
    }
}

fn checks_pass_with_a_peer_of_another_machine() -> Outcome {
    let mut peer = Peer::start(ROOT, &["--to", "fd77::1"])?;
    let filters = [
        "pin::one_buffer",
        "receive::one_mebibyte",
        "receive::both_directions",
        "receive::reset_is_an_error",
        "receive::at_the_same_time",
        "receive::ipv6",
        "receive::lost_packets",
        "receive::reordered_packets",
        "receive::duplicated_packets",
    ];
    let output = checks(&key(KEY, ROOT)?, &filters).output()?;
    let verdicts = verdicts(&output)?;
    println!("{verdicts:#?}");
    ensure(verdicts.len() == filters.len(), &verdicts)?;
    ensure(verdicts.iter().all(|(_, verdict, _)| verdict == "pass"), &verdicts)?;
    peer.says("session")?;
    ensure(!peer.told.concat().contains(KEY), "the peer prints its key")
}

/// It needs no privilege, and says what it cannot do without.
fn without_privilege_the_peer_impairs_nothing_and_sends_all_the_same() -> Outcome {
    let _peer = Peer::start(NOBODY, &[])?;
    let filters = ["pin::one_buffer", "receive::one_mebibyte", "receive::ipv6", "receive::lost_packets"];
    let output = checks(&key(KEY, ROOT)?, &filters).output()?;
    let verdicts = verdicts(&output)?;
    println!("{verdicts:#?}");
    let of = |name: &str| verdicts.iter().find(|(check, ..)| check == name);
    let is = |name: &str, wanted: &str, because: &str| {
        let found = of(name).is_some_and(|(_, verdict, why)| verdict == wanted && why.contains(because));
        ensure(found, of(name))
    };
    is("receive::one_mebibyte", "pass", "")?;
    is("receive::lost_packets", "skip", "CAP_NET_ADMIN")?;
    is("receive::ipv6", "skip", "--to")
}

fn another_key_ends_the_run_before_any_check() -> Outcome {
    let mut peer = Peer::start(ROOT, &[])?;
    let output = checks(&key(ANOTHER_KEY, ROOT)?, &["receive::one_mebibyte"]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(2) && told.contains("another key"), &told)?;
    peer.says("refused: it has another key")?;
    let readable = key(KEY, ROOT)?;
    fs::set_permissions(&readable, Permissions::from_mode(0o644))?;
    let output = checks(&readable, &["receive::one_mebibyte"]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(2) && told.contains("chmod 600"), &told)
}

fn a_peer_that_is_told_to_end_ends_well() -> Outcome {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut peer = Peer::start(ROOT, &[])?;
        peer.signal(signal)?;
        let status = peer.child.wait()?;
        ensure(status.success(), (signal, status))?;
    }
    Ok(())
}

/// What the peer's device does with packets.
fn discipline() -> Result<Option<String>, Failed> {
    in_the_namespace(|| {
        let ifindex = Route::open()?.link_by_name("eth1")?.ifindex;
        Ok(TrafficControl::open()?.of_device(ifindex)?.map(|found| found.kind))
    })
}

fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool, Failed>) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure(Instant::now() < deadline, what)?;
    }
    Ok(())
}

/// Kills a run in the middle of an impairment, which must be lifted.
fn lifted_after(run: &mut Command, end: impl FnOnce(&Child) -> Outcome) -> Outcome {
    let before = discipline()?;
    let settings = Nic::open("eth0")?.snapshot()?;
    let mut child = run.stdout(Stdio::null()).spawn()?;
    let impaired = wait_for("nothing was impaired", || Ok(discipline()?.as_deref() == Some("netem")));
    end(&child)?;
    impaired?;
    wait_for("it is impaired for ever", || Ok(discipline()? == before))?;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL)?;
    child.wait()?;
    // Once the processes of the run are gone.
    wait_for("the NIC is in use", || match nic::restore("eth0") {
        Err(error) if error.kind() == ErrorKind::Busy => Ok(false),
        restored => Ok(restored.map(|_| true)?),
    })?;
    let differences = settings.diff(&Nic::open("eth0")?.snapshot()?);
    ensure(differences.is_empty(), differences)
}

fn sigkill(child: &Child) -> Outcome {
    Ok(kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL)?)
}

fn an_impairment_is_lifted_when_the_run_is_killed() -> Outcome {
    let mut run = run(&["pin::one_buffer", "receive::one_mebibyte", "receive::lost_packets"]);
    lifted_after(run.args(["--peer-namespace", NAMESPACE]), sigkill)
}

/// The check itself, whose process group is killed as that of a check that hangs.
fn an_impairment_is_lifted_when_the_check_is_killed() -> Outcome {
    let mut run = run(&["receive::reordered_packets"]);
    lifted_after(run.args(["--peer-namespace", NAMESPACE]), |child| {
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        let checks = fs::read_to_string(path)?;
        for check in checks.split_whitespace() {
            nix::sys::signal::killpg(Pid::from_raw(check.parse()?), Signal::SIGKILL)?;
        }
        ensure(!checks.is_empty(), "the check has ended before it could be killed")
    })
}

fn an_impairment_of_another_machine_is_lifted_when_the_run_is_killed() -> Outcome {
    let _peer = Peer::start(ROOT, &[])?;
    lifted_after(&mut checks(&key(KEY, ROOT)?, &["receive::lost_packets"]), sigkill)
}

fn an_impairment_is_lifted_when_the_peer_is_told_to_end() -> Outcome {
    let peer = Peer::start(ROOT, &[])?;
    lifted_after(&mut checks(&key(KEY, ROOT)?, &["receive::reordered_packets"]), |_| {
        peer.signal(Signal::SIGTERM)
    })
}

/// What a peer has left that was killed, the next one takes away.
fn what_a_killed_peer_has_left_is_taken_away() -> Outcome {
    let peer = Peer::start(ROOT, &[])?;
    let before = discipline()?;
    let mut child = checks(&key(KEY, ROOT)?, &["receive::lost_packets"]).stdout(Stdio::null()).spawn()?;
    wait_for("nothing was impaired", || Ok(discipline()?.as_deref() == Some("netem")))?;
    peer.signal(Signal::SIGKILL)?;
    child.wait()?;
    drop(peer);
    ensure(discipline()?.as_deref() == Some("netem"), "the peer was killed too late")?;
    let _peer = Peer::start(ROOT, &[])?;
    let output = checks(&key(KEY, ROOT)?, &["receive::duplicated_packets"]).output()?;
    let verdicts = verdicts(&output)?;
    ensure(verdicts.iter().all(|(_, verdict, _)| verdict == "pass"), &verdicts)?;
    ensure(discipline()? == before, "it is impaired still")
}

fn main() -> ExitCode {
    let machine = devmem_lab::test_program()
        .nic("gve:queues=4")
        .nic("gve:queues=4")
        // Impairs what the peer sends.
        .module("sch_netem")
        .file(env!("CARGO_BIN_EXE_devmem-conformance"), PROGRAM);
    machine.main(|| {
        let mut arguments = Arguments::from_args();
        // All tests share the NICs.
        arguments.test_threads = Some(1);
        let trials: [(&str, Test); 9] = [
            ("checks_pass_with_a_peer_of_another_machine", checks_pass_with_a_peer_of_another_machine),
            (
                "without_privilege_the_peer_impairs_nothing_and_sends_all_the_same",
                without_privilege_the_peer_impairs_nothing_and_sends_all_the_same,
            ),
            ("another_key_ends_the_run_before_any_check", another_key_ends_the_run_before_any_check),
            ("a_peer_that_is_told_to_end_ends_well", a_peer_that_is_told_to_end_ends_well),
            (
                "an_impairment_is_lifted_when_the_run_is_killed",
                an_impairment_is_lifted_when_the_run_is_killed,
            ),
            (
                "an_impairment_is_lifted_when_the_check_is_killed",
                an_impairment_is_lifted_when_the_check_is_killed,
            ),
            (
                "an_impairment_of_another_machine_is_lifted_when_the_run_is_killed",
                an_impairment_of_another_machine_is_lifted_when_the_run_is_killed,
            ),
            (
                "an_impairment_is_lifted_when_the_peer_is_told_to_end",
                an_impairment_is_lifted_when_the_peer_is_told_to_end,
            ),
            ("what_a_killed_peer_has_left_is_taken_away", what_a_killed_peer_has_left_is_taken_away),
        ];
        let trials = trials.map(|(name, test)| Trial::test(name, test));
        libtest_mimic::run(&arguments, trials.into()).exit_code()
    })
}
