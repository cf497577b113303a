//! What happens to segments on their way, decided by a seed.

use std::sync::Arc;

use crate::config::SwitchFaults;
use crate::ethernet::Frame;

/// The way from one port to another.
pub(super) struct Path {
    random: SplitMix64,
    /// A segment that waits for the next one to pass it.
    held: Option<Arc<Frame>>,
    /// How many segments were ever held: names the one that is.
    held_count: u64,
}

/// What became of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fates {
    pub(super) dropped: u64,
    pub(super) reordered: u64,
    pub(super) duplicated: u64,
}

impl Path {
    pub(super) fn new(seed: u64, source: usize, destination: usize) -> Path {
        // Each way has decisions of its own: the seed alone would lose both directions alike.
        let mut random = SplitMix64(seed ^ ((source as u64) << 32 | destination as u64).wrapping_mul(GOLDEN));
        random.next();
        Path { random, held: None, held_count: 0 }
    }

    /// Decides on one segment and puts what arrives, in its order, at the end of `arrivals`.
    pub(super) fn pass(
        &mut self,
        faults: &SwitchFaults,
        segment: Arc<Frame>,
        arrivals: &mut Vec<Arc<Frame>>,
        fates: &mut Fates,
    ) {
        // Three decisions for each segment, wanted or not, so that none shifts those of later segments.
        let [lost, late, twice] = [faults.drop, faults.reorder, faults.duplicate]
            .map(|probability| self.random.next_fraction() < probability);
        if lost {
            fates.dropped += 1;
            return;
        }
        if late && self.held.is_none() {
            fates.reordered += 1;
            self.held_count += 1;
            self.held = Some(segment);
            return;
        }
        if twice {
            fates.duplicated += 1;
            arrivals.push(Arc::clone(&segment));
        }
        arrivals.push(segment);
        arrivals.extend(self.held.take());
    }

    /// The name of the segment that is held, if one is.
    pub(super) fn held(&self) -> Option<u64> {
        self.held.is_some().then_some(self.held_count)
    }

    /// Lets the named segment go, when no other has passed it in the meantime.
    pub(super) fn release(&mut self, name: u64) -> Option<Arc<Frame>> {
        if self.held() == Some(name) { self.held.take() } else { None }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A small generator of random numbers (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number of at least 0 and less than 1.
    fn next_fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::{Offload, samples};

    /// Sends 2000 numbered segments; the numbers in the order of their arrival.
    fn run(faults: &SwitchFaults, direction: (usize, usize)) -> (Vec<u16>, Fates) {
        let mut path = Path::new(faults.seed, direction.0, direction.1);
        let (mut arrivals, mut fates) = (Vec::new(), Fates::default());
        for number in 0..2000 {
            let frame = Frame::new(samples::udp4(number, 1, b"x"), &Offload::default()).unwrap();
            path.pass(faults, frame, &mut arrivals, &mut fates);
        }
        (arrivals.iter().map(|frame| frame.headers.source_port).collect(), fates)
    }

    #[test]
    fn one_seed_gives_one_history() {
        let faults = SwitchFaults { drop: 0.05, reorder: 0.05, duplicate: 0.05, delay_us: 0, seed: 7 };
        let first = run(&faults, (0, 1));
        assert_eq!(first, run(&faults, (0, 1)));
        assert_ne!(first, run(&faults, (1, 0)), "each direction has its own");
        assert_ne!(first, run(&SwitchFaults { seed: 8, ..faults }, (0, 1)));
        let fates = first.1;
        for (name, count) in
            [("drop", fates.dropped), ("reorder", fates.reordered), ("twice", fates.duplicated)]
        {
            assert!((50..200).contains(&count), "{name}: {count} of 2000 at 5 %");
        }
        assert_eq!(first.0.len() as u64, 2000 - fates.dropped + fates.duplicated);
    }

    #[test]
    fn a_late_segment_comes_after_the_next() {
        let faults = SwitchFaults { reorder: 1.0, ..SwitchFaults::default() };
        let (arrivals, _) = run(&faults, (0, 1));
        assert_eq!(arrivals[..4], [1, 0, 3, 2]);
    }

    #[test]
    fn only_the_named_segment_is_released() {
        let faults = SwitchFaults { reorder: 1.0, ..SwitchFaults::default() };
        let mut path = Path::new(0, 0, 1);
        let frame = Frame::new(samples::arp(), &Offload::default()).unwrap();
        path.pass(&faults, frame, &mut Vec::new(), &mut Fates::default());
        let name = path.held().unwrap();
        assert!(path.release(name + 1).is_none());
        assert!(path.release(name).is_some());
        assert!(path.release(name).is_none());
    }

    #[test]
    fn known_values_of_the_generator() {
        let mut random = SplitMix64(1234567);
        assert_eq!([random.next(), random.next()], [6457827717110365317, 3203168211198807973]);
    }
}
