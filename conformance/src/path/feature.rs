//! What some receive paths have and others have not.

use std::fmt;

use crate::verdict::Skip;

/// Something that a receive path has, and that a check may need of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// One binding can have several queues.
    SeveralQueues,
    /// Bindings are made over netlink, which has words for its refusals.
    Netlink,
    /// Connections are received by `recvmsg()`, with its flags, and fragments are given back by tokens.
    Socket,
    /// Payload that arrived in host memory comes in the stream, in its place.
    HostMemory,
    /// Streams and what is held outlive their binding.
    StreamsOutlive,
    /// Queues are registered with rings of io_uring, and given back to by a refill ring.
    Rings,
}

impl Feature {
    /// Why nothing can be said of a path without it.
    pub(crate) fn missing_in(self, path: &str) -> Skip {
        Skip {
            reason: format!("{path} does not have {self}"),
            found_by: "what the kernel defines of the path".to_owned(),
            remedy: None,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SeveralQueues => "bindings of several queues",
            Self::Netlink => "bindings by netlink",
            Self::Socket => "receiving by recvmsg() with tokens",
            Self::HostMemory => "payload of host memory in its streams",
            Self::StreamsOutlive => "streams that outlive their binding",
            Self::Rings => "rings of io_uring",
        })
    }
}
