// What the kernels that look for the largest logits of a row share. The numbers are those of
// compute/src/kernels/top.rs.

// A row is looked at in STRANDS strands: strand s has the logits s, s + STRANDS, ..
const STRANDS: u32 = 1024u;
// So many of the largest logits are wanted.
const KEPT: u32 = 64u;
// Logits that a record has room for.
const CAPACITY: u32 = 96u;

// What is known of a strand.
struct Strand {
    // Key of the largest logit; 0 if there is none.
    key: u32,
    // Sums of exp(logit - largest), and of the same to the power of the inverse temperature.
    sum: f32,
    tempered: f32,
    // 1 if a logit is no number or plus infinity.
    odd: u32,
}

// What is asked of a row.
struct Wish {
    // A token whose logit is wanted, whatever it is.
    token: u32,
    inverse_temperature: f32,
}

struct Top {
    vocabulary: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

@group(0) @binding(1) var<uniform> top: Top;

// Keys order as the logits do, minus zero being zero. Of bits, since drivers may take every float for a
// number.
fn key_of(bits: u32) -> u32 {
    let plain = select(bits, 0u, bits == 0x80000000u);
    return select(plain | 0x80000000u, ~plain, (plain >> 31u) == 1u);
}

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

// True for what is no number, and for plus infinity.
fn is_odd(bits: u32) -> bool {
    return (bits & 0x7fffffffu) > 0x7f800000u || bits == 0x7f800000u;
}
