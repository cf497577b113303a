//! What only udmabuf does.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use devmem_backends::udmabuf::{Part, SealedMemory, Udmabuf};
use devmem_provider::dma_buf::Access;
use devmem_provider::{ErrorKind, PageSize, Provider, Request, base_page_size};

use crate::ensure;
use crate::harness::{Failure, Outcome};

pub(crate) fn parts_of_memfds_become_one_buffer() -> Outcome {
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

pub(crate) fn huge_pages_are_used_when_they_are_there() -> Outcome {
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
