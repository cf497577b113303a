//! The digests of stripes: plain SHA-256, and one that a device computes many parts of side by side.
//!
//! SHA-256 (FIPS 180-4) reads its bytes one after the other, which is slow where there are thousands of slow
//! processors. [`DigestKind::Tree`] is the SHA-256 of the SHA-256s of the blocks of 4096 bytes, of which the last
//! may be shorter: the blocks know nothing of each other.

use std::fmt;

use sha2::{Digest, Sha256};

/// The size of a digest of either kind, in bytes.
pub(crate) const DIGEST_BYTES: usize = 32;

/// The bytes that one SHA-256 of a [`DigestKind::Tree`] covers.
pub(crate) const TREE_BLOCK: u64 = 4096;

/// How a digest is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigestKind {
    /// SHA-256 over all bytes.
    Sha256,
    /// SHA-256 over the SHA-256s of all blocks of 4096 bytes, one behind the other.
    Tree,
}

impl DigestKind {
    /// Its name in summaries.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Tree => "sha256-tree",
        }
    }
}

/// A digest that is being computed.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Tree(TreeHasher),
}

/// The SHA-256s of whole blocks, and the block that is not whole yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct TreeHasher {
    blocks: Sha256,
    block: Sha256,
    filled: u64,
}

impl Hasher {
    pub(crate) fn new(kind: DigestKind) -> Self {
        match kind {
            DigestKind::Sha256 => Self::Sha256(Sha256::new()),
            DigestKind::Tree => Self::Tree(TreeHasher::default()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Tree(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Sha256Digest {
        match self {
            Self::Sha256(hasher) => Sha256Digest(hasher.finalize().into()),
            Self::Tree(hasher) => hasher.finish(),
        }
    }
}

impl TreeHasher {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(TREE_BLOCK - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.update(now);
            self.filled += now.len() as u64;
            if self.filled == TREE_BLOCK {
                self.end_block();
            }
            bytes = later;
        }
    }

    /// Adds the SHA-256 of a block that somebody else has computed.
    pub(crate) fn add_block(&mut self, digest: &[u8; DIGEST_BYTES]) {
        self.blocks.update(digest);
    }

    fn end_block(&mut self) {
        let digest = self.block.finalize_reset();
        self.add_block(&digest.into());
        self.filled = 0;
    }

    pub(crate) fn finish(mut self) -> Sha256Digest {
        if self.filled > 0 {
            self.end_block();
        }
        Sha256Digest(self.blocks.finalize().into())
    }
}

/// A finished digest of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sha256Digest([u8; DIGEST_BYTES]);

impl Sha256Digest {
    pub(crate) fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }
}

impl From<[u8; DIGEST_BYTES]> for Sha256Digest {
    fn from(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl serde::Serialize for Sha256Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(kind: DigestKind, bytes: &[u8]) -> Sha256Digest {
        let mut hasher = Hasher::new(kind);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn a_tree_is_the_digest_of_its_blocks_digests() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|number| number.to_le_bytes()[0] ^ 0x5a).collect();
        let blocks: Vec<u8> = bytes.chunks(4096).flat_map(Sha256::digest).collect();
        assert_eq!(blocks.len(), 3 * DIGEST_BYTES);
        assert_eq!(of(DigestKind::Tree, &bytes), of(DigestKind::Sha256, &blocks));
        // Without a block there is nothing to digest, and a short one is digested twice.
        assert_eq!(of(DigestKind::Tree, b""), of(DigestKind::Sha256, b""));
        assert_eq!(of(DigestKind::Tree, b"abc"), of(DigestKind::Sha256, &Sha256::digest(b"abc")));
    }

    proptest! {
        #[test]
        fn any_division_yields_the_same_digest(
            bytes in prop::collection::vec(any::<u8>(), 0..9000),
            chunk in 1usize..5000,
        ) {
            for kind in [DigestKind::Sha256, DigestKind::Tree] {
                let mut hasher = Hasher::new(kind);
                bytes.chunks(chunk).for_each(|chunk| hasher.update(chunk));
                prop_assert_eq!(hasher.finish(), of(kind, &bytes));
            }
        }
    }
}
