//! One process, one NIC.

use devmem_provider::ErrorKind;
use devmem_receive::nic::{Flow, Nic, Plan, Queues, restore};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::harness::nic::{restored, unchanged};
use crate::harness::{Failure, Outcome, ensure};
use crate::namespace::{NIC, QUEUES_MAX, Veth, set_up};
use crate::roles::plan;

/// How many receive queues the NIC has at this moment.
fn queues() -> Result<u32, Failure> {
    Ok(Nic::open(NIC)?.snapshot()?.receive_queues())
}

pub(crate) fn channels_are_raised_and_put_back() -> Outcome {
    let _veth = Veth::new()?;
    unchanged(NIC, |nic, before| {
        let prepared = nic.prepare(&plan())?;
        ensure!(prepared.queues() == [1, 2], "{:?}", prepared.queues());
        ensure!(prepared.recovered().is_none(), "{:?}", prepared.recovered());
        ensure!(queues()? == 3, "{} queues", queues()?);
        let fields: Vec<_> =
            before.diff(&nic.snapshot()?).into_iter().map(|difference| difference.field).collect();
        ensure!(fields == ["channels.current.rx"], "{fields:?}");
        let report = prepared.restore()?;
        ensure!(report.is_complete() && report.steps.len() == 1, "{report}");
        Ok(())
    })
}

pub(crate) fn dropping_restores() -> Outcome {
    let _veth = Veth::new()?;
    for _ in 0..3 {
        let prepared = Nic::open(NIC)?.prepare(&plan())?;
        ensure!(queues()? == 3, "{} queues", queues()?);
        drop(prepared);
        ensure!(queues()? == 1, "{} queues", queues()?);
    }
    Ok(())
}

pub(crate) fn an_error_midway_restores() -> Outcome {
    let _veth = Veth::new()?;
    unchanged(NIC, |nic, _| {
        // The channels are raised before header split is refused.
        let error =
            nic.prepare(&Plan::without_flow(Queues::one())).err().ok_or("veth has no header split")?;
        ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
        ensure!(error.to_string().contains("header split"), "{error}");
        Ok(())
    })
}

pub(crate) fn what_the_driver_cannot_do_is_told() -> Outcome {
    let _veth = Veth::new()?;
    let nic = Nic::open(NIC)?;
    let with_flow = Plan::new(Queues::one(), Flow::tcp_port(5201)).header_split(false);
    let too_many = Plan::without_flow(Queues::count(QUEUES_MAX)).header_split(false);
    let none = Plan::without_flow(Queues::count(0)).header_split(false);
    for (plan, kind) in [
        (with_flow, ErrorKind::Unsupported),
        (too_many, ErrorKind::InvalidInput),
        (none, ErrorKind::InvalidInput),
    ] {
        let error = nic.prepare(&plan).err().ok_or("it was not refused")?;
        ensure!(error.kind() == kind, "{error}");
        ensure!(error.object() == Some(NIC), "{error}");
        ensure!(queues()? == 1, "{} queues", queues()?);
    }
    Ok(())
}

pub(crate) fn an_interface_that_is_down_is_refused() -> Outcome {
    let _veth = Veth::new()?;
    set_up(NIC, false)?;
    let error = Nic::open(NIC)?.prepare(&plan()).err().ok_or("it was not refused")?;
    ensure!(error.kind() == ErrorKind::WrongState && error.remedy_text().is_some(), "{error}");
    Ok(())
}

pub(crate) fn a_removed_nic_is_told_as_gone() -> Outcome {
    let veth = Veth::new()?;
    let prepared = Nic::open(NIC)?.prepare(&plan())?;
    veth.remove()?;
    let report = prepared.restore()?;
    ensure!(report.gone && report.is_complete(), "{report}");
    // Another NIC of this name is none of the journal's business.
    let _veth = Veth::new()?;
    ensure!(restore(NIC)?.is_none(), "a journal was left");
    Ok(())
}

pub(crate) fn features_are_changed_and_compared() -> Outcome {
    let _veth = Veth::new()?;
    unchanged(NIC, |nic, before| {
        let name = "rx-gro";
        ensure!(before.features[name].changeable, "{:?}", before.features[name]);
        let on = before.features[name].wanted;
        nic.ethtool().set_feature(nic.ifindex(), name, !on)?;
        let difference = before.diff(&nic.snapshot()?);
        ensure!(difference.iter().any(|field| field.field == "features.rx-gro.wanted"), "{difference:?}");
        nic.ethtool().set_feature(nic.ifindex(), name, on)?;
        Ok(())
    })
}

pub(crate) fn this_process_excludes_itself() -> Outcome {
    let _veth = Veth::new()?;
    let prepared = Nic::open(NIC)?.prepare(&plan())?;
    let error = Nic::open(NIC)?.prepare(&plan()).err().ok_or("it was not refused")?;
    ensure!(error.kind() == ErrorKind::Busy, "{error}");
    let error = restore(NIC).err().ok_or("a NIC in use was restored")?;
    ensure!(error.kind() == ErrorKind::Busy, "{error}");
    ensure!(queues()? == 3, "{} queues", queues()?);
    restored(prepared)
}

pub(crate) fn a_forked_child_restores_nothing() -> Outcome {
    let _veth = Veth::new()?;
    let prepared = Nic::open(NIC)?.prepare(&plan())?;
    // SAFETY: the tests run one after the other in the only thread of this process.
    match unsafe { fork()? } {
        ForkResult::Child => {
            drop(prepared);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None)?;
            ensure!(status == WaitStatus::Exited(child, 0), "{status:?}");
        }
    }
    ensure!(queues()? == 3, "{} queues", queues()?);
    let error = Nic::open(NIC)?.prepare(&plan()).err().ok_or("the lock was lost")?;
    ensure!(error.kind() == ErrorKind::Busy, "{error}");
    restored(prepared)
}
