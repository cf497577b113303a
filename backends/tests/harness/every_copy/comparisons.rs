//! Digests and differences.

use devmem_provider::{ErrorKind, Extent};
use sha2::{Digest, Sha256};

use super::Copies;
use super::bytes::{self, Random};
use crate::ensure;
use crate::harness::{Outcome, SIZE};

fn check_digests(copies: &Copies, size: u64, pieces: &[Extent]) -> Outcome {
    let [buffer, _] = copies.buffers(size)?;
    let content = bytes::read(&buffer)?;
    let digests = copies.copy.sha256(&buffer, pieces)?;
    ensure!(digests.len() == pieces.len(), "{} of {}", digests.len(), pieces.len());
    for (piece, digest) in pieces.iter().zip(digests) {
        let bytes = &content[piece.offset as usize..][..piece.length as usize];
        let expected: [u8; 32] = Sha256::digest(bytes).into();
        ensure!(digest == expected, "{piece}: {digest:02x?}");
    }
    Ok(())
}

pub(super) fn hashes_of_any_length(copies: &Copies) -> Outcome {
    let lengths =
        [0, 1, 2, 3, 4, 54, 55, 56, 57, 60, 63, 64, 65, 118, 119, 120, 121, 127, 128, 129, 4096, 5000];
    let mut pieces = Vec::new();
    for offset in [0, 1, 2, 3, 64, 4095] {
        pieces.extend(lengths.map(|length| Extent::new(offset, length)));
    }
    pieces.extend(lengths.map(|length| Extent::new(SIZE - length, length)));
    check_digests(copies, SIZE, &pieces)?;
    check_digests(copies, SIZE, &[])?;
    // One alone, as a file is, and few.
    for offset in 0..4 {
        check_digests(copies, SIZE, &[Extent::new(offset, 1000 + offset)])?;
    }
    let mut random = Random::new(7);
    let many: Vec<Extent> =
        (0..5000).map(|_| Extent::new(random.below(SIZE - 200), random.below(200))).collect();
    check_digests(copies, SIZE, &many)?;
    let [buffer, _] = copies.buffers(SIZE)?;
    for bad in [Extent::new(SIZE, 1), Extent::new(1, SIZE), Extent::new(u64::MAX, 2)] {
        let error = copies.copy.sha256(&buffer, &[Extent::new(0, 1), bad]).err().ok_or("hashed beyond")?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    }
    Ok(())
}

pub(super) fn hashes_of_long_pieces(copies: &Copies) -> Outcome {
    let mebibyte = 1 << 20;
    let pieces = [
        Extent::new(0, mebibyte),
        Extent::new(1, mebibyte + 3),
        Extent::new(mebibyte, 2 * mebibyte),
        Extent::new(5, 100),
    ];
    check_digests(copies, 3 * mebibyte, &pieces)
}

pub(super) fn first_differences(copies: &Copies) -> Outcome {
    let [left, right] = copies.buffers(SIZE)?;
    let content = bytes::read(&left)?;
    // At each alignment of either, and wherever a difference may be.
    for (left_offset, right_offset) in [(0, 0), (1, 0), (0, 3), (2, 1), (7, 7), (4096, 1)] {
        let piece = Extent::new(left_offset, 100_001);
        let same = &content[left_offset as usize..][..100_001];
        let mut other = bytes::random(8, SIZE);
        other[right_offset as usize..][..100_001].copy_from_slice(same);
        bytes::write(&right, &other)?;
        let find = |piece| copies.copy.first_difference(&left, piece, &right, right_offset);
        ensure!(find(piece)?.is_none(), "{:?} of two that are equal", find(piece));
        ensure!(find(Extent::new(left_offset, 0))?.is_none(), "of nothing");
        for at in [100_000_u64, 99_999, 70_003, 4097, 64, 63, 5, 3, 2, 1, 0] {
            other[(right_offset + at) as usize] ^= 0x10;
            bytes::write(&right, &other)?;
            let found = find(piece)?;
            ensure!(found == Some(at), "{found:?} instead of {at}, {left_offset} and {right_offset}");
            // What lies behind the pieces is not looked at.
            ensure!(find(Extent::new(left_offset, at))?.is_none(), "{at} bytes before it");
        }
    }
    for (piece, offset) in [
        (Extent::new(SIZE, 1), 0),
        (Extent::new(0, SIZE), 1),
        (Extent::new(0, 1), u64::MAX),
        (Extent::new(2, SIZE - 1), 0),
    ] {
        let found = copies.copy.first_difference(&left, piece, &right, offset);
        let error = found.err().ok_or(format!("{piece} and {offset} were compared"))?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    }
    Ok(())
}
