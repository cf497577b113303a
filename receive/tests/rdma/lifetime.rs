//! How pins end.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devmem_provider::{Buffer, Change, Pin, PinnedBuffer, Require, Residency};
use devmem_receive::rdma::{Device, Event, ProtectionDomain, Registration};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::harness::{self, Actor, Failure, Outcome, Role, ensure};
use crate::setup::{DEVICE, SIZE, domain, is_in, provider, vram};
use crate::witness::{region, regions};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const ROLES: &[Role] = &[HOLDER];

const HOLDER: Role = Role { name: "hold-a-pin", play: hold };

/// Pins a buffer until it is told to end.
fn hold() -> Outcome {
    let buffer = vram(SIZE)?;
    let _pin = Pin::new(&mut domain()?, &*buffer, Require::DeviceLocal)?;
    harness::wait_for_end()
}

pub(crate) fn any_order_of_dropping() -> Outcome {
    enum Part {
        Buffer,
        DmaBuf,
        Domain,
        Region,
    }
    use Part::{Buffer, DmaBuf, Domain, Region};
    for order in [
        [Region, DmaBuf, Buffer, Domain],
        [Buffer, DmaBuf, Domain, Region],
        [Domain, Region, Buffer, DmaBuf],
        [DmaBuf, Domain, Buffer, Region],
    ] {
        let buffer = vram(SIZE)?;
        let dma_buf = buffer.export()?;
        let domain = domain()?;
        let region_of_it = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
        let mut held = (Some(buffer), Some(dma_buf), Some(domain), Some(region_of_it));
        for part in order {
            match part {
                Buffer => drop(held.0.take()),
                DmaBuf => drop(held.1.take()),
                Domain => drop(held.2.take()),
                Region => drop(held.3.take()),
            }
            let expected = usize::from(held.3.is_some());
            ensure!(regions(0)?.len() == expected, "{} regions, not {expected}", regions(0)?.len());
        }
    }
    Ok(())
}

pub(crate) fn a_killed_process_leaves_nothing() -> Outcome {
    for _ in 0..5 {
        let mut holder = Actor::start(HOLDER)?;
        region(0)?.is_in(Residency::DeviceLocal)?;
        holder.kill()?;
        eventually_no_regions()?;
    }
    let mut holder = Actor::start(HOLDER)?;
    holder.finish()?;
    eventually_no_regions()
}

/// The last file of a killed process is closed a little later.
fn eventually_no_regions() -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !regions(0)?.is_empty() {
        ensure!(Instant::now() < deadline, "regions are left");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A forked child has the descriptors too, and its end closes only its own.
pub(crate) fn a_child_does_not_end_a_pin() -> Outcome {
    let buffer = vram(SIZE)?;
    let mut domain = domain()?;
    let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
    let before = region(0)?;
    // SAFETY: the child ends at once, without running anything of this program.
    match unsafe { fork()? } {
        ForkResult::Child => {
            // SAFETY: it ends the process and nothing else.
            unsafe { libc::_exit(7) }
        }
        ForkResult::Parent { child } => {
            ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 7), "the child failed");
        }
    }
    ensure!(region(0)? == before, "{:?} instead of {before:?}", region(0)?);
    is_in(&*buffer, Residency::DeviceLocal)?;
    drop(pin);
    drop(domain);
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}

/// `efa` waits for its users when it is unbound: what is pinned stays so until everything of the device is dropped.
pub(crate) fn an_rdma_device_that_is_unbound_waits_for_its_users() -> Outcome {
    let device = Device::find(DEVICE)?;
    let address = device.pci.ok_or("no PCI address")?.to_string();
    let buffer = vram(SIZE)?;
    let mut domain = domain()?;
    let mut events = domain.events()?;
    let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
    let before = region(0)?;
    let driver = Path::new("/sys/bus/pci/drivers/efa");
    let unbinding = {
        let address = address.clone();
        std::thread::spawn(move || fs::write(driver.join("unbind"), address))
    };
    std::thread::sleep(Duration::from_millis(500));
    ensure!(!unbinding.is_finished(), "the device is gone with a region");
    ensure!(region(0)? == before, "{:?} instead of {before:?}", region(0)?);
    println!("    event meanwhile: {:?}", events.next_event()?);
    drop((pin, domain, events));
    unbinding.join().map_err(|_| "the thread panicked")??;
    ensure!(Device::find(DEVICE).is_err(), "the device is still there");
    ensure!(ProtectionDomain::open(&device).is_err(), "a device that is gone was opened");
    is_in(&*buffer, Residency::DeviceLocal)?;
    fs::write(driver.join("bind"), &address)?;
    ensure!(Device::find(DEVICE)? == device, "it came back as {:?}", Device::find(DEVICE)?);
    drop(Pin::new(&mut crate::setup::domain()?, &*buffer, Require::DeviceLocal)?);
    Ok(())
}

/// The exporter's driver is unbound while its memory is pinned: whoever looks is told, and the NIC keeps the addresses
/// until the region is gone.
pub(crate) fn a_gpu_that_is_unbound_is_told() -> Outcome {
    let gpu = provider("amdgpu")?;
    let address = gpu.identity().pci.ok_or("no PCI address")?.to_string();
    let buffer: Arc<dyn Buffer> = vram(SIZE)?.into();
    let mut domain = domain()?;
    let mut events = domain.events()?;
    let mut pinned = PinnedBuffer::new(&mut domain, buffer, Require::DeviceLocal)?;
    ensure!(pinned.look()?.is_none(), "it changed by itself");
    let before = region(0)?;
    let driver = Path::new("/sys/bus/pci/drivers/amdgpu");
    fs::write(driver.join("unbind"), &address)?;
    let told = pinned.look()?;
    ensure!(matches!(told, Some(Change::ExporterGone(_))), "{told:?}");
    println!("    {}", told.map(|change| change.to_string()).unwrap_or_default());
    ensure!(region(0)? == before, "{:?} instead of {before:?}", region(0)?);
    ensure!(events.next_event()?.is_none_or(|event| event != Event::DeviceGone), "the NIC is there");
    let (region_of_it, buffer) = pinned.release();
    region_of_it.deregister()?;
    ensure!(regions(0)?.is_empty(), "a region is left");
    drop((buffer, gpu, domain, events));
    fs::write(driver.join("bind"), &address)?;
    comes_back()
}

fn comes_back() -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tried: Result<_, Failure> = vram(SIZE);
        match tried {
            Ok(_) => return Ok(()),
            Err(failure) => ensure!(Instant::now() < deadline, "it does not come back: {failure}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
