//! What a transfer came to.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::connection::Received;
use super::gather::{GatherSummary, Placed};
use crate::digest::{DigestKind, Sha256Digest};
use crate::witness;

const MEBIBYTE: f64 = (1 << 20) as f64;

/// The result of a transfer, as `--json` prints it.
///
/// Keys are only ever added.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Bytes of the streams: the file, and the headers and digests of its stripes.
    pub(crate) bytes: u64,
    /// The size of the file.
    pub(crate) file_bytes: u64,
    /// Of `bytes`, those that the NIC wrote into the buffer.
    pub(crate) fragment_bytes: u64,
    /// Of `bytes`, those that arrived in host memory.
    pub(crate) linear_bytes: u64,
    /// Pieces in which the NIC wrote.
    pub(crate) fragments: u64,
    /// Whether every stripe's digest equals the sender's; null if none was compared.
    pub(crate) sha256_match: Option<bool>,
    /// The kind of the stripes' digests: sha256 or sha256-tree; null if none were computed.
    pub(crate) digest: Option<&'static str>,
    /// The file's SHA-256, if it came in one stripe and its digest is a plain one.
    pub(crate) sha256: Option<Sha256Digest>,
    /// The stripes, in the order of the file.
    pub(crate) stripes: Vec<StripeSummary>,
    /// How many connections there were.
    pub(crate) connections: usize,
    /// From the first connection to the end of the last.
    pub(crate) seconds: f64,
    /// The rate.
    pub(crate) mib_per_second: f64,
    /// System calls of the receive path (receiving, releasing, waiting) per MiB, as it counts them.
    pub(crate) syscalls_per_mib: f64,
    /// All system calls of the receiving threads per MiB, as the kernel counts them: also those of looking at
    /// the payload, gathering it and writing the output. Null where the kernel does not tell this user.
    pub(crate) measured_syscalls_per_mib: Option<f64>,
    /// Heap allocations per receive, after the first few.
    pub(crate) allocations_per_receive: f64,
    /// Processor time of the receiving threads per MiB, in milliseconds, for all that they did: without looking at the
    /// payload (`--discard`) that of receiving.
    pub(crate) cpu_milliseconds_per_mib: f64,
    /// The way the payload took: devmem-tcp, zcrx, rdma, copy or host.
    pub(crate) path: &'static str,
    /// Why, where the tool chose.
    pub(crate) path_reason: Option<String>,
    /// The provider of the buffer.
    pub(crate) provider: String,
    /// The size of the buffer.
    pub(crate) buffer_bytes: u64,
    /// The NIC, or the RDMA device.
    pub(crate) nic: Option<String>,
    /// The bound queues.
    pub(crate) queues: Vec<u32>,
    /// Where the buffer was before the bind and after it: device-local, system or unknown.
    pub(crate) residency_before: String,
    pub(crate) residency_after: String,
    /// The driver's name for that place, where it has one: vram, gtt, local0 and others.
    pub(crate) region_before: Option<String>,
    pub(crate) region_after: Option<String>,
    /// What that was seen by.
    pub(crate) residency_evidence: String,
    /// On the path rdma: what the kernel's rule says of the way from the device to the provider's memory, reachable,
    /// not-reachable or unknown, and why. Null on other paths, and where the memory belongs to no PCI function.
    pub(crate) peer_to_peer: Option<&'static str>,
    pub(crate) peer_to_peer_reason: Option<String>,
    /// Whether the NIC's settings are as they were; null if none were changed.
    pub(crate) nic_restored: Option<bool>,
    /// Where the lab saw the payload go; null where no lab watches.
    pub(crate) ground_truth: Option<Value>,
    /// Bytes that the CPU copied: with `--gather` payload, to its place in the file; on the path copy all, into the
    /// buffer.
    pub(crate) cpu_copied_bytes: u64,
    /// Bytes that the kernel copied into the buffer; null where it does not count them.
    pub(crate) kernel_copied_bytes: Option<u64>,
    #[serde(flatten)]
    pub(crate) gather: GatherSummary,
    /// The kernel's release.
    pub(crate) kernel: String,
}

/// One stripe.
#[derive(Debug, Serialize)]
pub(crate) struct StripeSummary {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The digest, if it is a plain SHA-256.
    pub(crate) sha256: Option<Sha256Digest>,
    /// The digest, whatever its kind.
    pub(crate) digest: Option<Sha256Digest>,
    pub(crate) sha256_match: Option<bool>,
}

/// What the connections came to together.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) received: Vec<Received>,
    pub(crate) elapsed: Duration,
}

impl Totals {
    pub(crate) fn sum(&self, of: impl Fn(&Received) -> u64) -> u64 {
        self.received.iter().map(of).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.sum(|received| received.fragment_bytes + received.linear_bytes)
    }

    pub(crate) fn per_mebibyte(&self, count: u64) -> f64 {
        count as f64 / (self.bytes() as f64 / MEBIBYTE).max(f64::MIN_POSITIVE)
    }

    pub(crate) fn mebibytes_per_second(&self) -> f64 {
        self.bytes() as f64 / MEBIBYTE / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    pub(crate) fn measured_system_calls(&self) -> Option<u64> {
        self.received.iter().map(|received| received.measured_system_calls).sum()
    }

    pub(crate) fn cpu_milliseconds_per_mebibyte(&self) -> f64 {
        let time: Duration = self.received.iter().map(|received| received.cpu_time).sum();
        1e3 * time.as_secs_f64() / (self.bytes() as f64 / MEBIBYTE).max(f64::MIN_POSITIVE)
    }

    pub(crate) fn allocations_per_receive(&self) -> f64 {
        self.sum(|received| received.allocations) as f64
            / self.sum(|received| received.receives).max(1) as f64
    }

    /// Whether all digests match; `None` if not all were compared.
    pub(crate) fn digests_match(&self) -> Option<bool> {
        let compared: Option<Vec<bool>> =
            self.received.iter().map(|received| received.stripe.matches()).collect();
        compared.map(|matches| matches.into_iter().all(|matches| matches))
    }

    /// The kind of digest that the sender sent, if it sent one.
    pub(crate) fn sent_digest_kind(&self) -> Option<DigestKind> {
        self.received.first()?.stripe.header.digest
    }

    /// The kind of digest that was computed, if one was.
    pub(crate) fn digest_kind(&self) -> Option<DigestKind> {
        self.received.first()?.stripe.digest_kind()
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.received.first().map_or(0, |received| received.stripe.header.file_bytes)
    }

    /// What was brought to its place; the tail is the longest one.
    pub(crate) fn placed(&self) -> Placed {
        self.received.iter().map(|received| received.placed).fold(Placed::default(), |sum, placed| Placed {
            by_device: sum.by_device + placed.by_device,
            by_cpu: sum.by_cpu + placed.by_cpu,
            batches: sum.batches + placed.batches,
            tail: sum.tail.max(placed.tail),
        })
    }

    pub(crate) fn stripes(&self) -> Vec<StripeSummary> {
        let is_plain = self.digest_kind() == Some(DigestKind::Sha256);
        self.received
            .iter()
            .map(|received| StripeSummary {
                offset: received.stripe.header.offset,
                length: received.stripe.header.length,
                sha256: received.stripe.digest.filter(|_| is_plain),
                digest: received.stripe.digest,
                sha256_match: received.stripe.matches(),
            })
            .collect()
    }
}

/// More stripes than these are not listed for people; `--json` lists all.
const LISTED_STRIPES: usize = 4;

impl Summary {
    /// Where the lab saw something else than the kernel told.
    ///
    /// The lab counts a byte where it was written first. Of a byte that was sent again the kernel may have taken
    /// another copy, which makes a difference if some copies went to the buffer and others did not.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let truth = self.ground_truth.as_ref()?;
        let seen = truth["dmabuf_bytes"].as_u64().unwrap_or_default();
        let doubtful =
            if self.linear_bytes == 0 { 0 } else { truth["repeated_bytes"].as_u64().unwrap_or_default() };
        if seen.abs_diff(self.fragment_bytes) > doubtful {
            return Some(format!(
                "the lab saw {seen} bytes go to the buffer, not {}: the kernel's account is wrong",
                self.fragment_bytes
            ));
        }
        let looks = [
            ("before", &self.residency_before, "pages_before"),
            ("after", &self.residency_after, "pages_after"),
        ];
        for (when, told, pages) in looks {
            let seen = witness::residency(&truth[pages]).map(|residency| residency.to_string());
            if let Some(seen) = seen.filter(|seen| seen != told && told != "unknown") {
                return Some(format!(
                    "{when} the bind the lab found the buffer in {seen} memory, not {told}"
                ));
            }
        }
        None
    }

    fn write_digests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.digest.unwrap_or("sha256");
        if self.stripes.len() > LISTED_STRIPES {
            let differing = self.stripes.iter().filter(|stripe| stripe.sha256_match == Some(false)).count();
            let verdict = match (self.sha256_match, differing) {
                (None, _) => "not compared".to_owned(),
                (Some(_), 0) => "equal to the sender's".to_owned(),
                (Some(_), differing) => format!("{differing} DIFFERENT from the sender's"),
            };
            return writeln!(f, "{kind:<10} of {} stripes: {verdict}", self.stripes.len());
        }
        for stripe in &self.stripes {
            let Some(digest) = &stripe.digest else { continue };
            let verdict = match stripe.sha256_match {
                Some(true) => "equals the sender's",
                Some(false) => "DIFFERS from the sender's",
                None => "the sender sent none",
            };
            let range = format!("bytes {}..{}", stripe.offset, stripe.offset + stripe.length);
            writeln!(f, "{kind:<10} {digest}  {range}, {verdict}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: u64| 100.0 * part as f64 / self.bytes.max(1) as f64;
        writeln!(
            f,
            "received   {} bytes over {} connections in {:.2} s ({:.1} MiB/s)",
            self.file_bytes, self.connections, self.seconds, self.mib_per_second
        )?;
        writeln!(
            f,
            "in buffer  {} bytes in {} fragments ({:.1} %)",
            self.fragment_bytes,
            self.fragments,
            share(self.fragment_bytes)
        )?;
        writeln!(f, "in host    {} bytes ({:.1} %)", self.linear_bytes, share(self.linear_bytes))?;
        self.gather.write(f, self.cpu_copied_bytes)?;
        self.write_digests(f)?;
        write!(f, "path       {}", self.path)?;
        if let Some(nic) = &self.nic {
            write!(f, " on {nic}")?;
        }
        if !self.queues.is_empty() {
            write!(f, " queues {:?}", self.queues)?;
        }
        if let Some(reason) = &self.path_reason {
            write!(f, ", because {reason}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "buffer     {} bytes of {}; {} before, {} after the bind: {}",
            self.buffer_bytes,
            self.provider,
            self.residency_before,
            self.residency_after,
            self.residency_evidence
        )?;
        if let Some(reason) = &self.peer_to_peer_reason {
            writeln!(f, "way        {reason}")?;
        }
        write!(f, "cost       {:.2} system calls per MiB", self.syscalls_per_mib)?;
        if let Some(measured) = self.measured_syscalls_per_mib {
            write!(f, " ({measured:.2} with verification, counted by the kernel)")?;
        }
        writeln!(
            f,
            ", {:.2} allocations per receive, {:.2} ms of the CPU per MiB",
            self.allocations_per_receive, self.cpu_milliseconds_per_mib
        )?;
        if let Some(copied) = self.kernel_copied_bytes {
            writeln!(f, "copied     {copied} bytes by the kernel")?;
        }
        if let Some(truth) = &self.ground_truth {
            writeln!(
                f,
                "lab        saw {} payload bytes go to the buffer and {} elsewhere; {} to device memory, {} to the \
                 guest's",
                truth["dmabuf_bytes"],
                truth["elsewhere_bytes"],
                truth["device_window_bytes"],
                truth["guest_ram_bytes"],
            )?;
        }
        if let Some(restored) = self.nic_restored {
            let state = if restored { "as they were before" } else { "NOT restored" };
            writeln!(f, "settings   of {} are {state}", self.nic.as_deref().unwrap_or("the NIC"))?;
        }
        write!(f, "kernel     {}", self.kernel)
    }
}
