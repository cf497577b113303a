//! What a netlink exchange can fail with.

use std::fmt;

use devmem_provider::{Error as DevmemError, ErrorKind};
use nix::errno::Errno;

/// The result of a netlink exchange.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a netlink exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel refused the request.
    #[error(transparent)]
    Kernel(Box<KernelError>),
    /// A system call on the socket failed.
    #[error("cannot {operation}: {errno}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
    /// A reply does not follow the interface.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The kernel has no generic netlink family of this name.
    #[error("the kernel has no netlink family \"{0}\"")]
    NoFamily(&'static str),
}

/// A reply that breaks the rules of netlink or lacks what it must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink reply: {0}")]
pub struct Malformed(pub &'static str);

/// A refusal by the kernel with everything its extended acknowledgement says.
///
/// Match [`errno`](Self::errno) first and the message second: messages change between kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelError {
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words.
    pub message: Option<String>,
    /// The attribute of the request that the kernel objects to, as a path such as `header.dev-index`.
    pub attribute: Option<String>,
    /// The attribute that the request lacks, as a path.
    pub missing: Option<String>,
    /// What the kernel would have accepted for [`attribute`](Self::attribute).
    pub policy: Option<Policy>,
}

impl KernelError {
    /// An error number without an extended acknowledgement.
    #[must_use]
    pub fn from_errno(errno: Errno) -> Self {
        Self { errno, message: None, attribute: None, missing: None, policy: None }
    }

    /// What the kernel said beyond the number, in one line; `None` when it said nothing.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(message) = &self.message {
            parts.push(message.clone());
        }
        if let Some(attribute) = &self.attribute {
            parts.push(format!("attribute {attribute}"));
        }
        if let Some(missing) = &self.missing {
            parts.push(format!("missing attribute {missing}"));
        }
        if let Some(policy) = self.policy.map(|policy| policy.to_string()).filter(|text| !text.is_empty()) {
            parts.push(policy);
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => write!(f, "{words} ({})", self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

impl std::error::Error for KernelError {}

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        Self::Kernel(Box::new(error))
    }
}

/// The limits that the kernel's policy sets for an attribute (`NL_POLICY_TYPE_ATTR_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The least value, where the attribute is a number.
    pub minimum: Option<i128>,
    /// The greatest value, where the attribute is a number.
    pub maximum: Option<i128>,
    /// The least length in bytes.
    pub minimum_length: Option<u32>,
    /// The greatest length in bytes.
    pub maximum_length: Option<u32>,
    /// The bits that may be set.
    pub mask: Option<u64>,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut part = |f: &mut fmt::Formatter<'_>, text: String| {
            let result = write!(f, "{separator}{text}");
            separator = ", ";
            result
        };
        match (self.minimum, self.maximum) {
            (Some(minimum), Some(maximum)) => part(f, format!("allowed {minimum} to {maximum}"))?,
            (Some(minimum), None) => part(f, format!("allowed {minimum} or more"))?,
            (None, Some(maximum)) => part(f, format!("allowed {maximum} or less"))?,
            (None, None) => {}
        }
        match (self.minimum_length, self.maximum_length) {
            (Some(minimum), Some(maximum)) => part(f, format!("{minimum} to {maximum} bytes"))?,
            (Some(minimum), None) => part(f, format!("{minimum} bytes or more"))?,
            (None, Some(maximum)) => part(f, format!("{maximum} bytes or less"))?,
            (None, None) => {}
        }
        match self.mask {
            Some(mask) => part(f, format!("allowed bits {mask:#x}")),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The error number, where a system call or the kernel's refusal has one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel(error) => Some(error.errno),
            Self::System { errno, .. } => Some(*errno),
            Self::Malformed(_) | Self::NoFamily(_) => None,
        }
    }

    /// The kernel's refusal, if it is one.
    #[must_use]
    pub fn kernel(&self) -> Option<&KernelError> {
        match self {
            Self::Kernel(error) => Some(error),
            _ => None,
        }
    }

    /// As the error of these crates, said of `operation`, a verb phrase such as "bind queue 1".
    #[must_use]
    pub fn during(self, operation: impl Into<std::borrow::Cow<'static, str>>) -> DevmemError {
        match self {
            Self::Kernel(kernel) => {
                let error = DevmemError::from_errno(kernel.errno, operation);
                match kernel.words() {
                    Some(words) => error.kernel_said(words),
                    None => error,
                }
            }
            Self::System { errno, operation: call } => {
                DevmemError::from_errno(errno, operation).because(format!("{call} failed"))
            }
            Self::Malformed(malformed) => {
                DevmemError::new(ErrorKind::Protocol, operation).because(malformed.to_string())
            }
            Self::NoFamily(name) => DevmemError::new(ErrorKind::Unsupported, operation)
                .because(format!("this kernel has no netlink family \"{name}\""))
                .remedy("run a kernel that is built with it"),
        }
    }
}

impl From<Error> for DevmemError {
    fn from(error: Error) -> Self {
        error.during("talk to the kernel by netlink")
    }
}
