//! Why something could not be done with rdma-core's libraries, besides what the kernel says.

use std::borrow::Cow;
use std::fmt;

use devmem_provider::{Error, ErrorKind};

use super::completion::CompletionStatus;

/// What an error of this module carries, for code that must decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerbsFailure {
    /// The library is not installed.
    NoLibrary,
    /// The library lacks a function that is needed.
    LibraryTooOld,
    /// The kernel has the device, and the library does not list it: there is no provider for its driver.
    NoProvider,
    /// The device, or its provider, has no such queue pairs.
    NoSuchTransport,
    /// The device does not write to peers' memory, or its queue pair does not.
    NoRdmaWrite,
    /// The device does not read peers' memory, or its queue pair does not.
    NoRdmaRead,
    /// The device tells of no completions: waiting for them would never end.
    NoNotifications,
    /// As many requests or receives are outstanding as the queue has room for.
    QueueFull,
    /// A request was completed, and failed.
    Request(CompletionStatus),
}

impl VerbsFailure {
    /// The failure that an error carries.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        std::error::Error::source(error)?.downcast_ref::<Self>().copied()
    }

    /// The kind of error that it is.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::NoLibrary => ErrorKind::NotFound,
            Self::LibraryTooOld
            | Self::NoProvider
            | Self::NoSuchTransport
            | Self::NoRdmaWrite
            | Self::NoRdmaRead
            | Self::NoNotifications => ErrorKind::Unsupported,
            Self::QueueFull => ErrorKind::Busy,
            Self::Request(status) => status.kind(),
        }
    }

    /// An error that carries it.
    pub(super) fn error(self, operation: impl Into<Cow<'static, str>>) -> Error {
        Error::new(self.kind(), operation).with_source(self)
    }
}

impl fmt::Display for VerbsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLibrary => f.write_str("the library is not there"),
            Self::LibraryTooOld => f.write_str("the library is too old"),
            Self::NoProvider => f.write_str("the library has no provider for its driver"),
            Self::NoSuchTransport => f.write_str("it has no such queue pairs"),
            Self::NoRdmaWrite => f.write_str("it does not write to peers' memory"),
            Self::NoRdmaRead => f.write_str("it does not read peers' memory"),
            Self::NoNotifications => f.write_str("it does not tell of completions"),
            Self::QueueFull => f.write_str("the queue is full"),
            Self::Request(status) => status.fmt(f),
        }
    }
}

impl std::error::Error for VerbsFailure {}
