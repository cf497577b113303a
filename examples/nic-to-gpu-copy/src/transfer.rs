//! How a file travels: as stripes, one to a connection, each with a header and a digest.
//!
//! A stripe is a header of 64 bytes, the bytes of the file from `offset` on, and, if the header says so, their
//! digest. Numbers are little-endian. The header travels in the same stream as the payload, so that on
//! the receiving side it lies in device memory as well.

use std::fmt;

use crate::digest::DigestKind;

/// The size of a [`Header`] on the wire, in bytes.
pub(crate) const HEADER_BYTES: usize = 64;

/// The most stripes that a transfer may have.
pub(crate) const MAXIMUM_STRIPES: u32 = 4096;

const MAGIC: [u8; 8] = *b"DEVMEM\x00\x01";

/// A digest follows the stripe.
const FLAG_DIGEST: u32 = 1;

/// That digest is a [`DigestKind::Tree`].
const FLAG_TREE: u32 = 2;

/// What a stripe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Tells transfers apart.
    pub(crate) transfer: [u8; 16],
    /// Which stripe this is, from 0.
    pub(crate) stripe: u32,
    /// How many stripes the file is sent in.
    pub(crate) stripes: u32,
    /// The size of the whole file in bytes.
    pub(crate) file_bytes: u64,
    /// Where the stripe begins in the file.
    pub(crate) offset: u64,
    /// How long it is, in bytes.
    pub(crate) length: u64,
    /// The kind of the digest that follows it, if one does.
    pub(crate) digest: Option<DigestKind>,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidHeader {
    Magic,
    Flags,
    Stripe,
    Range,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "the peer does not speak this tool's protocol; send with `nic-to-gpu-copy send`",
            Self::Flags => "the peer uses a feature that this version does not know",
            Self::Stripe => "the peer sent an impossible stripe number",
            Self::Range => "the peer sent a stripe that is not inside its file",
        })
    }
}

impl std::error::Error for InvalidHeader {}

impl Header {
    /// The stripes of a file: as equal as whole bytes allow.
    pub(crate) fn split(
        transfer: [u8; 16],
        file_bytes: u64,
        stripes: u32,
        digest: Option<DigestKind>,
    ) -> Vec<Self> {
        let boundary = |stripe: u32| {
            let position = u128::from(file_bytes) * u128::from(stripe) / u128::from(stripes);
            u64::try_from(position).unwrap_or(file_bytes)
        };
        (0..stripes)
            .map(|stripe| {
                let offset = boundary(stripe);
                let length = boundary(stripe + 1) - offset;
                Self { transfer, stripe, stripes, file_bytes, offset, length, digest }
            })
            .collect()
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let flags = match self.digest {
            None => 0,
            Some(DigestKind::Sha256) => FLAG_DIGEST,
            Some(DigestKind::Tree) => FLAG_DIGEST | FLAG_TREE,
        };
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.stripe.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.stripes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.length.to_le_bytes());
        bytes[48..].copy_from_slice(&self.transfer);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, InvalidHeader> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes[..8] != MAGIC {
            return Err(InvalidHeader::Magic);
        }
        const WITH_TREE: u32 = FLAG_DIGEST | FLAG_TREE;
        let digest = match word(8) {
            0 => None,
            FLAG_DIGEST => Some(DigestKind::Sha256),
            WITH_TREE => Some(DigestKind::Tree),
            _ => return Err(InvalidHeader::Flags),
        };
        if word(20) != 0 {
            return Err(InvalidHeader::Flags);
        }
        let header = Self {
            transfer: std::array::from_fn(|i| bytes[48 + i]),
            stripe: word(12),
            stripes: word(16),
            file_bytes: long(24),
            offset: long(32),
            length: long(40),
            digest,
        };
        if header.stripe >= header.stripes || header.stripes > MAXIMUM_STRIPES {
            return Err(InvalidHeader::Stripe);
        }
        if header.offset.checked_add(header.length).is_none_or(|end| end > header.file_bytes) {
            return Err(InvalidHeader::Range);
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header::split([7; 16], 1000, 3, Some(DigestKind::Sha256))[1]
    }

    #[test]
    fn every_field_has_its_own_bounds() {
        let change = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            Header::decode(&header.encode())
        };
        assert_eq!(change(|_| ()), Ok(header()));
        for digest in [None, Some(DigestKind::Sha256), Some(DigestKind::Tree)] {
            let header = Header { digest, ..header() };
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
        assert_eq!(change(|header| header.stripe = 3), Err(InvalidHeader::Stripe));
        assert_eq!(change(|header| header.stripes = u32::MAX), Err(InvalidHeader::Stripe));
        assert_eq!(change(|header| header.offset = u64::MAX), Err(InvalidHeader::Range));
        assert_eq!(change(|header| header.length = 1001), Err(InvalidHeader::Range));
        let mut bytes = header().encode();
        bytes[0] = b'd';
        assert_eq!(Header::decode(&bytes), Err(InvalidHeader::Magic));
        // A tree without a digest, and flags of days to come.
        for flags in [2, 4, 5, 7, 0x101, u32::MAX] {
            let mut bytes = header().encode();
            bytes[8..12].copy_from_slice(&u32::to_le_bytes(flags));
            assert_eq!(Header::decode(&bytes), Err(InvalidHeader::Flags), "{flags}");
        }
    }

    proptest! {
        #[test]
        fn stripes_cover_the_file_once(file_bytes: u64, stripes in 1u32..100) {
            let headers = Header::split([0; 16], file_bytes, stripes, None);
            let mut next = 0;
            for header in &headers {
                prop_assert_eq!(header.offset, next);
                next += header.length;
            }
            prop_assert_eq!(next, file_bytes);
        }

        #[test]
        fn any_bytes_decode_to_themselves_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES)) {
            let mut bytes: [u8; HEADER_BYTES] = bytes.try_into().unwrap();
            bytes[..8].copy_from_slice(&MAGIC);
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
