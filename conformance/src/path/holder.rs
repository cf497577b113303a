//! Who has a receive queue.

use std::fmt;

use devmem_receive::netdev::{PagePool, Queue};

/// Who has a receive queue, as the kernel tells it of the queue and of its page pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The binding of a DMA-buf, with the kernel's number for it, which is never 0.
    Binding(u32),
    /// io_uring, whose registrations have no numbers outside of their ring.
    IoUring,
}

impl Holder {
    /// Who has a queue; `None` if nobody has.
    #[must_use]
    pub fn of_queue(queue: &Queue) -> Option<Self> {
        Self::told(queue.dmabuf, queue.io_uring)
    }

    /// Whose memory a page pool gives; `None` if it is the kernel's own.
    #[must_use]
    pub fn of_pool(pool: &PagePool) -> Option<Self> {
        Self::told(pool.dmabuf, pool.io_uring)
    }

    fn told(binding: Option<u32>, io_uring: bool) -> Option<Self> {
        binding.map(Self::Binding).or_else(|| io_uring.then_some(Self::IoUring))
    }

    /// The kernel's number, where it has one.
    #[must_use]
    pub fn number(self) -> Option<u32> {
        match self {
            Self::Binding(number) => Some(number),
            Self::IoUring => None,
        }
    }

    /// As a number for another process: 0 is io_uring.
    pub(crate) fn to_bytes(self) -> [u8; 4] {
        self.number().unwrap_or_default().to_le_bytes()
    }

    /// What [`to_bytes`](Self::to_bytes) returned.
    pub(crate) fn from_bytes(bytes: [u8; 4]) -> Self {
        match u32::from_le_bytes(bytes) {
            0 => Self::IoUring,
            number => Self::Binding(number),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(number) => write!(f, "binding {number}"),
            Self::IoUring => f.write_str("io_uring"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_the_same_in_another_process() {
        for holder in [Holder::IoUring, Holder::Binding(1), Holder::Binding(u32::MAX)] {
            assert_eq!(Holder::from_bytes(holder.to_bytes()), holder);
        }
    }
}
