//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use devmem_provider::Placement;

use crate::digest::DigestKind;
use crate::transfer::MAXIMUM_STRIPES;

/// Copies files from the network into GPU memory, without the CPU touching the payload.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Receive a file into a buffer of a provider, and say where every byte went.
    Receive(ReceiveOptions),
    /// Send a file to `receive`.
    Send(SendOptions),
    /// List the providers of device memory of this machine, and why others are not available.
    Providers(ProvidersOptions),
    /// Bind a buffer of every provider, in every placement, to a NIC or an RDMA device, and show where it went.
    Matrix(MatrixOptions),
    /// Hold a buffer where an RDMA device reaches it, show where it is and why, and wait for a signal.
    Pin(PinOptions),
    /// Show what a NIC can do for receiving into device memory, and how that was found.
    Nic(NicOptions),
    /// Foretell which NICs reach which GPUs' memory across PCI, with the evidence.
    Topology(TopologyOptions),
    /// Measure gathering fragments on a device, without a NIC: against one contiguous copy, and against the CPU.
    Gather(GatherOptions),
    /// Put back the settings of NICs that a killed `receive` left changed.
    Restore(RestoreOptions),
}

/// Which way the payload takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Path {
    /// The NIC writes into the buffer: devmem TCP.
    DevmemTcp,
    /// The NIC writes into the buffer: io_uring zero-copy receive, with one queue.
    Zcrx,
    /// The sender's RDMA device writes into the buffer; send with --path rdma, too. It takes rdma-core's libraries.
    Rdma,
    /// The CPU receives into host memory, then copies into the buffer.
    Copy,
    /// The CPU receives into host memory, and the buffer stays unused. For comparison.
    Host,
    /// devmem-tcp where the machine can do it, else zcrx, else copy; says which and why.
    Auto,
}

/// Which way the payload takes from the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SenderPath {
    /// Over TCP, for all of the receiver's paths but rdma.
    Tcp,
    /// An RDMA device writes into the receiver's buffer.
    Rdma,
}

/// What is demanded of the buffer's residency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Demand {
    /// The memory may lie anywhere.
    Anywhere,
    /// The memory must stay on the device while the NIC receives.
    DeviceLocal,
}

/// Where a buffer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// Where the provider puts it.
    Any,
    /// In the device's own memory.
    DeviceLocal,
    /// In the device's own memory, within reach of the CPU and of peers.
    DeviceLocalVisible,
    /// In system memory.
    System,
}

impl Place {
    /// The placement to ask for, if one is wanted.
    pub(crate) fn placement(self) -> Option<Placement> {
        match self {
            Self::Any => None,
            Self::DeviceLocal => Some(Placement::DeviceLocal),
            Self::DeviceLocalVisible => Some(Placement::DeviceLocalVisible),
            Self::System => Some(Placement::System),
        }
    }
}

/// The pages behind a buffer in system memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pages {
    /// The kernel's base pages.
    Base,
    /// Huge pages of 2 MiB.
    Huge,
}

/// The digest behind a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DigestChoice {
    /// SHA-256 over the stripe.
    Sha256,
    /// SHA-256 over the SHA-256s of its blocks of 4096 bytes.
    Tree,
    /// None.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveOptions {
    /// The NIC: an interface name, a PCI address, or a local IP address. By default the one that has the
    /// address of --listen. Of no meaning with --path rdma.
    #[arg(long)]
    pub(crate) nic: Option<String>,
    /// With --path rdma, the RDMA device: its name, its PCI address or its node [default: the first whose port is active]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) rdma: Option<String>,
    /// Where to listen, IPv4 or IPv6.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Who allocates the buffer: a provider's name, a PCI address or a device node.
    #[arg(long, default_value = "udmabuf")]
    pub(crate) provider: String,
    /// The size of the buffer: a multiple of the page size, with K, M or G.
    #[arg(long, default_value = "64M", value_parser = parse_size)]
    pub(crate) size: u64,
    /// Where the buffer is wanted.
    #[arg(long, value_enum, default_value_t = Place::Any)]
    pub(crate) placement: Place,
    /// Nowhere else: fail if the provider cannot put it there, and allow it nowhere else later.
    #[arg(long)]
    pub(crate) placement_only: bool,
    /// How many receive queues to bind.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) queues: u32,
    /// Which way the payload takes.
    #[arg(long, value_enum, default_value_t = Path::DevmemTcp)]
    pub(crate) path: Path,
    /// What is demanded of the buffer's residency.
    #[arg(long, value_enum, default_value_t = Demand::Anywhere)]
    pub(crate) require: Demand,
    /// The pages behind a buffer in system memory.
    #[arg(long, value_enum, default_value_t = Pages::Base)]
    pub(crate) pages: Pages,
    /// Let the device make the file contiguous in a second buffer, and verify it there. PROVIDER allocates that
    /// buffer, and its device copies; the CPU does it where the provider has no device that can [default: the
    /// one of --provider]
    #[arg(long, value_name = "PROVIDER", num_args = 0..=1, require_equals = true)]
    pub(crate) gather: Option<Option<String>>,
    /// Where the gathered file is wanted.
    #[arg(long, value_enum, default_value_t = Place::DeviceLocal, requires = "gather")]
    pub(crate) gather_placement: Place,
    /// The largest file that is gathered, with K, M or G: a peer's announcement makes this machine allocate.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size, requires = "gather")]
    pub(crate) gather_limit: u64,
    /// Write the file here as well, once it has arrived whole and right. With --gather the CPU reads it back
    /// from the buffer where it was gathered.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Look at nothing but headers: no digest, no output. For measuring.
    #[arg(long, conflicts_with = "output")]
    pub(crate) discard: bool,
    /// Give up when no connection or no data arrives for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) timeout: u64,
    /// Print the summary as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SendOptions {
    /// The receiver's address, IPv4 or IPv6.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) connect: SocketAddr,
    /// Which way the payload takes.
    #[arg(long, value_enum, default_value_t = SenderPath::Tcp)]
    pub(crate) path: SenderPath,
    /// With --path rdma, the RDMA device: its name, its PCI address or its node [default: the first whose port is active]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) rdma: Option<String>,
    /// How many connections to send the file over, a stripe each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAXIMUM_STRIPES)))]
    pub(crate) connections: u32,
    /// The digest to send behind each stripe. A tree suits receivers that gather: a device computes its parts
    /// side by side.
    #[arg(long, value_enum, default_value_t = DigestChoice::Sha256)]
    digest: DigestChoice,
    /// Send no digests: the same as --digest none.
    #[arg(long, conflicts_with = "digest")]
    no_digest: bool,
    /// Wait so many seconds for the receiver to listen.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=86400))]
    pub(crate) wait: u64,
    /// Print the summary as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// The file.
    pub(crate) file: PathBuf,
}

impl SendOptions {
    /// The kind of digest to send, if any.
    pub(crate) fn digest(&self) -> Option<DigestKind> {
        match self.digest {
            _ if self.no_digest => None,
            DigestChoice::Sha256 => Some(DigestKind::Sha256),
            DigestChoice::Tree => Some(DigestKind::Tree),
            DigestChoice::None => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ProvidersOptions {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MatrixOptions {
    /// The NIC, of which a queue is bound by devmem TCP: an interface name, a PCI address, or a local IP address.
    #[arg(long, required_unless_present = "rdma")]
    pub(crate) nic: Option<String>,
    /// The RDMA device, on which memory regions are registered: its name, its PCI address or its node.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) rdma: Option<String>,
    /// The provider; by default all of this machine.
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// The size of the buffers: a multiple of the page size, with K, M or G.
    #[arg(long, default_value = "4M", value_parser = parse_size)]
    pub(crate) size: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PinOptions {
    /// Who allocates the buffer: a provider's name, a PCI address or a device node.
    #[arg(long)]
    pub(crate) provider: String,
    /// The RDMA device: its name, its PCI address or its node. By default the first whose port is active.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) rdma: Option<String>,
    /// The size of the buffer: a multiple of the page size, with K, M or G.
    #[arg(long, default_value = "64M", value_parser = parse_size)]
    pub(crate) size: u64,
    /// Where the buffer is wanted.
    #[arg(long, value_enum, default_value_t = Place::Any)]
    pub(crate) placement: Place,
    /// Nowhere else: fail if the provider cannot put it there, and allow it nowhere else later.
    #[arg(long)]
    pub(crate) placement_only: bool,
    /// What is demanded of the buffer's residency.
    #[arg(long, value_enum, default_value_t = Demand::Anywhere)]
    pub(crate) require: Demand,
    /// Let peers write to it.
    #[arg(long)]
    pub(crate) remote_write: bool,
    /// Let peers read from it.
    #[arg(long)]
    pub(crate) remote_read: bool,
    /// Hold it no longer than so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=1 << 32))]
    pub(crate) seconds: Option<u64>,
    /// Print one JSON object, and one for each thing that happens later.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NicOptions {
    /// The NIC: an interface name, a PCI address, or a local IP address.
    pub(crate) nic: String,
}

#[derive(Debug, Args)]
pub(crate) struct TopologyOptions {
    /// The NIC: an interface name, a PCI address, or a local IP address. By default every one.
    #[arg(long)]
    pub(crate) nic: Option<String>,
    /// The GPU: a provider's name, a PCI address or a device node. By default every one.
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GatherOptions {
    /// Who allocates the buffers and copies: a provider's name, a PCI address or a device node. The CPU copies where
    /// the provider has no device that can.
    #[arg(long, default_value = "vulkan")]
    pub(crate) provider: String,
    /// Where the buffers are wanted.
    #[arg(long, value_enum, default_value_t = Place::Any)]
    pub(crate) placement: Place,
    /// How many fragments to gather.
    #[arg(long, default_value_t = 16384, value_parser = clap::value_parser!(u32).range(2..=1 << 28))]
    pub(crate) fragments: u32,
    /// The size of a fragment, with K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = parse_size)]
    pub(crate) fragment_bytes: u64,
    /// How often each way is measured.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Chooses the random order.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreOptions {
    /// The NIC; by default all that have something to restore.
    pub(crate) nic: Option<String>,
}

/// Reads a size in bytes, with K, M or G for powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "write a number of bytes, with K, M or G for powers of 1024: 64M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than any machine has".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn gather_takes_a_provider_only_behind_an_equals_sign() {
        let gather = |options: &[&str]| {
            let line = ["nic-to-gpu-copy", "receive", "--listen", "[::1]:1"].iter().chain(options);
            match Arguments::try_parse_from(line).map(|arguments| arguments.command) {
                Ok(Command::Receive(options)) => Some(options.gather),
                _ => None,
            }
        };
        assert_eq!(gather(&[]), Some(None));
        assert_eq!(gather(&["--gather"]), Some(Some(None)));
        assert_eq!(gather(&["--gather", "--json"]), Some(Some(None)));
        assert_eq!(gather(&["--gather=vulkan:llvmpipe"]), Some(Some(Some("vulkan:llvmpipe".to_owned()))));
        assert_eq!(gather(&["--gather", "vulkan"]), None);
        assert_eq!(gather(&["--gather-limit", "1G"]), None);
    }

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("1g"), Ok(1 << 30));
        for text in ["", "M", "-1", "1.5M", "64MB", "99999999999999999999", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
