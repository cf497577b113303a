//! The backends that need no GPU, and DMA-bufs themselves, on a real kernel.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;

use devmem_backends::udmabuf::{Part, SealedMemory, Udmabuf};
use devmem_backends::{BACKENDS, discover};
use devmem_provider::dma_buf::{Access, FenceUse};
use devmem_provider::{
    Capabilities, DmaBuf, ErrorKind, PageSize, Placement, Provider, Request, Residency, base_page_size,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What went wrong in a test.
type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;
/// A test of every provider, by its name.
type ProviderTest = (&'static str, fn(&dyn Provider) -> Outcome);

const SIZE: u64 = 1 << 20;

/// Fails a test unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!("{}: {}", stringify!($condition), format_args!($($message)+)).into());
        }
    };
}

const PROVIDER_TESTS: &[ProviderTest] = &[
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

fn export(provider: &dyn Provider) -> Result<DmaBuf, Failure> {
    Ok(provider.allocate(&Request::bytes(SIZE))?.export()?)
}

fn says_who_it_is_and_what_it_has(provider: &dyn Provider) -> Outcome {
    let identity = provider.identity();
    ensure!(identity.matches(&identity.name), "{identity:?}");
    ensure!(discover().find(&identity.name)?.identity() == identity, "{identity:?}");
    let heaps = provider.heaps()?;
    ensure!(!heaps.is_empty(), "no heap");
    for heap in heaps {
        ensure!(heap.granularity == base_page_size(), "{heap:?}");
        ensure!(heap.size > heap.used, "{heap:?}");
    }
    Ok(())
}

fn exports_the_same_dma_buf_again(provider: &dyn Provider) -> Outcome {
    let buffer = provider.allocate(&Request::bytes(SIZE))?;
    let (first, second) = (buffer.export()?, buffer.export()?);
    ensure!(first.inode() == second.inode(), "{first} and {second}");
    ensure!(first.size() == SIZE && buffer.size() == SIZE, "{first}");
    ensure!(first.inode() != export(provider)?.inode(), "two buffers are one");
    ensure!(buffer.residency()?.residency == Residency::System, "{:?}", buffer.residency()?);
    Ok(())
}

fn memory_begins_as_zero(provider: &dyn Provider) -> Outcome {
    ensure!(provider.capabilities().contains(Capabilities::ZEROED), "not promised");
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
    ensure!(provider.identity().name.contains(&before.exporter), "{before:?}");
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
                return Err(Skip(error.to_string()).into());
            }
            Err(error) => return Err(error.into()),
        };
        ensure!(fence.is_signalled()?, "nobody works on this buffer");
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
    let request = Request::bytes(SIZE);
    provider.allocate(&request.clone().prefer(Placement::DeviceLocal))?;
    let error = provider.allocate(&request.require(Placement::DeviceLocal)).err().ok_or("not refused")?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    Ok(())
}

fn nothing_is_left_behind(provider: &dyn Provider) -> Outcome {
    let count = || -> Result<usize, Failure> { Ok(std::fs::read_dir("/proc/self/fd")?.count()) };
    let cycle = || -> Outcome {
        let mapping = export(provider)?.map(Access::Read)?;
        mapping.read()?.finish()?;
        Ok(())
    };
    cycle()?;
    let (descriptors, memory) = (count()?, available_memory()?);
    // Were each buffer left behind, these would take a quarter of the guest's memory.
    for _ in 0..256 {
        cycle()?;
    }
    ensure!(count()? == descriptors, "descriptors are left open");
    let lost = memory.saturating_sub(available_memory()?);
    ensure!(lost < 64 << 20, "{lost} bytes are lost");
    Ok(())
}

fn available_memory() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).ok_or("no MemAvailable")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? * 1024)
}

fn every_backend_works_here() -> Outcome {
    let discovery = discover();
    ensure!(discovery.unavailable.is_empty(), "{discovery}");
    ensure!(discovery.providers.len() >= BACKENDS.len(), "{discovery}");
    Ok(())
}

fn parts_of_memfds_become_one_buffer() -> Outcome {
    let page = base_page_size();
    let first = SealedMemory::new(4 * page, PageSize::Base)?;
    let second = SealedMemory::new(2 * page, PageSize::Base)?;
    for (memory, byte) in [(&first, 1), (&second, 2)] {
        let file = File::from(memory.as_fd().try_clone_to_owned()?);
        file.write_all_at(&vec![byte; usize::try_from(memory.size())?], 0)?;
    }
    let parts = [
        Part { memory: &first, offset: page, size: page },
        Part { memory: &second, offset: 0, size: 2 * page },
        Part { memory: &first, offset: 3 * page, size: page },
    ];
    let provider = Udmabuf::open()?;
    let buffer = provider.allocate_from(&parts)?;
    ensure!(buffer.size() == 4 * page, "{} bytes", buffer.size());
    let mapping = buffer.export()?.map(Access::Read)?;
    let mut content = vec![0; mapping.length()];
    mapping.read()?.copy_to(0, &mut content)?;
    let bytes: Vec<u8> = content.chunks(usize::try_from(page)?).map(|page| page[0]).collect();
    ensure!(bytes == [1, 2, 2, 1], "{bytes:?}");
    for bad in [
        Part { memory: &first, offset: 1, size: page },
        Part { memory: &first, offset: 0, size: page + 1 },
        Part { memory: &first, offset: 4 * page, size: page },
        Part { memory: &first, offset: 0, size: 0 },
    ] {
        let error = provider.allocate_from(&[bad]).err().ok_or(format!("{bad:?} was exported"))?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    }
    ensure!(provider.allocate_from(&[]).is_err(), "nothing was exported");
    Ok(())
}

fn huge_pages_are_used_when_they_are_there() -> Outcome {
    let provider = Udmabuf::open()?;
    let request = Request::bytes(4 << 20).page_size(PageSize::Huge2MiB);
    let error = provider.allocate(&request).err().ok_or("nobody has reserved any")?;
    ensure!(error.kind() == ErrorKind::OutOfMemory, "{error}");
    std::fs::write("/proc/sys/vm/nr_hugepages", "4")?;
    let free = || -> Result<u64, Failure> {
        let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
        Ok(std::fs::read_to_string(path)?.trim().parse()?)
    };
    ensure!(free()? == 4, "the guest has no huge pages to give");
    let buffer = provider.allocate(&request)?;
    ensure!(free()? == 2, "{} are free", free()?);
    drop(buffer);
    ensure!(free()? == 4, "{} are free after the buffer is gone", free()?);
    std::fs::write("/proc/sys/vm/nr_hugepages", "0")?;
    Ok(())
}

/// Why a test cannot say anything on this kernel.
#[derive(Debug)]
struct Skip(String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

fn trial(name: String, test: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(failure) => match failure.downcast::<Skip>() {
            Ok(skip) => Ok(Completion::ignored_with(skip.0)),
            Err(failure) => Err(Failed::from(failure.to_string())),
        },
    })
}

fn main() -> ExitCode {
    devmem_lab::test_program().main(|| {
        let mut arguments = Arguments::from_args();
        // Tests that count memory are disturbed by others.
        arguments.test_threads = Some(1);
        let mut trials = vec![
            trial("every_backend_works_here".to_owned(), every_backend_works_here),
            trial("udmabuf::parts_of_memfds_become_one_buffer".to_owned(), parts_of_memfds_become_one_buffer),
            trial(
                "udmabuf::huge_pages_are_used_when_they_are_there".to_owned(),
                huge_pages_are_used_when_they_are_there,
            ),
        ];
        for provider in discover().providers {
            for &(name, test) in PROVIDER_TESTS {
                let of = Arc::clone(&provider);
                trials.push(trial(format!("{}::{name}", provider.identity().name), move || test(&*of)));
            }
        }
        libtest_mimic::run(&arguments, trials).exit_code()
    })
}
