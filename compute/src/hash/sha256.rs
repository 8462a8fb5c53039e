//! Portable SHA-256: the compression function, and the double hash of a block header.
//!
//! A header is 80 bytes, two blocks of which only the second holds the nonce. So the state after
//! the first block ([`Midstate`]) is computed once a job and each nonce costs two compressions: the
//! second block, and the hash of the hash. The state words are u32 big-endian, as in FIPS 180-4.

/// Initial state, FIPS 180-4 section 5.3.3.
pub const INITIAL: [u32; 8] = [
    0x6A09_E667,
    0xBB67_AE85,
    0x3C6E_F372,
    0xA54F_F53A,
    0x510E_527F,
    0x9B05_688C,
    0x1F83_D9AB,
    0x5BE0_CD19,
];

/// Round constants, FIPS 180-4 section 4.2.2.
pub const ROUND: [u32; 64] = [
    0x428A_2F98,
    0x7137_4491,
    0xB5C0_FBCF,
    0xE9B5_DBA5,
    0x3956_C25B,
    0x59F1_11F1,
    0x923F_82A4,
    0xAB1C_5ED5,
    0xD807_AA98,
    0x1283_5B01,
    0x2431_85BE,
    0x550C_7DC3,
    0x72BE_5D74,
    0x80DE_B1FE,
    0x9BDC_06A7,
    0xC19B_F174,
    0xE49B_69C1,
    0xEFBE_4786,
    0x0FC1_9DC6,
    0x240C_A1CC,
    0x2DE9_2C6F,
    0x4A74_84AA,
    0x5CB0_A9DC,
    0x76F9_88DA,
    0x983E_5152,
    0xA831_C66D,
    0xB003_27C8,
    0xBF59_7FC7,
    0xC6E0_0BF3,
    0xD5A7_9147,
    0x06CA_6351,
    0x1429_2967,
    0x27B7_0A85,
    0x2E1B_2138,
    0x4D2C_6DFC,
    0x5338_0D13,
    0x650A_7354,
    0x766A_0ABB,
    0x81C2_C92E,
    0x9272_2C85,
    0xA2BF_E8A1,
    0xA81A_664B,
    0xC24B_8B70,
    0xC76C_51A3,
    0xD192_E819,
    0xD699_0624,
    0xF40E_3585,
    0x106A_A070,
    0x19A4_C116,
    0x1E37_6C08,
    0x2748_774C,
    0x34B0_BCB5,
    0x391C_0CB3,
    0x4ED8_AA4A,
    0x5B9C_CA4F,
    0x682E_6FF3,
    0x748F_82EE,
    0x78A5_636F,
    0x84C8_7814,
    0x8CC7_0208,
    0x90BE_FFFA,
    0xA450_6CEB,
    0xBEF9_A3F7,
    0xC671_78F2,
];

/// The word after a message.
pub(super) const PAD: u32 = 0x8000_0000;
/// Bits of a header and of a hash: the last word of a header's second block and of a hash's only one.
pub(super) const HEADER_BITS: u32 = 640;
pub(super) const DIGEST_BITS: u32 = 256;

/// One application of the compression function to 16 big-endian words.
#[must_use]
pub fn compress(state: [u32; 8], block: [u32; 16]) -> [u32; 8] {
    let mut w = block;
    let mut s = state;
    for (turn, k) in ROUND.as_chunks::<16>().0.iter().enumerate() {
        if turn > 0 {
            expand(&mut w);
        }
        let wk: [u32; 16] = std::array::from_fn(|i| w[i].wrapping_add(k[i]));
        s = eight_rounds(s, [wk[0], wk[1], wk[2], wk[3], wk[4], wk[5], wk[6], wk[7]]);
        s = eight_rounds(s, [wk[8], wk[9], wk[10], wk[11], wk[12], wk[13], wk[14], wk[15]]);
    }
    add(s, state)
}

/// Eight rounds: as many as bring every word back to its own register, so nothing is moved.
#[inline(always)]
fn eight_rounds([a, b, c, d, e, f, g, h]: [u32; 8], wk: [u32; 8]) -> [u32; 8] {
    let (d, h) = half_round([a, b, c, d, e, f, g, h], wk[0]);
    let (c, g) = half_round([h, a, b, c, d, e, f, g], wk[1]);
    let (b, f) = half_round([g, h, a, b, c, d, e, f], wk[2]);
    let (a, e) = half_round([f, g, h, a, b, c, d, e], wk[3]);
    let (h, d) = half_round([e, f, g, h, a, b, c, d], wk[4]);
    let (g, c) = half_round([d, e, f, g, h, a, b, c], wk[5]);
    let (f, b) = half_round([c, d, e, f, g, h, a, b], wk[6]);
    let (e, a) = half_round([b, c, d, e, f, g, h, a], wk[7]);
    [a, b, c, d, e, f, g, h]
}

/// One round; `wk` is message word plus round constant.
pub(super) fn round(s: [u32; 8], wk: u32) -> [u32; 8] {
    let (e, a) = half_round(s, wk);
    [a, s[0], s[1], s[2], e, s[4], s[5], s[6]]
}

/// The two words a round changes: the new E (from D) and the new A (from H).
#[inline(always)]
fn half_round([a, b, c, d, e, f, g, h]: [u32; 8], wk: u32) -> (u32, u32) {
    let big_e = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
    let big_a = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
    let choose = g ^ (e & (f ^ g));
    let majority = (a & b) | (c & (a | b));
    let t = h.wrapping_add(big_e).wrapping_add(choose).wrapping_add(wk);
    (d.wrapping_add(t), t.wrapping_add(big_a).wrapping_add(majority))
}

/// Replaces message words `t..t+16` by the words `t+16..t+32`.
#[inline(always)]
fn expand(w: &mut [u32; 16]) {
    for t in 0..16 {
        let (w1, w14) = (w[(t + 1) % 16], w[(t + 14) % 16]);
        let small0 = w1.rotate_right(7) ^ w1.rotate_right(18) ^ (w1 >> 3);
        let small1 = w14.rotate_right(17) ^ w14.rotate_right(19) ^ (w14 >> 10);
        w[t] = w[t].wrapping_add(small0).wrapping_add(w[(t + 9) % 16]).wrapping_add(small1);
    }
}

fn add(a: [u32; 8], b: [u32; 8]) -> [u32; 8] {
    std::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

/// Everything of a header's double hash that does not depend on the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Midstate {
    /// State after the first 64 bytes.
    pub state: [u32; 8],
    /// Bytes 64..76 as big-endian words: end of the merkle root, time, nBits.
    pub tail: [u32; 3],
}

impl Midstate {
    /// From the 76 bytes before the nonce.
    #[must_use]
    pub fn new(header: &[u8; 76]) -> Self {
        let words: [u32; 19] = std::array::from_fn(|i| {
            u32::from_be_bytes([
                header[4 * i],
                header[4 * i + 1],
                header[4 * i + 2],
                header[4 * i + 3],
            ])
        });
        Self {
            state: compress(INITIAL, std::array::from_fn(|i| words[i])),
            tail: [words[16], words[17], words[18]],
        }
    }

    /// State words of the double hash with `nonce`, big-endian as computed.
    #[must_use]
    pub fn double_hash(&self, nonce: u32) -> [u32; 8] {
        let mut block = [0u32; 16];
        block[..3].copy_from_slice(&self.tail);
        // The nonce is little-endian in the header; message words are big-endian.
        block[3] = nonce.swap_bytes();
        block[4] = PAD;
        block[15] = HEADER_BITS;
        let first = compress(self.state, block);
        block[..8].copy_from_slice(&first);
        block[8] = PAD;
        block[9..15].fill(0);
        block[15] = DIGEST_BITS;
        compress(INITIAL, block)
    }
}

/// Bytes of a state in hash (internal) order.
#[must_use]
pub fn bytes(state: [u32; 8]) -> [u8; 32] {
    std::array::from_fn(|i| state[i / 4].to_be_bytes()[i % 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Prepared, vectors};
    use sha2::{Digest, Sha256};

    #[test]
    fn midstates_and_hashes_match_real_headers() {
        for case in vectors::list("headers.json") {
            let header: [u8; 80] = vectors::bytes(&case["header_hex"]);
            let prefix: [u8; 76] = std::array::from_fn(|i| header[i]);
            let midstate = Midstate::new(&prefix);
            assert_eq!(midstate.state.to_vec(), vectors::words(&case["midstate_words"]));
            assert_eq!(midstate.tail.to_vec(), vectors::words(&case["tail_words"])[..3]);
            let three = Prepared::new(&midstate).third;
            assert_eq!(three.to_vec(), vectors::words(&case["state_after_3_rounds_of_block2"]));
            let nonce = u32::try_from(case["nonce"].as_u64().unwrap()).unwrap();
            assert_eq!(nonce.swap_bytes(), vectors::hex_word(&case["nonce_word_be_for_w3"]));
            let state = midstate.double_hash(nonce);
            assert_eq!(state.to_vec(), vectors::words(&case["final_words"]));
            assert_eq!(bytes(state), vectors::bytes::<32>(&case["hash_internal_hex"]));
        }
    }

    #[test]
    fn the_double_hash_agrees_with_a_foreign_implementation() {
        for byte in 0..=255u8 {
            let prefix: [u8; 76] =
                std::array::from_fn(|i| byte.wrapping_mul(31).wrapping_add(i as u8));
            let nonce = u32::from(byte).wrapping_mul(0x9E37_79B1);
            let mut header = prefix.to_vec();
            header.extend(nonce.to_le_bytes());
            let foreign: [u8; 32] = Sha256::digest(Sha256::digest(&header)).into();
            assert_eq!(bytes(Midstate::new(&prefix).double_hash(nonce)), foreign);
        }
    }
}
