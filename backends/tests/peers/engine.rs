//! The DMA engine of a GPU, driven by submissions of commands: what makes the kernel map imported memory.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use devmem_provider::dma_buf::{Access, FenceUse};
use devmem_provider::{DmaBuf, Placement, Provider, Request};

use crate::{Failure, Outcome, uapi};

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

/// A GPU's engine, for one copy. What it imported stays imported until it is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    file: File,
    packets: DmaBuf,
}

impl Engine {
    /// Opens the render node of a GPU once more.
    pub(crate) fn open(gpu: &dyn Provider) -> Result<Self, Failure> {
        let node: &Path = &gpu.identity().node;
        let file = File::options().read(true).write(true).open(node)?;
        // GEM handles of the provider are not ours: the buffer is imported like any other.
        let packets = gpu.allocate(&Request::bytes(4096).require(Placement::System))?.export()?;
        Ok(Self { file, packets })
    }

    /// Copies one buffer to another, as large, and waits until that is done.
    pub(crate) fn copy(&self, source: &DmaBuf, target: &DmaBuf) -> Outcome {
        let packets = copy_packets(source.size())?;
        let mapping = self.packets.map(Access::ReadWrite)?;
        let access = mapping.write()?;
        access.copy_from(0, &packets)?;
        access.finish()?;

        let buffers = [(&self.packets, PACKETS), (source, SOURCE), (target, TARGET)];
        let mut handles = Vec::new();
        for (buffer, address) in buffers {
            let handle = drm_ffi::gem::fd_to_handle(self.file.as_fd(), buffer.as_fd())?.handle;
            uapi::map_address(&self.file, handle, address, buffer.size())?;
            handles.push(handle);
        }
        let context = uapi::create_context(&self.file)?;
        uapi::submit(&self.file, context, &handles, PACKETS, u32::try_from(packets.len())?)?;
        let done = target.export_sync_file(FenceUse::Write)?.wait(PATIENCE)?;
        if done { Ok(()) } else { Err(format!("no copy after {PATIENCE:?}").into()) }
    }
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
