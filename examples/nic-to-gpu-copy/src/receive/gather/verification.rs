//! Digests of the gathered file, computed on the device that gathered it.

use anyhow::{Context, Result, ensure};
use devmem_provider::device_copy::DeviceCopy;
use devmem_provider::{DmaBuf, Extent};

use super::destination::place;
use crate::digest::{DigestKind, Hasher, Sha256Digest, TREE_BLOCK, TreeHasher};
use crate::receive::summary::Totals;

/// How many blocks are digested in one call: 256 MiB.
const BLOCKS_AT_ONCE: usize = 1 << 16;

/// Computes the digest of every stripe that was sent with one.
pub(crate) fn verify(copy: &dyn DeviceCopy, file: &DmaBuf, totals: &mut Totals) -> Result<()> {
    let Some(kind) = totals.sent_digest_kind() else { return Ok(()) };
    let stripes: Vec<Extent> =
        totals.received.iter().map(|received| place(&received.stripe.header)).collect();
    let digests = digests(kind, &stripes, |pieces| Ok(copy.sha256(file, pieces)?))
        .context("cannot verify the gathered file")?;
    for (received, digest) in totals.received.iter_mut().zip(digests) {
        received.stripe.digest = Some(digest);
    }
    Ok(())
}

/// The digests of stripes, by the SHA-256s of pieces that `sha256` computes.
fn digests(
    kind: DigestKind,
    stripes: &[Extent],
    mut sha256: impl FnMut(&[Extent]) -> Result<Vec<[u8; 32]>>,
) -> Result<Vec<Sha256Digest>> {
    let mut sha256 = |pieces: &[Extent]| {
        let computed = sha256(pieces)?;
        ensure!(computed.len() == pieces.len(), "{} digests of {} pieces", computed.len(), pieces.len());
        Ok(computed)
    };
    match kind {
        DigestKind::Sha256 => {
            let whole: Vec<Extent> = stripes.iter().copied().filter(|stripe| stripe.length > 0).collect();
            let mut computed = sha256(&whole)?.into_iter();
            // A device need not be asked what the digest of nothing is.
            let nothing = || Some(Hasher::new(kind).finish());
            let of = |stripe: &Extent| match stripe.length {
                0 => nothing(),
                _ => computed.next().map(Sha256Digest::from),
            };
            stripes.iter().map(of).collect::<Option<_>>().context("the device computed too few digests")
        }
        DigestKind::Tree => {
            let mut trees = vec![TreeHasher::default(); stripes.len()];
            let mut blocks = stripes
                .iter()
                .enumerate()
                .flat_map(|(index, &stripe)| blocks(stripe).map(move |block| (index, block)));
            let mut pieces = Vec::with_capacity(BLOCKS_AT_ONCE);
            let mut owners = Vec::with_capacity(BLOCKS_AT_ONCE);
            loop {
                pieces.clear();
                owners.clear();
                for (owner, block) in blocks.by_ref().take(BLOCKS_AT_ONCE) {
                    owners.push(owner);
                    pieces.push(block);
                }
                if pieces.is_empty() {
                    break;
                }
                let computed = sha256(&pieces)?;
                for (&owner, digest) in owners.iter().zip(&computed) {
                    trees[owner].add_block(digest);
                }
            }
            Ok(trees.into_iter().map(TreeHasher::finish).collect())
        }
    }
}

/// The blocks of a tree.
fn blocks(stripe: Extent) -> impl Iterator<Item = Extent> {
    (0..stripe.length.div_ceil(TREE_BLOCK)).map(move |number| {
        let done = number * TREE_BLOCK;
        Extent::new(stripe.offset + done, (stripe.length - done).min(TREE_BLOCK))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest;

    proptest! {
        /// What is computed by pieces is what the sender computes over the whole.
        #[test]
        fn pieces_make_the_senders_digest(lengths in prop::collection::vec(0u64..10_000, 1..6)) {
            let file: Vec<u8> = (0..lengths.iter().sum::<u64>()).map(|at| (at * 31 % 251) as u8).collect();
            let mut offset = 0;
            let stripes: Vec<Extent> = lengths
                .iter()
                .map(|&length| {
                    offset += length;
                    Extent::new(offset - length, length)
                })
                .collect();
            let bytes = |piece: &Extent| &file[piece.offset as usize..][..piece.length as usize];
            for kind in [DigestKind::Sha256, DigestKind::Tree] {
                let computed = digests(kind, &stripes, |pieces| {
                    assert!(pieces.iter().all(|piece| piece.length > 0));
                    Ok(pieces.iter().map(|piece| sha2::Sha256::digest(bytes(piece)).into()).collect())
                });
                let sent: Vec<Sha256Digest> = stripes
                    .iter()
                    .map(|stripe| {
                        let mut hasher = Hasher::new(kind);
                        hasher.update(bytes(stripe));
                        hasher.finish()
                    })
                    .collect();
                prop_assert_eq!(computed.unwrap(), sent);
            }
        }
    }

    #[test]
    fn too_few_digests_are_noticed() {
        let stripes = [Extent::new(0, 10), Extent::new(10, 10)];
        for kind in [DigestKind::Sha256, DigestKind::Tree] {
            assert!(digests(kind, &stripes, |_| Ok(vec![[0; 32]])).is_err(), "{kind:?}");
        }
    }
}
