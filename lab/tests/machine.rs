//! Boots machines and looks at how runs end.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use devmem_lab::{Ending, Exit, KERNEL_FAILURE, LAB_FAILURE, Machine, TIMED_OUT};

fn machine(script: &str) -> Machine {
    Machine::new().command(["sh", "-c", script])
}

#[test]
fn a_command_of_the_host_gets_files_and_gives_some_back() {
    let folder = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let file = folder.path().join("data.bin");
    fs::write(&file, &data).unwrap();
    fs::create_dir(folder.path().join("more")).unwrap();
    fs::write(folder.path().join("more/inside"), "inside").unwrap();
    let script = folder.path().join("script");
    let text = "#!/bin/sh\nset -e\ncat data.bin > copy.bin\ncat /opt/more/inside \"$1\"\necho $WORD >&2\npwd\nexit 7\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let target = folder.path().join("back.bin");

    let outcome = Machine::new()
        .file(&file, "")
        .file(&folder.path().join("more"), "/opt/")
        .bring_back("copy.bin")
        .bring_back_to("/root/data.bin", &target)
        .bring_back("absent")
        .environment("WORD", "several words")
        .command([script.to_str().unwrap(), "/etc/hostname"])
        .run()
        .unwrap();
    assert_eq!(outcome.ending, Ending::Exited(Exit::Code(7)), "{}", outcome.report());
    assert_eq!(outcome.stdout_text(), "insidedevmem-lab\n/root\n");
    assert_eq!(outcome.stderr_text(), "several words\n");
    assert!(outcome.files["copy.bin"] == data, "{} bytes came back", outcome.files["copy.bin"].len());
    assert!(fs::read(&target).unwrap() == data);
    assert_eq!(outcome.missing_files.len(), 1, "{:?}", outcome.missing_files);
    assert!(outcome.missing_files[0].contains("absent"));
    assert_eq!(outcome.exit_code(), 7);
}

#[test]
fn two_cards_reach_each_other_and_questions_are_answered() {
    let script = "set -e
        ping -c 2 -w 5 10.77.0.2
        in-peer ping -c 2 -w 5 fd77::1
        in-peer ls /sys/class/net
        ip -brief link show eth0
        lab-ask '{\"op\":\"no such thing\"}' || true";
    let outcome = machine(script).nic("gve").nic("gve:queues=2").run().unwrap();
    assert!(outcome.is_success(), "{}", outcome.report());
    let output = outcome.stdout_text();
    assert_eq!(output.matches("2 packets transmitted, 2 packets received").count(), 2, "{output}");
    assert!(output.contains("eth1\nlo\n") && output.contains("LOWER_UP"), "{output}");
    assert!(output.contains("\"error\""), "{output}");
    let log = outcome.kernel_log.text();
    assert!(log.contains("gve 0000:00:10.0") && log.contains("gve 0000:00:11.0"), "{log}");
}

#[test]
fn a_warning_of_the_kernel_is_a_failure_unless_it_is_allowed() {
    let script = "echo '<4>WARNING: drivers/net/example.c:7 at example+0x1/0x2' > /dev/kmsg; echo done";
    let outcome = machine(script).run().unwrap();
    assert_eq!(outcome.ending, Ending::Exited(Exit::Code(0)), "{}", outcome.report());
    assert_eq!(outcome.stdout_text(), "done\n");
    assert_eq!(outcome.exit_code(), KERNEL_FAILURE);
    assert!(outcome.trouble().unwrap().contains("drivers/net/example.c:7"));

    let allowed = machine(script).allow_warning("drivers/net/example.c").run().unwrap();
    assert!(allowed.is_success(), "{}", allowed.report());
}

#[test]
fn a_panic_ends_the_run_with_its_trace() {
    let outcome = machine("echo before; echo c > /proc/sysrq-trigger; sleep 100").run().unwrap();
    assert_eq!(outcome.ending, Ending::KernelDied, "{}", outcome.report());
    assert_eq!(outcome.exit_code(), KERNEL_FAILURE);
    assert!(outcome.findings.iter().any(|finding| finding.is_fatal && finding.excerpt.contains("sysrq")));
    assert!(outcome.duration < Duration::from_secs(100), "{:?}", outcome.duration);
}

#[test]
fn a_command_that_never_ends_is_ended() {
    let outcome = machine("while :; do echo more; done").timeout(Duration::from_secs(20)).run().unwrap();
    assert_eq!(outcome.ending, Ending::TimedOut(Duration::from_secs(20)), "{}", outcome.report());
    assert_eq!(outcome.exit_code(), TIMED_OUT);
    assert!(outcome.trouble().unwrap().contains("longer than 20 s"));
    assert!(outcome.stdout.starts_with(b"more\n"));
}

#[test]
fn a_command_that_does_not_exist_is_told() {
    let outcome = Machine::new().command(["no-such-command"]).run().unwrap();
    assert!(matches!(outcome.ending, Ending::NotStarted(_)), "{}", outcome.report());
    assert_eq!(outcome.exit_code(), LAB_FAILURE);
    assert!(outcome.trouble().unwrap().contains("cannot start no-such-command"), "{}", outcome.report());
}

#[test]
fn the_program_passes_streams_and_the_exit_code_on() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_devmem-lab"))
        .args(["run", "--no-nic", "--", "sh", "-c", "cat; echo to stderr >&2; exit 42"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    let mut stdin = child.stdin.take().unwrap();
    let written = input.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &written));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    assert!(output.stderr.ends_with(b"to stderr\n"), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(42));
}

#[test]
fn mistakes_are_told_before_anything_is_started() {
    for (machine, words) in [
        (machine("true").nic("e1000"), "--nic e1000"),
        (machine("true").rdma("mlx5"), "--rdma mlx5"),
        (machine("true").switch("drop=2"), "--switch drop=2"),
        (machine("true").kernel("seven"), "neither a version"),
        (machine("true").memory(3 << 20), "at least"),
        (machine("true").memory((1 << 30) + 1), "multiple of 1 MiB"),
        (machine("true").module("no_such_module"), "no_such_module"),
        (machine("true").file(Path::new("/no/such/file"), ""), "/no/such/file"),
        (Machine::new(), "COMMAND"),
    ] {
        let error = machine.run().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
