//! Gathering and comparing by the CPU, for buffers whose device cannot do it.
//!
//! Says what it is: [`DeviceCopy::worker`] is [`Worker::Cpu`]. Batches are completed when
//! [`Gather::submit`] returns, and fences are always waited for, since the kernel does so when the CPU's access begins.

use std::time::Duration;

use devmem_provider::device_copy::{
    DeviceCopy, Fences, Gather, Sha256, Ticket, Worker, check_gather, check_piece, check_ticket,
};
use devmem_provider::dma_buf::{Access, FenceUse, Mapping, ReadAccess, SyncFile};
use devmem_provider::{DmaBuf, Extent, Result};
use sha2::Digest;

/// How much is copied at once.
const CHUNK: usize = 64 << 10;

/// The CPU in place of a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuCopy;

impl DeviceCopy for CpuCopy {
    fn worker(&self) -> Worker {
        Worker::Cpu
    }

    fn gather(&self, source: &DmaBuf, destination: &DmaBuf, _fences: Fences) -> Result<Box<dyn Gather>> {
        Ok(Box::new(CpuGather {
            source: source.map(Access::Read)?,
            target: destination.map(Access::ReadWrite)?,
            same_buffer: source.inode() == destination.inode(),
            destination: destination.clone(),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            batches: 0,
        }))
    }

    fn sha256(&self, buffer: &DmaBuf, pieces: &[Extent]) -> Result<Vec<Sha256>> {
        for &piece in pieces {
            check_piece(piece, buffer)?;
        }
        let mapping = buffer.map(Access::Read)?;
        let access = mapping.read()?;
        let mut chunk = vec![0; CHUNK];
        let mut digests = Vec::with_capacity(pieces.len());
        for &piece in pieces {
            let mut digest = sha2::Sha256::new();
            for part in chunks(piece) {
                digest.update(read(&access, part, &mut chunk)?);
            }
            digests.push(digest.finalize().into());
        }
        access.finish()?;
        Ok(digests)
    }

    fn first_difference(
        &self,
        left: &DmaBuf,
        piece: Extent,
        right: &DmaBuf,
        right_offset: u64,
    ) -> Result<Option<u64>> {
        let other = Extent::new(right_offset, piece.length);
        check_piece(piece, left)?;
        check_piece(other, right)?;
        let (left, right) = (left.map(Access::Read)?, right.map(Access::Read)?);
        let (left, right) = (left.read()?, right.read()?);
        let (mut left_chunk, mut right_chunk) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut difference = None;
        for (part, other_part) in chunks(piece).zip(chunks(other)) {
            let (a, b) = (read(&left, part, &mut left_chunk)?, read(&right, other_part, &mut right_chunk)?);
            if let Some(at) = a.iter().zip(b).position(|(a, b)| a != b) {
                difference = Some(part.offset - piece.offset + at as u64);
                break;
            }
        }
        left.finish()?;
        right.finish()?;
        Ok(difference)
    }
}

#[derive(Debug)]
struct CpuGather {
    source: Mapping,
    target: Mapping,
    same_buffer: bool,
    destination: DmaBuf,
    chunk: Box<[u8]>,
    batches: u64,
}

impl Gather for CpuGather {
    fn submit_after(
        &mut self,
        fence: Option<&SyncFile>,
        fragments: &[Extent],
        offset: u64,
    ) -> Result<Ticket> {
        let (source_bytes, bytes) = (self.source.length() as u64, self.target.length() as u64);
        check_gather(fragments, source_bytes, offset, bytes, self.same_buffer)?;
        if let Some(fence) = fence {
            fence.wait(Duration::MAX)?;
        }
        let (source, target) = (self.source.read()?, self.target.write()?);
        // Inside a mapping, which is no larger than the address space.
        let mut to = offset as usize;
        for part in fragments.iter().flat_map(|&fragment| chunks(fragment)) {
            let bytes = read(&source, part, &mut self.chunk)?;
            target.copy_from(to, bytes)?;
            to += bytes.len();
        }
        target.finish()?;
        source.finish()?;
        self.batches += 1;
        Ok(Ticket::new(self.batches))
    }

    fn completed(&mut self) -> Result<Ticket> {
        Ok(Ticket::new(self.batches))
    }

    fn wait(&mut self, ticket: Ticket, _limit: Duration) -> Result<bool> {
        check_ticket(ticket, self.batches).map(|()| true)
    }

    fn sync_file(&mut self, ticket: Ticket) -> Result<SyncFile> {
        check_ticket(ticket, self.batches)?;
        // The copy is done, so that nothing but the work of others on the destination is left to wait for.
        self.destination.export_sync_file(FenceUse::Read)
    }
}

/// Pieces of a piece, each as large as a chunk at most.
fn chunks(piece: Extent) -> impl Iterator<Item = Extent> {
    (0..piece.length)
        .step_by(CHUNK)
        .map(move |done| Extent::new(piece.offset + done, (piece.length - done).min(CHUNK as u64)))
}

fn read<'chunk>(access: &ReadAccess<'_>, part: Extent, chunk: &'chunk mut [u8]) -> Result<&'chunk [u8]> {
    let bytes = &mut chunk[..part.length as usize];
    access.copy_to(part.offset as usize, bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_a_piece_once() {
        for length in [0, 1, CHUNK as u64, CHUNK as u64 + 1, 3 * CHUNK as u64 - 1] {
            let piece = Extent::new(12345, length);
            let mut next = piece.offset;
            for part in chunks(piece) {
                assert_eq!(part.offset, next);
                assert!(part.length > 0 && part.length <= CHUNK as u64);
                next = part.end().unwrap();
            }
            assert_eq!(Some(next), piece.end());
        }
    }
}
