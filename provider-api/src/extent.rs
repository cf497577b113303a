//! A piece of a buffer.

use std::fmt;
use std::ops::Range;

/// A piece of a buffer: where it begins and how long it is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl Extent {
    /// The piece of `length` bytes from `offset` on.
    #[must_use]
    #[inline]
    pub const fn new(offset: u64, length: u64) -> Self {
        Self { offset, length }
    }

    /// The first byte behind it; `None` if there is no such number.
    #[must_use]
    #[inline]
    pub fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    /// Whether all of it lies in a buffer of `size` bytes.
    #[must_use]
    #[inline]
    pub fn is_within(self, size: u64) -> bool {
        self.end().is_some_and(|end| end <= size)
    }

    /// Whether the two have a byte in common.
    #[must_use]
    #[inline]
    pub fn overlaps(self, other: Self) -> bool {
        let (end, other_end) = (self.end().unwrap_or(u64::MAX), other.end().unwrap_or(u64::MAX));
        self.length > 0 && other.length > 0 && self.offset < other_end && other.offset < end
    }
}

impl From<Range<u64>> for Extent {
    fn from(range: Range<u64>) -> Self {
        Self { offset: range.start, length: range.end.saturating_sub(range.start) }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at offset {}", self.length, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_exclusive_and_never_wrap() {
        assert!(Extent::new(4096, 4096).is_within(8192));
        assert!(!Extent::new(4097, 4096).is_within(8192));
        assert!(!Extent::new(u64::MAX, 2).is_within(u64::MAX));
        assert!(Extent::new(0, 0).is_within(0));
    }

    #[test]
    fn neighbours_and_nothing_overlap_nothing() {
        let piece = Extent::new(10, 10);
        assert!(piece.overlaps(Extent::new(19, 1)) && piece.overlaps(Extent::new(0, 11)));
        assert!(!piece.overlaps(Extent::new(20, 5)) && !piece.overlaps(Extent::new(0, 10)));
        assert!(!piece.overlaps(Extent::new(15, 0)));
        assert!(piece.overlaps(Extent::new(0, u64::MAX)));
    }
}
