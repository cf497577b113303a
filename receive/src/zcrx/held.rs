//! What a program holds of an area.
//!
//! The kernel counts how often each receive buffer was handed out, but not to whom, and takes back any that is
//! given back, silently. Giving a buffer back that somebody else still reads would let the NIC overwrite it, so
//! that what a connection holds is counted here as well.

use crate::stream::Fragment;

/// How much of each receive buffer a connection holds.
#[derive(Debug)]
pub(crate) struct Held {
    /// Fragments in each receive buffer. Zeroed memory: what is not used costs nothing.
    counts: Vec<u32>,
    buffer_shift: u32,
    total: u64,
}

impl Held {
    /// Nothing of an area of `bytes` in receive buffers of `buffer_bytes`, a power of two.
    pub(crate) fn new(bytes: u64, buffer_bytes: u32) -> Self {
        let buffer_shift = buffer_bytes.max(1).trailing_zeros();
        let buffers = usize::try_from(bytes >> buffer_shift).unwrap_or(usize::MAX);
        Self { counts: vec![0; buffers], buffer_shift, total: 0 }
    }

    fn count(&mut self, offset: u64) -> Option<&mut u32> {
        self.counts.get_mut(usize::try_from(offset >> self.buffer_shift).ok()?)
    }

    /// Takes a fragment. Returns false if it lies in no receive buffer.
    pub(crate) fn take(&mut self, fragment: Fragment) -> bool {
        let Some(count) = self.count(fragment.offset()) else { return false };
        *count += 1;
        self.total += 1;
        true
    }

    /// Gives a fragment back. Returns false if none in its receive buffer is held.
    pub(crate) fn give(&mut self, fragment: Fragment) -> bool {
        match self.count(fragment.offset()) {
            Some(count @ 1..) => *count -= 1,
            _ => return false,
        }
        self.total -= 1;
        true
    }

    /// Gives everything back: `give` is told an offset in the receive buffer of each fragment.
    pub(crate) fn give_all(&mut self, mut give: impl FnMut(u64)) {
        if std::mem::take(&mut self.total) == 0 {
            return;
        }
        for (number, count) in self.counts.iter_mut().enumerate() {
            for _ in 0..std::mem::take(count) {
                give((number as u64) << self.buffer_shift);
            }
        }
    }

    /// How many fragments are held.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: u64) -> Fragment {
        Fragment { offset, length: 1, token: 0 }
    }

    #[test]
    fn a_receive_buffer_is_given_back_as_often_as_it_was_taken() {
        let mut held = Held::new(4 * 4096, 4096);
        assert!(held.take(fragment(4096)) && held.take(fragment(8191)) && held.take(fragment(0)));
        assert!(held.give(fragment(5000)));
        assert_eq!(held.total(), 2);
        let mut given = Vec::new();
        held.give_all(|offset| given.push(offset));
        assert_eq!((given, held.total()), (vec![0, 4096], 0));
        assert!(!held.give(fragment(4096)), "nothing is held any more");
    }

    #[test]
    fn what_lies_outside_is_not_held() {
        let mut held = Held::new(2 * 65536, 65536);
        assert!(
            held.take(fragment(131_071)) && !held.take(fragment(131_072)) && !held.take(fragment(u64::MAX))
        );
        assert!(!held.give(fragment(131_072)) && !held.give(fragment(0)));
    }
}
