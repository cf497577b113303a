//! No memory left.

use std::time::{Duration, Instant};

use devmem_provider::dma_buf::Access;
use devmem_provider::{
    Buffer, Capabilities, ErrorKind, Heap, Placement, Provider, Request, Residency, base_page_size,
};

use crate::ensure;
use crate::harness::{Failure, Outcome, available_memory, skip};

const CHUNK: u64 = 16 << 20;

fn heap(provider: &dyn Provider, placement: Placement) -> Result<Option<Heap>, Failure> {
    let is_system = |heap: &Heap| heap.placement == Placement::System;
    let wanted = placement == Placement::System;
    Ok(provider.heaps()?.into_iter().find(|heap| is_system(heap) == wanted))
}

/// The device's memory, if it has some and if the guest's can take all that is evicted from it.
fn device_memory(provider: &dyn Provider) -> Result<u64, Failure> {
    if !provider.capabilities().contains(Capabilities::DEVICE_LOCAL) {
        return skip("this provider has no device memory");
    }
    let size = heap(provider, Placement::DeviceLocal)?.and_then(|heap| heap.size);
    let Some(size) = size else {
        return skip("nobody tells how much device memory there is");
    };
    let available = available_memory()?;
    if size > available / 2 {
        return skip(format!("{size} bytes of device memory would not fit in {available} of the guest"));
    }
    Ok(size)
}

/// Drivers free memory a little after its last user let go.
fn eventually(provider: &dyn Provider, request: &Request) -> Result<Box<dyn Buffer>, Failure> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match provider.allocate(request) {
            Ok(buffer) => return Ok(buffer),
            Err(error) => ensure!(Instant::now() < deadline, "nothing is free again: {error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The driver's own use leaves less than all of it: some drivers then fall back without a word.
pub(crate) fn a_buffer_as_large_as_the_memory(provider: &dyn Provider) -> Outcome {
    let size = device_memory(provider)?;
    match provider.allocate(&Request::bytes(size).require(Placement::DeviceLocal)) {
        // A driver that uses none of it itself.
        Ok(all) => {
            ensure!(all.residency()?.residency == Residency::DeviceLocal, "{:?}", all.residency()?);
            let more = provider.allocate(&Request::bytes(CHUNK).require(Placement::DeviceLocal));
            let error = more.err().ok_or("more than all of the device's memory was had")?;
            ensure!(error.kind() == ErrorKind::OutOfMemory, "{error}");
        }
        Err(error) => {
            ensure!(error.kind() == ErrorKind::OutOfMemory && error.remedy_text().is_some(), "{error}");
        }
    }
    let beyond = provider.allocate(&Request::bytes(2 * size).require(Placement::DeviceLocal));
    let error = beyond.err().ok_or("more than the device's memory was had")?;
    ensure!(error.kind() == ErrorKind::OutOfMemory, "{error}");
    // Nothing is lost by it.
    let buffer = eventually(provider, &Request::bytes(CHUNK).require(Placement::DeviceLocal))?;
    ensure!(buffer.residency()?.residency == Residency::DeviceLocal, "{:?}", buffer.residency()?);
    Ok(())
}

/// A driver evicts older buffers, or refuses; it never loses what is in them, and residency tells the truth.
pub(crate) fn more_buffers_than_the_memory_holds(provider: &dyn Provider) -> Outcome {
    let size = device_memory(provider)?;
    let mut held: Vec<Box<dyn Buffer>> = Vec::new();
    let mut refused = None;
    while refused.is_none() && held.len() as u64 * CHUNK < size + size / 2 {
        match provider.allocate(&Request::bytes(CHUNK).require(Placement::DeviceLocal)) {
            Ok(buffer) => {
                ensure!(buffer.residency()?.residency == Residency::DeviceLocal, "{:?}", buffer.residency()?);
                mark(&*buffer, held.len())?;
                held.push(buffer);
            }
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = &refused {
        ensure!(error.kind() == ErrorKind::OutOfMemory, "after {} buffers: {error}", held.len());
        let buffer = provider.allocate(&Request::bytes(CHUNK).prefer(Placement::DeviceLocal))?;
        ensure!(buffer.residency()?.residency == Residency::System, "{:?}", buffer.residency()?);
    }
    ensure!(held.len() as u64 >= size / CHUNK / 2, "only {} buffers: {refused:?}", held.len());
    let mut device_local = 0;
    for buffer in &held {
        match buffer.residency()?.residency {
            Residency::DeviceLocal => device_local += CHUNK,
            Residency::System => {}
            other => return Err(format!("{other}: {:?}", buffer.residency()?).into()),
        }
    }
    ensure!(device_local <= size, "{device_local} bytes are said to be in {size}");
    for (index, buffer) in held.iter().enumerate() {
        ensure!(has_mark(&**buffer, index)?, "buffer {index} lost its content");
    }
    Ok(())
}

fn mark(buffer: &dyn Buffer, index: usize) -> Outcome {
    let mapping = buffer.export()?.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, &index.to_ne_bytes())?;
    access.copy_from(mapping.length() - size_of::<usize>(), &index.to_ne_bytes())?;
    Ok(access.finish()?)
}

fn has_mark(buffer: &dyn Buffer, index: usize) -> Result<bool, Failure> {
    let mapping = buffer.export()?.map(Access::Read)?;
    let access = mapping.read()?;
    let (mut first, mut last) = ([0; size_of::<usize>()], [0; size_of::<usize>()]);
    access.copy_to(0, &mut first)?;
    access.copy_to(mapping.length() - last.len(), &mut last)?;
    Ok(first == index.to_ne_bytes() && last == index.to_ne_bytes())
}

fn touch(buffer: &dyn Buffer) -> Outcome {
    let mapping = buffer.export()?.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    for offset in (0..mapping.length()).step_by(usize::try_from(base_page_size())?) {
        access.copy_from(offset, &[1])?;
    }
    Ok(access.finish()?)
}

/// System memory ends with an error, not with the kernel killing processes.
pub(crate) fn of_system_memory(provider: &dyn Provider) -> Outcome {
    let request = Request::bytes(2 * CHUNK).require(Placement::System);
    let beyond = Request::bytes(available_memory()?.next_multiple_of(CHUNK) * 2).require(Placement::System);
    let error = provider.allocate(&beyond).err().ok_or("more than all memory was had")?;
    ensure!(error.kind() == ErrorKind::OutOfMemory && error.remedy_text().is_some(), "{error}");
    let mut held = Vec::new();
    let error = loop {
        ensure!(held.len() < 1000, "there is no end");
        match provider.allocate(&request) {
            Ok(buffer) => {
                ensure!(buffer.residency()?.residency == Residency::System, "{:?}", buffer.residency()?);
                // A driver may give it pages one by one as they are touched.
                touch(&*buffer)?;
                held.push(buffer);
            }
            Err(error) => break error,
        }
    };
    ensure!(error.kind() == ErrorKind::OutOfMemory && error.remedy_text().is_some(), "{error}");
    ensure!(!held.is_empty(), "not even one: {error}");
    drop(held);
    eventually(provider, &request)?;
    Ok(())
}
