//! Completion queues, and the channels by which they are waited for.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::super::abi;
use super::{Context, done, object};

/// Where a completion queue tells that it has something.
pub(crate) struct Channel {
    context: Arc<Context>,
    pointer: NonNull<abi::CompletionChannel>,
}

// SAFETY: as a context.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    pub(crate) fn create(context: &Arc<Context>) -> Result<Self, Errno> {
        // SAFETY: an open device.
        let pointer = object(unsafe { (context.verbs.create_comp_channel)(context.pointer.as_ptr()) })?;
        let channel = Self { context: Arc::clone(context), pointer };
        // Events are taken until there is none, which must not wait.
        let flags = OFlag::from_bits_retain(fcntl(channel.descriptor(), FcntlArg::F_GETFL)?);
        fcntl(channel.descriptor(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(channel)
    }

    /// The descriptor that becomes readable when there is an event.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel's descriptor, which stays open as long as it.
        unsafe { BorrowedFd::borrow_raw((*self.pointer.as_ptr()).fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: the queues that tell here are gone: each owns its channel.
        let _ = unsafe { (self.context.verbs.destroy_comp_channel)(self.pointer.as_ptr()) };
    }
}

/// A completion queue.
pub(crate) struct Queue {
    context: Arc<Context>,
    pub(super) pointer: NonNull<abi::CompletionQueue>,
    channel: Channel,
}

// SAFETY: as a context.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// A queue with room for this many completions at least, which tells in a channel of its own.
    pub(crate) fn create(context: &Arc<Context>, entries: u32) -> Result<Self, Errno> {
        let channel = Channel::create(context)?;
        let entries = c_int::try_from(entries).map_err(|_| Errno::EINVAL)?;
        let (device, told) = (context.pointer.as_ptr(), channel.pointer.as_ptr());
        // SAFETY: an open device and a channel of it.
        let pointer =
            object(unsafe { (context.verbs.create_cq)(device, entries, std::ptr::null_mut(), told, 0) })?;
        Ok(Self { context: Arc::clone(context), pointer, channel })
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Takes completions. Returns how many of the entries were filled.
    pub(crate) fn poll(&self, entries: &mut [abi::WorkCompletion]) -> Result<usize, Errno> {
        let poll = self.context.operations().poll_cq.ok_or(Errno::EOPNOTSUPP)?;
        let room = c_int::try_from(entries.len()).unwrap_or(c_int::MAX);
        // SAFETY: a queue of this provider, and room for so many entries.
        let count = unsafe { poll(self.pointer.as_ptr(), room, entries.as_mut_ptr()) };
        // What else a provider returns is -errno, or one that means nothing.
        usize::try_from(count).map_err(|_| match count {
            -1 => Errno::EIO,
            number => Errno::from_raw(number.saturating_neg()),
        })
    }

    /// Lets the next completion be told in the channel.
    pub(crate) fn arm(&self) -> Result<(), Errno> {
        let arm = self.context.operations().req_notify_cq.ok_or(Errno::EOPNOTSUPP)?;
        // SAFETY: a queue of this provider.
        done(unsafe { arm(self.pointer.as_ptr(), 0) })
    }

    /// Takes an event out of the channel. Returns whether there was one.
    pub(crate) fn take_event(&self) -> Result<bool, Errno> {
        let (mut queue, mut program) = (std::ptr::null_mut(), std::ptr::null_mut());
        let get = self.context.verbs.get_cq_event;
        // SAFETY: a channel, and places for the answer.
        match unsafe { get(self.channel.pointer.as_ptr(), &raw mut queue, &raw mut program) } {
            0 => {
                // SAFETY: the event was this queue's, for no other tells in its channel.
                unsafe { (self.context.verbs.ack_cq_events)(self.pointer.as_ptr(), 1) };
                Ok(true)
            }
            _ => match Errno::last() {
                Errno::EAGAIN | Errno::EINTR => Ok(false),
                errno => Err(errno),
            },
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: queue pairs hold it, so that nothing uses it any more, and its events are acknowledged. Its channel is
        // destroyed after it.
        let _ = unsafe { (self.context.verbs.destroy_cq)(self.pointer.as_ptr()) };
    }
}
