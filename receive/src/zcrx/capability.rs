//! What this kernel can do of zero-copy receive, found without privilege and without a NIC.

use std::fmt;

use nix::errno::Errno;

use super::ring::Ring;
use super::sys;
use super::uapi::{self, QueryZcrx};
use crate::nic::{Capability, Support};

/// What was asked to find out.
const BY_QUERY: &str = "IORING_REGISTER_QUERY";
const BY_PROBE: &str = "IORING_REGISTER_PROBE on a ring";

/// What this kernel can do of zero-copy receive. What a NIC can do is in [`nic::Capabilities`](crate::nic::Capabilities):
/// it takes the same of a NIC as devmem TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It has the request that receives.
    pub receive: Capability,
    /// Areas may be DMA-bufs.
    pub dmabuf_areas: Capability,
    /// The refill ring can be emptied by request.
    pub flush: Capability,
    /// Rings can share a queue, so that several threads may receive from it.
    pub sharing: Capability,
    /// Receive buffers may be larger than a page, where the driver can.
    pub large_receive_buffers: Capability,
    /// It tells when buffers run out and when it copies, and counts what it copies.
    pub events: Capability,
}

impl Capabilities {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> {
        [
            &self.receive,
            &self.dmabuf_areas,
            &self.flush,
            &self.sharing,
            &self.large_receive_buffers,
            &self.events,
        ]
        .into_iter()
    }

    /// What keeps this kernel from receiving into a DMA-buf, or into host memory, if something is known to.
    pub(super) fn lack(&self, dma_buf: bool) -> Option<&Capability> {
        let needed = [Some(&self.receive), dma_buf.then_some(&self.dmabuf_areas)];
        needed.into_iter().flatten().find(|capability| capability.support == Support::No)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|capability| writeln!(f, "{capability}"))
    }
}

/// Asks this kernel what it can do. Takes no privilege, and changes nothing.
#[must_use]
pub fn capabilities() -> Capabilities {
    probe()
}

pub(super) fn probe() -> Capabilities {
    let query = sys::query_zcrx();
    let receive = receive(&query);
    let of = |name, has: fn(&QueryZcrx) -> bool| by_query(name, &receive, &query, has);
    Capabilities {
        dmabuf_areas: of("zcrx DMA-buf areas", |query| query.area_flags & u64::from(uapi::AREA_DMABUF) != 0),
        flush: of("zcrx flush", |query| query.control_operations > uapi::CONTROL_FLUSH),
        sharing: of("zcrx sharing", |query| {
            query.control_operations > uapi::CONTROL_EXPORT
                && query.register_flags & u64::from(uapi::REGISTER_IMPORT) != 0
        }),
        large_receive_buffers: of("zcrx large receive buffers", |query| {
            query.features & uapi::FEATURE_BUFFER_SIZE != 0
        }),
        events: of("zcrx events", |query| query.features & uapi::FEATURE_EVENT != 0),
        receive,
    }
}

/// A ring tells of every request that it knows. Only where none can be made the query has to do.
fn receive(query: &Result<QueryZcrx, Errno>) -> Capability {
    let name = "zcrx";
    let ring = Ring::new(1).and_then(|ring| ring.knows_zero_copy_receive());
    let (support, reason, found_by, remedy) = match (ring, query) {
        (Ok(true), _) => (Support::Yes, "the kernel has the request".to_owned(), BY_PROBE, None),
        (Ok(false), _) => (
            Support::No,
            "the kernel does not have the request".to_owned(),
            BY_PROBE,
            Some("use a kernel from 6.15 on that is built with CONFIG_IO_URING_ZCRX"),
        ),
        (Err(error), _) => {
            let remedy =
                "look at the setting kernel.io_uring_disabled, and at the container's system call filter";
            (Support::No, error.to_string(), BY_PROBE, Some(remedy))
        }
    };
    Capability { name, support, reason, found_by, remedy }
}

fn by_query(
    name: &'static str,
    receive: &Capability,
    query: &Result<QueryZcrx, Errno>,
    has: fn(&QueryZcrx) -> bool,
) -> Capability {
    let (support, reason) = match query {
        _ if receive.support == Support::No => (Support::No, "there is no zero-copy receive".to_owned()),
        Ok(answer) if has(answer) => (Support::Yes, "the kernel says so".to_owned()),
        Ok(_) => (Support::No, "the kernel says no".to_owned()),
        Err(errno) => (Support::Unknown, format!("the kernel cannot be asked: {}", errno.desc())),
    };
    let remedy = match support {
        Support::Yes => None,
        Support::No => Some("use a newer kernel"),
        Support::Unknown => Some("try it, with CAP_NET_ADMIN"),
    };
    Capability { name, support, reason, found_by: BY_QUERY, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(support: Support) -> Capability {
        Capability { name: "zcrx", support, reason: "a test".to_owned(), found_by: BY_PROBE, remedy: None }
    }

    #[test]
    fn every_answer_has_a_reason() {
        let capabilities = capabilities();
        assert_eq!(capabilities.iter().count(), 6);
        for capability in capabilities.iter() {
            assert!(!capability.reason.is_empty() && !capability.found_by.is_empty(), "{capability}");
            assert!(capability.support == Support::Yes || capability.remedy.is_some(), "{capability}");
        }
    }

    #[test]
    fn a_kernel_that_cannot_be_asked_is_unknown_and_no_lack() {
        let has = |query: &QueryZcrx| query.area_flags & 1 != 0;
        let yes = receive(Support::Yes);
        let unknown = by_query("areas", &yes, &Err(Errno::EINVAL), has);
        assert_eq!(unknown.support, Support::Unknown);
        let no = by_query("areas", &yes, &Ok(QueryZcrx::default()), has);
        assert_eq!(no.support, Support::No);
        let answer = QueryZcrx { area_flags: 1, ..QueryZcrx::default() };
        assert_eq!(by_query("areas", &yes, &Ok(answer), has).support, Support::Yes);
        assert_eq!(by_query("areas", &receive(Support::No), &Ok(answer), has).support, Support::No);
    }
}
