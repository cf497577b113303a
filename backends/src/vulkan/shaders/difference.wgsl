// Finds the first byte in which two pieces differ: a workgroup compares 4096 bytes.

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

// Compares some of the pieces, a multiple of 4 bytes from their beginning on.
fn compare(begin: u32, bytes: u32) {
    for (var at = begin; at < begin + bytes && at < pieces.length; at += 4u) {
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

@compute @workgroup_size(64)
fn first_difference(@builtin(global_invocation_id) id: vec3<u32>) {
    compare(id.x * 64u, 64u);
}

// For a driver that executes on the CPU: it is faster where it knows that there is one invocation.
@compute @workgroup_size(1)
fn first_difference_alone(@builtin(workgroup_id) id: vec3<u32>) {
    compare(id.x * 4096u, 4096u);
}
