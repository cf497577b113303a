//! The video BIOS: an expansion ROM with the tables that the driver insists on, and no outputs.
//!
//! The driver reads it at `PROM` in BAR 0, and takes it if its sum is 0. What it looks for it finds through
//! the BIOS information table, whose entries it reads by their letter (`nvkm/subdev/bios/bit.c`).

use super::chip::{Chip, Generation};

/// Bytes of the image.
pub(super) const SIZE: usize = 4096;

/// The unit in which an expansion ROM gives its size.
const BLOCK: usize = 512;

/// Where what is. An entry of the information table may be no larger than the room behind it.
mod at {
    pub(super) const PCI_POINTER: usize = 0x18;
    pub(super) const DISPLAY_POINTER: usize = 0x36;
    pub(super) const PCI: usize = 0x40;
    pub(super) const INFORMATION_TABLE: usize = 0x100;
    pub(super) const VERSION: usize = 0x140;
    pub(super) const INIT_SCRIPTS: usize = 0x160;
    pub(super) const PMU_POINTER: usize = 0x180;
    pub(super) const PMU_TABLE: usize = 0x190;
    pub(super) const DISPLAY: usize = 0x200;
    pub(super) const PERFORMANCE: usize = 0x300;
    pub(super) const MEMORY_MAP: usize = 0x340;
    pub(super) const VOLTAGE: usize = 0x370;
    pub(super) const PMU_APPLICATION: usize = 0x3c0;
}

/// The PMU application that initialises the device, as its entry names it.
const PMU_DEVICE_INIT: u8 = 4;

struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u16(&mut self, offset: usize, value: usize) {
        self.put(offset, &(value as u16).to_le_bytes());
    }

    /// Entries of the information table: letter, version, bytes, place.
    fn information_table(&mut self, entries: &[(u8, u8, usize, usize)]) {
        const ENTRY: usize = 6;
        let table = at::INFORMATION_TABLE;
        self.put(table, b"\xff\xb8BIT\0");
        self.put(table + 9, &[ENTRY as u8, entries.len() as u8]);
        for (index, &(letter, version, length, place)) in entries.iter().enumerate() {
            let entry = table + 12 + index * ENTRY;
            self.put(entry, &[letter, version]);
            self.put_u16(entry + 2, length);
            self.put_u16(entry + 4, place);
        }
    }
}

/// Builds the image for a part.
pub(super) fn image(chip: Chip) -> Vec<u8> {
    let mut image = Image(vec![0; SIZE]);
    image.put(0, &[0x55, 0xaa, (SIZE / BLOCK) as u8]);
    image.put_u16(at::PCI_POINTER, at::PCI);
    image.put_u16(at::DISPLAY_POINTER, at::DISPLAY);
    // PCI Firmware Specification 3.0, 5.1.2: vendor, device, 24 bytes, class, blocks, x86 code, the last image.
    image.put(at::PCI, b"PCIR");
    image.put_u16(at::PCI + 0x04, usize::from(super::VENDOR));
    image.put_u16(at::PCI + 0x06, usize::from(chip.device));
    image.put_u16(at::PCI + 0x0a, 0x18);
    image.put(at::PCI + 0x0d, &super::CLASS.to_le_bytes()[..3]);
    image.put_u16(at::PCI + 0x10, SIZE / BLOCK);
    image.put(at::PCI + 0x15, &[0x80]);
    image.put(at::VERSION, &[0x00, 0x00, 0x44, 0x05]);
    // Version 3.0, 16 bytes of header, no entries of 8 bytes, and the signature.
    image.put(at::DISPLAY, &[0x30, 0x10, 0x00, 0x08]);
    image.put(at::DISPLAY + 6, &0x4edc_bdcb_u32.to_le_bytes());
    let mut entries = vec![(b'i', 2, 0x10, at::VERSION), (b'I', 1, 0x1c, at::INIT_SCRIPTS)];
    if chip.generation != Generation::Curie {
        entries.push((b'P', 2, 0x20, at::PERFORMANCE));
        image.put_u16(at::PERFORMANCE + 0x04, at::MEMORY_MAP);
        image.put_u16(at::PERFORMANCE + 0x0c, at::VOLTAGE);
        // Version 1.1, a header of 21 bytes, no entries.
        image.put(at::MEMORY_MAP, &[0x11, 0x15]);
        // Version 3.0, a header of 5 bytes, no entries. Without the table the driver of Maxwell has no voltage
        // control, and does not expect that (gk104_volt_new, seen in Linux 7.2).
        image.put(at::VOLTAGE, &[0x30, 0x05]);
        entries.push((b'p', 2, 4, at::PMU_POINTER));
        image.put_u16(at::PMU_POINTER, at::PMU_TABLE);
        // Version 1, a header of 4 bytes, one entry of 6 bytes: the application's kind, and its place.
        image.put(at::PMU_TABLE, &[1, 4, 6, 1]);
        image.put(at::PMU_TABLE + 4, &[PMU_DEVICE_INIT]);
        image.put_u16(at::PMU_TABLE + 6, at::PMU_APPLICATION);
    }
    image.information_table(&entries);
    let sum = image.0.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    image.put(SIZE - 1, &[sum.wrapping_neg()]);
    image.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Part;

    #[test]
    fn the_image_adds_up_and_its_pointers_lead_to_signatures() {
        for part in [Part::Nv44, Part::Gm107, Part::Gp107, Part::Tu117] {
            let image = image(Chip::of(part));
            assert_eq!(image.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
            let word = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
            assert_eq!(&image[word(0x18)..][..4], b"PCIR");
            assert_eq!(image[word(0x36) + 6..][..4], 0x4edc_bdcb_u32.to_le_bytes());
            let table = image.windows(5).position(|bytes| bytes == b"\xff\xb8BIT").unwrap();
            let entries = image[table + 12..].chunks(image[table + 9].into());
            let letters: Vec<u8> = entries.take(image[table + 10].into()).map(|entry| entry[0]).collect();
            assert_eq!(letters, if part == Part::Nv44 { &b"iI"[..] } else { &b"iIPp"[..] });
        }
    }
}
