//! The tool with memory that Vulkan allocated: Mesa's driver of AMD GPUs on the lab's emulated one, and the device that
//! the CPU executes.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

// The other programs need all of it.
#[allow(dead_code)]
#[path = "../harness/guest.rs"]
mod guest;
#[path = "../harness/place.rs"]
mod place;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use guest::Outcome;
use place::{Place, receive, receive_by_zcrx};

/// A test by its name.
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = &[
    ("vram", vram),
    ("gtt", gtt),
    ("llvmpipe", llvmpipe),
    ("vram_by_zcrx", vram_by_zcrx),
    ("llvmpipe_by_zcrx", llvmpipe_by_zcrx),
    (
        "device_local_memory_is_refused_where_it_would_move",
        device_local_memory_is_refused_where_it_would_move,
    ),
];

/// It moves as amdgpu's own does.
fn vram() -> Outcome {
    receive("vulkan:radv", "device-local", Place::Device, Place::System)
}

fn gtt() -> Outcome {
    receive("vulkan:radv", "system", Place::System, Place::System)
}

fn llvmpipe() -> Outcome {
    receive("vulkan:llvmpipe", "any", Place::System, Place::System)
}

fn vram_by_zcrx() -> Outcome {
    receive_by_zcrx("vulkan:radv", "device-local", Place::Device, Place::System)
}

fn llvmpipe_by_zcrx() -> Outcome {
    receive_by_zcrx("vulkan:llvmpipe", "any", Place::System, Place::System)
}

fn device_local_memory_is_refused_where_it_would_move() -> Outcome {
    let options = ["--placement", "device-local", "--require", "device-local", "--size", "4M", "--json"];
    let mut command = guest::receive(&["--listen", guest::ADDRESS, "--provider", "vulkan:radv"]);
    let output = guest::run(command.args(options))?;
    let said = guest::text(&output);
    ensure!(!output.status.success(), "{said}");
    for word in ["devmem TCP on eth0", "vulkan:0000:", "gtt", "peer-to-peer"] {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    Ok(())
}

fn main() -> ExitCode {
    devmem_lab::test_program()
        .nic("gve:queues=8")
        .nic("gve:queues=4")
        .gpu("amdgpu")
        .vulkan()
        .file(env!("CARGO_BIN_EXE_nic-to-gpu-copy"), "/usr/bin/nic-to-gpu-copy")
        .main(|| {
            let mut arguments = Arguments::from_args();
            // All tests share one NIC.
            arguments.test_threads = Some(1);
            let trials = TESTS.iter().map(|&(name, test)| {
                Trial::test(name, move || test().map_err(|failure| Failed::from(failure.to_string())))
            });
            libtest_mimic::run(&arguments, trials.collect()).exit_code()
        })
}
