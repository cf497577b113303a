use proptest::prelude::*;
use sha2::digest::generic_array::GenericArray;
use sha2::{Digest, Sha256};

use super::*;

/// What the shader is told to hash, put together message by message; the last job of a message tells its length.
fn hash_rounds(
    content: &[u8],
    pieces: &[Extent],
    alignment: u64,
    most_window: u64,
) -> Vec<(Vec<u8>, Option<u64>)> {
    let mut messages: Vec<Message> = pieces.iter().copied().map(Message::new).collect();
    let mut hashed = vec![(Vec::new(), None); pieces.len()];
    let mut jobs = Vec::new();
    let mut rounds = 0;
    while let Some(round) = next(&mut messages, content.len() as u64, alignment, most_window, &mut jobs) {
        assert!(round.jobs > 0 && jobs.len() as u64 == u64::from(round.jobs) * JOB_BYTES);
        assert!(round.window.offset.is_multiple_of(alignment) && round.window.length <= most_window);
        let window = &content[round.window.offset as usize..][..round.window.length as usize];
        for job in jobs.chunks(JOB_BYTES as usize) {
            let words: Vec<u32> =
                job.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
            let &[start, blocks, state, tail, low, high] = &words[..] else { unreachable!() };
            let (bytes, ended) = &mut hashed[state as usize];
            assert!(ended.is_none(), "a message goes on behind its end");
            let tail_bytes = if tail == NOT_LAST { 0 } else { tail };
            assert!(tail_bytes < 64 && u64::from(blocks) <= MOST_BLOCKS);
            bytes.extend_from_slice(&window[start as usize..][..(blocks * 64 + tail_bytes) as usize]);
            if tail != NOT_LAST {
                *ended = Some(u64::from(high) << 32 | u64::from(low));
            }
        }
        rounds += 1;
        assert!(rounds < 10_000, "no end");
    }
    hashed
}

fn check(content: &[u8], pieces: &[Extent], alignment: u64, most_window: u64) {
    for (piece, (bytes, bits)) in pieces.iter().zip(hash_rounds(content, pieces, alignment, most_window)) {
        assert_eq!(bits, Some(piece.length * 8), "{piece}");
        assert!(bytes == content[piece.offset as usize..][..piece.length as usize], "{piece}");
    }
}

fn content(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

proptest! {
    #[test]
    fn every_message_is_hashed_whole_and_in_order(
        pieces in prop::collection::vec((0_u64..8192, 0_u64..3000), 1..40),
        alignment in prop::sample::select(vec![4_u64, 16, 64, 256]),
        most_window in prop::sample::select(vec![1_u64 << 27, 4096, 1024]),
    ) {
        let content = content(8192);
        let pieces: Vec<Extent> =
            pieces.into_iter().map(|(offset, length)| Extent::new(offset, length.min(8192 - offset))).collect();
        check(&content, &pieces, alignment, most_window);
    }
}

#[test]
fn a_dispatch_hashes_a_part_of_a_long_message() {
    let content = content(3 << 20);
    let pieces =
        [Extent::new(1, (3 << 20) - 1), Extent::new(3 << 20, 0), Extent::new(5, MOST_BLOCKS * 64 + 63)];
    check(&content, &pieces, 64, 1 << 27);
    check(&content, &pieces, 256, 1 << 20);
}

#[test]
fn constants_are_those_of_the_standard() {
    let mut state = super::super::INITIAL;
    let mut block = [0; 64];
    block[0] = 0x80;
    compress(&mut state, &block);
    let expected = Sha256::digest([]);
    let state: Vec<u8> = state.into_iter().flat_map(u32::to_be_bytes).collect();
    assert_eq!(GenericArray::from_slice(&state), &expected);
}

/// FIPS 180-4, section 6.2.2, with the constants that the shader gets.
fn compress(state: &mut [u32; 8], block: &[u8; 64]) {
    let mut schedule = [0_u32; 64];
    for (word, bytes) in schedule.iter_mut().zip(block.chunks(4)) {
        *word = u32::from_be_bytes(bytes.try_into().unwrap());
    }
    for t in 16..64 {
        let (w2, w15) = (schedule[t - 2], schedule[t - 15]);
        let s1 = w2.rotate_right(17) ^ w2.rotate_right(19) ^ (w2 >> 10);
        let s0 = w15.rotate_right(7) ^ w15.rotate_right(18) ^ (w15 >> 3);
        schedule[t] = s1.wrapping_add(schedule[t - 7]).wrapping_add(s0).wrapping_add(schedule[t - 16]);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (word, constant) in schedule.into_iter().zip(super::super::ROUND_CONSTANTS) {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t1 =
            h.wrapping_add(s1).wrapping_add((e & f) ^ (!e & g)).wrapping_add(constant).wrapping_add(word);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    for (state, word) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *state = state.wrapping_add(word);
    }
}
