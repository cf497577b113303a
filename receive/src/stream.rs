//! What a receive path yields: pieces of a byte stream, in order, where they lie.

use std::ops::Range;

/// Received bytes that lie in the bound buffer.
///
/// The space belongs to the reader until the fragment is given back. A fragment is never larger than a
/// page with today's devmem TCP, and may be as small as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a fragment that is not released is lost to the NIC until the connection closes"]
pub struct Fragment {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) token: u32,
}

impl Fragment {
    /// Where the bytes begin in the buffer.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes there are. Never 0.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The number by which the kernel knows it: what `SO_DEVMEM_DONTNEED` takes.
    #[must_use]
    pub fn token(&self) -> u32 {
        self.token
    }

    /// The bytes' place in the buffer.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.length)
    }
}

/// The next bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'stream> {
    /// They lie in the bound buffer.
    Fragment(Fragment),
    /// They arrived in host memory instead: the NIC did not split the packet where payload begins, or
    /// steered it to another queue.
    Linear(&'stream [u8]),
}

impl Part<'_> {
    /// How many bytes there are.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Fragment(fragment) => fragment.length as usize,
            Self::Linear(bytes) => bytes.len(),
        }
    }
}
