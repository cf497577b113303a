//! Taking a stripe apart as its bytes arrive.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::digest::{DIGEST_BYTES, DigestKind, Hasher, Sha256Digest};
use crate::transfer::{HEADER_BYTES, Header};

/// How much is gathered for one write of the output.
const OUTPUT_BATCH: usize = 1 << 20;

/// What the next bytes of the stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many bytes that must be looked at.
    Look(usize),
    /// So many bytes of payload that nobody wants to look at.
    Pass(u64),
    /// Nothing: the stripe is complete.
    Nothing,
}

/// A stripe that is being received.
#[derive(Debug)]
pub(crate) struct StripeReader {
    /// Whether payload is looked at: for its digest and for the output.
    look: bool,
    output: Option<Output>,
    header_bytes: [u8; HEADER_BYTES],
    header_filled: usize,
    header: Option<Header>,
    payload_done: u64,
    /// Begins when the header tells its kind.
    digest: Hasher,
    sent_digest: [u8; DIGEST_BYTES],
    sent_digest_filled: usize,
}

/// A stripe that has arrived whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stripe {
    pub(crate) header: Header,
    /// The digest of what arrived, unless the payload was not looked at.
    pub(crate) digest: Option<Sha256Digest>,
    /// The sender's digest, if it sent one.
    pub(crate) sent: Option<Sha256Digest>,
}

impl Stripe {
    /// Whether the digest equals the sender's, if both are known.
    pub(crate) fn matches(&self) -> Option<bool> {
        self.digest.zip(self.sent).map(|(received, sent)| received == sent)
    }

    /// The kind of the digest: the sender's, or the plain one where it sent none.
    pub(crate) fn digest_kind(&self) -> Option<DigestKind> {
        self.digest.and(Some(self.header.digest.unwrap_or(DigestKind::Sha256)))
    }
}

impl StripeReader {
    /// Receives into `output`, if any. Without `look` the payload is passed over.
    pub(crate) fn new(look: bool, output: Option<Arc<File>>) -> Self {
        Self {
            look,
            output: output.map(|file| Output { file, offset: 0, gathered: Vec::with_capacity(OUTPUT_BATCH) }),
            header_bytes: [0; HEADER_BYTES],
            header_filled: 0,
            header: None,
            payload_done: 0,
            digest: Hasher::new(DigestKind::Sha256),
            sent_digest: [0; DIGEST_BYTES],
            sent_digest_filled: 0,
        }
    }

    /// The header, once it has arrived.
    pub(crate) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// What the next bytes are.
    pub(crate) fn next(&self) -> Next {
        let Some(header) = &self.header else { return Next::Look(HEADER_BYTES - self.header_filled) };
        let payload_left = header.length - self.payload_done;
        if payload_left > 0 {
            return if self.look {
                Next::Look(usize::try_from(payload_left).unwrap_or(usize::MAX))
            } else {
                Next::Pass(payload_left)
            };
        }
        match header.digest {
            Some(_) if self.sent_digest_filled < DIGEST_BYTES => {
                Next::Look(DIGEST_BYTES - self.sent_digest_filled)
            }
            _ => Next::Nothing,
        }
    }

    /// Takes bytes that were looked at: at most as many as [`next`](Self::next) said.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(header) = self.header else {
            self.header_bytes[self.header_filled..][..bytes.len()].copy_from_slice(bytes);
            self.header_filled += bytes.len();
            if self.header_filled == HEADER_BYTES {
                let header = Header::decode(&self.header_bytes)?;
                self.header = Some(header);
                self.digest = Hasher::new(header.digest.unwrap_or(DigestKind::Sha256));
                if let Some(output) = &mut self.output {
                    output.offset = header.offset;
                }
            }
            return Ok(());
        };
        if self.payload_done < header.length {
            self.digest.update(bytes);
            if let Some(output) = &mut self.output {
                output.add(bytes)?;
            }
            self.payload_done += bytes.len() as u64;
        } else {
            self.sent_digest[self.sent_digest_filled..][..bytes.len()].copy_from_slice(bytes);
            self.sent_digest_filled += bytes.len();
        }
        Ok(())
    }

    /// Passes over payload: at most as many bytes as [`next`](Self::next) said. Returns their place in the file.
    pub(crate) fn pass(&mut self, bytes: u64) -> u64 {
        let place = self.header.map_or(0, |header| header.offset) + self.payload_done;
        self.payload_done += bytes;
        place
    }

    /// Ends the stripe; the stream has ended.
    pub(crate) fn finish(mut self) -> Result<Stripe> {
        let Some(header) = self.header else {
            bail!(
                "the peer closed the connection after {} bytes, before it said what it sends",
                self.header_filled
            );
        };
        if self.next() != Next::Nothing {
            bail!(
                "the peer closed the connection after {} of {} bytes of stripe {}",
                self.payload_done,
                header.length,
                header.stripe
            );
        }
        if let Some(output) = &mut self.output {
            output.write()?;
        }
        let digest = self.look.then(|| self.digest.finish());
        let sent = header.digest.map(|_| Sha256Digest::from(self.sent_digest));
        Ok(Stripe { header, digest, sent })
    }
}

/// A stripe's part of the output file. Fragments are small; they are written in large pieces.
#[derive(Debug)]
struct Output {
    file: Arc<File>,
    offset: u64,
    gathered: Vec<u8>,
}

impl Output {
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        if self.gathered.len() + bytes.len() > OUTPUT_BATCH {
            self.write()?;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.file.write_all_at(&self.gathered, self.offset).context("cannot write the output file")?;
        self.offset += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on_the_wire(payload: &[u8]) -> (Header, Vec<u8>) {
        with_digest(payload, DigestKind::Sha256)
    }

    fn with_digest(payload: &[u8], kind: DigestKind) -> (Header, Vec<u8>) {
        let header = Header::split([1; 16], payload.len() as u64, 1, Some(kind))[0];
        let mut digest = Hasher::new(kind);
        digest.update(payload);
        let mut bytes = header.encode().to_vec();
        bytes.extend(payload);
        bytes.extend(digest.finish().as_bytes());
        (header, bytes)
    }

    fn feed(reader: &mut StripeReader, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match reader.next() {
                Next::Look(wanted) => {
                    let (now, later) = bytes.split_at(wanted.min(bytes.len()));
                    reader.take(now)?;
                    bytes = later;
                }
                Next::Pass(wanted) => {
                    let passed = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len());
                    let (offset, done) = (reader.header.unwrap().offset, reader.payload_done);
                    assert_eq!(reader.pass(passed as u64), offset + done);
                    bytes = &bytes[passed..];
                }
                Next::Nothing => bail!("surplus"),
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_division_yields_the_same_stripe(
            payload in prop::collection::vec(any::<u8>(), 0..500),
            chunk in 1usize..200,
            look: bool,
            tree: bool,
        ) {
            let kind = if tree { DigestKind::Tree } else { DigestKind::Sha256 };
            let (header, bytes) = with_digest(&payload, kind);
            let mut reader = StripeReader::new(look, None);
            for chunk in bytes.chunks(chunk) {
                feed(&mut reader, chunk).unwrap();
            }
            let stripe = reader.finish().unwrap();
            prop_assert_eq!(stripe.header, header);
            prop_assert_eq!(stripe.matches(), look.then_some(true));
        }

        #[test]
        fn a_stream_that_ends_early_is_never_a_stripe(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            cut: prop::sample::Index,
        ) {
            let (_, bytes) = on_the_wire(&payload);
            let mut reader = StripeReader::new(true, None);
            feed(&mut reader, &bytes[..cut.index(bytes.len())]).unwrap();
            prop_assert!(reader.finish().is_err());
        }
    }

    #[test]
    fn a_damaged_byte_shows_in_the_digest() {
        let (_, mut bytes) = on_the_wire(b"some payload");
        bytes[HEADER_BYTES] ^= 1;
        let mut reader = StripeReader::new(true, None);
        feed(&mut reader, &bytes).unwrap();
        assert_eq!(reader.finish().unwrap().matches(), Some(false));
    }

    #[test]
    fn surplus_bytes_are_seen() {
        let (_, mut bytes) = on_the_wire(b"some payload");
        bytes.push(0);
        assert!(feed(&mut StripeReader::new(true, None), &bytes).is_err());
    }
}
