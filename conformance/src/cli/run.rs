//! `run`.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use devmem_backends::discover;
use devmem_conformance::path::{DevmemTcp, ReceivePath, Zcrx};
use devmem_conformance::peer::PeerChoice;
use devmem_conformance::rdma_device::RdmaDevice;
use devmem_conformance::report::{self, Entry};
use devmem_conformance::{Check, Environment, NicUnderTest, Progress, Report, act_as_peer, run_with};
use devmem_provider::{Error, Provider, Result};
use devmem_receive::rdma::{AccessFlags, Device, ProtectionDomain};

use super::Status;
use super::arguments::{Format, PathName, RunOptions};

pub(super) fn run(options: &RunOptions) -> Result<Status> {
    act_as_peer();
    let providers = providers(options)?;
    if providers.is_empty() {
        eprintln!("there is no provider of device memory on this machine{}", discover());
        return Ok(Status::Nothing);
    }
    if let Some(folder) = &options.out {
        fs::create_dir_all(folder).map_err(|error| Error::from_io(error, "create").on(folder.display()))?;
    }
    let rdma = rdma_device(options)?;
    environment(options, "", rdma.as_ref()).verify_peer()?;
    let mut reports = Vec::new();
    for provider in providers {
        let name = provider.identity().name.clone();
        let environment = environment(options, &name, rdma.as_ref());
        reports.push(run_with(&*provider, &environment, &mut Line { provider: name }));
    }
    if reports.iter().all(|report| report.entries.is_empty()) {
        eprintln!("no check was chosen; `devmem-conformance list` shows them all");
        return Ok(Status::Nothing);
    }
    publish(&reports, options.format, options.out.as_deref())
}

/// Prints reports, and writes them into a folder in every format.
pub(super) fn publish(reports: &[Report], format: Format, folder: Option<&Path>) -> Result<Status> {
    print(&rendered(format, reports))?;
    if let Some(folder) = folder {
        fs::create_dir_all(folder).map_err(|error| Error::from_io(error, "create").on(folder.display()))?;
        for (name, format) in [
            ("report.txt", Format::Text),
            ("report.ktap", Format::Ktap),
            ("report.xml", Format::Junit),
            ("report.json", Format::Json),
            ("report.html", Format::Html),
        ] {
            write(&folder.join(name), &rendered(format, reports))?;
        }
    }
    Ok(if reports.iter().all(Report::is_success) { Status::Success } else { Status::Failure })
}

/// The RDMA device that was asked for, or the first that registers DMA-bufs.
fn rdma_device(options: &RunOptions) -> Result<Option<Device>> {
    let registers = |device: &Device| {
        ProtectionDomain::open(device).and_then(|domain| domain.probe(AccessFlags::LOCAL_WRITE)).is_ok()
    };
    match options.rdma.as_deref() {
        Some("none") => Ok(None),
        Some(selector) => Device::find(selector).map(Some),
        None => Ok(Device::all()?.into_iter().find(registers)),
    }
}

/// The machine around the provider of this name, as the options tell.
fn environment(options: &RunOptions, provider: &str, rdma: Option<&Device>) -> Environment {
    let mut environment = Environment::default();
    environment.arguments = ["run", "--provider", provider].map(OsString::from).to_vec();
    environment.filters.clone_from(&options.filters);
    environment.shard = options.shard.map(|part| part.0);
    let rdma_name = rdma.map_or("none", |device| device.name.as_str());
    environment.arguments.extend(["--rdma", rdma_name].map(OsString::from));
    environment.rdma = rdma.map(|device| -> Arc<dyn RdmaDevice> { Arc::new(device.clone()) });
    if options.disruptive {
        environment.arguments.push("--disruptive".into());
        environment.disruptive = true;
    }
    let Some(selector) = &options.nic else { return environment };
    let mut nic = NicUnderTest::new(selector);
    nic.port = options.port;
    let mut add = |option: &str, value: OsString| environment.arguments.extend([option.into(), value]);
    add("--nic", selector.into());
    add("--port", options.port.to_string().into());
    for path in options.paths.iter().filter_map(PathName::to_possible_value) {
        add("--path", path.get_name().into());
    }
    if let Some(namespace) = &options.peer_namespace {
        add("--peer-namespace", namespace.into());
        environment.peer = Some(PeerChoice::Namespace(namespace.clone()));
    }
    if let (Some(address), Some(key)) = (&options.peer, &options.key) {
        add("--peer", address.into());
        add("--key", key.into());
        environment.peer = Some(PeerChoice::remote(address, key));
    }
    environment.nic = Some(nic);
    if !options.paths.is_empty() {
        environment.paths = options.paths.iter().map(|&name| path(name)).collect();
    }
    environment
}

fn path(name: PathName) -> Arc<dyn ReceivePath> {
    match name {
        PathName::DevmemTcp => Arc::new(DevmemTcp),
        PathName::Zcrx => Arc::new(Zcrx),
    }
}

fn providers(options: &RunOptions) -> Result<Vec<Arc<dyn Provider>>> {
    if options.providers.is_empty() {
        return Ok(discover().providers);
    }
    options.providers.iter().map(|selector| devmem_backends::find(selector)).collect()
}

fn rendered(format: Format, reports: &[Report]) -> String {
    match format {
        Format::Text => report::text::write(reports),
        Format::Ktap => report::ktap::write(reports),
        Format::Junit => report::junit::write(reports),
        Format::Json => report::json::write(reports),
        Format::Html => report::html::write(reports),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::from_io(error, "write a report").on(path.display()))
}

/// Prints, and takes a reader that went away for the end.
pub(super) fn print(text: &str) -> Result<()> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::from_io(error, "write to standard output"))
        }
        _ => Ok(()),
    }
}

/// One line on a terminal that says what runs.
struct Line {
    provider: String,
}

impl Progress for Line {
    fn begins(&mut self, check: &Check, number: usize, count: usize) {
        if stderr().is_terminal() {
            eprint!("\r\x1b[K{} {number}/{count} {}", self.provider, check.full_name());
        }
    }

    fn ended(&mut self, _entry: &Entry) {
        if stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}
