//! Little-endian fields of a structure, by their offset.

/// The bytes of a structure. What lies beyond them reads as 0.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn u8(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(super) fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes([self.u8(at), self.u8(at + 1)])
    }

    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    pub(super) fn u64(self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    pub(super) fn array<const N: usize>(self, at: usize) -> [u8; N] {
        std::array::from_fn(|index| self.u8(at + index))
    }
}

/// Writes a structure, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Structure(Vec<u8>);

impl Structure {
    pub(super) fn new(size: usize) -> Structure {
        Structure(vec![0; size])
    }

    /// Bytes at an offset; those beyond the end are lost.
    pub(super) fn put(mut self, at: usize, bytes: &[u8]) -> Structure {
        for (place, byte) in self.0.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
        self
    }

    pub(super) fn u8(self, at: usize, value: u8) -> Structure {
        self.put(at, &[value])
    }

    pub(super) fn u16(self, at: usize, value: u16) -> Structure {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn u32(self, at: usize, value: u32) -> Structure {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn u64(self, at: usize, value: u64) -> Structure {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_nothing_is_beyond_the_end() {
        let bytes = Structure::new(16).u16(0, 0x1234).u32(4, 0x89ab_cdef).u64(8, u64::MAX - 1).bytes();
        let fields = Fields(&bytes);
        assert_eq!((fields.u16(0), fields.u32(4), fields.u64(8)), (0x1234, 0x89ab_cdef, u64::MAX - 1));
        assert_eq!((fields.u8(16), fields.u64(12)), (0, 0xffff_ffff));
        assert_eq!(Structure::new(2).u32(0, 0x0102_0304).bytes(), [4, 3]);
    }
}
