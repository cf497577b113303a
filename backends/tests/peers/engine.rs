//! The DMA engine of a GPU, driven by submissions of commands: what makes the kernel map imported memory.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use devmem_provider::dma_buf::{Access, FenceUse};
use devmem_provider::{DmaBuf, Placement, Provider, Request, base_page_size};

use crate::{Failure, uapi};

/// Addresses of the GPU: far enough apart for any buffer here, and beyond what the kernel reserves at the bottom
/// (`AMDGPU_VA_RESERVED_BOTTOM`).
const PACKETS: u64 = 16 << 20;
const SOURCE: u64 = 32 << 20;
const TARGET: u64 = 48 << 20;

/// Bytes of one copy: within the 20 bits that a packet has for them (`si_dma.c`).
const COPY: u64 = 256 << 10;
/// A copy that is counted in bytes: `DMA_PACKET(DMA_PACKET_COPY, 1, 0, 0, 0)`.
const COPY_PACKET: u32 = 0x3400_0000;

/// How long a copy may take before the GPU counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lets a GPU copy one buffer to another, as large, and waits until that is done.
///
/// Returns the DRM file that imported the buffers: they stay attached to the GPU as long as it is open.
pub(crate) fn copy(gpu: &dyn Provider, source: &DmaBuf, target: &DmaBuf) -> Result<File, Failure> {
    let file = File::options().read(true).write(true).open(&gpu.identity().node)?;
    let content = copy_packets(source.size())?;
    let packets = gpu.allocate(&Request::bytes(base_page_size()).require(Placement::System))?.export()?;
    let mapping = packets.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, &content)?;
    access.finish()?;

    let mut handles = Vec::new();
    for (buffer, address) in [(&packets, PACKETS), (source, SOURCE), (target, TARGET)] {
        let handle = drm_ffi::gem::fd_to_handle(file.as_fd(), buffer.as_fd())?.handle;
        uapi::map_address(&file, handle, address, buffer.size())?;
        handles.push(handle);
    }
    let context = uapi::create_context(&file)?;
    uapi::submit(&file, context, &handles, PACKETS, u32::try_from(content.len())?)?;
    let done = target.export_sync_file(FenceUse::Write)?.wait(PATIENCE)?;
    if done { Ok(file) } else { Err(format!("no copy after {PATIENCE:?}").into()) }
}

/// The packets that copy so many bytes.
fn copy_packets(bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut packets = Vec::new();
    let mut done = 0;
    while done < bytes {
        let length = COPY.min(bytes - done);
        // All addresses here are below 4 GiB, so that their upper halves are zero.
        let (target, source) = (u32::try_from(TARGET + done)?, u32::try_from(SOURCE + done)?);
        for word in [COPY_PACKET | u32::try_from(length)?, target, source, 0, 0] {
            packets.extend(word.to_le_bytes());
        }
        done += length;
    }
    Ok(packets)
}
