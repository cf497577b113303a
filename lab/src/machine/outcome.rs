//! How a run ended.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::kernel_log::{Finding, KernelLog};
use crate::protocol::message::Exit;

/// The exit code for a run in which the kernel found a fault in itself or the lab found a misuse of the
/// hardware, whatever the command's own exit code was.
pub const KERNEL_FAILURE: i32 = 123;

/// The exit code for a run that took too long, as `timeout` has it.
pub const TIMED_OUT: i32 = 124;

/// The exit code for a machine that could not run the command.
pub const LAB_FAILURE: i32 = 125;

/// What ended the run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The command ended.
    Exited(Exit),
    /// The time was over.
    TimedOut(Duration),
    /// The kernel died, or said that it can no longer be relied on.
    KernelDied,
    /// The guest could not be set up, or the command not be started, for this reason.
    NotStarted(String),
    /// The machine stopped; the text tells what is known.
    Stopped(String),
}

/// How a run ended and what it left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// What ended it.
    pub ending: Ending,
    /// What the command wrote to standard output, if it was captured.
    pub stdout: Vec<u8>,
    /// What the command wrote to standard error, if it was captured.
    pub stderr: Vec<u8>,
    /// What the guest's kernel wrote to its console.
    pub kernel_log: KernelLog,
    /// What was wrong according to the kernel and was not allowed.
    pub findings: Vec<Finding>,
    /// What the guest's drivers did to the emulated hardware that no driver may do.
    pub misuse: Vec<String>,
    /// Files that were brought back into memory, by their path in the guest.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files that could not be brought back, and why.
    pub missing_files: Vec<String>,
    /// From the start of QEMU to the start of the command.
    pub boot_time: Option<Duration>,
    /// From the start of QEMU to its end.
    pub duration: Duration,
    /// The kernel that ran.
    pub kernel: String,
}

impl Outcome {
    /// Whether the command ended with code 0 and nothing else went wrong.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.exit_code() == 0
    }

    /// What `cargo lab run` exits with: the command's own code, or one of [`KERNEL_FAILURE`],
    /// [`TIMED_OUT`] and [`LAB_FAILURE`].
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match &self.ending {
            Ending::NotStarted(_) | Ending::Stopped(_) => LAB_FAILURE,
            Ending::KernelDied => KERNEL_FAILURE,
            Ending::TimedOut(_) => TIMED_OUT,
            Ending::Exited(_) if !self.findings.is_empty() || !self.misuse.is_empty() => KERNEL_FAILURE,
            Ending::Exited(exit) if !self.missing_files.is_empty() && exit.shell_code() == 0 => LAB_FAILURE,
            Ending::Exited(exit) => exit.shell_code(),
        }
    }

    /// What went wrong apart from the command's own exit code, for people; `None` if nothing did.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let mut text = String::new();
        let with_log = match &self.ending {
            Ending::Exited(_) => false,
            Ending::TimedOut(limit) => {
                let _ = writeln!(
                    text,
                    "the run took longer than {} s and was ended (--timeout)",
                    limit.as_secs()
                );
                true
            }
            Ending::KernelDied => {
                text.push_str("the guest's kernel died\n");
                self.findings.is_empty()
            }
            Ending::NotStarted(reason) => {
                let _ = writeln!(text, "{reason}");
                false
            }
            Ending::Stopped(reason) => {
                let _ = writeln!(text, "{reason}");
                true
            }
        };
        for finding in &self.findings {
            let _ = writeln!(text, "the guest's kernel reported:\n{finding}");
        }
        for misuse in &self.misuse {
            let _ = writeln!(text, "misuse of the emulated hardware: {misuse}");
        }
        for missing in &self.missing_files {
            let _ = writeln!(text, "{missing}");
        }
        if with_log {
            let _ = writeln!(text, "the end of the kernel's log:\n{}", self.kernel_log.tail(30));
        }
        (!text.is_empty()).then_some(text)
    }

    /// Standard output as text.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Everything that a failed test wants to show.
    #[must_use]
    pub fn report(&self) -> String {
        format!(
            "{:?} on kernel {}\nstandard output:\n{}\nstandard error:\n{}\n{}",
            self.ending,
            self.kernel,
            self.stdout_text(),
            self.stderr_text(),
            self.trouble().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        Outcome {
            ending,
            stdout: Vec::new(),
            stderr: Vec::new(),
            kernel_log: KernelLog::default(),
            findings: Vec::new(),
            misuse: Vec::new(),
            files: BTreeMap::new(),
            missing_files: Vec::new(),
            boot_time: None,
            duration: Duration::ZERO,
            kernel: "7.2".into(),
        }
    }

    #[test]
    fn the_commands_own_code_is_passed_on_unless_something_else_went_wrong() {
        assert_eq!(outcome(Ending::Exited(Exit::Code(7))).exit_code(), 7);
        assert_eq!(outcome(Ending::Exited(Exit::Signal(9))).exit_code(), 137);
        assert_eq!(outcome(Ending::TimedOut(Duration::from_secs(1))).exit_code(), TIMED_OUT);
        assert_eq!(outcome(Ending::Stopped("x".into())).exit_code(), LAB_FAILURE);
        let mut misused = outcome(Ending::Exited(Exit::Code(0)));
        assert!(misused.is_success() && misused.trouble().is_none());
        misused.misuse.push("descriptor outside memory".into());
        assert_eq!(misused.exit_code(), KERNEL_FAILURE);
        assert!(misused.trouble().unwrap().contains("descriptor outside memory"));
    }

    #[test]
    fn a_file_that_did_not_come_back_is_a_failure() {
        let mut missing = outcome(Ending::Exited(Exit::Code(0)));
        missing.missing_files.push("no such file".into());
        assert_eq!(missing.exit_code(), LAB_FAILURE);
    }
}
