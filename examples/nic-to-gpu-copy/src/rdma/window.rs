//! The pieces of a stream on their way through the buffer: which have arrived, in which order they are taken, and for how many
//! there is room.

use std::collections::VecDeque;

use anyhow::{Result, bail};
use devmem_provider::Extent;

/// Places for pieces, used one after the other and over again.
#[derive(Debug)]
pub(super) struct Window {
    /// The first place, and the length of each.
    base: u64,
    piece_bytes: u32,
    places: u32,
    /// Pieces that were taken, and that were released.
    taken: u64,
    released: u64,
    /// The lengths of pieces from `taken` on, of those that have arrived.
    arrived: VecDeque<Option<u32>>,
    /// The last piece has arrived, which is shorter than the others.
    ended: bool,
}

impl Window {
    /// Places in a part of the buffer.
    pub(super) fn new(base: u64, piece_bytes: u32, places: u32) -> Self {
        let arrived = VecDeque::with_capacity(places as usize);
        Self { base, piece_bytes, places, taken: 0, released: 0, arrived, ended: false }
    }

    /// A piece of `bytes` bytes has arrived. `number` is the lower part of its number in the stream.
    pub(super) fn arrive(&mut self, number: u32, bytes: u32) -> Result<()> {
        // A piece further back is, counted on, far ahead.
        let ahead = number.wrapping_sub(low(self.taken));
        let held = self.taken - self.released;
        if u64::from(ahead) + held >= u64::from(self.places) {
            bail!("the peer wrote piece {number} although there was no place for it");
        }
        if bytes == 0 || bytes > self.piece_bytes {
            bail!("the peer wrote {bytes} bytes as a piece, which has {}", self.piece_bytes);
        }
        let at = ahead as usize;
        while self.arrived.len() <= at {
            self.arrived.push_back(None);
        }
        match self.arrived.get_mut(at) {
            Some(place @ None) => *place = Some(bytes),
            _ => bail!("the peer wrote piece {number} twice"),
        }
        Ok(())
    }

    /// The next piece in order, if it has arrived: where it lies.
    pub(super) fn take(&mut self) -> Result<Option<Extent>> {
        let Some(&Some(bytes)) = self.arrived.front() else { return Ok(None) };
        if self.ended {
            bail!("the peer wrote a piece behind one that was not full");
        }
        self.ended = bytes < self.piece_bytes;
        self.arrived.pop_front();
        let place = self.taken % u64::from(self.places);
        self.taken += 1;
        Ok(Some(Extent::new(self.base + place * u64::from(self.piece_bytes), bytes.into())))
    }

    /// Nothing reads the next so many pieces any more. Returns how many were released so far.
    pub(super) fn release(&mut self, pieces: u64) -> u64 {
        self.released = self.released.saturating_add(pieces).min(self.taken);
        self.released
    }
}

/// The lower part of a number.
pub(super) fn low(number: u64) -> u32 {
    (number & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window() -> Window {
        Window::new(8192, 4096, 3)
    }

    #[test]
    fn pieces_are_taken_in_order_however_they_arrive() {
        let mut window = window();
        window.arrive(2, 4096).unwrap();
        window.arrive(1, 4096).unwrap();
        assert_eq!(window.take().unwrap(), None);
        window.arrive(0, 4096).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| window.take().unwrap()).collect();
        assert_eq!(taken, [8192, 12288, 16384].map(|offset| Extent::new(offset, 4096)));
        assert!(window.arrive(3, 10).is_err(), "no place was released");
        assert_eq!(window.release(1), 1);
        window.arrive(3, 10).unwrap();
        assert_eq!(window.take().unwrap(), Some(Extent::new(8192, 10)));
    }

    #[test]
    fn what_a_peer_must_not_write_is_refused() {
        let mut window = window();
        window.arrive(0, 4096).unwrap();
        assert!(window.arrive(0, 4096).is_err(), "twice");
        assert!(window.arrive(3, 4096).is_err(), "no place");
        assert!(window.arrive(u32::MAX, 4096).is_err(), "before the first");
        assert!(window.arrive(1, 0).is_err() && window.arrive(1, 4097).is_err());
        window.arrive(1, 5).unwrap();
        window.arrive(2, 5).unwrap();
        assert!(window.take().unwrap().is_some() && window.take().unwrap().is_some());
        assert!(window.take().is_err(), "behind the end");
        assert!(window.arrive(1, 4096).is_err(), "taken before");
    }

    #[test]
    fn numbers_go_on_behind_the_largest_immediate() {
        let mut window = window();
        (window.taken, window.released) = (u64::from(u32::MAX), u64::from(u32::MAX));
        window.arrive(0, 4096).unwrap();
        window.arrive(u32::MAX, 4096).unwrap();
        assert!(window.take().unwrap().is_some() && window.take().unwrap().is_some());
        assert_eq!(window.taken, (1 << 32) + 1);
    }

    proptest! {
        #[test]
        fn nothing_that_a_peer_writes_makes_it_panic(
            steps in prop::collection::vec((any::<u32>(), any::<u32>(), 0u64..4), 0..50),
        ) {
            let mut window = window();
            for (number, bytes, released) in steps {
                let _ = window.arrive(number % 8, bytes % 5000);
                let _ = window.take();
                window.release(released);
                prop_assert!(window.taken - window.released <= 3 && window.arrived.len() <= 3);
            }
        }
    }
}
