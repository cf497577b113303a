//! Page tables of the windows, as the driver writes them (`nvkm/subdev/mmu/vmmgf100.c`, `vmmgp100.c`).
//!
//! A window has an *instance*, a block of memory in which the address of the page directory is. The entries that
//! lead to large pages and to small pages of the same addresses stand side by side; a large page that is valid
//! goes first, and one that is marked so hides the small ones.

use super::registers::Window;
use super::video_memory::{Translation, VideoMemory};
use crate::bus::PAGE_SIZE;

/// Where in the instance the address of the page directory is.
const PAGE_DIRECTORY: u64 = 0x200;
/// The lowest bits of that address: where the directory is; 0 is the GPU's memory.
const DIRECTORY_TARGET: u64 = 0b11;

/// How page tables are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One directory, whose entries cover 1024 large pages.
    Fermi {
        /// Large pages are of 64 KiB, not of 128.
        small_large_pages: bool,
    },
    /// Directories of four levels, whose last one covers 2 MiB with each entry.
    Pascal,
}

/// What one entry of a page table says of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// Nothing.
    Invalid,
    /// Nothing, and small pages at its address are not to be looked at.
    Hiding,
    /// The page of the GPU's memory at this address.
    Memory(u64),
    /// A page that is not of the GPU's memory.
    Elsewhere,
}

/// The address of the page directory of an instance, if that is in the GPU's memory.
pub(super) fn directory(memory: &VideoMemory, instance: u64) -> Option<u64> {
    let word = read_word(memory, instance.checked_add(PAGE_DIRECTORY)?);
    (word & DIRECTORY_TARGET == 0).then_some(word & 0x00ff_ffff_ffff_f000)
}

/// What page tables let a window show.
pub(super) fn translate(memory: &VideoMemory, window: Window, directory: u64, format: Format) -> Translation {
    let mut pages = vec![None; memory.pages(window)];
    match format {
        Format::Fermi { small_large_pages } => fermi(memory, directory, small_large_pages, &mut pages),
        Format::Pascal => pascal(memory, directory, &mut pages),
    }
    pages
}

fn fermi(memory: &VideoMemory, directory: u64, small_large_pages: bool, pages: &mut [Option<u32>]) {
    let large_page = if small_large_pages { 16 } else { 32 };
    for (index, part) in pages.chunks_mut(1024 * large_page).enumerate() {
        let entry = read_word(memory, directory.saturating_add(index as u64 * 8));
        // The table of large pages in the lower half, that of small ones in the upper; 1: in the GPU's memory.
        let table = |half: u64| (half & 0b11 == 1).then_some((half & 0xffff_fff0) << 8);
        if let Some(table) = table(entry >> 32) {
            fill(memory, table, 1, fermi_entry, part);
        }
        if let Some(table) = table(entry & 0xffff_ffff) {
            fill(memory, table, large_page, fermi_entry, part);
        }
    }
}

fn fermi_entry(entry: u64) -> Entry {
    match (entry & 1 != 0, entry >> 33 & 0b11) {
        (true, 0) => Entry::Memory((entry & 0xffff_fff0) << 8),
        (true, _) => Entry::Elsewhere,
        (false, _) if entry & 1 << 1 != 0 => Entry::Hiding,
        (false, _) => Entry::Invalid,
    }
}

/// Pages that an entry of Pascal's last directory covers, and how many a large page has.
const PASCAL_PART: usize = 512;
const PASCAL_LARGE_PAGE: usize = 16;

fn pascal(memory: &VideoMemory, directory: u64, pages: &mut [Option<u32>]) {
    for (index, part) in pages.chunks_mut(PASCAL_PART).enumerate() {
        let address = (index * PASCAL_PART) as u64 * PAGE_SIZE;
        // Three directories with entries of 8 bytes, then one with entries of 16.
        let levels = [(47, 2), (38, 9), (29, 9)];
        let last = levels.iter().try_fold(directory, |directory, &(shift, bits)| {
            let index = address >> shift & ((1 << bits) - 1);
            pascal_table(read_word(memory, directory.saturating_add(index * 8)))
        });
        let Some(last) = last else { continue };
        let at = last.saturating_add((address >> 21 & 0xff) * 16);
        let (large, small) = (read_word(memory, at), read_word(memory, at.saturating_add(8)));
        match pascal_entry(large) {
            // One page of 2 MiB.
            Entry::Memory(_) => put(part, pascal_entry(large)),
            Entry::Elsewhere => {}
            Entry::Invalid | Entry::Hiding => {
                if let Some(table) = pascal_table(small) {
                    fill(memory, table, 1, pascal_entry, part);
                }
                if let Some(table) = pascal_table(large) {
                    fill(memory, table, PASCAL_LARGE_PAGE, pascal_entry, part);
                }
            }
        }
    }
}

/// The table that an entry of a directory leads to, if it is in the GPU's memory.
fn pascal_table(entry: u64) -> Option<u64> {
    (entry >> 1 & 0b11 == 1).then_some((entry & 0x000f_ffff_ffff_fff0) << 4)
}

fn pascal_entry(entry: u64) -> Entry {
    match (entry & 1 != 0, entry >> 1 & 0b11) {
        (true, 0) => Entry::Memory((entry & 0xf_ffff_ff00) << 4),
        (true, _) => Entry::Elsewhere,
        (false, _) if entry & 1 << 5 != 0 => Entry::Hiding,
        (false, _) => Entry::Invalid,
    }
}

/// Fills in what a table says: `size` small pages with each entry.
fn fill(memory: &VideoMemory, table: u64, size: usize, parse: fn(u64) -> Entry, pages: &mut [Option<u32>]) {
    let mut bytes = vec![0; pages.len().div_ceil(size) * 8];
    memory.read(table, &mut bytes);
    for (page, word) in pages.chunks_mut(size).zip(bytes.as_chunks::<8>().0) {
        put(page, parse(u64::from_le_bytes(*word)));
    }
}

fn put(pages: &mut [Option<u32>], entry: Entry) {
    match entry {
        Entry::Invalid => {}
        Entry::Hiding | Entry::Elsewhere => pages.fill(None),
        Entry::Memory(address) => {
            for (page, number) in pages.iter_mut().zip(address / PAGE_SIZE..) {
                *page = u32::try_from(number).ok();
            }
        }
    }
}

fn read_word(memory: &VideoMemory, address: u64) -> u64 {
    let mut word = [0; 8];
    memory.read(address, &mut word);
    u64::from_le_bytes(word)
}
