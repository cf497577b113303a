//! The manual pages and completions as the tools that read them see them.

// The helpers outside of #[test] functions are test code too.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_devmem-conformance");

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
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

/// The pages in a folder.
fn pages(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut pages: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages
}

#[test]
fn the_manual_pages_are_set_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    printed(&["man", "--out", folder.path().to_str().unwrap()]);
    let pages = pages(folder.path());
    assert!(pages.iter().any(|page| page.ends_with("devmem-conformance-run.1")), "{pages:?}");
    assert_eq!(
        printed(&["man"]),
        std::fs::read_to_string(folder.path().join("devmem-conformance.1")).unwrap()
    );
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let is_macro = |line: &&str| line.starts_with(".TH ");
        assert_eq!(text.lines().filter(is_macro).count(), 1, "{}: it must have one title", page.display());
        let groff = tool(Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page));
        if let Some(output) = groff {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        }
        if let Some(output) = tool(Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&page)) {
            assert!(output.status.success(), "{}: {output:?}", page.display());
        }
    }
}

#[test]
fn a_reader_finds_exit_status_files_and_examples() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("devmem-conformance.1");
    std::fs::write(&page, printed(&["man"])).unwrap();
    let Some(output) = tool(Command::new("groff").args(["-man", "-Tascii", "-P-cbou"]).arg(&page)) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let headings: Vec<&str> =
        text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase())).collect();
    for heading in
        ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS", "EXIT STATUS", "FILES", "EXAMPLES"]
    {
        assert!(headings.contains(&heading), "{heading}: {headings:?}");
    }
    assert!(text.contains("devmem-conformance restore eth1"), "{text}");
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("devmem-conformance");
    std::fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let Some(output) = tool(Command::new("bash").arg("-n").arg(&script)) else { return };
    assert!(output.status.success(), "{output:?}");
    for (typed, expected) in
        [("devmem-conformance re", "restore"), ("devmem-conformance run --peer-n", "--peer-namespace")]
    {
        let words: Vec<&str> = typed.split(' ').collect();
        let lines = format!(
            "source {}; COMP_WORDS=({typed}); COMP_CWORD={}; registered=$(complete -p devmem-conformance); \
             function=${{registered#*-F }}; ${{function%% *}} devmem-conformance {} {}; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let output = Command::new("bash").args(["--norc", "-c", &lines]).output().unwrap();
        let offered = String::from_utf8_lossy(&output.stdout);
        assert!(offered.lines().any(|line| line == expected), "{typed}: {output:?}");
    }
}

#[test]
fn every_shell_gets_a_script_with_every_command() {
    let help = printed(&["completions", "--help"]);
    let listed = help.split("[possible values: ").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    for shell in listed.split(", ") {
        let script = printed(&["completions", shell]);
        for command in ["run", "restore", "doctor", "man"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
