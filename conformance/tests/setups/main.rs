//! The set-ups for CI machines: their scripts, services and jobs, looked at with the tools that read them, and used in the
//! lab.

// The helpers outside of #[test] functions are test code too.
#![allow(clippy::unwrap_used)]

mod lab;
mod run_and_compare;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_devmem-conformance");

fn setups() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("setups")
}

/// Every file of the set-ups.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![setups()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn with_extension(extension: &str) -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// The files without an extension, which are scripts.
fn scripts() -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_none()).collect()
}

/// Runs a tool of this machine; `None`, with a word about it, if the machine does not have it.
fn tool(command: &mut Command) -> Option<Output> {
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {} is not installed", command.get_program().display());
            None
        }
        result => Some(result.unwrap()),
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn scripts_are_scripts() {
    let scripts = scripts();
    assert!(scripts.len() >= 2, "{scripts:?}");
    for script in scripts {
        let mode = script.metadata().unwrap().permissions().mode();
        assert!(mode & 0o111 == 0o111, "{} cannot be executed", script.display());
        if let Some(output) = tool(Command::new("bash").arg("-n").arg(&script)) {
            assert!(output.status.success(), "{}", told(&output));
        }
        if let Some(output) = tool(Command::new("shellcheck").arg(&script)) {
            assert!(output.status.success(), "{}", told(&output));
        }
    }
}

/// With everything that the README installs in its place, below a folder of its own.
#[test]
fn services_are_understood() {
    for setup in ["one-machine", "two-machines"] {
        let root = tempfile::tempdir().unwrap();
        let units = root.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        let mut names = Vec::new();
        for unit in with_extension("service") {
            if unit.parent().unwrap().ends_with(setup) {
                let name = unit.file_name().unwrap().to_owned();
                fs::copy(&unit, units.join(&name)).unwrap();
                names.push(name);
            }
        }
        assert!(names.len() == 2, "{names:?}");
        for target in ["sysinit", "basic", "shutdown", "network-pre", "network-online", "multi-user"] {
            fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=of the system\n").unwrap();
        }
        let programs = [
            "bin/devmem-conformance",
            "libexec/devmem-conformance/peer-namespace",
            "libexec/devmem-conformance/run-and-compare",
        ];
        for program in programs {
            let path = root.path().join("usr/local").join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy("/bin/true", path).unwrap();
        }
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=one", "--root"]).arg(root.path()).args(names);
        let Some(output) = tool(&mut verify) else { return };
        assert!(output.status.success() && told(&output).is_empty(), "{setup}: {}", told(&output));
    }
}

/// What a service or a job takes from a file is in that file, and what the README tells to install is there.
#[test]
fn readmes_name_every_file_and_no_other() {
    for folder in ["one-machine", "two-machines", "lab"] {
        let folder = setups().join(folder);
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        for path in files().into_iter().filter(|path| path.parent() == Some(&folder)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                name == "README.md" || readme.contains(&format!("]({name})")),
                "{}: {name}",
                folder.display()
            );
        }
        for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(folder.join(link).exists(), "{}: {link}", folder.display());
        }
    }
}

#[test]
fn rules_of_sudo_are_understood() {
    let rules = with_extension("sudoers");
    assert_eq!(rules.len(), 2, "{rules:?}");
    for rule in rules {
        let Some(output) = tool(Command::new("visudo").arg("-cf").arg(&rule)) else { return };
        assert!(output.status.success(), "{}", told(&output));
    }
}

#[test]
fn jobs_are_yaml() {
    let jobs = with_extension("yml");
    assert_eq!(jobs.len(), 6, "{jobs:?}");
    for job in jobs {
        let read = "import sys\ntry:\n import yaml\nexcept ImportError:\n sys.exit(77)\nyaml.safe_load(open(sys.argv[1]))";
        let Some(output) = tool(Command::new("python3").args(["-c", read]).arg(&job)) else { return };
        if output.status.code() == Some(77) {
            println!("skipped: this Python has no module yaml");
            return;
        }
        assert!(output.status.success(), "{}: {}", job.display(), told(&output));
    }
}

/// Every variable that a unit takes from its environment file is set there.
#[test]
fn environment_files_set_what_services_take() {
    for unit in with_extension("service") {
        let text = fs::read_to_string(&unit).unwrap();
        let Some(file) = text.lines().find_map(|line| line.strip_prefix("EnvironmentFile=")) else {
            continue;
        };
        let file = unit.with_file_name(Path::new(file).file_name().unwrap());
        let set = fs::read_to_string(file).unwrap();
        let commands: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let commands = commands.join("\n");
        let taken = commands.split('$').skip(1).map(|rest| {
            let rest = rest.trim_start_matches('{');
            rest.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_').next().unwrap()
        });
        for name in taken.filter(|&name| name != "STATE_DIRECTORY") {
            assert!(
                set.lines().any(|line| line.starts_with(&format!("{name}="))),
                "{}: {name}",
                unit.display()
            );
        }
    }
}

/// Every command of this program that a file has is one, with options that it has.
#[test]
fn commands_of_this_program_have_their_options() {
    let help = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).arg("--help").output().unwrap();
    let mut seen = BTreeSet::new();
    for path in files() {
        let text = fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            for typed in line.split("devmem-conformance ").skip(1) {
                let mut words =
                    typed.split_whitespace().map(|word| word.trim_matches(|c| "`)\"'};".contains(c)));
                let Some(command) =
                    words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()))
                else {
                    continue;
                };
                let output = help(&[command]);
                // In prose, other words follow the program's name.
                if !output.status.success() && path.ends_with("README.md") {
                    continue;
                }
                assert!(output.status.success(), "{}: {typed}: {}", path.display(), told(&output));
                seen.insert(command.to_owned());
                let help_text = told(&output);
                for option in words.filter(|word| word.starts_with("--")) {
                    assert!(
                        help_text.contains(&format!("{option} ")),
                        "{}: {command} has no {option}",
                        path.display()
                    );
                }
            }
        }
    }
    for command in ["run", "restore", "compare", "doctor", "peer"] {
        assert!(seen.contains(command), "{command} is in no set-up: {seen:?}");
    }
}
