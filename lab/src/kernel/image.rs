//! Takes the uncompressed kernel out of a boot image, once: it boots a second faster than the image,
//! which would be decompressed by the emulated processor at every boot.

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use crate::error::{Context, Error, Result};

// Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// The most that a kernel may take uncompressed, so that a damaged image cannot fill the disk.
const LARGEST: u64 = 1 << 30;

/// Reads a kernel image, compressed (bzImage) or not (vmlinux), and writes it uncompressed.
pub(crate) fn extract(image: &Path, target: &Path) -> Result<()> {
    let content = fs::read(image).context(|| format!("read {}", image.display()))?;
    let kernel = uncompressed(&content).map_err(|reason| Error::format(image, reason))?;
    crate::cache::write_whole(target, &kernel)
}

fn uncompressed(image: &[u8]) -> std::result::Result<Vec<u8>, String> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    if image.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Err("is no kernel image: no boot header".into());
    }
    let word = |at: usize| {
        image
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(|bytes| u32::from_le_bytes(bytes) as usize)
    };
    let setup = match image.get(SETUP_SECTORS) {
        Some(0) | None => 4,
        Some(&sectors) => usize::from(sectors),
    };
    let payload = word(PAYLOAD_OFFSET)
        .zip(word(PAYLOAD_LENGTH))
        .and_then(|(offset, length)| {
            let start = ((setup + 1) * SECTOR).checked_add(offset)?;
            image.get(start..start.checked_add(length)?)
        })
        .ok_or("is a damaged kernel image: the payload lies outside the file")?;
    // The build appends the uncompressed size, four bytes, to what the compressor wrote.
    let kernel = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(Cursor::new(payload))
                .map_err(|error| format!("its zstd payload is damaged: {error}"))?;
            read_all(decoder)?
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            read_all(lzma_rust2::XzReader::new(Cursor::new(payload), false))?
        }
        [first, second, ..] => {
            return Err(format!(
                "is compressed in a way that is not known here (begins with {first:02x} {second:02x}); \
                 zstd and xz are, and an uncompressed vmlinux"
            ));
        }
        _ => return Err("is a damaged kernel image: no payload".into()),
    };
    if kernel.starts_with(b"\x7fELF") { Ok(kernel) } else { Err("its payload is no ELF file".into()) }
}

fn read_all(decoder: impl Read) -> std::result::Result<Vec<u8>, String> {
    let mut content = Vec::new();
    decoder
        .take(LARGEST)
        .read_to_end(&mut content)
        .map_err(|error| format!("its payload is damaged: {error}"))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8], claimed: u32) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTORS] = 1;
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&4u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&claimed.to_le_bytes());
        image.extend_from_slice(b"skip");
        image.extend_from_slice(payload);
        image
    }

    /// "\x7fELF kernel" as one raw zstd block.
    const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd\x20\x0b\x59\x00\x00\x7fELF kernel";

    #[test]
    fn a_compressed_payload_is_found() {
        let image = image(ZSTD, u32::try_from(ZSTD.len()).unwrap());
        assert_eq!(uncompressed(&image).unwrap(), b"\x7fELF kernel");
        assert_eq!(uncompressed(b"\x7fELF plain").unwrap(), b"\x7fELF plain");
    }

    #[test]
    fn damaged_images_are_errors() {
        for (image, words) in [
            (b"nothing".to_vec(), "no boot header"),
            (image(ZSTD, u32::MAX), "outside the file"),
            (image(&ZSTD[..12], 12), "damaged"),
            (image(b"\x1f\x8bgzip", 6), "1f 8b"),
            (image(b"", 0), "no payload"),
        ] {
            let error = uncompressed(&image).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_image_makes_it_panic(noise in proptest::collection::vec(proptest::num::u8::ANY, 0..64), claimed: u32) {
            let _ = uncompressed(&image(&noise, claimed));
            let _ = uncompressed(&image(&[&[0x28, 0xb5, 0x2f, 0xfd], noise.as_slice()].concat(), 4 + noise.len() as u32));
        }
    }
}
