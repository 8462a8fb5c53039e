//! SHA-256d with the SHA-2 instructions of ARMv8, several nonces interleaved.
//!
//! `sha256h` and `sha256h2` do four rounds on a state kept as ABCD and EFGH; `sha256su0` and `sha256su1`
//! make the next four message words. As with the x86 instructions one stream waits for its own results,
//! so independent nonces fill the unit. The last rounds of the second hash come four at a time, so none
//! can be left out: word H is the last of EFGH.

use std::arch::aarch64::{
    uint32x4_t, vaddq_u32, vdupq_n_u32, vgetq_lane_u32, vld1q_u32, vsha256h2q_u32, vsha256hq_u32,
    vsha256su0q_u32, vsha256su1q_u32,
};

use super::prepared::Prepared;
use super::sha256::{DIGEST_BITS, HEADER_BITS, INITIAL, PAD, ROUND};

/// Proof that this CPU has the SHA-2 instructions, and the scan that needs it.
#[derive(Debug, Clone, Copy)]
pub struct ArmSha2(());

impl ArmSha2 {
    /// `Some` on a CPU with the instructions used here.
    #[must_use]
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("sha2").then_some(Self(()))
    }

    /// Calls `candidate` with each of `count` nonces from `start` (modulo 2^32) whose last state word shares
    /// no bit with `mask`; `N` nonces are computed at a time.
    #[expect(unsafe_code, reason = "the token proves the instructions present")]
    pub fn scan<const N: usize>(
        self,
        prepared: &Prepared,
        mask: u32,
        start: u32,
        count: u32,
        candidate: &mut dyn FnMut(u32),
    ) {
        // SAFETY: `self` exists only if `detect` found every feature `scan` is compiled for.
        unsafe { scan::<N>(prepared, mask, start, count, candidate) }
    }
}

#[target_feature(enable = "neon,sha2")]
fn scan<const N: usize>(
    prepared: &Prepared,
    mask: u32,
    start: u32,
    count: u32,
    candidate: &mut dyn FnMut(u32),
) {
    let mut offset = 0;
    while offset < count {
        let first = start.wrapping_add(offset);
        for (lane, word) in (0..).zip(last_words::<N>(prepared, first)) {
            // The last group may reach past the range.
            if word & mask == 0 && lane < count - offset {
                candidate(first.wrapping_add(lane));
            }
        }
        match offset.checked_add(N as u32) {
            Some(next) => offset = next,
            None => return,
        }
    }
}

/// State of one stream.
#[derive(Clone, Copy)]
struct Lanes {
    abcd: uint32x4_t,
    efgh: uint32x4_t,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new([a, b, c, d, e, f, g, h]: [u32; 8]) -> Self {
        Self { abcd: words([a, b, c, d]), efgh: words([e, f, g, h]) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn add(self, other: Self) -> Self {
        Self { abcd: vaddq_u32(self.abcd, other.abcd), efgh: vaddq_u32(self.efgh, other.efgh) }
    }
}

/// Last state word of the double hash for `N` nonces from `first`.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn last_words<const N: usize>(p: &Prepared, first: u32) -> [u32; N] {
    let (middle, initial) = (Lanes::new(p.middle), Lanes::new(INITIAL));
    let zero = vdupq_n_u32(0);
    let pad = words([PAD, 0, 0, 0]);
    let mut w = [[zero; 4]; N];
    for (i, w) in w.iter_mut().enumerate() {
        let nonce = first.wrapping_add(i as u32).swap_bytes();
        let [w0, w1, w2] = p.tail;
        *w = [words([w0, w1, w2, nonce]), pad, zero, words([0, 0, 0, HEADER_BITS])];
    }
    let mut s = [middle; N];
    hash(&mut s, &mut w);
    for (s, w) in s.iter_mut().zip(&mut w) {
        let digest = s.add(middle);
        *w = [digest.abcd, digest.efgh, pad, words([0, 0, 0, DIGEST_BITS])];
        *s = initial;
    }
    hash(&mut s, &mut w);
    s.map(|s| INITIAL[7].wrapping_add(vgetq_lane_u32::<3>(s.efgh)))
}

/// All 64 rounds of independent streams.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn hash<const N: usize>(s: &mut [Lanes; N], w: &mut [[uint32x4_t; 4]; N]) {
    four::<N, 0>(s, w);
    four::<N, 4>(s, w);
    four::<N, 8>(s, w);
    four::<N, 12>(s, w);
    four::<N, 16>(s, w);
    four::<N, 20>(s, w);
    four::<N, 24>(s, w);
    four::<N, 28>(s, w);
    four::<N, 32>(s, w);
    four::<N, 36>(s, w);
    four::<N, 40>(s, w);
    four::<N, 44>(s, w);
    four::<N, 48>(s, w);
    four::<N, 52>(s, w);
    four::<N, 56>(s, w);
    four::<N, 60>(s, w);
}

/// Rounds `T..T+4`; the message words used are replaced by those sixteen later while any are needed.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn four<const N: usize, const T: usize>(s: &mut [Lanes; N], w: &mut [[uint32x4_t; 4]; N]) {
    let k = words([ROUND[T], ROUND[T + 1], ROUND[T + 2], ROUND[T + 3]]);
    for (s, w) in s.iter_mut().zip(w) {
        let [w0, w4, w8, w12] = *w;
        let wk = vaddq_u32(w0, k);
        let Lanes { abcd, efgh } = *s;
        *s = Lanes { abcd: vsha256hq_u32(abcd, efgh, wk), efgh: vsha256h2q_u32(efgh, abcd, wk) };
        let later = match T < 48 {
            true => vsha256su1q_u32(vsha256su0q_u32(w0, w4), w8, w12),
            false => w0,
        };
        *w = [w4, w8, w12, later];
    }
}

/// Four words, the first in the lowest lane.
#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "a load from an array of four words")]
fn words(words: [u32; 4]) -> uint32x4_t {
    // SAFETY: the array has the sixteen bytes that are read.
    unsafe { vld1q_u32(words.as_ptr()) }
}
