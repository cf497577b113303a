//! The script that keeps reports and tells what changed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use devmem_conformance::Verdict;
use devmem_conformance::report::json;

use crate::{PROGRAM, setups, told};

/// A run that leaves a report in which the first check has this verdict, and ends with this status.
fn run(folder: &Path, verdict: Verdict, status: i32, settings: &[(&str, &str)]) -> Output {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/example.json");
    let mut reports = json::read(&fs::read_to_string(example).unwrap()).unwrap();
    reports[0].entries[0].verdict = verdict;
    let report = folder.join("to-be-left.json");
    fs::write(&report, json::write(&reports)).unwrap();
    // The arguments are the file, the status, `--out` and the folder.
    let command = ["bash", "-c", "cp \"$0\" \"$3/report.json\"; exit \"$1\""];
    start(folder, settings).args(command).arg(report).arg(status.to_string()).output().unwrap()
}

fn start(folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(setups().join("run-and-compare"));
    command.arg(folder).env("COMPARE", format!("{PROGRAM} compare")).envs(settings.iter().copied());
    command
}

fn runs(folder: &Path) -> usize {
    let is_run = |name: &str| name.starts_with("run-");
    folder
        .read_dir()
        .unwrap()
        .filter(|entry| is_run(entry.as_ref().unwrap().file_name().to_str().unwrap()))
        .count()
}

#[test]
fn what_changed_is_told_and_decides() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let latest = |file: &str| fs::read_to_string(folder.join("latest").join(file));

    let output = run(folder, Verdict::Pass, 0, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(latest("report.json").is_ok() && latest("changes.txt").is_err());

    let output = run(folder, Verdict::Pass, 0, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains("nothing changed"), "{}", told(&output));

    // Something that held no longer does.
    let output = run(folder, Verdict::Fail, 1, &[("JUDGE", "changes")]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(latest("changes.txt").unwrap().contains("pass -> fail"), "{}", told(&output));

    // It fails as before.
    let output = run(folder, Verdict::Fail, 1, &[("JUDGE", "changes")]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let output = run(folder, Verdict::Fail, 1, &[("KEEP", "2")]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(runs(folder), 2);
    assert!(latest("report.json").is_ok());

    // A run that leaves no report does not pass for the one before.
    for (script, status) in [("exit 3", 3), ("exit 0", 2)] {
        let output = start(folder, &[("JUDGE", "changes")]).args(["bash", "-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", told(&output));
        assert!(latest("report.json").is_err());
        assert_eq!(runs(folder), 2);
    }
}

#[test]
fn reports_that_cannot_be_compared_are_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(run(folder, Verdict::Pass, 0, &[]).status.success());
    let report = folder.join("latest/report.json");
    fs::write(report, "{").unwrap();
    let output = run(folder, Verdict::Pass, 0, &[("JUDGE", "changes")]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
}
