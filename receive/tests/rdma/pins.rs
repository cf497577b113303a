//! Where a buffer is once it is registered.

use devmem_provider::{Agreement, ErrorKind, Forecast, Pin, Placement, Request, Require, Residency};
use devmem_receive::rdma::{AccessFlags, Registration, RegistrationRefusal};

use crate::harness::{Outcome, ensure};
use crate::setup::{SIZE, domain, is_in, provider, seen_in, system, vram};
use crate::witness::{locate, region, regions};

/// The driver's figures, the NIC's page addresses, and the marks in memory: all say that it is in the GPU's window.
pub(crate) fn device_memory_stays_where_it_is() -> Outcome {
    let buffer = vram(SIZE)?;
    let mut domain = domain()?;
    let forecast = Forecast::of(&domain, &*buffer)?;
    let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
    seen_in(pin.residency_before(), Residency::DeviceLocal)?;
    seen_in(pin.residency(), Residency::DeviceLocal)?;
    ensure!(forecast.compare(Some(&pin)) == Agreement::AsForetold, "{forecast:?}");
    let seen = region(0)?;
    seen.is_in(Residency::DeviceLocal)?;
    ensure!(seen.length == SIZE && seen.address == 0, "{seen:?}");
    ensure!(locate(pin.dma_buf())? == Residency::DeviceLocal, "the lab found it elsewhere");
    drop(pin);
    ensure!(regions(0)?.is_empty(), "a region is left");
    is_in(&*buffer, Residency::DeviceLocal)
}

pub(crate) fn a_part_of_a_buffer_is_registered() -> Outcome {
    let (buffer, domain) = (vram(SIZE)?, domain()?);
    let dma_buf = buffer.export()?;
    let whole = domain.register(&dma_buf, Registration::whole(&dma_buf))?;
    let all = region(0)?;
    drop(whole);
    for (offset, length, address) in
        [(0, 1, 0), (8192, 4096, 0), (4100, 100_000, 0x1_0000_0004), (SIZE - 1, 1, SIZE - 1)]
    {
        let registration = Registration::of(offset, length).at(address);
        let part = domain.register(&dma_buf, registration.clone())?;
        ensure!(*part.registration() == registration, "{part:?}");
        let seen = region(0)?;
        ensure!((seen.length, seen.address) == (length, address), "{registration}: {seen:?}");
        seen.is_in(Residency::DeviceLocal)?;
        // The buffer is in one piece, so that the page follows from the offset; it may be a larger one.
        let expected = all.first_page + offset / 4096 * 4096;
        ensure!(seen.first_page <= expected, "{registration}: {seen:?} in {all:?}");
    }
    Ok(())
}

pub(crate) fn keys_and_addresses_are_told() -> Outcome {
    let (buffer, domain) = (system(SIZE)?, domain()?);
    let dma_buf = buffer.export()?;
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_READ;
    let first = domain.register(&dma_buf, Registration::whole(&dma_buf).access(access))?;
    let second = domain.register(&dma_buf, Registration::whole(&dma_buf).at(1 << 40).access(access))?;
    ensure!(first.local_key() != second.local_key(), "{first:?}, {second:?}");
    ensure!(first.remote_key() != second.remote_key(), "{first:?}, {second:?}");
    let mut seen: Vec<_> = regions(0)?.iter().map(|region| (region.key, region.address)).collect();
    seen.sort_unstable();
    let mut told = [&first, &second]
        .map(|region| (u64::from(region.local_key()), region.registration().address()))
        .to_vec();
    told.sort_unstable();
    ensure!(seen == told, "{seen:?}, {told:?}");
    first.deregister()?;
    ensure!(regions(0)?.len() == 1, "it was not deregistered");
    second.deregister()?;
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}

/// Neither the descriptor, nor the buffer, nor the provider is needed any more.
pub(crate) fn a_region_holds_the_buffer_by_itself() -> Outcome {
    let (buffer, domain) = (vram(SIZE)?, domain()?);
    let region_of_it = domain.register(&buffer.export()?, Registration::of(0, SIZE))?;
    drop(buffer);
    let seen = region(0)?;
    seen.is_in(Residency::DeviceLocal)?;
    drop(domain);
    ensure!(region(0)? == seen, "the region is another: {:?}", region(0)?);
    drop(region_of_it);
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}

pub(crate) fn device_memory_moves_and_is_seen_to() -> Outcome {
    let buffer = vram(SIZE)?;
    let mut domain = domain()?;
    let forecast = Forecast::of(&domain, &*buffer)?;
    ensure!(forecast.demotes() == Some(true), "{forecast:?}");
    let pin = Pin::new(&mut domain, &*buffer, Require::Anywhere)?;
    seen_in(pin.residency_before(), Residency::DeviceLocal)?;
    seen_in(pin.residency(), Residency::System)?;
    ensure!(forecast.compare(Some(&pin)) == Agreement::AsForetold, "{forecast:?}");
    ensure!(pin.to_string().contains("moved it"), "{pin}");
    region(0)?.is_in(Residency::System)?;
    ensure!(locate(pin.dma_buf())? == Residency::System, "the lab found it elsewhere");
    Ok(())
}

pub(crate) fn a_demand_is_refused_with_the_reason() -> Outcome {
    let buffer = vram(SIZE)?;
    let mut domain = domain()?;
    let error = Pin::new(&mut domain, &*buffer, Require::DeviceLocal).err().ok_or("it was pinned")?;
    ensure!(error.kind() == ErrorKind::WrongResidency, "{error}");
    for part in ["because the kernel finds no way between them", "8086:29c0", "RDMA on efa_0"] {
        ensure!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
    ensure!(error.remedy_text().is_some_and(|remedy| remedy.contains("PCIe switch")), "{error}");
    println!("    {error}");
    ensure!(regions(0)?.is_empty(), "a region is left");
    // An exporter that may not move it refuses by itself.
    let buffer = provider("xe")?.allocate(&Request::bytes(SIZE).require(Placement::DeviceLocal))?;
    let error = Pin::new(&mut domain, &*buffer, Require::DeviceLocal).err().ok_or("it was pinned")?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    ensure!(error.to_string().contains("because the kernel finds no way between them"), "{error}");
    ensure!(RegistrationRefusal::of(&error) == Some(RegistrationRefusal::ExporterRefused), "{error}");
    println!("    {error}");
    is_in(&*buffer, Residency::DeviceLocal)
}

/// A GPU of 512 MiB of which 64 MiB are seen.
pub(crate) fn a_window_that_is_too_small_is_told() -> Outcome {
    let mut domain = domain()?;
    let small = vram(SIZE)?;
    let pin = Pin::new(&mut domain, &*small, Require::DeviceLocal)?;
    region(0)?.is_in(Residency::DeviceLocal)?;
    drop(pin);
    let large = provider("amdgpu")?.allocate(&Request::bytes(128 << 20).prefer(Placement::DeviceLocal))?;
    is_in(&*large, Residency::DeviceLocal)?;
    let forecast = Forecast::of(&domain, &*large)?;
    ensure!(forecast.reasons.iter().any(|reason| reason.contains("peers see 64 MiB")), "{forecast:?}");
    let error = Pin::new(&mut domain, &*large, Require::DeviceLocal).err().ok_or("it was pinned")?;
    ensure!(RegistrationRefusal::of(&error) == Some(RegistrationRefusal::OutOfMemory), "{error}");
    ensure!(error.remedy_text().is_some_and(|remedy| remedy.contains("window")), "{error}");
    println!("    {error}");
    is_in(&*large, Residency::DeviceLocal)
}
