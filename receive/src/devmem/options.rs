//! How a stream receives.

use std::time::Duration;

use devmem_provider::base_page_size;

use super::uapi;

/// How a [`Stream`](super::Stream) receives.
///
/// The defaults make as few system calls as the kernel's interface allows while data flows: a call waits for
/// up to 4 MiB, but never longer than the linger time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    pub(crate) batch_bytes: usize,
    pub(crate) batch_fragments: usize,
    pub(crate) linger: Duration,
    pub(crate) idle_limit: Option<Duration>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            batch_bytes: 4 << 20,
            batch_fragments: uapi::RELEASE_FRAGMENTS,
            linger: Duration::from_millis(20),
            idle_limit: None,
        }
    }
}

impl StreamOptions {
    /// The most bytes that one receive waits for and returns.
    ///
    /// Keep it well below the buffer's size divided by the number of connections that share it: bytes that
    /// a receive has gathered are given back only after it returns.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes.max(1);
        self
    }

    /// The most fragments that one receive returns, 1024 by default: as many as one call can give back.
    #[must_use]
    pub fn batch_fragments(mut self, fragments: usize) -> Self {
        self.batch_fragments = fragments.clamp(1, 1 << 16);
        self
    }

    /// How long a receive that has some data waits for more. Zero returns at once what is there, at the
    /// price of more system calls.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Waits no longer than this for the next bytes. By default it waits for ever.
    #[must_use]
    pub fn idle_limit(mut self, limit: Duration) -> Self {
        self.idle_limit = Some(limit);
        self
    }

    /// How many bytes each of `connections` that share a buffer of `buffer_bytes` should gather at most.
    #[must_use]
    pub fn fair_batch(buffer_bytes: u64, connections: usize) -> usize {
        // Half of the buffer stays for the NIC to write to while every connection gathers.
        let shares = u64::try_from(connections.max(1)).unwrap_or(u64::MAX).saturating_mul(2);
        let share = usize::try_from(buffer_bytes / shares).unwrap_or(usize::MAX);
        share.clamp(LEAST_FRAGMENTS * page_bytes(), Self::default().batch_bytes)
    }
}

impl StreamOptions {
    /// How many fragments fill a batch of `bytes` with whole pages, within what the options allow: small packets take
    /// a page each.
    pub(crate) fn fragments_for(&self, bytes: usize) -> usize {
        (bytes / page_bytes()).max(LEAST_FRAGMENTS).min(self.batch_fragments)
    }
}

/// A batch is never limited to fewer fragments than this.
const LEAST_FRAGMENTS: usize = 16;

/// The page size in bytes.
fn page_bytes() -> usize {
    usize::try_from(base_page_size()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_a_buffer() {
        assert_eq!(StreamOptions::fair_batch(64 << 20, 1), 4 << 20);
        assert_eq!(StreamOptions::fair_batch(64 << 20, 32), 1 << 20);
        assert_eq!(StreamOptions::fair_batch(4096, 8), LEAST_FRAGMENTS * page_bytes());
    }
}
