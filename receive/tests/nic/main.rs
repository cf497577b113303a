//! Preparing and restoring a NIC on this machine's kernel: a veth pair in a network namespace of its own,
//! so nothing of the machine is touched. It shows the transaction, the lock, the journal and the end by a
//! signal; header split and flow rules, which veth lacks, are shown in the lab.

mod adjust;
#[path = "../harness/mod.rs"]
mod harness;
mod namespace;
mod prepare;
mod processes;
mod roles;

use std::process::{Command, ExitCode};

use libtest_mimic::Arguments;

use harness::{Test, tests};

const TESTS: &[Test] = tests![
    prepare::{
        channels_are_raised_and_put_back,
        dropping_restores,
        an_error_midway_restores,
        what_the_driver_cannot_do_is_told,
        an_interface_that_is_down_is_refused,
        a_removed_nic_is_told_as_gone,
        features_are_changed_and_compared,
        this_process_excludes_itself,
        a_forked_child_restores_nothing,
    },
    adjust::{
        every_adjustment_is_made_and_put_back,
        an_interface_keeps_its_addresses_whatever_was_adjusted_first,
        a_refused_adjustment_is_told_and_leaves_the_others,
        adjustments_are_put_back_after_a_kill,
        killed_at_any_moment_of_adjusting,
    },
    processes::{
        one_process_excludes_another,
        a_killed_process_leaves_a_journal,
        the_next_preparation_recovers,
        a_journal_of_a_removed_nic_is_cleared,
        killed_at_any_moment,
        a_signal_restores_and_ends_the_process,
        an_ignored_signal_stays_ignored,
        another_namespace_is_told_apart,
    },
];

/// The first argument of the process that runs the tests: it has a folder for locks and journals of its own.
const INSIDE: &str = "inside";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(INSIDE) {
        return run(Arguments::from_iter(std::env::args().filter(|argument| argument != INSIDE)));
    }
    harness::play(roles::ALL).unwrap_or_else(start_inside)
}

/// The folder is named by an environment variable, which a process gets when it is started.
fn start_inside() -> ExitCode {
    let result = tempfile::tempdir().and_then(|folder| {
        Command::new(std::env::current_exe()?)
            .arg(INSIDE)
            .args(std::env::args().skip(1))
            .env("DEVMEM_STATE_DIR", folder.path())
            .status()
    });
    match result {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start the tests: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the tests; where a namespace cannot be had, tells so for each.
fn run(arguments: Arguments) -> ExitCode {
    let hindrance = if arguments.list { None } else { namespace::enter().err() };
    harness::run(arguments, TESTS, hindrance.map(|failure| failure.to_string()).as_deref())
}
