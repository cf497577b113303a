//! XDP programs and AF_XDP sockets, beside which the kernel allows no memory provider.

use devmem_provider::{Error, Result};
use devmem_receive::devmem::BindRefusal;
use devmem_receive::nic::Adjustment;
use nix::errno::Errno;

use super::super::pin::settled;
use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::af_xdp::{AfXdpSocket, Mode};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::verdict::{Finding, Outcome, Stop};
use crate::xdp::{AttachedXdp, XdpProgram};

pub(super) const CHECKS: &[Check] = &[
    check(
        "xdp_attached",
        "While an XDP program is attached to the NIC a bind is refused for that reason.",
        REFUSALS,
        xdp_attached,
    ),
    check(
        "xdp_refused_while_bound",
        "While a queue is bound no XDP program can be attached to the NIC; before and afterwards one can.",
        OF_A_BINDING,
        xdp_refused_while_bound,
    ),
    check(
        "af_xdp_has_the_queue",
        "A queue that an AF_XDP socket has is refused for that reason; the NIC's others can be bound.",
        REFUSALS,
        af_xdp_has_the_queue,
    ),
    check(
        "af_xdp_refused_while_bound",
        "A queue that is bound is refused to an AF_XDP socket whose memory the NIC would write to, and keeps its binding.",
        OF_A_BINDING,
        af_xdp_refused_while_bound,
    ),
];

/// What a path gets wrong that keeps the kernel from seeing a binding.
const OF_A_BINDING: &[Fault] = &[Fault::BindsNothing, Fault::WrongBinding];

/// What generic XDP turns off for good (`generic_xdp_install()`, net/core/dev.c).
const OFFLOADS: [&str; 2] = ["rx-lro", "rx-gro-hw"];

/// The greatest packet that fits one piece of an AF_XDP socket's memory.
const ONE_PIECE: u32 = 1500;

/// A NIC to which a program can be attached so that all its settings are put back, and the program.
fn with_a_program<'run>(
    context: &'run Context<'run>,
) -> std::result::Result<(Bench<'run>, XdpProgram), Stop> {
    let program = XdpProgram::that_passes().map_err(|error| Stop::skip(&error))?;
    let bench = Bench::new(context, 1)?;
    let features = bench.nic.nic().snapshot()?.features;
    for name in OFFLOADS {
        if features.get(name).is_some_and(|feature| feature.changeable && feature.wanted) {
            bench.nic.adjust(Adjustment::Feature { name: name.to_owned(), on: false })?;
        }
    }
    Ok((bench, program))
}

/// Attaches the program where nothing of the receive path stands in the way.
fn attached(bench: &Bench<'_>, program: &XdpProgram) -> Result<AttachedXdp> {
    let nic = bench.nic.nic();
    program.attach(nic.ifindex()).map_err(|errno| Error::from_errno(errno, "attach an XDP program").on(nic))
}

fn xdp_attached(context: &Context<'_>) -> Outcome {
    let (bench, program) = with_a_program(context)?;
    let queue = bench.queues()[0];
    let link = attached(&bench, &program).map_err(|error| Stop::skip(&error))?;
    let what = "binding while an XDP program is attached";
    refused_as(what, bench.attach(&[queue]), &[BindRefusal::XdpAttached])?;
    let told = bench.holder(queue)?;
    ensure!(told.is_none(), "{what} left queue {queue} with {told:?}");
    drop(link);
    drop(bench.attach(&[queue])?);
    Ok(Finding::Pass)
}

fn xdp_refused_while_bound(context: &Context<'_>) -> Outcome {
    let (bench, program) = with_a_program(context)?;
    let queue = bench.queues()[0];
    drop(attached(&bench, &program).map_err(|error| Stop::skip(&error))?);
    let binding = bench.attach(&[queue])?;
    let before = bench.state(queue)?;
    match program.attach(bench.nic.nic().ifindex()) {
        Err(Errno::EBUSY) => {}
        Err(errno) => return Err(Stop::fail(format!("an XDP program is refused with {errno}, not EBUSY"))),
        Ok(_) => return Err(Stop::fail("an XDP program was attached beside a binding")),
    }
    let after = bench.state(queue)?;
    ensure!(after == before, "the program that was refused changed the queue from {before:?} to {after:?}");
    ensure!(after.holder == Some(binding.holder()), "queue {queue} has {after:?}, not {}", binding.holder());
    drop(binding);
    drop(attached(&bench, &program)?);
    Ok(Finding::Pass)
}

fn af_xdp_has_the_queue(context: &Context<'_>) -> Outcome {
    let socket = AfXdpSocket::new().map_err(|error| Stop::skip(&error))?;
    let bench = Bench::new(context, 2)?;
    let &[free, taken] = bench.queues() else { return Err(Stop::fail("two queues were not set up")) };
    let nic = bench.nic.nic();
    socket.bind(nic.ifindex(), taken, Mode::Copy).map_err(|errno| {
        Stop::skip(&Error::from_errno(errno, format!("bind an AF_XDP socket to queue {taken}")).on(nic))
    })?;
    let what = format!("binding queue {taken}, which an AF_XDP socket has");
    refused_as(&what, bench.attach(&[taken]), &[BindRefusal::QueueUsedByAfXdp])?;
    let told = bench.holder(taken)?;
    ensure!(told.is_none(), "{what} left it with {told:?}");
    drop(bench.attach(&[free])?);
    drop(socket);
    is_free_again(&bench, taken)?;
    Ok(Finding::Pass)
}

fn af_xdp_refused_while_bound(context: &Context<'_>) -> Outcome {
    let socket = AfXdpSocket::new().map_err(|error| Stop::skip(&error))?;
    let bench = Bench::new(context, 1)?;
    let (nic, queue) = (bench.nic.nic(), bench.queues()[0]);
    if bench.nic.before().mtu.is_some_and(|mtu| mtu > ONE_PIECE) {
        bench.nic.adjust(Adjustment::Mtu(ONE_PIECE))?;
    }
    let binding = bench.attach(&[queue])?;
    let before = bench.state(queue)?;
    ensure!(
        before.holder == Some(binding.holder()),
        "queue {queue} has {before:?}, not {}",
        binding.holder()
    );
    match socket.bind(nic.ifindex(), queue, Mode::ZeroCopy) {
        Err(Errno::EBUSY) => {}
        Err(errno @ Errno::EOPNOTSUPP) => {
            let operation = format!("bind an AF_XDP socket with its memory to queue {queue}");
            return Err(Stop::skip(&Error::from_errno(errno, operation).on(nic)));
        }
        Err(errno) => return Err(Stop::fail(format!("AF_XDP is refused with {errno}, not EBUSY"))),
        Ok(()) => return Err(Stop::fail("an AF_XDP socket was given a queue that is bound")),
    }
    // A socket that gets copies takes no memory of the queue's, and the kernel has nothing against it (`xp_assign_dev()`).
    let copies = AfXdpSocket::new()?.bind(nic.ifindex(), queue, Mode::Copy);
    let after = bench.state(queue)?;
    ensure!(after == before, "AF_XDP ({copies:?}) changed the queue from {before:?} to {after:?}");
    drop(binding);
    is_free_again(&bench, queue)?;
    Ok(Finding::Pass)
}

/// Waits until a queue that a closed AF_XDP socket had can be bound: the kernel lets go of it by a work queue
/// (`xp_put_pool()`, net/xdp/xsk_buff_pool.c).
fn is_free_again(bench: &Bench<'_>, queue: u32) -> std::result::Result<(), Stop> {
    let is_free = || match bench.attach(&[queue]) {
        Ok(_) => Ok(true),
        Err(error) if BindRefusal::of(&error) == Some(BindRefusal::QueueUsedByAfXdp) => Ok(false),
        Err(error) => Err(error.into()),
    };
    settled(is_free, "a closed AF_XDP socket still has the queue after a while")
}
