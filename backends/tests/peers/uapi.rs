//! The ioctls of amdgpu that submit commands, as `drm/amdgpu_drm.h` defines them.

use std::fs::File;
use std::os::fd::AsRawFd;

use devmem_uapi_check::{Header, layouts};
use nix::{ioctl_readwrite, ioctl_write_ptr};

use crate::headers;

/// `DRM_IOCTL_BASE`, and `DRM_COMMAND_BASE`: the first number that is a driver's own.
const BASE: u8 = b'd';
const COMMAND: u8 = 0x40;

const CTX_OP_ALLOC_CTX: u32 = 1;
const VA_OP_MAP: u32 = 1;
/// `AMDGPU_VM_DELAY_UPDATE`: the page tables are written with the next submission.
const VM_DELAY_UPDATE: u32 = 1 << 0;
const VM_PAGE_READABLE: u32 = 1 << 1;
const VM_PAGE_WRITEABLE: u32 = 1 << 2;
const HW_IP_DMA: u32 = 2;
const CHUNK_ID_IB: u32 = 1;
const CHUNK_ID_BO_HANDLES: u32 = 6;

/// `union drm_amdgpu_ctx`, whose answer to an allocation overlays the first word of the question.
#[repr(C)]
union Context {
    question: ContextQuestion,
    ctx_id: u32,
}

/// `struct drm_amdgpu_ctx_in`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ContextQuestion {
    op: u32,
    flags: u32,
    ctx_id: u32,
    priority: i32,
}

/// The beginning of `struct drm_amdgpu_gem_va`; the kernel takes the rest, which came later, for zero
/// (`drm_ioctl()`).
#[repr(C)]
struct AddressMapping {
    handle: u32,
    _pad: u32,
    operation: u32,
    flags: u32,
    va_address: u64,
    offset_in_bo: u64,
    map_size: u64,
}

/// `union drm_amdgpu_cs`, whose answer, a number to wait for, nobody here needs.
#[repr(C)]
struct Submission {
    ctx_id: u32,
    bo_list_handle: u32,
    num_chunks: u32,
    flags: u32,
    chunks: u64,
}

/// `struct drm_amdgpu_cs_chunk`.
#[repr(C)]
struct Chunk {
    chunk_id: u32,
    length_dw: u32,
    chunk_data: u64,
}

/// `struct drm_amdgpu_cs_chunk_ib`: where an indirect buffer lies, and which engine executes it.
#[repr(C)]
struct IndirectBuffer {
    _pad: u32,
    flags: u32,
    va_start: u64,
    ib_bytes: u32,
    ip_type: u32,
    ip_instance: u32,
    ring: u32,
}

/// `struct drm_amdgpu_bo_list_in`: which buffers a submission uses.
#[repr(C)]
struct BufferList {
    operation: u32,
    list_handle: u32,
    bo_number: u32,
    bo_info_size: u32,
    bo_info_ptr: u64,
}

/// `struct drm_amdgpu_bo_list_entry`.
#[repr(C)]
struct BufferListEntry {
    bo_handle: u32,
    bo_priority: u32,
}

const _: () = {
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 2, size_of::<Context>()) == 0xc010_6442);
    assert!(nix::request_code_readwrite!(BASE, COMMAND + 4, size_of::<Submission>()) == 0xc018_6444);
    assert!(nix::request_code_write!(BASE, COMMAND + 8, size_of::<AddressMapping>()) == 0x4028_6448);
    assert!(size_of::<Chunk>() == 16 && size_of::<IndirectBuffer>() == 32);
    assert!(size_of::<BufferList>() == 24 && size_of::<BufferListEntry>() == 8);
};

ioctl_readwrite!(ioctl_context, BASE, COMMAND + 2, Context);
ioctl_readwrite!(ioctl_submit, BASE, COMMAND + 4, Submission);
ioctl_write_ptr!(ioctl_map_address, BASE, COMMAND + 8, AddressMapping);

/// `DRM_IOCTL_AMDGPU_CTX`: a context to submit commands in, which lives as long as the file.
pub(crate) fn create_context(gpu: &File) -> nix::Result<u32> {
    let question = ContextQuestion { op: CTX_OP_ALLOC_CTX, flags: 0, ctx_id: 0, priority: 0 };
    let mut argument = Context { question };
    // SAFETY: `argument` has the layout asserted above and lives through the call.
    unsafe { ioctl_context(gpu.as_raw_fd(), &raw mut argument) }?;
    // SAFETY: the kernel has written the answer; any bits are a valid u32.
    Ok(unsafe { argument.ctx_id })
}

/// `DRM_IOCTL_AMDGPU_GEM_VA`: gives a buffer an address of the file's virtual machine, from the next submission on.
pub(crate) fn map_address(gpu: &File, handle: u32, address: u64, size: u64) -> nix::Result<()> {
    let argument = AddressMapping {
        handle,
        _pad: 0,
        operation: VA_OP_MAP,
        flags: VM_DELAY_UPDATE | VM_PAGE_READABLE | VM_PAGE_WRITEABLE,
        va_address: address,
        offset_in_bo: 0,
        map_size: size,
    };
    // SAFETY: `argument` has the layout asserted above and is only read.
    unsafe { ioctl_map_address(gpu.as_raw_fd(), &raw const argument) }.map(drop)
}

/// `DRM_IOCTL_AMDGPU_CS`: lets the DMA engine execute `bytes` of packets at an address, with these buffers in reach.
pub(crate) fn submit(gpu: &File, context: u32, buffers: &[u32], address: u64, bytes: u32) -> nix::Result<()> {
    let entries: Vec<_> =
        buffers.iter().map(|&bo_handle| BufferListEntry { bo_handle, bo_priority: 0 }).collect();
    let list = BufferList {
        // No operation on a list, and no list: the chunk is one itself.
        operation: u32::MAX,
        list_handle: u32::MAX,
        bo_number: length(entries.len())?,
        bo_info_size: length(size_of::<BufferListEntry>())?,
        bo_info_ptr: entries.as_ptr().expose_provenance() as u64,
    };
    let packets = IndirectBuffer {
        _pad: 0,
        flags: 0,
        va_start: address,
        ib_bytes: bytes,
        ip_type: HW_IP_DMA,
        ip_instance: 0,
        ring: 0,
    };
    let chunks = [chunk(CHUNK_ID_BO_HANDLES, &list)?, chunk(CHUNK_ID_IB, &packets)?];
    let pointers = chunks.each_ref().map(|chunk| std::ptr::from_ref(chunk).expose_provenance() as u64);
    let mut argument = Submission {
        ctx_id: context,
        bo_list_handle: 0,
        num_chunks: length(pointers.len())?,
        flags: 0,
        chunks: pointers.as_ptr().expose_provenance() as u64,
    };
    // SAFETY: `argument` and all that it points to have the layouts asserted above, and live through the call; the
    // kernel writes to `argument` alone, any bits of which are valid.
    unsafe { ioctl_submit(gpu.as_raw_fd(), &raw mut argument) }.map(drop)
}

fn chunk<T>(chunk_id: u32, data: &T) -> nix::Result<Chunk> {
    let chunk_data = std::ptr::from_ref(data).expose_provenance() as u64;
    Ok(Chunk { chunk_id, length_dw: length(size_of::<T>() / 4)?, chunk_data })
}

fn length(length: usize) -> nix::Result<u32> {
    u32::try_from(length).map_err(|_| nix::errno::Errno::EINVAL)
}

/// What the kernel's header should say.
pub(crate) fn header() -> Header {
    headers::drm("amdgpu_drm.h")
        .value("AMDGPU_CTX_OP_ALLOC_CTX", CTX_OP_ALLOC_CTX)
        .value("AMDGPU_VA_OP_MAP", VA_OP_MAP)
        .value("AMDGPU_VM_DELAY_UPDATE", VM_DELAY_UPDATE)
        .value("AMDGPU_VM_PAGE_READABLE", VM_PAGE_READABLE)
        .value("AMDGPU_VM_PAGE_WRITEABLE", VM_PAGE_WRITEABLE)
        .value("AMDGPU_HW_IP_DMA", HW_IP_DMA)
        .value("AMDGPU_CHUNK_ID_IB", CHUNK_ID_IB)
        .value("AMDGPU_CHUNK_ID_BO_HANDLES", CHUNK_ID_BO_HANDLES)
        .value("DRM_COMMAND_BASE + DRM_AMDGPU_GEM_VA", COMMAND + 8)
        .value("DRM_IOCTL_AMDGPU_CTX", nix::request_code_readwrite!(BASE, COMMAND + 2, size_of::<Context>()))
        .value(
            "DRM_IOCTL_AMDGPU_CS",
            nix::request_code_readwrite!(BASE, COMMAND + 4, size_of::<Submission>()),
        )
        .values(layouts! {
            ContextQuestion as "drm_amdgpu_ctx_in" { op, flags, ctx_id, priority }
            Submission as "drm_amdgpu_cs_in" { ctx_id, bo_list_handle, num_chunks, flags, chunks }
            Chunk as "drm_amdgpu_cs_chunk" { chunk_id, length_dw, chunk_data }
            IndirectBuffer as "drm_amdgpu_cs_chunk_ib" {
                flags, va_start, ib_bytes, ip_type, ip_instance, ring
            }
            BufferList as "drm_amdgpu_bo_list_in" {
                operation, list_handle, bo_number, bo_info_size, bo_info_ptr
            }
            BufferListEntry as "drm_amdgpu_bo_list_entry" { bo_handle, bo_priority }
        })
        // Of this one there is more in newer headers.
        .value(
            "offsetof(struct drm_amdgpu_gem_va, map_size)",
            std::mem::offset_of!(AddressMapping, map_size) as u64,
        )
        .value(
            "offsetof(struct drm_amdgpu_gem_va, va_address)",
            std::mem::offset_of!(AddressMapping, va_address) as u64,
        )
}
