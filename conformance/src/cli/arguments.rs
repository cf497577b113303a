//! What can be asked for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use devmem_conformance::Shard;

/// Checks whether providers of device memory work with the NIC receive path, and says what exactly does not.
///
/// Exit status: 0 if nothing failed, 1 if a check failed, 2 for bad usage, 3 if there is nothing to check here.
#[derive(Debug, Parser)]
#[command(version)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check providers.
    Run(RunOptions),
    /// Send to NICs that are checked on other machines, until SIGINT or SIGTERM.
    ///
    /// Runs there as `devmem-conformance run --nic NIC --peer HOST:PORT --key FILE`. Both sides prove that they have the
    /// key; make one with `(umask 077; head -c 32 /dev/urandom > FILE)` and copy it. The peer connects to where the run
    /// came from and to addresses of --to alone. It needs no privilege, but for checks with lost packets CAP_NET_ADMIN.
    Peer(PeerOptions),
    /// List the checks, one a line.
    List(ListOptions),
    /// Tell what a check proves, needs and catches.
    Explain(ExplainOptions),
    /// Tell what changed between two reports.
    Compare(CompareOptions),
    /// Join reports of several runs into one: of shards, machines or kernels.
    Merge(MergeOptions),
    /// Put back the settings of NICs that a killed run left changed.
    Restore(RestoreOptions),
    /// Tell what this machine can do and what stands in the way, before any check.
    ///
    /// Looks at the kernel, every provider, every NIC and each pair of the two; changes nothing. Exit status: 0 if at
    /// least one pair can receive, 2 for bad usage, 3 if none can or what decides could not be seen.
    Doctor(DoctorOptions),
    /// Print what a shell needs to complete this program's command line.
    Completions(CompletionsOptions),
    /// Print the manual page of this program, or write one for each of its commands as well.
    Man(ManOptions),
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// What the kernel's CI reads.
    Ktap,
    /// JUnit XML, what most CI servers read.
    Junit,
    /// One object; see the documentation.
    Json,
    /// One page for a browser, which loads nothing else.
    Html,
}

/// A receive path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PathName {
    /// devmem TCP.
    DevmemTcp,
    /// io_uring zero-copy receive.
    Zcrx,
}

#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// A provider: its name, a PCI address or a device node; may be repeated. By default all of this machine.
    #[arg(long = "provider", value_name = "PROVIDER")]
    pub(super) providers: Vec<String>,
    /// The NIC whose receive path is checked: its interface, PCI address or an IP address of it. Without one, providers
    /// alone are checked.
    #[arg(long, value_name = "NIC")]
    pub(super) nic: Option<String>,
    /// The RDMA device whose memory regions are checked: its name, PCI address or node. By default the first of the machine
    /// that registers DMA-bufs; `none` leaves these checks out.
    #[arg(long, value_name = "DEVICE")]
    pub(super) rdma: Option<String>,
    /// The TCP port of the NIC that the peer connects to.
    #[arg(long, value_name = "PORT", default_value_t = 5201, requires = "nic")]
    pub(super) port: u16,
    /// The peer is another NIC of this machine, in this network namespace.
    #[arg(long, value_name = "FILE", requires = "nic")]
    pub(super) peer_namespace: Option<PathBuf>,
    /// The peer is another machine, on which `devmem-conformance peer` listens at this address and port.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["nic", "key"], conflicts_with = "peer_namespace")]
    pub(super) peer: Option<String>,
    /// The file of the key that the peer has as well.
    #[arg(long, value_name = "FILE", requires = "peer")]
    pub(super) key: Option<PathBuf>,
    /// The receive path; may be repeated. By default all; checks of one that the kernel lacks are skipped.
    #[arg(long = "path", value_enum, value_name = "PATH", requires = "nic")]
    pub(super) paths: Vec<PathName>,
    /// Also take the NIC, the RDMA device and the provider's device away from the machine and bring them back.
    #[arg(long)]
    pub(super) disruptive: bool,
    /// Only checks whose name contains this; may be repeated.
    /// With `=` before it, the check of exactly that name.
    #[arg(long = "filter", value_name = "TEXT")]
    pub(super) filters: Vec<String>,
    /// Only the I-th of N parts of the checks, from 1.
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<Part>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
    /// Write the report into this folder in every format as well.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PeerOptions {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: String,
    /// The file of the key that runs must have.
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// A NIC's address that checks may have this peer connect to, besides where the run comes from; may be repeated.
    #[arg(long = "to", value_name = "ADDRESS")]
    pub(super) to: Vec<IpAddr>,
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// Only checks whose name contains this; may be repeated.
    /// With `=` before it, the check of exactly that name.
    #[arg(long = "filter", value_name = "TEXT")]
    pub(super) filters: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainOptions {
    /// The check's name, as `list` prints it.
    pub(super) check: String,
}

#[derive(Debug, Args)]
pub(super) struct CompareOptions {
    /// A report as JSON.
    pub(super) before: PathBuf,
    /// Another one.
    pub(super) after: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct MergeOptions {
    /// Reports as JSON.
    #[arg(required = true)]
    pub(super) reports: Vec<PathBuf>,
    /// How the joined report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
    /// Write it into this folder in every format as well.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RestoreOptions {
    /// A NIC; by default all of this network namespace.
    #[arg(value_name = "NIC")]
    pub(super) nic: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    /// A provider: its name, a PCI address or a device node; may be repeated. By default all of this machine.
    #[arg(long = "provider", value_name = "PROVIDER")]
    pub(super) providers: Vec<String>,
    /// A NIC: its interface, PCI address or IP address; may be repeated. By default all of this network namespace.
    #[arg(long = "nic", value_name = "NIC")]
    pub(super) nics: Vec<String>,
    /// One object; see the documentation.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsOptions {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManOptions {
    /// Write all pages into this folder, where `man --local-file` finds them and a package takes them from.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,
}

/// A part of the checks, as it is written: from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part(pub(super) Shard);

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(index, count)| Some((index.parse::<usize>().ok()?, count.parse::<usize>().ok()?)));
        match numbers {
            Some((index, count)) if index >= 1 && index <= count => {
                Ok(Self(Shard { index: index - 1, count }))
            }
            _ => Err("write which part of how many: 1/4 to 4/4".to_owned()),
        }
    }
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
    fn a_peer_of_another_machine_has_a_key() {
        let parse = |options: &[&str]| {
            Arguments::try_parse_from([&["devmem-conformance", "run", "--nic", "eth1"], options].concat())
        };
        assert!(parse(&["--peer", "sender:5300", "--key", "key"]).is_ok());
        for wrong in [
            &["--peer", "sender:5300"][..],
            &["--key", "key"],
            &["--peer", "sender:5300", "--key", "key", "--peer-namespace", "/run/netns/peer"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn parts_are_counted_from_one() {
        assert_eq!("2/3".parse(), Ok(Part(Shard { index: 1, count: 3 })));
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }
}
