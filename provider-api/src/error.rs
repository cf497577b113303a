//! What went wrong: what was tried, on what, what the kernel said, and what to try next.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

/// The result of every fallible operation of the devmem crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure this is, for code that must decide what to do.
///
/// Match with a wildcard arm: kinds are added as kernels gain reasons to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named device, node, queue, file or address does not exist.
    NotFound,
    /// The kernel or the file system refused for want of privilege.
    PermissionDenied,
    /// The caller asked for something that can never work: a size that is not a multiple of the page
    /// size, an empty list of queues, a descriptor of the wrong type.
    InvalidInput,
    /// This kernel, driver or device cannot do it. The reason is in the message.
    Unsupported,
    /// It could be done, but the object is in a state that forbids it: an interface that is down, header
    /// split that is off, an XDP program in the way.
    WrongState,
    /// Somebody else holds it: another process configures the NIC, a queue has a memory provider already.
    Busy,
    /// No memory of the wanted sort is left, or the request exceeds a limit on memory.
    OutOfMemory,
    /// The memory is not where the caller demanded it to be.
    WrongResidency,
    /// The device or the peer has gone away.
    Gone,
    /// The kernel, a driver or a peer answered something that its interface does not allow.
    Protocol,
    /// An input or output operation failed for another reason; see [`Error::errno`].
    Io,
}

/// A failure, told so that a person can act on it and code can match on it.
///
/// It reads as one sentence: *what was tried* on *what*: *what the kernel said*; *what to do*. The sentence
/// tells the underlying error as well, so that who walks the chain of sources ends here.
pub struct Error(Box<Details>);

struct Details {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    object: Option<String>,
    errno: Option<Errno>,
    kernel_message: Option<String>,
    reason: Option<Cow<'static, str>>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of `kind` while doing `operation`, a verb phrase such as "bind queue 1".
    #[must_use]
    pub fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Details {
            kind,
            operation: operation.into(),
            object: None,
            errno: None,
            kernel_message: None,
            reason: None,
            remedy: None,
            source: None,
        }))
    }

    /// A failed system call: the kind follows from `errno`; [`with_kind`](Self::with_kind) refines it.
    #[must_use]
    pub fn from_errno(errno: Errno, operation: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(kind_of(errno), operation);
        error.0.errno = Some(errno);
        error
    }

    /// A failed operation of the standard library; keeps the errno where there is one.
    #[must_use]
    pub fn from_io(error: std::io::Error, operation: impl Into<Cow<'static, str>>) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::from_errno(Errno::from_raw(number), operation),
            None => Self::new(ErrorKind::Io, operation).with_source(error),
        }
    }

    /// Replaces the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Names what the operation was tried on: an interface, a node, a buffer.
    #[must_use]
    pub fn on(mut self, object: impl fmt::Display) -> Self {
        self.0.object = Some(object.to_string());
        self
    }

    /// Adds the error number that the kernel returned.
    #[must_use]
    pub fn with_errno(mut self, errno: Errno) -> Self {
        self.0.errno = Some(errno);
        self
    }

    /// Adds the kernel's own words: a netlink extended acknowledgement or a kernel log line.
    #[must_use]
    pub fn kernel_said(mut self, message: impl Into<String>) -> Self {
        self.0.kernel_message = Some(message.into());
        self
    }

    /// Adds why it failed, in our words, where the kernel's do not say it.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    /// Adds the next thing for a person to try.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was tried.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// What it was tried on.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// The error number of the kernel, if a system call or a netlink request failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    /// The kernel's own words.
    #[must_use]
    pub fn kernel_message(&self) -> Option<&str> {
        self.0.kernel_message.as_deref()
    }

    /// Why it failed, in our words.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// What to try next.
    #[must_use]
    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

/// The kind that an errno stands for where no better knowledge exists.
fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::EADDRNOTAVAIL => ErrorKind::NotFound,
        Errno::EPERM | Errno::EACCES => ErrorKind::PermissionDenied,
        Errno::EINVAL | Errno::EBADF | Errno::EBADFD | Errno::ERANGE | Errno::EFAULT => {
            ErrorKind::InvalidInput
        }
        Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOTTY | Errno::ENOPROTOOPT => ErrorKind::Unsupported,
        Errno::EBUSY | Errno::EEXIST | Errno::EADDRINUSE | Errno::ETXTBSY => ErrorKind::Busy,
        Errno::ENOMEM | Errno::ENOSPC | Errno::ENOBUFS | Errno::EMFILE | Errno::ENFILE => {
            ErrorKind::OutOfMemory
        }
        Errno::ENETDOWN => ErrorKind::WrongState,
        Errno::ECONNRESET | Errno::EPIPE | Errno::ENOTCONN | Errno::ESTALE => ErrorKind::Gone,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.0;
        write!(f, "cannot {}", details.operation)?;
        if let Some(object) = &details.object {
            write!(f, " on {object}")?;
        }
        if let Some(reason) = &details.reason {
            write!(f, ": {reason}")?;
        }
        if let Some(message) = &details.kernel_message {
            write!(f, ": the kernel said \"{message}\"")?;
        }
        if let Some(source) = &details.source {
            write!(f, ": {source}")?;
        }
        if let Some(errno) = details.errno {
            // Numbers that the C library has no name for exist: ETOOSMALL (525) is one of the kernel's own.
            match errno {
                Errno::UnknownErrno => write!(f, " (an error number unknown to the C library)")?,
                known => write!(f, " ({known:?}, {})", known.desc())?,
            }
        }
        if let Some(remedy) = &details.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_sentence_with_everything_known() {
        let error = Error::from_errno(Errno::EINVAL, "bind queues 1-4")
            .on("eth1")
            .with_kind(ErrorKind::WrongState)
            .kernel_said("tcp-data-split is disabled")
            .remedy("turn header split on");
        assert_eq!(
            error.to_string(),
            "cannot bind queues 1-4 on eth1: the kernel said \"tcp-data-split is disabled\" \
             (EINVAL, Invalid argument); turn header split on"
        );
        assert_eq!(error.kind(), ErrorKind::WrongState);
        assert_eq!(error.errno(), Some(Errno::EINVAL));
    }

    #[test]
    fn keeps_the_errno_of_a_standard_library_error() {
        let error = Error::from_io(std::io::Error::from_raw_os_error(13), "open").on("/dev/udmabuf");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.errno(), Some(Errno::EACCES));
    }

    #[test]
    fn an_error_without_errno_keeps_its_source() {
        let error = Error::from_io(std::io::Error::other("short read"), "read the journal");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().ends_with("short read"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn stays_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
