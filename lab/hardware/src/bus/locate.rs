//! Finding the pages that the guest marked.

use super::{Bus, PAGE_SIZE, Page};

/// A page of a buffer that carries the mark looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The page that carries it.
    pub(crate) page: Page,
    /// Which page of the buffer the guest says it is.
    pub(crate) index: u64,
}

/// The constant that tells a mark from other data: the page index is written again, combined with it.
const CHECK: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes of a mark: nonce, index, index combined with [`CHECK`].
const MARK_SIZE: usize = 32;

/// Looks at the start of every page on the bus for marks with this nonce and an index below `pages`.
///
/// A mark is 32 bytes: 16 bytes nonce, the page's index in the buffer as a little-endian 64-bit
/// number, and that index XOR 0x9e3779b97f4a7c15 in the same form. Pages with several addresses are
/// looked at once; memory that nobody ever wrote is not looked at.
pub(crate) fn scan_for_marks(bus: &Bus, nonce: &[u8; 16], pages: u64) -> Vec<Mark> {
    let mut marks = Vec::new();
    for (backing, ranges) in bus.reachable() {
        for range in ranges {
            let mut next = range.start;
            while let Some(data) = backing.memory().next_data(next).filter(|data| data.start < range.end) {
                let end = data.end.min(range.end);
                let mut offset = data.start.max(range.start).next_multiple_of(PAGE_SIZE);
                while offset < end {
                    let mut bytes = [0; MARK_SIZE];
                    if backing.memory().read(offset, &mut bytes).is_some()
                        && let Some(index) = parse_mark(&bytes, nonce).filter(|index| *index < pages)
                    {
                        marks.push(Mark { page: backing.page(offset), index });
                    }
                    offset += PAGE_SIZE;
                }
                next = end.max(next + 1);
            }
        }
    }
    marks
}

fn parse_mark(bytes: &[u8; MARK_SIZE], nonce: &[u8; 16]) -> Option<u64> {
    if bytes[..16] != nonce[..] {
        return None;
    }
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let index = word(16)?;
    (word(24)? == index ^ CHECK).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::super::SharedMemory;
    use super::*;

    const NONCE: [u8; 16] = *b"0123456789abcdef";

    fn mark(index: u64) -> Vec<u8> {
        [&NONCE[..], &index.to_le_bytes(), &(index ^ CHECK).to_le_bytes()].concat()
    }

    #[test]
    fn finds_marked_pages_once_each() {
        let bus = Bus::new();
        let ram = SharedMemory::create("ram", 32 * PAGE_SIZE).unwrap();
        ram.write(7 * PAGE_SIZE, &mark(0)).unwrap();
        ram.write(3 * PAGE_SIZE, &mark(1)).unwrap();
        ram.write(4 * PAGE_SIZE, &mark(2)).unwrap(); // beyond the buffer's two pages
        ram.write(5 * PAGE_SIZE + 8, &mark(1)).unwrap(); // not at the start of a page
        let mut damaged = mark(0);
        damaged[31] ^= 1;
        ram.write(6 * PAGE_SIZE, &damaged).unwrap();
        let (first, second) = (bus.address_space(), bus.address_space());
        let file = || ram.file().try_clone().unwrap();
        first.map(0, 32 * PAGE_SIZE, Some((file(), 0)), true).unwrap();
        second.map(0x10_0000, 8 * PAGE_SIZE, Some((file(), 0)), true).unwrap();
        let mut found: Vec<_> =
            scan_for_marks(&bus, &NONCE, 2).iter().map(|m| (m.page.index, m.index)).collect();
        found.sort_unstable();
        assert_eq!(found, [(3, 1), (7, 0)]);
    }
}
