//! Processes that end, are killed or are started while memory is bound.

use devmem_provider::{Buffer, DmaBuf, Request, Residency, ResidencyEvidence, Result};
use devmem_receive::nic::{self, Nic, Snapshot};

use super::super::pin::settled;
use super::super::tokens::holding::Holding;
use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::isolation::{Companion, Link, Role, fork_idle};
use crate::path::Holder;
use crate::setup::{BUFFER_BYTES, Setup, prepare, sends};
use crate::verdict::{Finding, Outcome, Skip, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "killed_with_a_binding",
        "A process that is killed leaves no queue bound, and a NIC that can be put back.",
        &[Fault::Inherited, Fault::BindsNothing],
        killed_with_a_binding,
    ),
    check(
        "killed_while_receiving",
        "A process that is killed in the middle of a stream leaves no queue bound, and a NIC that can be put back.",
        &[Fault::Inherited, Fault::ReceiveCrashes],
        killed_while_receiving,
    ),
    check(
        "exporter_killed",
        "A buffer of a process that is gone is received into all the same.",
        &[Fault::WrongOffset, Fault::BindsNothing],
        exporter_killed,
    ),
    check(
        "started_program_inherits_nothing",
        "A program that is started while a buffer is bound does not keep it bound.",
        &[Fault::Inherited, Fault::LeaksBinding],
        started_program_inherits_nothing,
    ),
    check(
        "forked_process_shares_the_binding",
        "A forked process keeps the queue bound until it ends as well, and disturbs no stream.",
        &[Fault::LeaksBinding, Fault::DropsBytes],
        forked_process_shares_the_binding,
    ),
    check(
        "little_memory",
        "A stream arrives whole while another process takes most of the memory that the machine has left.",
        &[Fault::DropsBytes, Fault::WrongOffset],
        little_memory,
    ),
];

/// What companions do here.
pub(in crate::checks) const BINDER: (&str, Role) = ("binder", binder);
pub(in crate::checks) const RECEIVER: (&str, Role) = ("receiver", receiver);
pub(in crate::checks) const EXPORTER: (&str, Role) = ("exporter", exporter);
pub(in crate::checks) const CONSUMER: (&str, Role) = ("consumer of memory", consumer);
pub(in crate::checks) const IDLER: (&str, Role) = ("idler", idler);

/// Waits until the check wants no more of it.
fn wait(link: &Link) -> std::result::Result<(), Stop> {
    // The check ends it, or closes its end.
    let _ = link.receive(&mut [0]);
    Ok(())
}

fn idler(_: &Context<'_>, link: &Link) -> std::result::Result<(), Stop> {
    link.send(&[0; 4])?;
    wait(link)
}

fn binder(context: &Context<'_>, link: &Link) -> std::result::Result<(), Stop> {
    let setup = Setup::new(context)?;
    link.send(&setup.pin.holder().to_bytes())?;
    wait(link)
}

fn receiver(context: &Context<'_>, link: &Link) -> std::result::Result<(), Stop> {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = setup.connect(context, &mut session, sends(1 << 30))?;
    let mut is_told = false;
    while let Some(places) = connection.read(&setup.mapping)? {
        connection.incoming.release(&places)?;
        if !std::mem::replace(&mut is_told, true) {
            link.send(&setup.pin.holder().to_bytes())?;
        }
    }
    Ok(())
}

fn exporter(context: &Context<'_>, link: &Link) -> std::result::Result<(), Stop> {
    let bytes = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    let dma_buf = context.provider().allocate(&Request::bytes(bytes))?.export()?;
    link.send_descriptor(std::os::fd::AsFd::as_fd(&dma_buf))?;
    wait(link)
}

/// Takes as many bytes as it is told.
fn consumer(_: &Context<'_>, link: &Link) -> std::result::Result<(), Stop> {
    let mut bytes = [0; 8];
    link.receive(&mut bytes)?;
    let bytes = usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    let mut taken = Vec::<u8>::new();
    taken.try_reserve_exact(bytes).map_err(Stop::fail)?;
    // A page is there once it is written to. More than a byte of it takes a program that is not optimized too long.
    for byte in taken.spare_capacity_mut().iter_mut().step_by(4096) {
        byte.write(1);
    }
    std::hint::black_box(taken.spare_capacity_mut());
    link.send(&[0; 4])?;
    wait(link)
}

/// Starts a companion that binds, and waits until it has. What the kernel must say has the queue then.
fn bound_by(context: &Context<'_>, role: (&str, Role)) -> std::result::Result<(Companion, Holder), Stop> {
    let companion = Companion::start(context, role.0)?;
    let mut holder = [0; 4];
    let told = companion.link().receive(&mut holder);
    told.map_err(|error| Stop::fail(format!("the process that shall be killed has not bound: {error}")))?;
    Ok((companion, Holder::from_bytes(holder)))
}

/// Whether a queue of the NIC is had by the holder.
pub(super) fn is_bound(nic: &Nic, holder: Holder) -> std::result::Result<bool, Stop> {
    let queues = nic.netdev().queues(nic.ifindex());
    let queues = queues.map_err(|error| error.during("list the queues").on(nic))?;
    Ok(queues.iter().any(|queue| Holder::of_queue(queue) == Some(holder)))
}

/// Kills the companion, and looks what it leaves.
fn leaves_nothing(nic: &Nic, before: &Snapshot, mut companion: Companion, holder: Holder) -> Outcome {
    ensure!(is_bound(nic, holder)?, "no queue is had by {holder}, as the process told");
    companion.kill()?;
    settled(|| Ok(!is_bound(nic, holder)?), "a queue is still bound by a process that is gone")?;
    let Some(report) = nic::restore(nic.name())? else {
        return Err(Stop::fail("the process that was killed left no journal"));
    };
    ensure!(report.is_complete(), "the NIC is not put back: {report}");
    let differences = before.diff(&nic.snapshot()?);
    ensure!(differences.is_empty(), "the NIC is not as it was: {differences:?}");
    Ok(Finding::Pass)
}

fn killed_with_a_binding(context: &Context<'_>) -> Outcome {
    let nic = context.nic()?.open()?;
    let before = nic.snapshot()?;
    let (companion, holder) = bound_by(context, BINDER)?;
    leaves_nothing(&nic, &before, companion, holder)
}

fn killed_while_receiving(context: &Context<'_>) -> Outcome {
    let nic = context.nic()?.open()?;
    let before = nic.snapshot()?;
    let (companion, holder) = bound_by(context, RECEIVER)?;
    leaves_nothing(&nic, &before, companion, holder)
}

/// The buffer of another process.
#[derive(Debug)]
struct Foreign(DmaBuf);

impl Buffer for Foreign {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn export(&self) -> Result<DmaBuf> {
        Ok(self.0.clone())
    }

    fn residency(&self) -> Result<ResidencyEvidence> {
        let evidence = "another process made it".to_owned();
        Ok(ResidencyEvidence { residency: Residency::Unknown, region: None, evidence })
    }
}

fn exporter_killed(context: &Context<'_>) -> Outcome {
    let mut companion = Companion::start(context, EXPORTER.0)?;
    let dma_buf = DmaBuf::from_fd(companion.link().receive_descriptor()?)?;
    let nic = prepare(context, 1, dma_buf.size())?;
    let setup = Setup::with(context, nic, Box::new(Foreign(dma_buf)))?;
    let mut session = context.peer()?;
    setup.transfer(context, &mut session, 256 << 10)?;
    companion.kill()?;
    setup.transfer(context, &mut session, 256 << 10)?;
    Ok(Finding::Pass)
}

fn started_program_inherits_nothing(context: &Context<'_>) -> Outcome {
    let setup = Setup::new(context)?;
    let program = Companion::start(context, IDLER.0)?;
    program.link().receive(&mut [0; 4])?;
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    let holder = pin.holder();
    drop((mapping, pin));
    ensure!(
        !is_bound(nic.nic(), holder)?,
        "a queue is still bound: a program that was started has the binding"
    );
    drop((program, buffer));
    nic.restore()?;
    Ok(Finding::Pass)
}

fn forked_process_shares_the_binding(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    let forked = fork_idle()?;
    holding.connection.incoming.release(&holding.places)?;
    holding.goes_on()?;
    let Holding { connection, setup, .. } = holding;
    drop(connection);
    let holder = setup.pin.holder();
    drop(setup.pin);
    ensure!(is_bound(setup.nic.nic(), holder)?, "a process has the binding, and no queue is bound");
    drop(forked);
    settled(
        || Ok(!is_bound(setup.nic.nic(), holder)?),
        "a queue is still bound, and nobody has the binding",
    )?;
    setup.nic.restore()?;
    Ok(Finding::Pass)
}

/// How much is left to the machine, in bytes.
const LEFT: u64 = 64 << 20;

/// The most that is taken, so that a large machine is not kept busy, in bytes.
const MOST: u64 = 1 << 30;

fn little_memory(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let bytes = super::super::resources::available()?.saturating_sub(LEFT).min(MOST);
    if bytes < LEFT {
        return Err(Stop::Skip(Skip {
            reason: format!("only {} MiB of memory are left as it is", (bytes + LEFT) >> 20),
            found_by: "MemAvailable in /proc/meminfo".to_owned(),
            remedy: Some(format!("give the machine {} MiB more", LEFT >> 19)),
        }));
    }
    let companion = Companion::start(context, CONSUMER.0)?;
    companion.link().send(&bytes.to_le_bytes())?;
    companion.link().receive(&mut [0; 4])?;
    setup.transfer(context, &mut session, 1 << 20)?;
    Ok(Finding::Pass)
}
