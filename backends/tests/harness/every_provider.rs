//! What every provider must do.

use std::fs::File;
use std::time::Duration;

use devmem_backends::discover;
use devmem_provider::dma_buf::{Access, FenceUse};
use devmem_provider::{
    Capabilities, DmaBuf, ErrorKind, Identity, Placement, Provider, Request, Residency, base_page_size,
};

use super::{Failure, Outcome, SIZE, available_memory, descriptors, memory_is_back, skip};
use crate::ensure;

/// A test of a provider, by its name.
pub(crate) type ProviderTest = (&'static str, fn(&dyn Provider) -> Outcome);

pub(crate) const PROVIDER_TESTS: &[ProviderTest] = &[
    ("says_who_it_is_and_what_it_has", says_who_it_is_and_what_it_has),
    ("exports_the_same_dma_buf_again", exports_the_same_dma_buf_again),
    ("memory_begins_as_zero", memory_begins_as_zero),
    ("what_one_mapping_writes_another_reads", what_one_mapping_writes_another_reads),
    ("ranges_outside_are_refused", ranges_outside_are_refused),
    ("a_dma_buf_outlives_its_buffer", a_dma_buf_outlives_its_buffer),
    ("names_and_references_are_told", names_and_references_are_told),
    ("fences_go_out_and_in", fences_go_out_and_in),
    ("sizes_that_cannot_be_are_refused", sizes_that_cannot_be_are_refused),
    ("device_memory_is_refused_only_if_required", device_memory_is_refused_only_if_required),
    ("nothing_is_left_behind", nothing_is_left_behind),
];

pub(crate) fn export(provider: &dyn Provider) -> Result<DmaBuf, Failure> {
    Ok(provider.allocate(&Request::bytes(SIZE))?.export()?)
}

fn says_who_it_is_and_what_it_has(provider: &dyn Provider) -> Outcome {
    let identity = provider.identity();
    ensure!(identity.matches(&identity.name), "{identity:?}");
    ensure!(discover().find(&identity.name)?.identity() == identity, "{identity:?}");
    let heaps = provider.heaps()?;
    ensure!(!heaps.is_empty(), "no heap");
    for heap in heaps {
        ensure!(heap.granularity >= base_page_size() && heap.granularity.is_power_of_two(), "{heap:?}");
        ensure!(heap.size.is_none() || heap.size > heap.used, "{heap:?}");
        ensure!(heap.cpu_visible <= heap.size, "{heap:?}");
    }
    Ok(())
}

fn exports_the_same_dma_buf_again(provider: &dyn Provider) -> Outcome {
    let buffer = provider.allocate(&Request::bytes(SIZE))?;
    let (first, second) = (buffer.export()?, buffer.export()?);
    ensure!(first.inode() == second.inode(), "{first} and {second}");
    ensure!(first.size() == SIZE && buffer.size() == SIZE, "{first}");
    // As whoever gets the descriptor sees it.
    let received = DmaBuf::from_fd(first.try_clone()?.into_fd()?)?;
    ensure!(received.size() == SIZE && received.inode() == first.inode(), "{received}");
    ensure!(buffer.exporter() == Some(provider.identity()), "{:?}", buffer.exporter());
    ensure!(first.inode() != export(provider)?.inode(), "two buffers are one");
    let told = buffer.residency()?.residency != Residency::Unknown;
    ensure!(told == provider.capabilities().contains(Capabilities::RESIDENCY), "{:?}", buffer.residency()?);
    Ok(())
}

fn memory_begins_as_zero(provider: &dyn Provider) -> Outcome {
    if !provider.capabilities().contains(Capabilities::ZEROED) {
        return skip("this provider does not promise it");
    }
    // Pages that were just given back are the likeliest to be handed out with their old content.
    for _ in 0..3 {
        let mapping = export(provider)?.map(Access::ReadWrite)?;
        let access = mapping.write()?;
        let mut content = vec![0xff; mapping.length()];
        access.copy_to(0, &mut content)?;
        ensure!(content.iter().all(|&byte| byte == 0), "old content shows");
        access.copy_from(0, &vec![0xa5; mapping.length()])?;
        access.finish()?;
    }
    Ok(())
}

fn what_one_mapping_writes_another_reads(provider: &dyn Provider) -> Outcome {
    let dma_buf = export(provider)?;
    let page = base_page_size();
    let whole = dma_buf.map(Access::ReadWrite)?;
    let part = dma_buf.map_range(page, page, Access::Read)?;
    let access = whole.write()?;
    access.copy_from(usize::try_from(page)? + 3, b"hello")?;
    access.finish()?;
    let access = part.read()?;
    let mut read = [0; 5];
    access.copy_to(3, &mut read)?;
    access.finish()?;
    ensure!(&read == b"hello", "{read:?}");
    ensure!(part.length() as u64 == page, "{}", part.length());
    let refused = part.write().err().ok_or("a read-only mapping was written")?;
    ensure!(refused.kind() == ErrorKind::PermissionDenied, "{refused}");
    Ok(())
}

fn ranges_outside_are_refused(provider: &dyn Provider) -> Outcome {
    let dma_buf = export(provider)?;
    let page = base_page_size();
    for (offset, length) in [(0, 0), (0, SIZE + page), (SIZE, page), (u64::MAX - page + 1, page), (1, page)] {
        let error = dma_buf.map_range(offset, length, Access::Read).err();
        ensure!(error.is_some(), "{length} bytes from {offset} were mapped");
    }
    let mapping = dma_buf.map(Access::Read)?;
    let access = mapping.read()?;
    let error = access.copy_to(mapping.length() - 1, &mut [0; 2]).err().ok_or("read beyond the end")?;
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    Ok(())
}

fn a_dma_buf_outlives_its_buffer(provider: &dyn Provider) -> Outcome {
    let dma_buf = export(provider)?;
    let mapping = dma_buf.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, b"still there")?;
    access.finish()?;
    drop(mapping);
    // As another process would get it.
    let received = DmaBuf::from_fd(dma_buf.into_fd()?)?;
    let mapping = received.map(Access::Read)?;
    let mut read = [0; 11];
    mapping.read()?.copy_to(0, &mut read)?;
    ensure!(&read == b"still there", "{read:?}");
    Ok(())
}

fn names_and_references_are_told(provider: &dyn Provider) -> Outcome {
    let buffer = provider.allocate(&Request::bytes(SIZE).name("receive ring"))?;
    let dma_buf = buffer.export()?;
    let before = dma_buf.file_information()?;
    ensure!(before.size == SIZE && before.name.as_deref() == Some("receive ring"), "{before:?}");
    // The DRM core exports for most drivers.
    let Identity { name, backend, driver, .. } = provider.identity();
    let exporter = before.exporter.as_str();
    // Vulkan's drivers have names of their own.
    let of_vulkan = *backend == "vulkan" && ["udmabuf", "i915"].contains(&exporter);
    ensure!(name.contains(exporter) || ["drm", driver].contains(&exporter) || of_vulkan, "{before:?}");
    let _second = dma_buf.try_clone()?;
    ensure!(dma_buf.file_information()?.count == before.count + 1, "{before:?}");
    dma_buf.set_name(&"x".repeat(31))?;
    for name in ["x".repeat(32), "a\0b".to_owned()] {
        let error = dma_buf.set_name(&name).err().ok_or("an impossible name was taken")?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    }
    Ok(())
}

fn fences_go_out_and_in(provider: &dyn Provider) -> Outcome {
    let dma_buf = export(provider)?;
    for fences in [FenceUse::Read, FenceUse::Write] {
        let fence = match dma_buf.export_sync_file(fences) {
            Ok(fence) => fence,
            // Kernels without any GPU driver are built without CONFIG_SYNC_FILE.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return skip(error);
            }
            Err(error) => return Err(error.into()),
        };
        // A driver may still be clearing it.
        ensure!(fence.wait(Duration::from_secs(30))?, "nobody works on this buffer");
        dma_buf.import_sync_file(&fence, fences)?;
    }
    let no_fence = devmem_provider::dma_buf::SyncFile::from_fd(File::open("/dev/null")?.into());
    let error = dma_buf.import_sync_file(&no_fence, FenceUse::Read).err().ok_or("/dev/null is no fence")?;
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    Ok(())
}

fn sizes_that_cannot_be_are_refused(provider: &dyn Provider) -> Outcome {
    let page = base_page_size();
    let cases = [
        (0, ErrorKind::InvalidInput),
        (1, ErrorKind::InvalidInput),
        (page + 1, ErrorKind::InvalidInput),
        (1 << 40, ErrorKind::OutOfMemory),
        (u64::MAX - page + 1, ErrorKind::OutOfMemory),
    ];
    for (bytes, kind) in cases {
        let error =
            provider.allocate(&Request::bytes(bytes)).err().ok_or(format!("{bytes} bytes were had"))?;
        ensure!(error.kind() == kind && error.remedy_text().is_some(), "{bytes}: {error}");
    }
    Ok(())
}

fn device_memory_is_refused_only_if_required(provider: &dyn Provider) -> Outcome {
    if provider.capabilities().contains(Capabilities::DEVICE_LOCAL) {
        return skip("this provider has device memory");
    }
    let request = Request::bytes(SIZE);
    provider.allocate(&request.clone().prefer(Placement::DeviceLocal))?;
    let error = provider.allocate(&request.require(Placement::DeviceLocal)).err().ok_or("not refused")?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    Ok(())
}

fn nothing_is_left_behind(provider: &dyn Provider) -> Outcome {
    let cycle = || -> Outcome {
        let mapping = export(provider)?.map(Access::Read)?;
        mapping.read()?.finish()?;
        Ok(())
    };
    cycle()?;
    let (open, memory) = (descriptors()?, available_memory()?);
    // Were each buffer left behind, these would take a quarter of the guest's memory.
    for _ in 0..256 {
        cycle()?;
    }
    ensure!(descriptors()? == open, "descriptors are left open");
    memory_is_back(memory, 64 << 20)
}
