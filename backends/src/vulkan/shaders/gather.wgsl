// Gathers fragments of one buffer into a contiguous range of another: an invocation makes 16 bytes of the range, out of
// whatever fragments cover them. Nothing but these bytes is written, so that the range begins and ends with a multiple
// of 16; what is left at its ends is copied otherwise.

struct Fragment {
    // Where it goes, in bytes from the beginning of `destination`; ascending, without gaps.
    start: u32,
    // Where it lies, in bytes from the beginning of `source`.
    source: u32,
}

struct Range {
    // In units of 16 bytes.
    first: u32,
    count: u32,
}

@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> destination: array<vec4<u32>>;
// One more than there are, to tell where the last one ends.
@group(0) @binding(2) var<storage, read> fragments: array<Fragment>;
// Which fragment the first byte of each workgroup belongs to, and the last fragment.
@group(0) @binding(3) var<storage, read> tiles: array<u32>;
var<immediate> range: Range;

// Four bytes from any byte on.
fn word(byte: u32) -> u32 {
    let shift = (byte & 3u) * 8u;
    let index = byte >> 2u;
    let low = source[index];
    if shift == 0u {
        return low;
    }
    return (low >> shift) | (source[index + 1u] << (32u - shift));
}

@compute @workgroup_size(256)
fn gather(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let unit = group.x * 256u + lane;
    if unit >= range.count {
        return;
    }
    let first = (range.first + unit) * 16u;
    // The last fragment that begins at the first byte or before.
    var fragment = tiles[group.x];
    var last = tiles[group.x + 1u];
    while fragment < last {
        let middle = (fragment + last + 1u) >> 1u;
        if fragments[middle].start <= first {
            fragment = middle;
        } else {
            last = middle - 1u;
        }
    }
    var distance = fragments[fragment].source - fragments[fragment].start;
    var end = fragments[fragment + 1u].start;
    var bytes = vec4<u32>(0u);
    if end - first >= 16u {
        let byte = first + distance;
        bytes = vec4<u32>(word(byte), word(byte + 4u), word(byte + 8u), word(byte + 12u));
    } else {
        for (var index = 0u; index < 16u; index++) {
            while first + index >= end {
                fragment++;
                distance = fragments[fragment].source - end;
                end = fragments[fragment + 1u].start;
            }
            let at = first + index + distance;
            let byte = (source[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu;
            bytes[index >> 2u] |= byte << ((index & 3u) * 8u);
        }
    }
    destination[range.first + unit] = bytes;
}
