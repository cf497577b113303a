// Finds the first byte in which two pieces differ: an invocation compares 64 bytes.

struct Pieces {
    // Where they begin, in bytes from the beginning of each buffer.
    left: u32,
    right: u32,
    // In bytes.
    length: u32,
}

@group(0) @binding(0) var<storage, read> left: array<u32>;
@group(0) @binding(1) var<storage, read> right: array<u32>;
// The least position found, counted from the beginning of the pieces.
@group(0) @binding(2) var<storage, read_write> found: atomic<u32>;
var<immediate> pieces: Pieces;

// Four bytes of `left` from any byte on.
fn left_word(byte: u32) -> u32 {
    let shift = (byte & 3u) * 8u;
    let index = byte >> 2u;
    let low = left[index];
    if shift == 0u {
        return low;
    }
    return (low >> shift) | (left[index + 1u] << (32u - shift));
}

// The same of `right`.
fn right_word(byte: u32) -> u32 {
    let shift = (byte & 3u) * 8u;
    let index = byte >> 2u;
    let low = right[index];
    if shift == 0u {
        return low;
    }
    return (low >> shift) | (right[index + 1u] << (32u - shift));
}

@compute @workgroup_size(64)
fn first_difference(@builtin(global_invocation_id) id: vec3<u32>) {
    let begin = id.x * 64u;
    for (var at = begin; at < begin + 64u && at < pieces.length; at += 4u) {
        var different = left_word(pieces.left + at) ^ right_word(pieces.right + at);
        let length = pieces.length - at;
        if length < 4u {
            different &= (1u << (length * 8u)) - 1u;
        }
        if different != 0u {
            atomicMin(&found, at + (countTrailingZeros(different) >> 3u));
            return;
        }
    }
}
