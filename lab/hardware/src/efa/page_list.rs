//! The list of pages that a memory region consists of, in each of the three forms in which a driver gives it.
//!
//! ```text
//! inline    command ── up to 4 addresses of pages
//! direct    command ──▶ array of addresses of pages
//! indirect  command ──▶ chunk: addresses of list pages ──▶ each 4 KiB of that array
//!                         │    (510 in a chunk)
//!                         └──▶ next chunk ──▶ …
//! ```

use super::command::{Chunk, ListPlace};
use super::fields::Fields;
use crate::bus::{AddressSpace, DmaError};

/// Bytes of the pages that hold the array in the indirect form.
const LIST_PAGE: usize = 4096;
/// Bytes of an address.
const ENTRY: usize = 8;
/// Addresses in a chunk; behind them, at offset 4080, is where the next one is.
const CHUNK_ENTRIES: usize = 510;

/// Why a page list cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PageListError {
    #[error("the list of pages: {0}")]
    Memory(#[from] DmaError),
    #[error("{found} bytes of page list where {expected} are expected")]
    Length { found: u32, expected: usize },
    #[error("{0} pages in the command, which has room for 4")]
    Inline(usize),
}

/// The addresses of the `count` pages.
///
/// # Errors
/// What is wrong with the list.
pub(super) fn read(memory: &AddressSpace, place: ListPlace, count: usize) -> Result<Vec<u64>, PageListError> {
    match place {
        ListPlace::Inline(addresses) => {
            addresses.get(..count).map(<[u64]>::to_vec).ok_or(PageListError::Inline(count))
        }
        ListPlace::Direct(array) => {
            expect_length(array, count * ENTRY)?;
            let mut addresses = Vec::with_capacity(count);
            read_array(memory, array.address, count, &mut addresses)?;
            Ok(addresses)
        }
        ListPlace::Indirect(first) => read_chunks(memory, first, count),
    }
}

fn read_chunks(memory: &AddressSpace, first: Chunk, count: usize) -> Result<Vec<u64>, PageListError> {
    let mut addresses = Vec::with_capacity(count);
    let mut list_pages = (count * ENTRY).div_ceil(LIST_PAGE);
    let mut chunk = first;
    while list_pages > 0 {
        let here = list_pages.min(CHUNK_ENTRIES);
        expect_length(chunk, here * ENTRY + Chunk::SIZE)?;
        let mut places = Vec::with_capacity(here);
        read_array(memory, chunk.address, here, &mut places)?;
        for place in places {
            let rest = (count - addresses.len()).min(LIST_PAGE / ENTRY);
            read_array(memory, place, rest, &mut addresses)?;
        }
        list_pages -= here;
        if list_pages > 0 {
            let next = chunk.address.wrapping_add((CHUNK_ENTRIES * ENTRY) as u64);
            chunk = Chunk::parse(Fields(&memory.read_array::<{ Chunk::SIZE }>(next)?), 0);
        }
    }
    Ok(addresses)
}

fn expect_length(chunk: Chunk, expected: usize) -> Result<(), PageListError> {
    if chunk.length as usize == expected {
        return Ok(());
    }
    Err(PageListError::Length { found: chunk.length, expected })
}

fn read_array(memory: &AddressSpace, at: u64, count: usize, into: &mut Vec<u64>) -> Result<(), DmaError> {
    let mut bytes = vec![0; count * ENTRY];
    memory.read(at, &mut bytes)?;
    into.extend(bytes.chunks_exact(ENTRY).map(|entry| Fields(entry).u64(0)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bus::{Bus, SharedMemory};

    fn memory(bytes: u64) -> Arc<AddressSpace> {
        let ram = SharedMemory::create("ram", bytes).unwrap();
        let space = Bus::new().address_space();
        space.map(0, bytes, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        space
    }

    fn pages(count: usize) -> Vec<u64> {
        (0..count as u64).map(|index| 0x1_0000_0000 + index * 0x3000).collect()
    }

    fn write(memory: &AddressSpace, at: u64, addresses: &[u64]) {
        let bytes: Vec<u8> = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
        memory.write(at, &bytes).unwrap();
    }

    fn chunk(memory: &AddressSpace, at: u64, next: Chunk) {
        let bytes = [&next.length.to_le_bytes()[..], &next.address.to_le_bytes()].concat();
        memory.write(at, &bytes).unwrap();
    }

    #[test]
    fn inline_and_direct() {
        let memory = memory(1 << 16);
        let inline = ListPlace::Inline([1, 2, 3, 4]);
        assert_eq!(read(&memory, inline, 3), Ok(vec![1, 2, 3]));
        assert_eq!(read(&memory, inline, 5), Err(PageListError::Inline(5)));
        write(&memory, 0x1008, &pages(700));
        let direct = |length| ListPlace::Direct(Chunk { length, address: 0x1008 });
        assert_eq!(read(&memory, direct(5600), 700), Ok(pages(700)));
        let error = PageListError::Length { found: 5592, expected: 5600 };
        assert_eq!(read(&memory, direct(5592), 700), Err(error));
        let outside = ListPlace::Direct(Chunk { length: 8, address: 1 << 16 });
        assert_eq!(read(&memory, outside, 1), Err(DmaError::Unmapped(1 << 16).into()));
    }

    #[test]
    fn chunks_are_followed() {
        let memory = memory(4 << 20);
        // One list page more than fits into a chunk, with three entries in it.
        let count = CHUNK_ENTRIES * 512 + 3;
        let all = pages(count);
        let list_page = |index: usize| 0x10_0000 + index as u64 * 0x1000;
        for (index, part) in all.chunks(512).enumerate() {
            write(&memory, list_page(index), part);
        }
        let places: Vec<u64> = (0..=CHUNK_ENTRIES).map(list_page).collect();
        let (first, second) = (0x8000, 0x9000);
        write(&memory, first, &places[..CHUNK_ENTRIES]);
        write(&memory, second, &places[CHUNK_ENTRIES..]);
        chunk(&memory, first + 4080, Chunk { length: 20, address: second });
        let place = ListPlace::Indirect(Chunk { length: 4092, address: first });
        assert_eq!(read(&memory, place, count), Ok(all));
        // The second chunk is announced with a wrong length.
        chunk(&memory, first + 4080, Chunk { length: 28, address: second });
        let error = PageListError::Length { found: 28, expected: 20 };
        assert_eq!(read(&memory, place, count), Err(error));
        // A chain that leads back to its beginning ends with the pages.
        chunk(&memory, first + 4080, Chunk { length: 20, address: first });
        assert_eq!(read(&memory, place, count).unwrap().len(), count);
    }
}
