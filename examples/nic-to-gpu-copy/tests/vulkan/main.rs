//! The tool in the lab with Vulkan: what the NIC has received is gathered and verified by Mesa's lavapipe.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are. The validation
//! layer watches every test, and what it says makes the test fail.

#[expect(dead_code, reason = "what has arrived meanwhile is for other test programs")]
#[path = "../harness/ask_lab.rs"]
mod ask_lab;
mod benchmark;
#[path = "../lab/faults.rs"]
mod faults;
mod gathers;
#[path = "../harness/guest.rs"]
mod guest;
mod validation;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by its name.
type Test = (&'static str, fn() -> guest::Outcome);

const TESTS: &[Test] = &[
    ("gathers::one_connection", gathers::one_connection),
    ("gathers::a_tree_over_eight_connections", gathers::a_tree_over_eight_connections),
    ("gathers::one_connection_by_zcrx", gathers::one_connection_by_zcrx),
    ("gathers::from_udmabuf", gathers::from_udmabuf),
    ("gathers::from_a_dma_heap", gathers::from_a_dma_heap),
    ("gathers::from_amdgpu", gathers::from_amdgpu),
    ("gathers::to_the_memory_of_a_gpu", gathers::to_the_memory_of_a_gpu),
    ("gathers::a_buffer_that_is_used_again_and_again", gathers::a_buffer_that_is_used_again_and_again),
    ("gathers::lost_and_reordered_packets", gathers::lost_and_reordered_packets),
    ("gathers::payload_in_the_header_buffer", gathers::payload_in_the_header_buffer),
    ("gathers::the_output_is_the_file", gathers::the_output_is_the_file),
    ("gathers::an_empty_file", gathers::an_empty_file),
    ("gathers::nothing_is_allocated_in_the_loop", gathers::nothing_is_allocated_in_the_loop),
    (
        "benchmark::ratios_are_measured_and_every_gather_verified",
        benchmark::ratios_are_measured_and_every_gather_verified,
    ),
];

fn main() -> ExitCode {
    let program = devmem_lab::test_program()
        .nic("gve:queues=8")
        .nic("gve:queues=4")
        .gpu("amdgpu")
        .gpu("xe")
        .vulkan()
        .file(env!("CARGO_BIN_EXE_nic-to-gpu-copy"), "/usr/bin/nic-to-gpu-copy");
    let program = validation::ENVIRONMENT
        .iter()
        .fold(program, |program, (name, value)| program.environment(name, value));
    program.main(|| {
        if let Err(error) = validation::set_up() {
            eprintln!("the validation layer cannot be set up: {error}");
            return ExitCode::FAILURE;
        }
        let mut arguments = Arguments::from_args();
        // All tests share one NIC.
        arguments.test_threads = Some(1);
        let trials = TESTS.iter().map(|&(name, test)| {
            Trial::test(name, move || {
                validation::watch(test).map_err(|failure| Failed::from(failure.to_string()))
            })
        });
        libtest_mimic::run(&arguments, trials.collect()).exit_code()
    })
}
