//! The tool's path rdma in the lab: a file goes from one emulated RDMA device into the memory of an emulated GPU, and nothing
//! of it through the guest's.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

#[path = "../harness/ask_lab.rs"]
mod ask_lab;
mod copies;
mod errors;
#[path = "../harness/guest.rs"]
mod guest;
#[expect(dead_code, reason = "what NICs receive is for other test programs")]
#[path = "../harness/place.rs"]
mod place;
mod privilege;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by its name.
type Test = (&'static str, fn() -> guest::Outcome);

const TESTS: &[Test] = &[
    ("copies::into_vram", copies::into_vram),
    ("copies::into_vram_over_several_connections", copies::into_vram_over_several_connections),
    ("copies::into_system_memory", copies::into_system_memory),
    ("copies::gathered_in_a_second_buffer", copies::gathered_in_a_second_buffer),
    ("copies::of_any_length_through_small_buffers", copies::of_any_length_through_small_buffers),
    ("copies::by_one_device_with_itself", copies::by_one_device_with_itself),
    (
        "privilege::the_usual_limit_on_locked_memory_is_enough",
        privilege::the_usual_limit_on_locked_memory_is_enough,
    ),
    ("privilege::a_lower_limit_is_told_with_the_remedy", privilege::a_lower_limit_is_told_with_the_remedy),
    ("errors::devices_without_rdma", errors::devices_without_rdma),
    ("errors::devices_that_are_not_there", errors::devices_that_are_not_there),
    ("errors::libraries_that_are_not_there", errors::libraries_that_are_not_there),
    ("errors::peers_of_another_path", errors::peers_of_another_path),
    ("errors::buffers_that_are_too_small", errors::buffers_that_are_too_small),
    ("errors::senders_that_die", errors::senders_that_die),
    ("errors::receivers_that_die", errors::receivers_that_die),
];

fn main() -> ExitCode {
    devmem_lab::test_program()
        .nic("gve:queues=4")
        .nic("gve:queues=4")
        .rdma("efa")
        .rdma("efa")
        .rdma("efa:rdma-write=off")
        .gpu("amdgpu")
        // One that the kernel knows to let the devices reach each other.
        .cpu("EPYC")
        .file(env!("CARGO_BIN_EXE_nic-to-gpu-copy"), "/usr/bin/nic-to-gpu-copy")
        .main(|| {
            let mut arguments = Arguments::from_args();
            // All tests share the devices.
            arguments.test_threads = Some(1);
            let trials = TESTS.iter().map(|&(name, test)| {
                Trial::test(name, move || test().map_err(|failure| Failed::from(failure.to_string())))
            });
            libtest_mimic::run(&arguments, trials.collect()).exit_code()
        })
}
