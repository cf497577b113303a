//! Receiving into the memory of each driver: where the driver says it is before and after the bind, and where the
//! lab finds the bytes.

use crate::guest::Outcome;
use crate::place::{Place, receive, receive_by_zcrx};

pub(crate) fn amdgpu_vram() -> Outcome {
    receive("amdgpu", "device-local", Place::Device, Place::System)
}

pub(crate) fn amdgpu_gtt() -> Outcome {
    receive("amdgpu", "system", Place::System, Place::System)
}

pub(crate) fn i915_local_memory() -> Outcome {
    receive("i915", "device-local", Place::Device, Place::System)
}

pub(crate) fn i915_system_memory() -> Outcome {
    receive("i915", "system", Place::System, Place::System)
}

pub(crate) fn i915_integrated() -> Outcome {
    receive("i915:1", "any", Place::System, Place::System)
}

pub(crate) fn xe_vram() -> Outcome {
    receive("xe", "device-local", Place::Device, Place::System)
}

pub(crate) fn xe_system_memory() -> Outcome {
    receive("xe", "system", Place::System, Place::System)
}

pub(crate) fn nouveau_vram() -> Outcome {
    receive("nouveau", "device-local", Place::Device, Place::System)
}

pub(crate) fn nouveau_gart() -> Outcome {
    receive("nouveau", "system", Place::System, Place::System)
}

pub(crate) fn vgem() -> Outcome {
    receive("vgem", "any", Place::System, Place::System)
}

pub(crate) fn virtio_gpu_guest_memory() -> Outcome {
    receive("virtio-gpu", "system", Place::System, Place::System)
}

/// The one exporter whose memory stays on the device though the importer takes no peer-to-peer addresses.
pub(crate) fn virtio_gpu_host_visible_memory() -> Outcome {
    receive("virtio-gpu", "device-local", Place::Device, Place::Device)
}

pub(crate) fn udmabuf() -> Outcome {
    receive("udmabuf", "any", Place::System, Place::System)
}

pub(crate) fn dma_heap() -> Outcome {
    receive("dma-heap:system", "any", Place::System, Place::System)
}

pub(crate) fn amdgpu_by_zcrx() -> Outcome {
    receive_by_zcrx("amdgpu", "device-local", Place::Device, Place::System)
}

pub(crate) fn i915_by_zcrx() -> Outcome {
    receive_by_zcrx("i915", "device-local", Place::Device, Place::System)
}

pub(crate) fn xe_by_zcrx() -> Outcome {
    receive_by_zcrx("xe", "device-local", Place::Device, Place::System)
}

pub(crate) fn nouveau_by_zcrx() -> Outcome {
    receive_by_zcrx("nouveau", "device-local", Place::Device, Place::System)
}

/// As with devmem TCP, the one whose memory stays on the device.
pub(crate) fn virtio_gpu_by_zcrx() -> Outcome {
    receive_by_zcrx("virtio-gpu", "device-local", Place::Device, Place::Device)
}
