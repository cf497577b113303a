//! The receive path in the lab: an unmodified kernel, its real NIC driver, an emulated NIC.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

mod bind;
mod privilege;
mod sender;
mod setup;
mod streams;

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

/// A test by its name.
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = tests![
    bind::{
        header_split_is_off,
        a_queue_is_bound_already,
        all_queues_or_none_are_bound,
        one_buffer_may_be_bound_twice,
        there_is_no_such_queue,
        the_caller_has_no_privilege,
        the_interface_is_down,
        loopback_manages_no_queues,
        the_interface_does_not_exist,
        the_descriptor_is_no_dma_buf,
        a_refused_bind_leaves_no_reference,
    },
    streams::{
        every_byte_in_order_in_any_batch,
        a_fragment_that_is_held_is_not_overwritten,
        an_exhausted_buffer_recovers_when_fragments_come_back,
        a_fragment_released_twice_is_told,
        another_connections_fragment_is_not_released,
        a_peek_shows_the_same_bytes_again,
        what_was_received_outlives_the_binding,
        unbinding_is_complete_once_nothing_is_held,
        a_closed_connection_gives_its_fragments_back,
        a_small_buffer_feeds_every_queue,
        a_fragment_of_another_binding_is_refused,
        the_link_may_go_down_and_up,
        fragments_stay_within_a_page,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some([role, arguments @ ..]) = arguments.get(1..)
        && role == sender::ROLE
    {
        return match sender::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    devmem_lab::test_program().nic("gve:queues=4").nic("gve:queues=4").main(|| {
        let mut arguments = Arguments::from_args();
        // All tests share one NIC.
        arguments.test_threads = Some(1);
        let trials = TESTS.iter().map(|&(name, test)| {
            Trial::test(name, move || test().map_err(|failure| Failed::from(failure.to_string())))
        });
        libtest_mimic::run(&arguments, trials.collect()).exit_code()
    })
}
