//! Attributes: the type-length-value records that netlink messages are made of.

use super::error::{Error, Malformed, Result};
use nix::errno::Errno;

/// The bytes of `struct nlattr`: a 16-bit length that includes itself, and a 16-bit type.
pub(super) const HEADER: usize = 4;
/// `NLA_F_NESTED`: the payload is a list of attributes.
const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`: the type without its two flag bits.
const TYPE_MASK: u16 = (1 << 14) - 1;

/// Rounds up to the 4 bytes that netlink aligns everything to.
pub(super) const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A list of attributes to send.
///
/// ```
/// use devmem_receive::netlink::Attributes;
/// let queue = Attributes::new().u32(1, 3).u32(3, 0);
/// let request = Attributes::new().u32(1, 7).nest(2, queue);
/// assert_eq!(request.as_bytes().len(), 8 + 4 + 16);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Attributes {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an 8-bit number.
    #[must_use]
    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// Adds a 32-bit number in the machine's byte order.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a text with the terminating zero byte that the kernel expects.
    #[must_use]
    pub fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds an attribute whose presence is its meaning.
    #[must_use]
    pub fn flag(self, kind: u16) -> Self {
        self.bytes(kind, &[])
    }

    /// Adds a list of attributes as one attribute.
    #[must_use]
    pub fn nest(mut self, kind: u16, inner: Self) -> Self {
        self.overflow |= inner.overflow;
        self.bytes(kind | NESTED, &inner.bytes)
    }

    /// Adds raw bytes.
    #[must_use]
    pub fn bytes(mut self, kind: u16, payload: &[u8]) -> Self {
        let Ok(length) = u16::try_from(HEADER + payload.len()) else {
            self.overflow = true;
            return self;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// The encoded list.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded list, unless one payload was longer than the 65,531 bytes that the format can say.
    pub(super) fn encoded(&self) -> Result<&[u8]> {
        if self.overflow {
            return Err(Error::System {
                operation: "encode a netlink attribute beyond 65531 bytes",
                errno: Errno::EMSGSIZE,
            });
        }
        Ok(&self.bytes)
    }
}

/// One received attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    kind: u16,
    payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Its type, without the flag bits.
    #[must_use]
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// An 8-bit number.
    ///
    /// # Errors
    /// The payload is not one byte long; the readers below fail alike.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(u8::from_ne_bytes)
    }

    /// A 32-bit number.
    ///
    /// # Errors
    /// The payload is not 4 bytes long.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// A signed 32-bit number.
    ///
    /// # Errors
    /// The payload is not 4 bytes long.
    pub fn i32(&self) -> Result<i32, Malformed> {
        self.array().map(i32::from_ne_bytes)
    }

    /// A number that the kernel sends in as many bytes as it needs (`uint` in its specifications).
    ///
    /// # Errors
    /// The payload is not 1, 2, 4 or 8 bytes long.
    pub fn uint(&self) -> Result<u64, Malformed> {
        match self.payload.len() {
            1 => self.array().map(u8::from_ne_bytes).map(u64::from),
            2 => self.array().map(u16::from_ne_bytes).map(u64::from),
            4 => self.array().map(u32::from_ne_bytes).map(u64::from),
            8 => self.array().map(u64::from_ne_bytes),
            _ => Err(Malformed("a number that is not 1, 2, 4 or 8 bytes long")),
        }
    }

    /// A signed number of 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// The payload has another length.
    pub fn int(&self) -> Result<i64, Malformed> {
        match self.payload.len() {
            1 => self.array().map(i8::from_ne_bytes).map(i64::from),
            2 => self.array().map(i16::from_ne_bytes).map(i64::from),
            4 => self.array().map(i32::from_ne_bytes).map(i64::from),
            8 => self.array().map(i64::from_ne_bytes),
            _ => Err(Malformed("a number that is not 1, 2, 4 or 8 bytes long")),
        }
    }

    /// A text, up to its first zero byte. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn string(&self) -> String {
        let text = self.payload.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// A table of 32-bit numbers.
    ///
    /// # Errors
    /// The payload is not a multiple of 4 bytes long.
    pub fn u32_table(&self) -> Result<Vec<u32>, Malformed> {
        let (words, rest) = self.payload.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Malformed("a table that is not a multiple of 4 bytes long"));
        }
        Ok(words.iter().map(|&word| u32::from_ne_bytes(word)).collect())
    }

    /// The attributes inside.
    #[must_use]
    pub fn nested(&self) -> AttributeIter<'a> {
        AttributeIter::new(self.payload)
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload.try_into().map_err(|_| Malformed("a number of the wrong length"))
    }
}

/// Walks over received attributes; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct AttributeIter<'a> {
    rest: &'a [u8],
}

impl<'a> AttributeIter<'a> {
    /// Reads `bytes` as a list of attributes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let Some(([length_low, length_high, kind_low, kind_high], _)) = rest.split_first_chunk::<HEADER>()
        else {
            return Some(Err(Malformed("an attribute header that is cut off")));
        };
        let length = usize::from(u16::from_ne_bytes([*length_low, *length_high]));
        let kind = u16::from_ne_bytes([*kind_low, *kind_high]) & TYPE_MASK;
        let Some(payload) = rest.get(HEADER..length) else {
            return Some(Err(Malformed("an attribute whose length is wrong")));
        };
        // The padding after the last attribute may be left out.
        self.rest = rest.get(align(length)..).unwrap_or_default();
        Some(Ok(Attribute { kind, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(attributes: &Attributes) -> Attribute<'_> {
        AttributeIter::new(attributes.as_bytes()).next().unwrap().unwrap()
    }

    #[test]
    fn writes_what_it_reads() {
        let inner = Attributes::new().u8(1, 9).flag(2).string(3, "rx");
        let attributes = Attributes::new().u32(1, 0xdead_beef).nest(2, inner).bytes(3, &[1, 2, 3]);
        let list: Vec<_> = AttributeIter::new(attributes.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].u32(), Ok(0xdead_beef));
        let inner: Vec<_> = list[1].nested().map(Result::unwrap).collect();
        assert_eq!((inner[0].u8(), inner[1].payload(), inner[2].string()), (Ok(9), &[][..], "rx".into()));
        assert_eq!(list[2].payload(), [1, 2, 3]);
    }

    #[test]
    fn numbers_of_any_width_are_read_whole() {
        for (bytes, number) in [
            (1u8.to_ne_bytes().to_vec(), 1),
            (0x1234u16.to_ne_bytes().to_vec(), 0x1234),
            (0x1234_5678u32.to_ne_bytes().to_vec(), 0x1234_5678),
            (5_000_000_000u64.to_ne_bytes().to_vec(), 5_000_000_000),
        ] {
            assert_eq!(only(&Attributes::new().bytes(1, &bytes)).uint(), Ok(number));
        }
        assert!(only(&Attributes::new().bytes(1, &[0; 3])).uint().is_err());
        assert!(only(&Attributes::new().bytes(1, &[0; 8])).u32().is_err());
        assert_eq!(only(&Attributes::new().bytes(1, &(-3i16).to_ne_bytes())).int(), Ok(-3));
    }

    #[test]
    fn a_list_of_wrong_lengths_is_an_error() {
        let mut cut = Attributes::new().u32(1, 2).as_bytes().to_vec();
        cut.pop();
        assert!(AttributeIter::new(&cut).next().unwrap().is_err());
        let short = [3u8, 0, 1, 0];
        assert!(AttributeIter::new(&short).next().unwrap().is_err());
        assert!(AttributeIter::new(&[1, 2]).next().unwrap().is_err());
    }

    #[test]
    fn a_payload_that_does_not_fit_is_refused_when_sent() {
        let list = Attributes::new().nest(1, Attributes::new().bytes(1, &vec![0; 65_532]));
        assert!(list.encoded().is_err());
        assert!(Attributes::new().bytes(1, &vec![0; 65_531]).encoded().is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes: Vec<u8>) {
            let mut read = 0;
            for attribute in AttributeIter::new(&bytes) {
                read += 1;
                prop_assert!(read <= bytes.len());
                let Ok(attribute) = attribute else { break };
                let _ = (attribute.uint(), attribute.int(), attribute.u8(), attribute.u32(), attribute.i32());
                let _ = (attribute.string(), attribute.u32_table());
                for inner in attribute.nested() {
                    let _ = inner;
                }
            }
        }

        #[test]
        fn any_list_survives_the_round_trip(list: Vec<(u16, Vec<u8>)>) {
            let mut attributes = Attributes::new();
            for (kind, payload) in &list {
                attributes = attributes.bytes(kind & TYPE_MASK, payload);
            }
            let read: Result<Vec<_>, _> = AttributeIter::new(attributes.as_bytes()).collect();
            let read: Vec<_> = read.unwrap().iter().map(|a| (a.kind(), a.payload().to_vec())).collect();
            let written: Vec<_> = list.into_iter().map(|(kind, bytes)| (kind & TYPE_MASK, bytes)).collect();
            prop_assert_eq!(read, written);
        }
    }
}
