//! The tool in the lab: an unmodified kernel, its real NIC driver, an emulated NIC.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

#[path = "../harness/ask_lab.rs"]
mod ask_lab;
mod bad_input;
mod copies;
mod faults;
mod gathers;
#[path = "../harness/guest.rs"]
mod guest;
#[path = "../harness/nic_changes.rs"]
mod nic_changes;
mod restore;
mod topology;
mod xdp;
mod zcrx;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by its name.
type Test = (&'static str, fn() -> guest::Outcome);

const TESTS: &[Test] = &[
    ("copies::one_connection", copies::one_connection),
    ("copies::a_dma_heap", copies::a_dma_heap),
    ("copies::huge_pages", copies::huge_pages),
    ("copies::ipv6", copies::ipv6),
    ("copies::one_connection_over_four_queues", copies::one_connection_over_four_queues),
    ("copies::eight_connections_over_four_queues", copies::eight_connections_over_four_queues),
    ("copies::thirty_two_connections_over_four_queues", copies::thirty_two_connections_over_four_queues),
    (
        "copies::a_buffer_that_is_exhausted_again_and_again",
        copies::a_buffer_that_is_exhausted_again_and_again,
    ),
    ("copies::lost_and_reordered_packets", copies::lost_and_reordered_packets),
    ("copies::payload_in_the_header_buffer_is_linear", copies::payload_in_the_header_buffer_is_linear),
    ("copies::packets_on_the_wrong_queue_are_linear", copies::packets_on_the_wrong_queue_are_linear),
    ("copies::through_host_memory", copies::through_host_memory),
    ("copies::auto_takes_the_nic_where_it_can", copies::auto_takes_the_nic_where_it_can),
    ("copies::the_output_is_the_file", copies::the_output_is_the_file),
    ("copies::an_empty_file", copies::an_empty_file),
    ("copies::few_system_calls_and_no_allocations", copies::few_system_calls_and_no_allocations),
    ("zcrx::one_connection", zcrx::one_connection),
    ("zcrx::a_dma_heap", zcrx::a_dma_heap),
    ("zcrx::eight_connections_over_one_queue", zcrx::eight_connections_over_one_queue),
    ("zcrx::a_buffer_that_is_exhausted_again_and_again", zcrx::a_buffer_that_is_exhausted_again_and_again),
    ("zcrx::lost_and_reordered_packets", zcrx::lost_and_reordered_packets),
    ("zcrx::gathered_by_the_cpu", zcrx::gathered_by_the_cpu),
    ("zcrx::few_system_calls_and_no_allocations", zcrx::few_system_calls_and_no_allocations),
    ("zcrx::payload_in_the_header_buffer_is_an_error", zcrx::payload_in_the_header_buffer_is_an_error),
    ("zcrx::packets_on_the_wrong_queue_are_an_error", zcrx::packets_on_the_wrong_queue_are_an_error),
    ("zcrx::four_queues_are_refused", zcrx::four_queues_are_refused),
    ("zcrx::device_local_memory_from_udmabuf_is_refused", zcrx::device_local_memory_from_udmabuf_is_refused),
    ("gathers::one_connection", gathers::one_connection),
    ("gathers::eight_connections_over_four_queues", gathers::eight_connections_over_four_queues),
    ("gathers::ipv6_into_a_dma_heap", gathers::ipv6_into_a_dma_heap),
    ("gathers::a_buffer_that_is_used_again_and_again", gathers::a_buffer_that_is_used_again_and_again),
    ("gathers::lost_and_reordered_packets", gathers::lost_and_reordered_packets),
    ("gathers::payload_in_the_header_buffer", gathers::payload_in_the_header_buffer),
    ("gathers::through_host_memory", gathers::through_host_memory),
    ("gathers::the_output_is_the_file", gathers::the_output_is_the_file),
    ("gathers::an_empty_file", gathers::an_empty_file),
    ("gathers::a_tree_without_gathering", gathers::a_tree_without_gathering),
    ("gathers::nothing_is_allocated_in_the_loop", gathers::nothing_is_allocated_in_the_loop),
    ("gathers::a_file_that_is_too_large", gathers::a_file_that_is_too_large),
    ("bad_input::table", bad_input::table),
    ("bad_input::a_nic_in_use_names_its_user", bad_input::a_nic_in_use_names_its_user),
    ("bad_input::a_peer_that_disconnects_midway", bad_input::a_peer_that_disconnects_midway),
    (
        "bad_input::a_peer_that_disconnects_from_a_gathering_receiver",
        bad_input::a_peer_that_disconnects_from_a_gathering_receiver,
    ),
    ("bad_input::a_peer_that_speaks_something_else", bad_input::a_peer_that_speaks_something_else),
    ("bad_input::auto_says_why_it_copies", bad_input::auto_says_why_it_copies),
    (
        "topology::the_root_bus_connects_as_the_processor_says",
        topology::the_root_bus_connects_as_the_processor_says,
    ),
    (
        "topology::conventional_functions_hide_nothing_from_the_unprivileged",
        topology::conventional_functions_hide_nothing_from_the_unprivileged,
    ),
    ("restore::after_sigkill_at_twenty_moments", restore::after_sigkill_at_twenty_moments),
    ("restore::the_next_receiver_restores_first", restore::the_next_receiver_restores_first),
    ("restore::after_signals_that_can_be_caught", restore::after_signals_that_can_be_caught),
];

fn main() -> ExitCode {
    // Three NICs: the receiver's, the sender's, and one that cannot split headers.
    devmem_lab::test_program()
        .nic("gve:queues=8")
        .nic("gve:queues=4")
        .nic("gve:queues=4,header-split=off")
        .file(env!("CARGO_BIN_EXE_nic-to-gpu-copy"), "/usr/bin/nic-to-gpu-copy")
        .main(|| {
            if let Err(failure) = bad_input::fetch_nic_without_split() {
                eprintln!("{failure}");
                return ExitCode::FAILURE;
            }
            let mut arguments = Arguments::from_args();
            // All tests share one NIC.
            arguments.test_threads = Some(1);
            let trials = TESTS.iter().map(|&(name, test)| {
                Trial::test(name, move || test().map_err(|failure| Failed::from(failure.to_string())))
            });
            libtest_mimic::run(&arguments, trials.collect()).exit_code()
        })
}
