//! Waking domains of the GPU: a driver writes a request and waits for the acknowledgement, before it
//! touches registers of the domain. Here all domains are always awake.

use super::registers::offsets::MEDIA;

/// Request and acknowledgement, and how many of them follow each other.
const DOMAINS: [(u64, u64, u64); 6] = [
    // Graphics technology; the part of it that sleeps. Newer drivers look at another acknowledgement.
    (0xa188, 0x13_0044, 1),
    (0xa188, 0xdfc, 1),
    // Render.
    (0xa278, 0xd84, 1),
    // Media as a whole, until 11.0.
    (0xa270, 0xd88, 1),
    // Video decode, eight engines; video enhancement, four.
    (0xa540, 0xd50, 8),
    (0xa560, 0xd70, 4),
];
/// The security controller's.
const SECURITY: (u64, u64, u64) = (0xa618, 0xdf8, 1);

/// All domains, and those of a media unit of its own.
fn all() -> impl Iterator<Item = (u64, u64)> {
    let domains = DOMAINS.into_iter().chain([SECURITY]);
    let single = domains.flat_map(|(request, acknowledgement, count)| {
        (0..count).map(move |index| (request + index * 4, acknowledgement + index * 4))
    });
    single.flat_map(|(request, acknowledgement)| {
        [(request, acknowledgement), (MEDIA + request, MEDIA + acknowledgement)]
    })
}

/// Whether a register is a request.
pub(super) fn is_request(offset: u64) -> bool {
    all().any(|(request, _)| request == offset)
}

/// Whether a register is an acknowledgement.
pub(super) fn is_acknowledgement(offset: u64) -> bool {
    all().any(|(_, acknowledgement)| acknowledgement == offset)
}

/// The acknowledgements of a request.
pub(super) fn acknowledgements(offset: u64) -> impl Iterator<Item = u64> {
    all().filter(move |(request, _)| *request == offset).map(|(_, acknowledgement)| acknowledgement)
}
