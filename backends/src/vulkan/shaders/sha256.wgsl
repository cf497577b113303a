// SHA-256 (FIPS 180-4) of many pieces side by side: an invocation a piece, some blocks a dispatch.

struct Job {
    // Where the blocks begin, in bytes.
    source: u32,
    // How many whole blocks are hashed.
    blocks: u32,
    // Which of the states it goes on with.
    state: u32,
    // Bytes behind the blocks with which the message ends, below 64; NOT_LAST if it goes on.
    tail: u32,
    // The length of the message in bits.
    bits_low: u32,
    bits_high: u32,
}

const NOT_LAST: u32 = 0xffffffffu;

struct Dispatch {
    jobs: u32,
}

@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read> jobs: array<Job>;
@group(0) @binding(2) var<storage, read_write> states: array<array<u32, 8>>;
@group(0) @binding(3) var<storage, read> constants: array<u32, 64>;
var<immediate> dispatch: Dispatch;

fn rotate(x: u32, by: u32) -> u32 {
    return (x >> by) | (x << (32u - by));
}

fn sum0(x: u32) -> u32 {
    return rotate(x, 2u) ^ rotate(x, 13u) ^ rotate(x, 22u);
}

fn sum1(x: u32) -> u32 {
    return rotate(x, 6u) ^ rotate(x, 11u) ^ rotate(x, 25u);
}

fn spread0(x: u32) -> u32 {
    return rotate(x, 7u) ^ rotate(x, 18u) ^ (x >> 3u);
}

fn spread1(x: u32) -> u32 {
    return rotate(x, 17u) ^ rotate(x, 19u) ^ (x >> 10u);
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    return z ^ (x & (y ^ z));
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    return (x & y) | (z & (x | y));
}

fn swap(x: u32) -> u32 {
    return (rotate(x, 8u) & 0xff00ff00u) | (rotate(x, 24u) & 0x00ff00ffu);
}

// A word of the last blocks, of which `left` bytes belong to the message; a set bit follows them, then zeros.
fn padded(index: u32, shift: u32, left: i32) -> u32 {
    if left < 0 {
        return 0u;
    }
    if left == 0 {
        return 0x80000000u;
    }
    var word = source[index] >> shift;
    if shift != 0u && u32(left) * 8u > 32u - shift {
        word |= source[index + 1u] << (32u - shift);
    }
    word = swap(word);
    if left < 4 {
        let unused = 32u - u32(left) * 8u;
        word = ((word >> unused) << unused) | (0x80u << (unused - 8u));
    }
    return word;
}

fn hash(id: u32) {
    if id >= dispatch.jobs {
        return;
    }
    let job = jobs[id];
    let shift = (job.source & 3u) * 8u;
    let back = 32u - shift;
    var index = job.source >> 2u;
    var blocks = job.blocks;
    if job.tail != NOT_LAST {
        // The bit that ends the message and its length need 9 bytes.
        blocks += select(1u, 2u, job.tail > 55u);
    }
    var state = states[job.state];
    for (var block = 0u; block < blocks; block++) {
        var w0: u32; var w1: u32; var w2: u32; var w3: u32;
        var w4: u32; var w5: u32; var w6: u32; var w7: u32;
        var w8: u32; var w9: u32; var w10: u32; var w11: u32;
        var w12: u32; var w13: u32; var w14: u32; var w15: u32;
        if block < job.blocks {
            w0 = source[index + 0u];
            w1 = source[index + 1u];
            w2 = source[index + 2u];
            w3 = source[index + 3u];
            w4 = source[index + 4u];
            w5 = source[index + 5u];
            w6 = source[index + 6u];
            w7 = source[index + 7u];
            w8 = source[index + 8u];
            w9 = source[index + 9u];
            w10 = source[index + 10u];
            w11 = source[index + 11u];
            w12 = source[index + 12u];
            w13 = source[index + 13u];
            w14 = source[index + 14u];
            w15 = source[index + 15u];
            if shift != 0u {
                w0 = (w0 >> shift) | (w1 << back);
                w1 = (w1 >> shift) | (w2 << back);
                w2 = (w2 >> shift) | (w3 << back);
                w3 = (w3 >> shift) | (w4 << back);
                w4 = (w4 >> shift) | (w5 << back);
                w5 = (w5 >> shift) | (w6 << back);
                w6 = (w6 >> shift) | (w7 << back);
                w7 = (w7 >> shift) | (w8 << back);
                w8 = (w8 >> shift) | (w9 << back);
                w9 = (w9 >> shift) | (w10 << back);
                w10 = (w10 >> shift) | (w11 << back);
                w11 = (w11 >> shift) | (w12 << back);
                w12 = (w12 >> shift) | (w13 << back);
                w13 = (w13 >> shift) | (w14 << back);
                w14 = (w14 >> shift) | (w15 << back);
                w15 = (w15 >> shift) | (source[index + 16u] << back);
            }
            w0 = swap(w0);
            w1 = swap(w1);
            w2 = swap(w2);
            w3 = swap(w3);
            w4 = swap(w4);
            w5 = swap(w5);
            w6 = swap(w6);
            w7 = swap(w7);
            w8 = swap(w8);
            w9 = swap(w9);
            w10 = swap(w10);
            w11 = swap(w11);
            w12 = swap(w12);
            w13 = swap(w13);
            w14 = swap(w14);
            w15 = swap(w15);
        } else {
            let left = i32(job.tail) - i32(block - job.blocks) * 64;
            w0 = padded(index + 0u, shift, left - 0);
            w1 = padded(index + 1u, shift, left - 4);
            w2 = padded(index + 2u, shift, left - 8);
            w3 = padded(index + 3u, shift, left - 12);
            w4 = padded(index + 4u, shift, left - 16);
            w5 = padded(index + 5u, shift, left - 20);
            w6 = padded(index + 6u, shift, left - 24);
            w7 = padded(index + 7u, shift, left - 28);
            w8 = padded(index + 8u, shift, left - 32);
            w9 = padded(index + 9u, shift, left - 36);
            w10 = padded(index + 10u, shift, left - 40);
            w11 = padded(index + 11u, shift, left - 44);
            w12 = padded(index + 12u, shift, left - 48);
            w13 = padded(index + 13u, shift, left - 52);
            w14 = padded(index + 14u, shift, left - 56);
            w15 = padded(index + 15u, shift, left - 60);
            if block + 1u == blocks {
                w14 = job.bits_high;
                w15 = job.bits_low;
            }
        }
        index += 16u;
        var a = state[0]; var b = state[1]; var c = state[2]; var d = state[3];
        var e = state[4]; var f = state[5]; var g = state[6]; var h = state[7];
        var step = 0u;
        loop {
            h += sum1(e) + choose(e, f, g) + constants[step + 0u] + w0;
            d += h;
            h += sum0(a) + majority(a, b, c);
            g += sum1(d) + choose(d, e, f) + constants[step + 1u] + w1;
            c += g;
            g += sum0(h) + majority(h, a, b);
            f += sum1(c) + choose(c, d, e) + constants[step + 2u] + w2;
            b += f;
            f += sum0(g) + majority(g, h, a);
            e += sum1(b) + choose(b, c, d) + constants[step + 3u] + w3;
            a += e;
            e += sum0(f) + majority(f, g, h);
            d += sum1(a) + choose(a, b, c) + constants[step + 4u] + w4;
            h += d;
            d += sum0(e) + majority(e, f, g);
            c += sum1(h) + choose(h, a, b) + constants[step + 5u] + w5;
            g += c;
            c += sum0(d) + majority(d, e, f);
            b += sum1(g) + choose(g, h, a) + constants[step + 6u] + w6;
            f += b;
            b += sum0(c) + majority(c, d, e);
            a += sum1(f) + choose(f, g, h) + constants[step + 7u] + w7;
            e += a;
            a += sum0(b) + majority(b, c, d);
            h += sum1(e) + choose(e, f, g) + constants[step + 8u] + w8;
            d += h;
            h += sum0(a) + majority(a, b, c);
            g += sum1(d) + choose(d, e, f) + constants[step + 9u] + w9;
            c += g;
            g += sum0(h) + majority(h, a, b);
            f += sum1(c) + choose(c, d, e) + constants[step + 10u] + w10;
            b += f;
            f += sum0(g) + majority(g, h, a);
            e += sum1(b) + choose(b, c, d) + constants[step + 11u] + w11;
            a += e;
            e += sum0(f) + majority(f, g, h);
            d += sum1(a) + choose(a, b, c) + constants[step + 12u] + w12;
            h += d;
            d += sum0(e) + majority(e, f, g);
            c += sum1(h) + choose(h, a, b) + constants[step + 13u] + w13;
            g += c;
            c += sum0(d) + majority(d, e, f);
            b += sum1(g) + choose(g, h, a) + constants[step + 14u] + w14;
            f += b;
            b += sum0(c) + majority(c, d, e);
            a += sum1(f) + choose(f, g, h) + constants[step + 15u] + w15;
            e += a;
            a += sum0(b) + majority(b, c, d);
            step += 16u;
            if step == 64u {
                break;
            }
            w0 += spread0(w1) + w9 + spread1(w14);
            w1 += spread0(w2) + w10 + spread1(w15);
            w2 += spread0(w3) + w11 + spread1(w0);
            w3 += spread0(w4) + w12 + spread1(w1);
            w4 += spread0(w5) + w13 + spread1(w2);
            w5 += spread0(w6) + w14 + spread1(w3);
            w6 += spread0(w7) + w15 + spread1(w4);
            w7 += spread0(w8) + w0 + spread1(w5);
            w8 += spread0(w9) + w1 + spread1(w6);
            w9 += spread0(w10) + w2 + spread1(w7);
            w10 += spread0(w11) + w3 + spread1(w8);
            w11 += spread0(w12) + w4 + spread1(w9);
            w12 += spread0(w13) + w5 + spread1(w10);
            w13 += spread0(w14) + w6 + spread1(w11);
            w14 += spread0(w15) + w7 + spread1(w12);
            w15 += spread0(w0) + w8 + spread1(w13);
        }
        state[0] += a; state[1] += b; state[2] += c; state[3] += d;
        state[4] += e; state[5] += f; state[6] += g; state[7] += h;
    }
    states[job.state] = state;
}

// For many pieces.
@compute @workgroup_size(64)
fn sha256_many(@builtin(global_invocation_id) id: vec3<u32>) {
    hash(id.x);
}

// For few: a driver that executes on the CPU is faster where it knows that there is one invocation.
@compute @workgroup_size(1)
fn sha256_few(@builtin(workgroup_id) id: vec3<u32>) {
    hash(id.x);
}
