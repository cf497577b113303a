//! Several importers of one buffer: where it is follows from all of them.

use std::time::Duration;

use devmem_provider::dma_buf::Attached;
use devmem_provider::{Agreement, Effect, Forecast, Importer, Pin, Require, Residency};
use devmem_receive::devmem::{BindRefusal, DevmemTcp};
use devmem_receive::nic::{Flow, Nic, Plan, Prepared, Queues};
use devmem_receive::zcrx::Zcrx;

use crate::harness::{Failure, Outcome, ensure};
use crate::privilege;
use crate::setup::{SIZE, domain, is_in, vram};
use crate::witness::region;

const NIC: &str = "eth0";
/// Nobody sends anything to it.
const PORT: u16 = 5201;
/// How long the kernel may take to let go of a buffer.
const UNBIND_LIMIT: Duration = Duration::from_secs(10);

fn nic() -> Result<Prepared, Failure> {
    let plan = Plan::new(Queues::count(1), Flow::tcp_port(PORT)).buffer_bytes(SIZE);
    Ok(Nic::open(NIC)?.prepare(&plan)?)
}

/// A bind, and then RDMA; then RDMA alone again.
pub(crate) fn an_importer_without_a_path_moves_it_for_all() -> Outcome {
    let (buffer, nic) = (vram(SIZE)?, nic()?);
    let mut domain = domain()?;
    let mut queues = DevmemTcp::on(&nic);
    let forecast = Forecast::of(&queues, &*buffer)?;
    ensure!(forecast.effect == Effect::Moves, "{forecast:?}");
    let bound = Pin::new(&mut queues, &*buffer, Require::Anywhere)?;
    ensure!(forecast.compare(Some(&bound)) == Agreement::AsForetold, "{forecast:?}, {bound}");
    is_in(&*buffer, Residency::System)?;

    let forecast = Forecast::of(&domain, &*buffer)?;
    ensure!(forecast.effect == Effect::NothingToLose, "{forecast:?}");
    let gve = nic.nic().identity().pci.ok_or("no PCI address")?.to_string();
    ensure!(forecast.attached == Attached::Devices(vec![gve.clone()]), "{forecast:?}");
    let beside = Pin::new(&mut domain, &*buffer, Require::Anywhere)?;
    is_in(&*buffer, Residency::System)?;
    region(0)?.is_in(Residency::System)?;
    ensure!(beside.others() == Attached::Devices(vec![gve.clone()]), "{}", beside.others());
    drop(beside);
    let error = Pin::new(&mut domain, &*buffer, Require::DeviceLocal).err().ok_or("it was pinned")?;
    ensure!(error.to_string().contains(&gve), "the other importer is not named: {error}");
    println!("    {error}");

    ensure!(bound.into_attachment().unbind(UNBIND_LIMIT)?, "the kernel keeps the buffer");
    let alone = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
    region(0)?.is_in(Residency::DeviceLocal)?;
    ensure!(alone.others() == Attached::Devices(Vec::new()), "{}", alone.others());
    nic.restore()?;
    Ok(())
}

/// RDMA, and then a bind.
pub(crate) fn a_pin_keeps_others_out() -> Outcome {
    let (buffer, nic) = (vram(SIZE)?, nic()?);
    let mut domain = domain()?;
    let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
    let mut queues = DevmemTcp::on(&nic);
    let forecast = Forecast::of(&queues, &*buffer)?;
    ensure!(forecast.effect == Effect::MovesUnlessPinned, "{forecast:?}");
    let error = queues.attach(&buffer.export()?).err().ok_or("it was bound")?;
    ensure!(BindRefusal::of(&error) == Some(BindRefusal::ExporterRefusedMapping), "{error}");
    ensure!(error.kernel_message() == Some("Failed to map dmabuf attachment"), "{error}");
    ensure!(forecast.compare::<()>(None) == Agreement::AsForetold, "{forecast:?}");
    is_in(&*buffer, Residency::DeviceLocal)?;
    region(0)?.is_in(Residency::DeviceLocal)?;
    // A second region of the same device, or of another with a path, is none the worse.
    let second = Pin::new(&mut domain.clone(), &*buffer, Require::DeviceLocal)?;
    drop((pin, second));
    let bound = Pin::new(&mut queues, &*buffer, Require::Anywhere)?;
    is_in(&*buffer, Residency::System)?;
    ensure!(bound.into_attachment().unbind(UNBIND_LIMIT)?, "the kernel keeps the buffer");
    nic.restore()?;
    Ok(())
}

pub(crate) fn zero_copy_receive_does_the_same() -> Outcome {
    let (buffer, nic) = (vram(SIZE)?, nic()?);
    let mut domain = domain()?;
    let registered = Pin::new(&mut Zcrx::on(&nic), &*buffer, Require::Anywhere)?;
    is_in(&*buffer, Residency::System)?;
    let beside = Pin::new(&mut domain, &*buffer, Require::Anywhere)?;
    region(0)?.is_in(Residency::System)?;
    drop(beside);
    ensure!(registered.into_attachment().unbind(UNBIND_LIMIT)?, "the kernel keeps the buffer");
    let alone = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
    region(0)?.is_in(Residency::DeviceLocal)?;
    let error = Zcrx::on(&nic).attach(&buffer.export()?).err().ok_or("it was registered")?;
    ensure!(BindRefusal::of(&error) == Some(BindRefusal::ExporterRefusedMapping), "{error}");
    println!("    {error}");
    is_in(&*buffer, Residency::DeviceLocal)?;
    drop(alone);
    nic.restore()?;
    Ok(())
}

/// vgem attaches when it imports, and never maps: the buffer is still on the device, and the next pin moves it.
pub(crate) fn an_attachment_without_use_counts() -> Outcome {
    let buffer = vram(SIZE)?;
    let mut domain = domain()?;
    let imported = crate::setup::import_into_vgem(&buffer.export()?)?;
    is_in(&*buffer, Residency::DeviceLocal)?;
    let forecast = Forecast::of(&domain, &*buffer)?;
    ensure!(forecast.effect == Effect::MovesUnlessPinned, "{forecast:?}");
    ensure!(forecast.reasons[0].contains("vgem"), "{forecast:?}");
    let pin = Pin::new(&mut domain, &*buffer, Require::Anywhere)?;
    ensure!(forecast.compare(Some(&pin)) == Agreement::AsForetold, "{forecast:?}, {pin}");
    region(0)?.is_in(Residency::System)?;
    drop(pin);
    let error = Pin::new(&mut domain, &*buffer, Require::DeviceLocal).err().ok_or("it was pinned")?;
    ensure!(error.to_string().contains("vgem"), "the other importer is not named: {error}");
    drop(imported);
    drop(Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?);
    Ok(())
}

pub(crate) fn who_is_attached_is_seen_by_root_alone() -> Outcome {
    let buffer = vram(SIZE)?;
    let dma_buf = buffer.export()?;
    let mut domain = domain()?;
    ensure!(dma_buf.attached() == Attached::Devices(Vec::new()), "{}", dma_buf.attached());
    let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
    let efa = Importer::device(&domain).ok_or("no PCI address")?.to_string();
    ensure!(dma_buf.attached() == Attached::Devices(vec![efa]), "{}", dma_buf.attached());
    let others = privilege::without(|| Ok(pin.others()))?;
    ensure!(
        matches!(&others, Attached::Unknown(reason) if reason.contains("debugfs") || reason.contains("bufinfo")),
        "{others}"
    );
    println!("    {others}");
    Ok(())
}
