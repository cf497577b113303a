//! Preparing and restoring a real driver's NIC in the lab: header split, RSS, flow rules, bound queues.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

mod prepare;
mod processes;
mod receive_rings;
mod roles;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// What went wrong in a test.
type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;

/// Fails a test unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!("{}: {}", stringify!($condition), format_args!($($message)+)).into());
        }
    };
}
pub(crate) use ensure;

/// Names tests by their place.
macro_rules! tests {
    ($($module:ident :: { $($test:ident),+ $(,)? }),+ $(,)?) => {
        &[$($((concat!(stringify!($module), "::", stringify!($test)), $module::$test as fn() -> Outcome)),+),+]
    };
}

/// A test and its name.
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = tests![
    prepare::{
        capabilities_are_found_without_a_change,
        every_setting_is_made_and_put_back,
        a_nic_is_found_by_its_address_and_pci_function,
        a_flow_is_spread_over_three_queues,
        a_flow_for_one_address_has_one_rule,
        settings_made_by_hand_are_put_back,
        a_setting_that_was_on_stays_on,
        too_few_channels_are_raised_and_put_back,
        a_full_rule_table_is_told_and_undone,
        a_bound_queue_is_not_taken,
        restoring_releases_what_is_still_bound,
        restoring_works_while_the_interface_is_down,
    },
    receive_rings::{
        they_leave_half_of_the_buffer_and_are_put_back,
        they_stay_where_the_buffer_is_large,
        they_are_put_back_after_a_kill,
        a_buffer_that_starves_queues_is_refused,
        one_queue_takes_any_buffer,
    },
    processes::{
        killed_at_any_moment,
        killed_while_queues_are_bound,
        a_signal_releases_and_restores,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(role) = arguments.get(1)
        && roles::is_role(role)
    {
        return roles::run(role);
    }
    devmem_lab::test_program().nic("gve:queues=4").nic("gve:queues=5").main(|| {
        // The tests share the NICs.
        let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
        let trials = TESTS.iter().map(|&(name, test)| {
            Trial::test(name, move || test().map_err(|failure| Failed::from(failure.to_string())))
        });
        libtest_mimic::run(&arguments, trials.collect()).exit_code()
    })
}
