//! The video BIOS: as few of its tables as the driver needs to find its feet.
//!
//! The driver reads the image through two registers ([`ROM_DATA`](super::register_map::word::ROM_DATA)). The part counts as
//! already set up, so that nothing in it is ever executed; what remains is to be recognised, and to tell the
//! clocks. Layouts: `atombios.h` and `atom.h` of the kernel.

/// Bytes of the image; its header counts them in units of 512.
const SIZE: usize = 2048;

/// `struct _ATOM_ROM_HEADER`.
const ROM_HEADER: usize = 0x100;
/// Text that the ROM header points to; empty.
const CONFIGURATION: u16 = 0xf0;
/// `struct _ATOM_MASTER_DATA_TABLE`: a header, then the offsets of the tables.
const DATA_TABLES: usize = 0x200;
/// `struct _ATOM_FIRMWARE_INFO_V2_1`.
const FIRMWARE_INFO: usize = 0x300;
/// The table of indirect access methods; empty.
const INDIRECT_IO: usize = 0x3c0;
/// `struct _ATOM_MASTER_COMMAND_TABLE`; has no commands.
const COMMAND_TABLES: usize = 0x400;

/// Positions in the list of data tables.
const FIRMWARE_INFO_INDEX: usize = 4;
const INDIRECT_IO_INDEX: usize = 23;

/// Clocks in units of 10 kHz.
const ENGINE_CLOCK: u32 = 30_000;
const MEMORY_CLOCK: u32 = 40_000;
const REFERENCE_CLOCK: u16 = 2_700;

/// The image.
pub(super) fn image() -> Vec<u8> {
    let mut image = vec![0; SIZE];
    let mut put = |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x000, &[0x55, 0xaa, (SIZE / 512) as u8]);
    put(0x030, b" 761295520");
    put(0x048, &(ROM_HEADER as u16).to_le_bytes());
    put(0x050, b"11/01/26 00:00");
    put(0x080, b"DEVMEM-LAB");

    put(ROM_HEADER, &table_header(0x24, 1, 1));
    put(ROM_HEADER + 0x04, b"ATOM");
    put(ROM_HEADER + 0x0c, &CONFIGURATION.to_le_bytes());
    put(ROM_HEADER + 0x1e, &(COMMAND_TABLES as u16).to_le_bytes());
    put(ROM_HEADER + 0x20, &(DATA_TABLES as u16).to_le_bytes());

    put(DATA_TABLES, &table_header(0x60, 1, 1));
    put(DATA_TABLES + 4 + 2 * FIRMWARE_INFO_INDEX, &(FIRMWARE_INFO as u16).to_le_bytes());
    put(DATA_TABLES + 4 + 2 * INDIRECT_IO_INDEX, &(INDIRECT_IO as u16).to_le_bytes());

    put(FIRMWARE_INFO, &table_header(0x70, 2, 1));
    put(FIRMWARE_INFO + 0x04, &1u32.to_le_bytes());
    put(FIRMWARE_INFO + 0x08, &ENGINE_CLOCK.to_le_bytes());
    put(FIRMWARE_INFO + 0x0c, &MEMORY_CLOCK.to_le_bytes());
    put(FIRMWARE_INFO + 0x52, &REFERENCE_CLOCK.to_le_bytes());

    put(INDIRECT_IO, &table_header(4, 0, 0));
    put(COMMAND_TABLES, &table_header(0xa8, 1, 1));
    image
}

/// `struct _ATOM_COMMON_TABLE_HEADER`: size, revision of the format, revision of the content.
fn table_header(size: u16, format: u8, content: u8) -> [u8; 4] {
    let [low, high] = size.to_le_bytes();
    [low, high, format, content]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_tables_leads_to_the_clocks() {
        let image = image();
        let word = |offset: usize| usize::from(u16::from_le_bytes([image[offset], image[offset + 1]]));
        let header = word(0x48);
        assert_eq!(&image[header + 4..header + 8], b"ATOM");
        let tables = word(header + 0x20);
        let firmware = word(tables + 4 + 2 * 4);
        assert_eq!((image[firmware + 2], image[firmware + 3]), (2, 1));
        assert_eq!(word(firmware + 0x52), 2700);
        assert_eq!(word(word(header + 0x1e)), 0xa8, "the commands, all of which are missing");
        assert_eq!(usize::from(image[2]) * 512, image.len());
    }
}
