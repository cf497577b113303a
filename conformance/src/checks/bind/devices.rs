//! Interfaces that cannot be bound.

use devmem_receive::devmem::BindRefusal;
use devmem_receive::nic::Nic;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::bench::Bench;
use super::{REFUSALS, check, refused_as};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::path::Feature;
use crate::rtnetlink;
use crate::verdict::{Finding, Outcome, Skip, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "loopback",
        "The loopback interface, whose driver manages no queues, is refused.",
        REFUSALS,
        loopback,
    ),
    check(
        "no_such_interface",
        "From a network namespace that the NIC is not in, it is refused as an interface that does not exist.",
        REFUSALS,
        no_such_interface,
    ),
    check(
        "dummy_interface",
        "An interface of kind dummy is refused as one that cannot receive into memory, in the kernel's words where it has any.",
        REFUSALS,
        |context| virtual_interface(context, "dummy"),
    ),
    check(
        "veth_interface",
        "An interface of kind veth is refused as one that cannot receive into memory, in the kernel's words where it has any.",
        REFUSALS,
        |context| virtual_interface(context, "veth"),
    ),
    check(
        "netkit_interface",
        "An interface of kind netkit that leases no queue is refused as one that does no DMA, in the kernel's words where it has any.",
        REFUSALS,
        |context| virtual_interface(context, "netkit"),
    ),
];

fn loopback(context: &Context<'_>) -> Outcome {
    let loopback = Nic::open("lo")?;
    let result = context.path()?.attach(&loopback, &[0], &context.dma_buf()?);
    refused_as("binding a queue of the loopback interface", result, &[BindRefusal::NoQueueManagement])?;
    Ok(Finding::Pass)
}

fn no_such_interface(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 1)?;
    let queue = bench.queues()[0];
    in_a_network_namespace(|| {
        let what = "binding from another network namespace";
        refused_as(what, bench.attach(&[queue]), &[BindRefusal::NoInterface])
    })?;
    let told = bench.holder(queue)?;
    ensure!(told.is_none(), "queue {queue} was left with {told:?}");
    Ok(Finding::Pass)
}

/// Does something in a thread of its own, in a network namespace of its own, which ends with it and with all its
/// interfaces.
fn in_a_network_namespace(work: impl FnOnce() -> Result<(), Stop> + Send) -> Result<(), Stop> {
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
            Stop::Skip(Skip {
                reason: format!("no network namespace is to be had: {errno}"),
                found_by: "making one".to_owned(),
                remedy: Some("run with CAP_SYS_ADMIN".to_owned()),
            })
        })?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(in_namespace).join())
        .unwrap_or_else(|_| Err(Stop::fail("the thread panicked")))
}

fn virtual_interface(context: &Context<'_>, kind: &str) -> Outcome {
    const NAME: &str = "virtual0";
    let (path, dma_buf) = (context.path()?, context.dma_buf()?);
    let before = dma_buf.file_information()?.count;
    in_a_network_namespace(|| {
        rtnetlink::create(kind, NAME).map_err(|errno| {
            Stop::Skip(Skip {
                reason: format!("no interface of kind {kind} is to be had: {errno}"),
                found_by: "making one in a network namespace of its own".to_owned(),
                remedy: Some(format!("load the module {kind}, or use a kernel that has it")),
            })
        })?;
        let interface = Nic::open(NAME)?;
        let what = format!("binding a queue of an interface of kind {kind}");
        let result = path.attach(&interface, &[0], &dma_buf);
        if let Err(error) = &result {
            ensure!(error.errno() == Some(Errno::EOPNOTSUPP), "{what}: refused with {:?}", error.errno());
            let has_words = !path.has(Feature::Netlink) || error.kernel_message().is_some();
            ensure!(has_words, "{what}: the kernel's words are lost: {error}");
        }
        refused_as(&what, result, &[BindRefusal::NoQueueManagement, BindRefusal::NoDma])
    })?;
    let left = dma_buf.file_information()?.count;
    ensure!(left <= before, "the refusal left {left} references to the buffer, of {before}");
    Ok(Finding::Pass)
}
