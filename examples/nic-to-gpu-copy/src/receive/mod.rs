//! Receiving a file into a provider's buffer.

mod accept;
mod connection;
mod cost;
mod gather;
mod listener;
mod output;
mod rdma;
mod stripe;
mod summary;
mod taker;
mod way;

use std::io::IsTerminal;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::{Result, bail};
use devmem_backends::find;
use devmem_provider::dma_buf::Access;
use devmem_provider::{Buffer, PageSize, Provider, Request};
use devmem_receive::nic;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::{Pages, ReceiveOptions};
use crate::digest::DigestKind;
use crate::rdma::Receiver;
use crate::witness::{Watched, Witness, can_be_touched};
use connection::Session;
use gather::{GatherSummary, Gatherer};
use listener::ReservedPort;
use output::Output;
use summary::{Summary, Totals};
use way::Prepared;

/// How long the kernel may take to let go of the buffer after the last connection.
const UNBIND_LIMIT: Duration = Duration::from_secs(5);

/// Receives and prints a summary.
pub(crate) fn run(options: &ReceiveOptions) -> Result<()> {
    // A NIC must not stay changed when somebody presses Ctrl-C.
    nic::restore_on_signals()?;
    // Everything that can fail without touching the NIC comes first.
    let port = ReservedPort::reserve(options.listen)?;
    let provider = find(&options.provider)?;
    let request = request(options);
    let buffer = provider.allocate(&request)?;
    let output = options.output.as_deref().map(Output::create).transpose()?;
    let mut witness = Witness::call()?;
    if let Some(witness) = &mut witness {
        // Drivers that allocate late put the pages where they belong when they are asked where they are, but
        // within reach of the CPU when it touches them first.
        buffer.residency()?;
        if can_be_touched(&*provider, request.placement()) {
            witness.look_before(&buffer.export()?);
        }
    }
    let gatherer = Gatherer::choose(options, &provider, &*buffer)?;
    let prepared = Prepared::choose(options, &*buffer)?;
    let memory = (&*provider, &*buffer);
    let summary = receive(options, memory, port, output.as_ref(), witness, prepared, gatherer.as_ref())?;
    if let Some(output) = output
        && summary.sha256_match != Some(false)
    {
        output.keep()?;
    }
    if options.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{summary}");
    }
    if summary.sha256_match == Some(false) {
        bail!("what arrived is not what was sent: a digest differs");
    }
    if let Some(contradiction) = summary.contradiction() {
        bail!(contradiction);
    }
    if summary.nic_restored == Some(false) {
        bail!("not all settings of the NIC could be put back; try `nic-to-gpu-copy restore`");
    }
    Ok(())
}

fn request(options: &ReceiveOptions) -> Request {
    let request = Request::bytes(options.size).name("nic-to-gpu-copy").page_size(match options.pages {
        Pages::Base => PageSize::Base,
        Pages::Huge => PageSize::Huge2MiB,
    });
    let Some(placement) = options.placement.placement() else { return request };
    if options.placement_only { request.require(placement) } else { request.prefer(placement) }
}

fn receive(
    options: &ReceiveOptions,
    (provider, buffer): (&dyn Provider, &dyn Buffer),
    port: ReservedPort,
    output: Option<&Output>,
    mut witness: Option<Witness>,
    prepared: Prepared,
    gatherer: Option<&Gatherer>,
) -> Result<Summary> {
    let mapping = prepared.dma_buf.map(Access::ReadWrite)?;
    if let Some(witness) = &mut witness {
        let watched = match prepared.region() {
            Some(_) => Watched::Rdma,
            None => Watched::TcpPort(options.listen.port()),
        };
        witness.watch(&prepared.dma_buf, watched)?;
    }
    let receiver = prepared.region().map(|(domain, region)| Receiver::new(domain, region, buffer));
    let session = Session {
        way: prepared.way(&mapping, receiver.as_ref()),
        buffer_bytes: prepared.dma_buf.size(),
        // What is gathered is looked at where it ends.
        look: !options.discard && gatherer.is_none(),
        output: output.filter(|_| gatherer.is_none()).map(Output::file),
        gatherer,
        idle_limit: Duration::from_secs(options.timeout),
        connections: AtomicUsize::new(1),
        bar: progress(None),
    };
    let mut totals = accept::receive_all(&session, &port.listen()?)?;
    session.bar.finish_and_clear();
    let gather = gatherer.map(|gatherer| gatherer.conclude(&mut totals, output)).transpose()?;
    // Before the unbind: it may move the buffer.
    let gathered = gatherer.and_then(Gatherer::touchable_file);
    let ground_truth = witness.as_mut().map(|witness| witness.ground_truth(gathered)).transpose()?;
    drop(session);
    drop(receiver);
    drop(mapping);
    summarise(options, provider, prepared, &totals, gather.unwrap_or_default(), ground_truth)
}

fn summarise(
    options: &ReceiveOptions,
    provider: &dyn Provider,
    prepared: Prepared,
    totals: &Totals,
    gather: GatherSummary,
    ground_truth: Option<serde_json::Value>,
) -> Result<Summary> {
    let stripes = totals.stripes();
    let sha256 = match stripes.as_slice() {
        [whole] => whole.sha256,
        _ => None,
    };
    let mut summary = Summary {
        bytes: totals.bytes(),
        file_bytes: totals.file_bytes(),
        fragment_bytes: totals.sum(|received| received.fragment_bytes),
        linear_bytes: totals.sum(|received| received.linear_bytes),
        fragments: totals.sum(|received| received.fragments),
        sha256_match: totals.digests_match(),
        digest: totals.digest_kind().map(DigestKind::name),
        sha256,
        connections: stripes.len(),
        stripes,
        seconds: totals.elapsed.as_secs_f64(),
        mib_per_second: totals.mebibytes_per_second(),
        syscalls_per_mib: totals.per_mebibyte(totals.sum(|received| received.system_calls)),
        measured_syscalls_per_mib: totals.measured_system_calls().map(|calls| totals.per_mebibyte(calls)),
        allocations_per_receive: totals.allocations_per_receive(),
        cpu_milliseconds_per_mib: totals.cpu_milliseconds_per_mebibyte(),
        kernel_copied_bytes: prepared.kernel_copied_bytes(),
        path: prepared.path,
        path_reason: prepared.reason.clone(),
        provider: provider.identity().name.clone(),
        buffer_bytes: options.size,
        nic: prepared.nic_name(),
        queues: prepared.queues(),
        residency_before: prepared.before.residency.to_string(),
        residency_after: prepared.after.residency.to_string(),
        region_before: prepared.before.region.clone(),
        region_after: prepared.after.region.clone(),
        residency_evidence: prepared.after.evidence.clone(),
        peer_to_peer: prepared.peer_to_peer.as_ref().map(|(verdict, _)| *verdict),
        peer_to_peer_reason: prepared.peer_to_peer.as_ref().map(|(_, reason)| reason.clone()),
        nic_restored: None,
        ground_truth,
        cpu_copied_bytes: totals.placed().by_cpu,
        gather,
        kernel: kernel_release(),
    };
    summary.nic_restored = prepared.finish(UNBIND_LIMIT)?;
    Ok(summary)
}

/// The kernel's release.
pub(crate) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}

/// A progress bar on a terminal, nothing elsewhere.
pub(crate) fn progress(bytes: Option<u64>) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(bytes, target);
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
