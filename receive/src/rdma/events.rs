//! What happens to an RDMA device while it is used.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use devmem_provider::{Error, Result};
use nix::errno::Errno;

use super::context::Context;
use super::sys;
use super::uapi::{AsyncEventDesc, event};

/// Something that happened to a device (`enum ib_event_type`).
///
/// The kernel has no event for a memory region: that an exporter has moved or revoked memory shows in where the buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The device is of no use any more: it failed, was removed, or its driver is being unbound. A driver that waits for
    /// its users, as `efa` does, is unbound once everything of the device is dropped.
    DeviceGone,
    /// A port can send and receive.
    PortActive(u8),
    /// A port can send and receive no more.
    PortDown(u8),
    /// The addresses or keys of a port have changed.
    PortChanged(u8),
    /// A completion queue or a queue pair failed; it is known to who made it.
    QueueFailed,
    /// Another event, by the kernel's number.
    Other(u32),
}

impl Event {
    fn of(description: AsyncEventDesc) -> Self {
        let port = u8::try_from(description.element).unwrap_or(u8::MAX);
        match description.event_type {
            event::DEVICE_FATAL => Self::DeviceGone,
            event::PORT_ACTIVE => Self::PortActive(port),
            event::PORT_ERR => Self::PortDown(port),
            event::LID_CHANGE | event::PKEY_CHANGE | event::GID_CHANGE => Self::PortChanged(port),
            event::CQ_ERR | event::QP_FATAL | event::QP_REQ_ERR | event::QP_ACCESS_ERR => Self::QueueFailed,
            other => Self::Other(other),
        }
    }
}

/// A channel of a device's events. Its descriptor can be waited for: it is readable while there is one.
#[derive(Debug)]
pub struct Events {
    channel: File,
    context: Arc<Context>,
}

impl Events {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self> {
        let descriptor = context.event_channel()?;
        sys::set_nonblocking(&descriptor)
            .map_err(|errno| Error::from_errno(errno, "make reading events return").on(context.device()))?;
        Ok(Self { channel: descriptor.into(), context: Arc::clone(context) })
    }

    /// The next event; `None` if there is none now.
    ///
    /// # Errors
    ///
    /// If the kernel answers something else.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        match sys::read_event(&self.channel) {
            Ok(description) => Ok(description.map(Event::of)),
            // The device has gone, and that event has been read.
            Err(Errno::EIO) => Ok(Some(Event::DeviceGone)),
            Err(errno) => Err(Error::from_errno(errno, "read an event").on(self.context.device())),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_kernel_have_names() {
        for (event_type, expected) in [
            (event::DEVICE_FATAL, Event::DeviceGone),
            (event::PORT_ACTIVE, Event::PortActive(2)),
            (event::PORT_ERR, Event::PortDown(2)),
            (event::GID_CHANGE, Event::PortChanged(2)),
            (event::QP_ACCESS_ERR, Event::QueueFailed),
            (77, Event::Other(77)),
        ] {
            assert_eq!(Event::of(AsyncEventDesc { element: 2, event_type, reserved: 0 }), expected);
        }
    }
}
