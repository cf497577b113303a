//! An RDMA device that is taken away from the machine while a buffer is registered, and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use devmem_provider::{DmaBuf, ErrorKind, PciAddress};
use devmem_receive::nic::Nic;
use devmem_receive::rdma::{Event, Events, Registration};

use super::super::lifetime::{COMES_BACK, LIMIT, can_come_back, spared};
use super::super::path_check;
use super::super::pin::settled;
use super::{ONE_REGION, buffer, let_go, references};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::isolation::{Companion, Link, Role};
use crate::need::Need;
use crate::pci_function::{self, PciFunction};
use crate::rdma_device::{RdmaDevice, Region};
use crate::remembered_nic::RememberedNic;
use crate::setup::is_ready;
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[Check {
    limit: LIMIT,
    ..path_check(
        Group::Rdma,
        "device_unplugged",
        "An RDMA device that is unplugged while a buffer is registered lets go of it, no later than what is registered is \
         dropped, and can come back.",
        &[Need::Disruption, Need::Rdma, Need::Proc],
        &[ONE_REGION],
        // The last one keeps the device from going until the check has ended.
        &[Fault::BindsNothing, Fault::LeaksBinding],
        device_unplugged,
    )
}];

/// How long is waited for a driver that does not wait for its users.
const GRACE: Duration = Duration::from_secs(1);

/// How long the driver may take when it has no users any more.
const GOES: Duration = Duration::from_secs(10);

/// What a companion does here.
pub(in crate::checks) const REMOVER: (&str, Role) = ("remover", remover);

/// Another process that takes a PCI function away. It is another one because drivers may wait for whoever has the device
/// open: a thread that waits for its own process could not even be killed.
#[derive(Debug)]
struct Removal {
    companion: Option<Companion>,
    is_done: bool,
}

impl Removal {
    fn begin(context: &Context<'_>, address: PciAddress) -> Result<Self, Stop> {
        let companion = Companion::start_apart(context, REMOVER.0)?;
        let text = address.to_string();
        companion.link().send(&[u8::try_from(text.len()).unwrap_or(u8::MAX)])?;
        companion.link().send(text.as_bytes())?;
        // It takes some time to start.
        companion.link().receive(&mut [0])?;
        Ok(Self { companion: Some(companion), is_done: false })
    }

    /// Waits at most `limit` until the function is gone. Returns whether it is.
    fn is_done(&mut self, limit: Duration) -> Result<bool, Stop> {
        let Some(companion) = self.companion.as_ref().filter(|_| !self.is_done) else { return Ok(true) };
        if !is_ready(companion.link(), limit)? {
            return Ok(false);
        }
        self.is_done = true;
        companion.link().receive_outcome()?;
        Ok(true)
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if !self.is_done {
            // It waits in the kernel for this process, and cannot be killed. When this process has ended, it brings the
            // device back and ends too.
            std::mem::forget(self.companion.take());
        }
    }
}

/// Takes the function away that it is told, and sees to it that the kernel looks for it again at the latest when the check
/// has ended.
fn remover(_: &Context<'_>, link: &Link) -> Result<(), Stop> {
    let mut length = [0];
    link.receive(&mut length)?;
    let mut text = vec![0; length[0].into()];
    link.receive(&mut text)?;
    let address = String::from_utf8_lossy(&text).parse().map_err(|_| Stop::fail("that is no PCI address"))?;
    link.send(&[0])?;
    let removed = PciFunction::at(address).remove();
    let outcome = removed.as_ref().map(|_| ()).map_err(Stop::skip);
    link.send_outcome(outcome)?;
    // The check closes its end of the link when it has had the kernel look for the function, or by its own end.
    let _ = link.receive(&mut [0]);
    drop(removed);
    Ok(())
}

fn device_unplugged(context: &Context<'_>) -> Outcome {
    let device = context.rdma()?;
    let domain = device.open()?;
    let address =
        domain.device().ok_or_else(|| spared("the device is no PCI function".to_owned(), "sysfs", None))?;
    let interfaces = interfaces(PciFunction::at(address))?;
    let dma_buf = buffer(context)?.export()?;
    let before = references(&dma_buf)?;
    let mut events = domain.events()?;
    let region = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
    let during = references(&dma_buf)?;
    ensure!(during > before, "{before} references to the buffer before, {during} while it is registered");
    let mut removal = Removal::begin(context, address)?;
    if removal.is_done(GRACE)? {
        let_go(&dma_buf, before)?;
        tells_that_it_is_gone(&mut events)?;
        ended(region)?;
        drop((domain, events));
    } else {
        // The driver waits for its users. Until they let go, what is registered stays so.
        let now = references(&dma_buf)?;
        ensure!(now == during, "{during} references while it is registered, {now} while the driver waits");
        ended(region)?;
        let_go(&dma_buf, before)?;
        drop((domain, events));
        let seconds = GOES.as_secs();
        ensure!(
            removal.is_done(GOES)?,
            "nothing of the device is used, and its driver still waits after {seconds} s"
        );
    }
    ensure!(!PciFunction::at(address).is_there(), "the device was taken away, and the kernel still has it");
    ensure!(device.open().is_err(), "the device was taken away, and can be opened");
    pci_function::rescan()?;
    drop(removal);
    for interface in &interfaces {
        interface.bring_back()?;
    }
    registers_again(device, &dma_buf)?;
    let_go(&dma_buf, before)?;
    Ok(Finding::Pass)
}

/// The network interfaces of the same function, as they must come back.
fn interfaces(function: PciFunction) -> Result<Vec<RememberedNic>, Stop> {
    let mut interfaces = Vec::new();
    for name in function.interfaces() {
        let nic = Nic::open(name.as_str())?;
        can_come_back(&nic)?;
        interfaces.push(RememberedNic::of(&nic)?);
    }
    Ok(interfaces)
}

/// Deregisters a region whose device is going, or has gone.
fn ended(region: Box<dyn Region>) -> Result<(), Stop> {
    match region.deregister() {
        Err(error) if error.kind() != ErrorKind::Gone => {
            Err(Stop::fail(format!("after the device has gone: {error}")))
        }
        _ => Ok(()),
    }
}

fn tells_that_it_is_gone(events: &mut Events) -> Result<(), Stop> {
    let is_told = || {
        while let Some(event) = events.next_event()? {
            if event == Event::DeviceGone {
                return Ok(true);
            }
        }
        Ok(false)
    };
    settled(is_told, "the device has gone, and no event tells it")
}

/// Waits until the device is there again, by its name, and registers the buffer.
fn registers_again(device: &dyn RdmaDevice, dma_buf: &DmaBuf) -> Result<(), Stop> {
    let deadline = Instant::now() + COMES_BACK;
    let attempt = || {
        let found: Arc<dyn RdmaDevice> = device.found_again()?;
        let domain = found.open()?;
        domain.register(dma_buf, Registration::whole(dma_buf))?.deregister()?;
        Ok::<_, devmem_provider::Error>(found.name().to_owned())
    };
    loop {
        let seen = match attempt() {
            Ok(name) if name == device.name() => return Ok(()),
            Ok(name) => format!("it has come back as {name}"),
            Err(error) => error.to_string(),
        };
        ensure!(
            Instant::now() < deadline,
            "{} has not come back after {} s: {seen}",
            device.name(),
            COMES_BACK.as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
