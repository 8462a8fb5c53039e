//! SHA-256d with the x86 SHA extensions, two nonces interleaved.
//!
//! `sha256rnds2` has a latency of four cycles and starts every two, so one stream leaves the unit
//! half idle; a second, independent nonce fills it. The instruction keeps the state as two vectors
//! ABEF and CDGH; message and state words are four u32 a vector, first word in the lowest lane.
//!
//! Only the last state word is computed, as far as the early reject needs it: word H of the second
//! hash is F after round 62, so the last two rounds are left out.

#![expect(
    unsafe_code,
    reason = "code for SHA extensions is unsafe to call; detect() proves them present"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_extract_epi32, _mm_set_epi32,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi32,
};

use super::sha256::{INITIAL, Midstate, ROUND};

/// Proof that this CPU has the SHA extensions, and the scan that needs it.
#[derive(Debug, Clone, Copy)]
pub struct ShaNi(());

impl ShaNi {
    /// `Some` on a CPU with the instructions used here.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        present.then_some(Self(()))
    }

    /// Calls `candidate` with each of `count` nonces from `start` (modulo 2^32) whose hash has a
    /// top word of at most `top_word`; the caller checks the rest of the hash.
    pub fn scan(
        self,
        midstate: &Midstate,
        top_word: u32,
        start: u32,
        count: u32,
        candidate: &mut dyn FnMut(u32),
    ) {
        // SAFETY: `self` exists only if `detect` found every feature `scan_pairs` is compiled for.
        unsafe { scan_pairs(midstate, top_word, start, count, candidate) }
    }
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn scan_pairs(
    midstate: &Midstate,
    top_word: u32,
    start: u32,
    count: u32,
    candidate: &mut dyn FnMut(u32),
) {
    let [a, b, c, d, e, f, g, h] = midstate.state;
    let middle = Lanes { abef: words(f, e, b, a), cdgh: words(h, g, d, c) };
    let [a, b, c, d, e, f, g, h] = INITIAL;
    let initial = Lanes { abef: words(f, e, b, a), cdgh: words(h, g, d, c) };
    for offset in (0..count).step_by(2) {
        let first = start.wrapping_add(offset);
        let second = first.wrapping_add(1);
        let last = last_words(midstate, middle, initial, [first, second]);
        // The hash is a little-endian number: its top word is the last word, bytes swapped.
        if last[0].swap_bytes() <= top_word {
            candidate(first);
        }
        // An odd count computes one nonce too many; it is not reported.
        if last[1].swap_bytes() <= top_word && offset + 1 < count {
            candidate(second);
        }
    }
}

/// State of one stream in the order the instructions want.
#[derive(Clone, Copy)]
struct Lanes {
    abef: __m128i,
    cdgh: __m128i,
}

/// Last state word of the double hash, for two nonces.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn last_words(midstate: &Midstate, middle: Lanes, initial: Lanes, nonces: [u32; 2]) -> [u32; 2] {
    let zero = _mm_setzero_si128();
    let pad = words(0x8000_0000, 0, 0, 0);
    let [t0, t1, t2] = midstate.tail;
    let blocks =
        nonces.map(|nonce| [words(t0, t1, t2, nonce.swap_bytes()), pad, zero, words(0, 0, 0, 640)]);
    let mut states = [middle; 2];
    rounds::<64>(&mut states, blocks);
    let blocks = states.map(|state| {
        let abef = _mm_add_epi32(state.abef, middle.abef);
        let cdgh = _mm_add_epi32(state.cdgh, middle.cdgh);
        // ABEF, CDGH -> ABCD, EFGH: the first hash is the message of the second.
        let feba = _mm_shuffle_epi32::<0x1B>(abef);
        let ghcd = _mm_shuffle_epi32::<0xB1>(cdgh);
        let abcd = _mm_blend_epi16::<0xF0>(feba, ghcd);
        let efgh = _mm_alignr_epi8::<8>(ghcd, feba);
        [abcd, efgh, pad, words(0, 0, 0, 256)]
    });
    let mut states = [initial; 2];
    rounds::<62>(&mut states, blocks);
    states.map(|state| INITIAL[7].wrapping_add(_mm_extract_epi32::<0>(state.abef) as u32))
}

/// `ROUNDS` rounds (62 or 64) of two independent streams.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn rounds<const ROUNDS: usize>(states: &mut [Lanes; 2], mut w: [[__m128i; 4]; 2]) {
    for quad in 0..16 {
        let k =
            words(ROUND[4 * quad], ROUND[4 * quad + 1], ROUND[4 * quad + 2], ROUND[4 * quad + 3]);
        for (state, w) in states.iter_mut().zip(&mut w) {
            if quad >= 4 {
                w[quad % 4] =
                    next(w[quad % 4], w[(quad + 1) % 4], w[(quad + 2) % 4], w[(quad + 3) % 4]);
            }
            let wk = _mm_add_epi32(w[quad % 4], k);
            let cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, wk);
            state.cdgh = state.abef;
            state.abef = cdgh;
            if 4 * quad + 2 < ROUNDS {
                let wk = _mm_shuffle_epi32::<0x0E>(wk);
                let abef = _mm_sha256rnds2_epu32(state.cdgh, state.abef, wk);
                state.cdgh = state.abef;
                state.abef = abef;
            }
        }
    }
}

/// Message words `t+16..t+20` from the sixteen words from `t`.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn next(w0: __m128i, w4: __m128i, w8: __m128i, w12: __m128i) -> __m128i {
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w4), _mm_alignr_epi8::<4>(w12, w8));
    _mm_sha256msg2_epu32(sum, w12)
}

/// Four words, the first in the lowest lane.
#[inline]
#[target_feature(enable = "sse2")]
fn words(w0: u32, w1: u32, w2: u32, w3: u32) -> __m128i {
    _mm_set_epi32(w3 as i32, w2 as i32, w1 as i32, w0 as i32)
}
