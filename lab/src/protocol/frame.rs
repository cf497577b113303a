//! Frames on a stream of bytes: one byte that says what it is, the length of the content as 32 bits in
//! little-endian order, the content.

use std::io::{self, Read, Write};

/// The longest content of a frame. A longer one can only be a damaged stream.
pub(crate) const LONGEST: usize = 1 << 20;

const HEADER: usize = 5;

/// A frame as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) content: Vec<u8>,
}

/// A stream that does not consist of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a frame of {0} bytes is longer than any can be")]
    TooLong(usize),
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
    #[error("the content of a frame of kind {0} cannot be read")]
    Content(u8),
}

impl From<Malformed> for io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Takes bytes as they arrive and gives out the frames that are complete.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    waiting: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Adds what has arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.waiting.drain(..self.consumed);
        self.consumed = 0;
        self.waiting.extend_from_slice(bytes);
    }

    /// The next complete frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        let waiting = &self.waiting[self.consumed..];
        let Some((header, rest)) = waiting.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [kind, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(Malformed::TooLong(length));
        }
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let frame = Frame { kind, content: content.to_vec() };
        self.consumed += HEADER + length;
        Ok(Some(frame))
    }
}

/// Writes a frame at once, so that a reader is not woken for its header alone.
pub(crate) fn write(out: &mut impl Write, kind: u8, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).ok().filter(|_| content.len() <= LONGEST);
    let Some(length) = length else { return Err(Malformed::TooLong(content.len()).into()) };
    let mut frame = Vec::with_capacity(HEADER + content.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(content);
    out.write_all(&frame)
}

/// Waits for the next frame; `None` at the end of the stream.
pub(crate) fn read(input: &mut impl Read, decoder: &mut Decoder) -> io::Result<Option<Frame>> {
    let mut buffer = [0; 1 << 15];
    loop {
        if let Some(frame) = decoder.next()? {
            return Ok(Some(frame));
        }
        match input.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_beyond_the_limit_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(&[1, 1, 0, 0x10, 0]);
        assert_eq!(decoder.next(), Err(Malformed::TooLong(LONGEST + 1)));
        assert!(write(&mut Vec::new(), 1, &vec![0; LONGEST + 1]).is_err());
    }

    #[test]
    fn a_stream_may_end_between_frames() {
        let mut stream = Vec::new();
        write(&mut stream, 3, b"content").unwrap();
        let mut decoder = Decoder::default();
        let mut input = stream.as_slice();
        let frame = read(&mut input, &mut decoder).unwrap().unwrap();
        assert_eq!(frame, Frame { kind: 3, content: b"content".to_vec() });
        assert_eq!(read(&mut input, &mut decoder).unwrap(), None);
    }

    proptest! {
        #[test]
        fn frames_survive_any_division_of_the_stream(
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..12),
            piece in 1usize..50,
        ) {
            let mut stream = Vec::new();
            for (kind, content) in &frames {
                write(&mut stream, *kind, content).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push((frame.kind, frame.content));
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&noise);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }
}
