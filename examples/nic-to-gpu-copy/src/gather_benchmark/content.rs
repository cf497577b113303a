//! What is copied: bytes that do not repeat, in fragments whose order is random but known.

/// A sequence of random numbers (SplitMix64, by Steele, Lea and Flood).
#[derive(Debug, Clone, Copy)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// Every number becomes another one, and looks random.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The bytes of the source from `offset` on: words that are all different.
pub(super) fn source(offset: u64, bytes: &mut [u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let word = mix(at / 8 + 1).to_le_bytes();
        let from = (at % 8) as usize;
        let length = (8 - from).min(bytes.len() - done);
        bytes[done..done + length].copy_from_slice(&word[from..from + length]);
        done += length;
    }
}

/// The fragments of a source in random order.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) fragment_bytes: u64,
    /// The numbers of the source's fragments, in the order in which they are copied.
    pub(super) numbers: Vec<u32>,
}

impl Order {
    /// Shuffles (Fisher and Yates).
    pub(super) fn shuffled(fragments: u32, fragment_bytes: u64, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut numbers: Vec<u32> = (0..fragments).collect();
        for last in (1..numbers.len()).rev() {
            let other = random.next() % (last as u64 + 1);
            numbers.swap(last, other as usize);
        }
        Self { fragment_bytes, numbers }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.numbers.len() as u64 * self.fragment_bytes
    }

    /// The bytes of the destination from `offset` on, when all fragments have been gathered.
    pub(super) fn gathered(&self, mut offset: u64, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let within = offset % self.fragment_bytes;
            let length = (self.fragment_bytes - within).min(bytes.len() as u64);
            let number = self.numbers[(offset / self.fragment_bytes) as usize];
            let (now, later) = bytes.split_at_mut(length as usize);
            source(u64::from(number) * self.fragment_bytes + within, now);
            offset += length;
            bytes = later;
        }
    }

    /// Where the gathered bytes first differ from those of the source.
    pub(super) fn first_difference(&self) -> Option<u64> {
        let moved = self.numbers.iter().zip(0..).position(|(&number, place): (_, u32)| number != place)?;
        let start = moved as u64 * self.fragment_bytes;
        let (mut ordered, mut gathered) = (vec![0; self.fragment_bytes as usize], Vec::new());
        gathered.clone_from(&ordered);
        source(start, &mut ordered);
        self.gathered(start, &mut gathered);
        ordered.iter().zip(&gathered).position(|(a, b)| a != b).map(|position| start + position as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_the_source_is_the_same_bytes() {
        let mut whole = [0; 100];
        source(0, &mut whole);
        for start in 0..50 {
            let mut part = [0; 37];
            source(start as u64, &mut part);
            assert_eq!(part, whole[start..start + 37]);
        }
    }

    #[test]
    fn an_order_has_every_fragment_once_and_is_that_of_its_seed() {
        let order = Order::shuffled(1000, 12, 1);
        let mut sorted = order.numbers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        assert_eq!(order.numbers, Order::shuffled(1000, 12, 1).numbers);
        assert_ne!(order.numbers, Order::shuffled(1000, 12, 2).numbers);
    }

    #[test]
    fn gathered_bytes_are_those_of_the_fragments() {
        let order = Order::shuffled(50, 12, 3);
        let mut whole = vec![0; 600];
        source(0, &mut whole);
        let expected: Vec<u8> =
            order.numbers.iter().flat_map(|&number| whole[number as usize * 12..][..12].to_vec()).collect();
        for start in [0, 5, 12, 300] {
            let mut bytes = vec![0; 600 - start];
            order.gathered(start as u64, &mut bytes);
            assert_eq!(bytes, expected[start..]);
        }
        let difference = whole.iter().zip(&expected).position(|(a, b)| a != b).map(|at| at as u64);
        assert_eq!(order.first_difference(), difference);
        assert_eq!(Order { fragment_bytes: 12, numbers: (0..50).collect() }.first_difference(), None);
    }
}
