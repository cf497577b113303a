//! Registrations that the kernel refuses, and the reason that each error names.

use devmem_provider::{DmaBuf, Importer};
use devmem_receive::devmem::{BindRefusal, DevmemTcp};
use devmem_receive::nic::{Nic, Support};
use devmem_receive::zcrx::{Zcrx, capabilities};

use crate::devmem::privilege;
use crate::harness::{Failure, Outcome, ensure};
use crate::machine::{self, NIC, prepare, set_link};

fn dma_buf() -> Result<DmaBuf, Failure> {
    machine::dma_buf(1 << 20)
}

/// Registers, and expects to be refused for `reason`, with a remedy.
fn refused(importer: Zcrx, reason: BindRefusal) -> Outcome {
    refused_with(importer, &dma_buf()?, reason)
}

fn refused_with(mut importer: Zcrx, dma_buf: &DmaBuf, reason: BindRefusal) -> Outcome {
    let error = importer.attach(dma_buf).err().ok_or("the registration was not refused")?;
    ensure!(BindRefusal::of(&error) == Some(reason), "{reason:?} expected: {error:?}");
    ensure!(error.kind() == reason.kind(), "{error:?}");
    ensure!(error.errno().is_some() && error.remedy_text().is_some(), "{error}");
    ensure!(error.to_string().contains(&reason.to_string()), "{error}");
    Ok(())
}

pub(crate) fn this_kernel_can_do_everything() -> Outcome {
    let capabilities = privilege::without(|| Ok(capabilities()))?;
    for capability in capabilities.iter() {
        ensure!(capability.support == Support::Yes, "{capability}");
    }
    Ok(())
}

pub(crate) fn header_split_is_off() -> Outcome {
    let queues = Nic::open(NIC)?.snapshot()?.receive_queues();
    refused(Zcrx::new(&Nic::open(NIC)?, [queues - 1]), BindRefusal::HeaderSplitDisabled)
}

pub(crate) fn a_queue_is_registered_already() -> Outcome {
    let nic = prepare(1)?;
    let _first = Zcrx::on(&nic).attach(&dma_buf()?)?;
    refused(Zcrx::on(&nic), BindRefusal::QueueAlreadyBound)
}

pub(crate) fn the_other_path_has_the_queue() -> Outcome {
    let nic = prepare(1)?;
    let first = DevmemTcp::on(&nic).attach(&dma_buf()?)?;
    refused(Zcrx::on(&nic), BindRefusal::QueueAlreadyBound)?;
    drop(first);
    let _registered = Zcrx::on(&nic).attach(&dma_buf()?)?;
    let error = DevmemTcp::on(&nic).attach(&dma_buf()?).err().ok_or("bound twice")?;
    ensure!(BindRefusal::of(&error) == Some(BindRefusal::QueueAlreadyBound), "{error}");
    Ok(())
}

pub(crate) fn a_buffer_takes_one_queue() -> Outcome {
    let nic = prepare(2)?;
    let error = Zcrx::on(&nic).attach(&dma_buf()?).err().ok_or("two queues were registered")?;
    ensure!(error.to_string().contains("one queue"), "{error}");
    // The kernel was not asked, and both are free.
    for &queue in nic.queues() {
        drop(Zcrx::new(nic.nic(), [queue]).attach(&dma_buf()?)?);
    }
    Ok(())
}

pub(crate) fn there_is_no_such_queue() -> Outcome {
    let nic = prepare(1)?;
    refused(Zcrx::new(nic.nic(), [1000]), BindRefusal::NoSuchQueue)
}

pub(crate) fn the_caller_has_no_privilege() -> Outcome {
    let nic = prepare(1)?;
    let importer = Zcrx::on(&nic);
    let dma_buf = dma_buf()?;
    privilege::without(|| {
        refused_with(importer, &dma_buf, BindRefusal::NoPrivilegeOnHost).map_err(|error| error.to_string())
    })
}

pub(crate) fn the_interface_is_down() -> Outcome {
    let nic = prepare(1)?;
    set_link("down")?;
    let result = refused(Zcrx::on(&nic), BindRefusal::InterfaceDown);
    set_link("up")?;
    result
}

pub(crate) fn loopback_manages_no_queues() -> Outcome {
    refused(Zcrx::new(&Nic::open("lo")?, [0]), BindRefusal::NoQueueManagement)
}

/// gve refuses queue 0, and the attempt makes the kernel warn, which this program's machine allows.
pub(crate) fn gve_cannot_restart_queue_0() -> Outcome {
    let nic = prepare(1)?;
    refused(Zcrx::new(nic.nic(), [0]), BindRefusal::QueueNotRestartable)
}

pub(crate) fn gve_has_buffers_of_a_page() -> Outcome {
    let nic = prepare(1)?;
    for bytes in [8192, 5000, 512] {
        refused(Zcrx::on(&nic).receive_buffer_bytes(bytes), BindRefusal::ReceiveBufferSize)?;
    }
    let binding = Zcrx::on(&nic).receive_buffer_bytes(4096).attach(&dma_buf()?)?;
    ensure!(binding.receive_buffer_bytes() == 4096, "{binding:?}");
    Ok(())
}

pub(crate) fn a_refused_registration_leaves_no_reference() -> Outcome {
    let dma_buf = dma_buf()?;
    let before = dma_buf.file_information()?.count;
    let mut importer = Zcrx::new(&Nic::open("lo")?, [0]);
    for _ in 0..10 {
        ensure!(importer.attach(&dma_buf).is_err(), "not refused");
    }
    ensure!(dma_buf.file_information()?.count == before, "references are left");
    Ok(())
}
