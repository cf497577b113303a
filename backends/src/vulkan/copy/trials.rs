//! Whether a device does what its driver reports.
//!
//! A queue that executes nothing reports success like any other: that of a device that is emulated in part, or whose
//! firmware is not what the driver takes it for. So a small copy and a small digest are made once, and looked at,
//! before anybody relies on the device.

use std::sync::{Arc, Mutex, PoisonError};

use ash::vk::{BufferCopy, BufferUsageFlags};
use devmem_provider::{ErrorKind, Extent, Result};
use sha2::Digest;

use super::work::Work;
use super::{Shared, digest, scratch};
use crate::vulkan::sys::device::QueueRole;
use crate::vulkan::sys::mapping::MappedBuffer;

/// The size of what is copied: enough for drivers that do small copies in another way than large ones.
const BYTES: u64 = 64 << 10;

/// What is copied of it; the bytes around must stay.
const PIECES: [BufferCopy; 2] = [
    BufferCopy { src_offset: 4096, dst_offset: 100, size: 1000 },
    BufferCopy { src_offset: 16, dst_offset: 8192, size: 50_000 },
];

/// What is hashed of it.
const MESSAGE: Extent = Extent::new(1021, 300);

const TRIAL: &str = "try the device out";

/// What the trials have shown.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    copies: Mutex<Option<Option<QueueRole>>>,
    shaders: Mutex<Option<bool>>,
}

impl Trials {
    /// The queue that copies: the one for everything, else the one for copies alone. `None` if none does.
    pub(crate) fn queue_that_copies(&self, shared: &Arc<Shared>) -> Result<Option<QueueRole>> {
        once(&self.copies, || {
            if copies(shared, QueueRole::Main)? {
                return Ok(Some(QueueRole::Main));
            }
            let other = shared.device.has_transfer_queue() && copies(shared, QueueRole::Transfer)?;
            Ok(other.then_some(QueueRole::Transfer))
        })
    }

    /// Whether the device executes compute shaders.
    pub(crate) fn shaders_work(&self, shared: &Arc<Shared>) -> Result<bool> {
        once(&self.shaders, || match hashes(shared) {
            // A driver that cannot even compile them.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            outcome => outcome,
        })
    }
}

/// What a trial showed; one that failed is made again when it is asked for again.
fn once<T: Copy>(known: &Mutex<Option<T>>, attempt: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    match *known {
        Some(known) => Ok(known),
        None => Ok(*known.insert(attempt()?)),
    }
}

fn copies(shared: &Arc<Shared>, queue: QueueRole) -> Result<bool> {
    let pattern = pattern();
    let source = buffer(shared, &pattern)?;
    let before = vec![0xa5; pattern.len()];
    let destination = buffer(shared, &before)?;
    let mut work = Work::new(shared, queue, TRIAL)?;
    let (from, to) = (source.buffer(), destination.buffer());
    work.run(|recording| {
        recording.acquire(&[from, to]);
        recording.copy(from, to, &PIECES)?;
        recording.release(&[from, to]);
        Ok(())
    })?;
    let mut found = vec![0; pattern.len()];
    scratch::read(shared, &destination, 0, &mut found)?;
    Ok(found == copied(&pattern, before))
}

/// What the destination must be after the copy.
fn copied(source: &[u8], mut destination: Vec<u8>) -> Vec<u8> {
    for piece in PIECES {
        let part = |offset: u64| offset as usize..(offset + piece.size) as usize;
        destination[part(piece.dst_offset)].copy_from_slice(&source[part(piece.src_offset)]);
    }
    destination
}

fn hashes(shared: &Arc<Shared>) -> Result<bool> {
    let pattern = pattern();
    let source = buffer(shared, &pattern)?;
    let found = digest::sha256_of(shared, Arc::clone(source.buffer()), &[MESSAGE])?;
    let message = &pattern[MESSAGE.offset as usize..(MESSAGE.offset + MESSAGE.length) as usize];
    Ok(found == [<[u8; 32]>::from(sha2::Sha256::digest(message))])
}

fn buffer(shared: &Shared, content: &[u8]) -> Result<MappedBuffer> {
    let usage = scratch::FOR_SHADERS | BufferUsageFlags::TRANSFER_SRC | BufferUsageFlags::TRANSFER_DST;
    let mut buffer = scratch::scratch(shared, BYTES, usage)?;
    scratch::write(shared, &mut buffer, 0, content)?;
    Ok(buffer)
}

/// Bytes of which no two neighbours are equal, nor pages.
fn pattern() -> Vec<u8> {
    (0..BYTES as u32).map(|index| (index.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_without_effect_is_seen_and_one_to_the_wrong_place_too() {
        let (source, before) = (pattern(), vec![0xa5; BYTES as usize]);
        let expected = copied(&source, before.clone());
        assert_ne!(expected, before);
        for piece in PIECES {
            let start = piece.dst_offset as usize;
            assert_eq!(expected[start - 1], 0xa5);
            assert_eq!(expected[start + piece.size as usize], 0xa5);
            assert_ne!(expected[start..start + 16], source[start..start + 16]);
        }
    }

    #[test]
    fn a_trial_is_made_once_and_again_after_an_error() {
        let known = Mutex::new(None);
        let error = || devmem_provider::Error::new(ErrorKind::Gone, "try");
        assert!(once(&known, || Err::<bool, _>(error())).is_err());
        assert!(once(&known, || Ok(true)).unwrap());
        assert!(once(&known, || Err(error())).unwrap());
    }
}
