//! What the driver takes for the microcontroller's firmware: a header that says of itself what the driver
//! wants to hear, and nothing to execute.

/// Words of the header without keys (`uc_css_header` in `uc_fw_abi.h`).
const HEADER_WORDS: u32 = 32;
/// Words of the signature, and of modulus and exponent which are not loaded.
const SIGNATURE_WORDS: u32 = 64;
const MODULUS_WORDS: u32 = 64;
const EXPONENT_WORDS: u32 = 1;
/// Words of code: a page of nothing.
const CODE_WORDS: u32 = 1024;

/// Version of the firmware: 70.54.0, which is the newest that a driver asks for.
const RELEASE: u32 = 70 << 16 | 54 << 8;
/// Version of the interface for submission: 1.6.0, before features that are asked for one by one.
const SUBMISSION: u32 = 1 << 16 | 6 << 8;

/// The file.
pub(in super::super) fn firmware() -> Vec<u8> {
    let header = HEADER_WORDS + SIGNATURE_WORDS + MODULUS_WORDS + EXPONENT_WORDS;
    let mut words = vec![0u32; (header + CODE_WORDS) as usize];
    const MODULE_TYPE: u32 = 6;
    const INTEL: u32 = 0x8086;
    let places = [
        (0, MODULE_TYPE),
        (1, header),
        (2, 1 << 16),
        (4, INTEL),
        (6, header + CODE_WORDS),
        (7, SIGNATURE_WORDS),
        (8, MODULUS_WORDS),
        (9, EXPONENT_WORDS),
        (16, RELEASE),
        (17, SUBMISSION),
    ];
    for (place, value) in places {
        words[place] = value;
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
