//! Firmware files that the driver insists on.
//!
//! The driver checks that a file is as long as its header says, and uploads what follows the header. Of
//! that the model executes nothing, so the files are a header and a few zero bytes.
//! The header is `struct common_firmware_header` of the kernel's `amdgpu_ucode.h`, followed by fields of
//! each kind that may all be 0.

use crate::gpu::Firmware;

/// Parts of the GPU with microcode of their own: the memory controller, the three processors of the command
/// processor, and the run list controller.
const KINDS: [&str; 5] = ["mc", "pfp", "me", "ce", "rlc"];

/// Bytes before the microcode: the common header, and room for the longest of the kinds' own fields.
const HEADER: u32 = 64;
/// Bytes of microcode.
const MICROCODE: u32 = 16;

/// The files for Hainan.
pub(super) fn files() -> Vec<Firmware> {
    let file = |kind| Firmware { path: format!("amdgpu/hainan_{kind}.bin"), content: content() };
    KINDS.into_iter().map(file).collect()
}

fn content() -> Vec<u8> {
    // The header's own version is 1.0; the versions of the part, of the microcode, and the checksum are 0.
    let versions = [1u32, 0, 0];
    let mut words = vec![HEADER + MICROCODE, HEADER];
    words.extend(versions);
    words.extend([MICROCODE, HEADER, 0]);
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.resize((HEADER + MICROCODE) as usize, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_long_as_its_header_says() {
        for file in files() {
            let word = |index: usize| {
                u32::from_le_bytes(file.content[index * 4..index * 4 + 4].try_into().unwrap()) as usize
            };
            let (size, microcode, offset) = (word(0), word(5), word(6));
            assert_eq!(size, file.content.len(), "{}", file.path);
            assert_eq!(offset + microcode, size, "{}", file.path);
        }
    }
}
