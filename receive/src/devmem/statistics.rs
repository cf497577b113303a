//! What a stream has done.

/// Counts since a stream was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// `recvmsg()` calls; `io_uring_enter()` calls of zero-copy receive.
    pub receive_calls: u64,
    /// `setsockopt()` calls that gave fragments back; `io_uring_register()` calls where a refill ring was full.
    pub release_calls: u64,
    /// `poll()` calls, made only when a wait for data came back empty.
    pub poll_calls: u64,
    /// Fragments received.
    pub fragments: u64,
    /// Bytes received in fragments.
    pub fragment_bytes: u64,
    /// Bytes received in host memory.
    pub linear_bytes: u64,
    /// Fragments given back.
    pub released: u64,
}

impl Statistics {
    /// System calls made.
    #[must_use]
    pub fn system_calls(&self) -> u64 {
        self.receive_calls + self.release_calls + self.poll_calls
    }

    /// Bytes received.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.fragment_bytes + self.linear_bytes
    }
}
