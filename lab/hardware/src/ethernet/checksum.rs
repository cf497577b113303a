//! The Internet checksum (RFC 1071): ones' complement sum of 16-bit words.

/// Adds bytes to a sum. Only the last part added may have an odd length.
pub(super) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let mut sum = u128::from(sum);
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for word in words {
        let mut buffer = [0; 8];
        buffer.copy_from_slice(word);
        sum += u128::from(u64::from_be_bytes(buffer));
    }
    let mut buffer = [0; 8];
    buffer[..rest.len()].copy_from_slice(rest);
    sum += u128::from(u64::from_be_bytes(buffer));
    // 2^64 is 1 in ones' complement arithmetic of 16 bits, so what overflows is added again.
    while sum >> 64 != 0 {
        sum = (sum & u128::from(u64::MAX)) + (sum >> 64);
    }
    sum as u64
}

/// The checksum of what was summed: the complement of its 16-bit sum.
pub(super) fn finish(sum: u64) -> u16 {
    let mut sum = sum;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Word by word, as RFC 1071 defines it.
    fn by_definition(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(finish(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), !0xddf2);
    }

    proptest::proptest! {
        #[test]
        fn equals_the_definition(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert_eq!(finish(add(0, &bytes)), by_definition(&bytes));
        }

        #[test]
        fn parts_add_up(first in proptest::collection::vec(proptest::num::u8::ANY, 0..50), second in proptest::collection::vec(proptest::num::u8::ANY, 0..50)) {
            let first: Vec<u8> = first.iter().flat_map(|byte| [*byte, byte ^ 0xff]).collect();
            let whole = [&first[..], &second[..]].concat();
            proptest::prop_assert_eq!(finish(add(add(0, &first), &second)), by_definition(&whole));
        }
    }
}
