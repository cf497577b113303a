//! Binds that the kernel refuses, and the reason that each error names.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use devmem_provider::{DmaBuf, Importer};
use devmem_receive::devmem::{BindRefusal, DevmemTcp};
use devmem_receive::netdev::{Binding, Netdev};
use devmem_receive::netlink;
use devmem_receive::nic::Nic;

use super::privilege;
use crate::harness::{Failure, Outcome, ensure};
use crate::machine::{self, NIC, prepare, set_link};

fn dma_buf() -> Result<DmaBuf, Failure> {
    machine::dma_buf(1 << 20)
}

/// Binds, and expects to be refused for `reason`, with a remedy.
fn refused(importer: DevmemTcp, reason: BindRefusal) -> Outcome {
    refused_with(importer, &dma_buf()?, reason)
}

fn refused_with(mut importer: DevmemTcp, dma_buf: &DmaBuf, reason: BindRefusal) -> Outcome {
    let error = importer.attach(dma_buf).err().ok_or("the bind was not refused")?;
    ensure!(BindRefusal::of(&error) == Some(reason), "{reason:?} expected: {error:?}");
    ensure!(error.kind() == reason.kind(), "{error:?}");
    ensure!(error.remedy_text().is_some(), "no remedy: {error}");
    Ok(())
}

fn reason(error: &netlink::Error) -> Result<BindRefusal, Failure> {
    Ok(BindRefusal::classify(error.kernel().ok_or("not refused by the kernel")?, true))
}

pub(crate) fn header_split_is_off() -> Outcome {
    let queues = Nic::open(NIC)?.snapshot()?.receive_queues();
    refused(DevmemTcp::new(&Nic::open(NIC)?, [queues - 1]), BindRefusal::HeaderSplitDisabled)
}

pub(crate) fn a_queue_is_bound_already() -> Outcome {
    let nic = prepare(1)?;
    let _first = DevmemTcp::on(&nic).attach(&dma_buf()?)?;
    refused(DevmemTcp::on(&nic), BindRefusal::QueueAlreadyBound)
}

pub(crate) fn all_queues_or_none_are_bound() -> Outcome {
    let nic = prepare(2)?;
    let [free, taken] = nic.queues() else { return Err("two queues were asked for".into()) };
    let _first = DevmemTcp::new(nic.nic(), [*taken]).attach(&dma_buf()?)?;
    refused(DevmemTcp::on(&nic), BindRefusal::QueueAlreadyBound)?;
    // The other queue was let go again.
    DevmemTcp::new(nic.nic(), [*free]).attach(&dma_buf()?)?;
    Ok(())
}

pub(crate) fn one_buffer_may_be_bound_twice() -> Outcome {
    let nic = prepare(2)?;
    let [first, second] = nic.queues() else { return Err("two queues were asked for".into()) };
    let dma_buf = dma_buf()?;
    let first = DevmemTcp::new(nic.nic(), [*first]).attach(&dma_buf)?;
    let second = DevmemTcp::new(nic.nic(), [*second]).attach(&dma_buf)?;
    ensure!(first.id() != second.id(), "both bindings are number {}", first.id());
    Ok(())
}

pub(crate) fn there_is_no_such_queue() -> Outcome {
    let nic = prepare(1)?;
    refused(DevmemTcp::new(nic.nic(), [1000]), BindRefusal::NoSuchQueue)
}

pub(crate) fn the_caller_has_no_privilege() -> Outcome {
    let nic = prepare(1)?;
    let importer = DevmemTcp::on(&nic);
    let dma_buf = dma_buf()?;
    privilege::without(|| {
        refused_with(importer, &dma_buf, BindRefusal::NoPrivilege).map_err(|error| error.to_string())
    })
}

pub(crate) fn the_interface_is_down() -> Outcome {
    let nic = prepare(1)?;
    set_link("down")?;
    let result = refused(DevmemTcp::on(&nic), BindRefusal::InterfaceDown);
    set_link("up")?;
    result
}

pub(crate) fn loopback_manages_no_queues() -> Outcome {
    refused(DevmemTcp::new(&Nic::open("lo")?, [0]), BindRefusal::NoQueueManagement)
}

pub(crate) fn a_virtual_interface_does_no_dma() -> Outcome {
    let ip = |arguments: &[&str]| -> Outcome {
        let status = Command::new("ip").args(arguments).status()?;
        ensure!(status.success(), "ip {arguments:?}");
        Ok(())
    };
    ip(&["link", "add", "virtual0", "type", "netkit", "peer", "name", "virtual1"])?;
    let result = refused(DevmemTcp::new(&Nic::open("virtual0")?, [0]), BindRefusal::NoDma);
    ip(&["link", "delete", "virtual0"])?;
    result
}

/// gve refuses queue 0, and the attempt makes the kernel warn, which this program's machine allows.
pub(crate) fn gve_cannot_restart_queue_0() -> Outcome {
    let nic = prepare(1)?;
    refused(DevmemTcp::new(nic.nic(), [0]), BindRefusal::QueueNotRestartable)
}

pub(crate) fn the_interface_does_not_exist() -> Outcome {
    let error = Binding::new(0x7fff_0000, &[1], dma_buf()?.as_fd()).err().ok_or("not refused")?;
    ensure!(reason(&error)? == BindRefusal::NoInterface, "{error}");
    Ok(())
}

pub(crate) fn the_descriptor_is_no_dma_buf() -> Outcome {
    let nic = prepare(1)?;
    let index = nic.nic().ifindex();
    let file = File::open("/proc/version")?;
    let error = Binding::new(index, nic.queues(), file.as_fd()).err().ok_or("not refused")?;
    ensure!(reason(&error)? == BindRefusal::NotUsable, "{error}");
    let error = Netdev::open()?.probe_bind_rx(index, nic.queues()[0])?;
    ensure!(BindRefusal::classify(&error, true) == BindRefusal::BadDescriptor, "{error}");
    Ok(())
}

pub(crate) fn a_refused_bind_leaves_no_reference() -> Outcome {
    let dma_buf = dma_buf()?;
    let before = dma_buf.file_information()?.count;
    let importer = DevmemTcp::new(&Nic::open("lo")?, [0]);
    for _ in 0..10 {
        ensure!(importer.clone().attach(&dma_buf).is_err(), "not refused");
    }
    ensure!(dma_buf.file_information()?.count == before, "references are left");
    Ok(())
}
