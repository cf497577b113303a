//! The content of buffers, through the CPU.

use devmem_provider::dma_buf::Access;
use devmem_provider::{DmaBuf, Extent};

use crate::harness::{Failure, Outcome};

/// Numbers without a pattern, the same for the same seed (xorshift, Marsaglia 2003).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below a limit.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

pub(super) fn random(seed: u64, bytes: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_ne_bytes()).take(bytes as usize).collect()
}

/// Fragments inside a buffer, half of them behind each other, at most `most` bytes together.
pub(super) fn fragments(random: &mut Random, size: u64, longest: u64, most: u64) -> Vec<Extent> {
    let mut fragments: Vec<Extent> = Vec::new();
    let mut room = most;
    while room > 0 && fragments.len() < 200 {
        let length = 1 + random.below(longest.min(room));
        let behind = fragments.last().and_then(|last| last.end());
        let offset = match behind {
            Some(end) if random.below(2) == 0 && end + length <= size => end,
            _ => random.below(size - length + 1),
        };
        fragments.push(Extent::new(offset, length));
        room -= length;
    }
    fragments
}

pub(super) fn write(buffer: &DmaBuf, content: &[u8]) -> Outcome {
    let mapping = buffer.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, content)?;
    access.finish()?;
    Ok(())
}

pub(super) fn read(buffer: &DmaBuf) -> Result<Vec<u8>, Failure> {
    let mapping = buffer.map(Access::Read)?;
    let access = mapping.read()?;
    let mut content = vec![0; mapping.length()];
    access.copy_to(0, &mut content)?;
    access.finish()?;
    Ok(content)
}

/// Compares a buffer with what it should have; tells where it has something else.
pub(super) fn check(buffer: &DmaBuf, expected: &[u8]) -> Outcome {
    let content = read(buffer)?;
    match content.iter().zip(expected).position(|(had, wanted)| had != wanted) {
        None if content.len() == expected.len() => Ok(()),
        None => Err(format!("{} bytes instead of {}", content.len(), expected.len()).into()),
        Some(at) => {
            let wrong = content.iter().zip(expected).filter(|(had, wanted)| had != wanted).count();
            Err(format!(
                "{wrong} bytes are wrong, the first at {at}: {:#x} instead of {:#x}",
                content[at], expected[at]
            )
            .into())
        }
    }
}
