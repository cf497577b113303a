//! The tool in the lab with emulated GPUs: the kernel's own graphics drivers allocate, export and move the memory
//! that the NIC receives into.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

#[expect(dead_code, reason = "what has arrived meanwhile is for other test programs")]
#[path = "../harness/ask_lab.rs"]
mod ask_lab;
#[path = "../harness/guest.rs"]
mod guest;
#[path = "../harness/nic_changes.rs"]
mod nic_changes;
mod pin;
#[path = "../harness/place.rs"]
mod place;
mod receive;
mod require;
mod unplug;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test by its name.
type Test = (&'static str, fn() -> guest::Outcome);

/// The last ones take GPUs away, and bring them back; not nouveau's and i915's, whose removal with buffers alive the
/// kernel does not survive or warns of (docs/lab.md).
const TESTS: &[Test] = &[
    ("receive::amdgpu_vram", receive::amdgpu_vram),
    ("receive::amdgpu_gtt", receive::amdgpu_gtt),
    ("receive::i915_local_memory", receive::i915_local_memory),
    ("receive::i915_system_memory", receive::i915_system_memory),
    ("receive::i915_integrated", receive::i915_integrated),
    ("receive::xe_vram", receive::xe_vram),
    ("receive::xe_system_memory", receive::xe_system_memory),
    ("receive::nouveau_vram", receive::nouveau_vram),
    ("receive::nouveau_gart", receive::nouveau_gart),
    ("receive::vgem", receive::vgem),
    ("receive::virtio_gpu_guest_memory", receive::virtio_gpu_guest_memory),
    ("receive::virtio_gpu_host_visible_memory", receive::virtio_gpu_host_visible_memory),
    ("receive::udmabuf", receive::udmabuf),
    ("receive::dma_heap", receive::dma_heap),
    ("receive::amdgpu_by_zcrx", receive::amdgpu_by_zcrx),
    ("receive::i915_by_zcrx", receive::i915_by_zcrx),
    ("receive::xe_by_zcrx", receive::xe_by_zcrx),
    ("receive::nouveau_by_zcrx", receive::nouveau_by_zcrx),
    ("receive::virtio_gpu_by_zcrx", receive::virtio_gpu_by_zcrx),
    ("require::device_local_memory_that_stays", require::device_local_memory_that_stays),
    ("require::amdgpu_is_refused", require::amdgpu_is_refused),
    ("require::i915_is_refused", require::i915_is_refused),
    ("require::xe_is_refused", require::xe_is_refused),
    ("require::nouveau_is_refused", require::nouveau_is_refused),
    ("require::memory_that_may_lie_nowhere_else", require::memory_that_may_lie_nowhere_else),
    ("pin::memory_stays_until_a_signal", pin::memory_stays_until_a_signal),
    ("pin::memory_that_moves_is_told_or_refused", pin::memory_that_moves_is_told_or_refused),
    ("pin::a_device_that_is_not_there_is_told", pin::a_device_that_is_not_there_is_told),
    ("unplug::the_nodes_permission_is_missing", unplug::the_nodes_permission_is_missing),
    ("unplug::amdgpu_while_bound", unplug::amdgpu_while_bound),
    ("unplug::amdgpu_while_receiving", unplug::amdgpu_while_receiving),
    ("unplug::xe_while_receiving", unplug::xe_while_receiving),
    ("unplug::virtio_gpu_while_receiving", unplug::virtio_gpu_while_receiving),
    ("unplug::a_driver_that_is_unbound", unplug::a_driver_that_is_unbound),
];

fn main() -> ExitCode {
    devmem_lab::test_program()
        .nic("gve:queues=8")
        .nic("gve:queues=4")
        .gpu("amdgpu")
        .gpu("i915:dg1")
        .gpu("i915:tgl")
        .gpu("xe:bmg")
        .gpu("nouveau:gp107")
        .gpu("virtio-gpu")
        .rdma("efa")
        // One on which the kernel lets devices reach each other.
        .cpu("EPYC")
        .module("vgem")
        // A bug of virtio-gpu, seen on 7.2 and 7.3: a GPU that goes away while a handle is open leaves a node of its
        // window behind (`virtio_gpu_queue_ctrl_sgs()` keeps the references of commands that it drops).
        .allow_warning("drm_mm_takedown")
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
