//! SHA-256d with the x86 SHA extensions, several nonces interleaved.
//!
//! `sha256rnds2` has a latency of four cycles and starts every two, so one stream leaves the unit half
//! idle; further, independent nonces fill it. The instruction keeps the state as two vectors ABEF and
//! CDGH; message and state words are four u32 a vector, first word in the lowest lane.
//!
//! What no nonce changes is worked out once a range: two rounds, the first message words, and the halves
//! of later ones that only constants enter. Of the second hash only word H is computed: it is F after
//! round 61, so the last two rounds are left out.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_cvtsi128_si32, _mm_set_epi32,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi32,
};

use super::prepared::{Prepared, small0};
use super::sha256::{DIGEST_BITS, HEADER_BITS, INITIAL, PAD, ROUND};

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

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn scan<const N: usize>(
    prepared: &Prepared,
    mask: u32,
    start: u32,
    count: u32,
    candidate: &mut dyn FnMut(u32),
) {
    let fixed = Fixed::new(prepared);
    let mut offset = 0;
    while offset < count {
        let first = start.wrapping_add(offset);
        for (lane, word) in (0..).zip(last_words::<N>(&fixed, first)) {
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

/// State of one stream in the order the instructions want.
#[derive(Clone, Copy)]
struct Lanes {
    abef: __m128i,
    cdgh: __m128i,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "sse2")]
    fn new([a, b, c, d, e, f, g, h]: [u32; 8]) -> Self {
        Self { abef: words(f, e, b, a), cdgh: words(h, g, d, c) }
    }
}

/// What no nonce changes, as vectors.
struct Fixed {
    middle: Lanes,
    /// After rounds 0 and 1.
    second: Lanes,
    /// Words 2 and 3 with their round constants, less the nonce word.
    wk2: __m128i,
    /// Words 16 to 19 less what the nonce adds, and the same with round constants.
    w16: __m128i,
    wk16: __m128i,
    /// What later words are made from besides `small1`.
    w20: __m128i,
    w28: __m128i,
}

impl Fixed {
    #[target_feature(enable = "sse2")]
    fn new(p: &Prepared) -> Self {
        let k = |t: usize, word: u32| word.wrapping_add(ROUND[t]);
        Self {
            middle: Lanes::new(p.middle),
            second: Lanes::new(p.second),
            wk2: words(k(2, p.tail[2]), ROUND[3], 0, 0),
            w16: words(p.w16, p.w17, p.w18, p.w19),
            wk16: words(k(16, p.w16), k(17, p.w17), k(18, p.w18), k(19, p.w19)),
            w20: words(PAD, 0, HEADER_BITS, p.w16),
            w28: words(0, 0, small0(HEADER_BITS), p.w31),
        }
    }
}

/// Does the same for every stream; a loop the compiler unrolls.
macro_rules! each {
    ($streams:ident, $i:ident => $work:expr) => {
        for $i in 0..$streams {
            $work;
        }
    };
}

/// Last state word of the double hash for `N` nonces from `first`.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn last_words<const N: usize>(p: &Fixed, first: u32) -> [u32; N] {
    let (mut s, mut w) = first_hash_to_32::<N>(p, first);
    advance::<N, 32>(&mut s, &mut w);
    advance::<N, 36>(&mut s, &mut w);
    advance::<N, 40>(&mut s, &mut w);
    advance::<N, 44>(&mut s, &mut w);
    advance::<N, 48>(&mut s, &mut w);
    advance::<N, 52>(&mut s, &mut w);
    advance::<N, 56>(&mut s, &mut w);
    advance::<N, 60>(&mut s, &mut w);
    let (mut s, mut w) = second_hash_to_32::<N>(p, s);
    advance::<N, 32>(&mut s, &mut w);
    advance::<N, 36>(&mut s, &mut w);
    advance::<N, 40>(&mut s, &mut w);
    advance::<N, 44>(&mut s, &mut w);
    advance::<N, 48>(&mut s, &mut w);
    advance::<N, 52>(&mut s, &mut w);
    advance::<N, 56>(&mut s, &mut w);
    let mut last = [0; N];
    each!(N, i => {
        let wk = _mm_add_epi32(next(w[i]), k(60));
        let feba = _mm_sha256rnds2_epu32(s[i].cdgh, s[i].abef, wk);
        last[i] = INITIAL[7].wrapping_add(_mm_cvtsi128_si32(feba) as u32);
    });
    last
}

/// The header's second block after round 31, with message words 16 to 31.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn first_hash_to_32<const N: usize>(p: &Fixed, first: u32) -> ([Lanes; N], [[__m128i; 4]; N]) {
    let mut s = [p.second; N];
    let mut w = [[_mm_setzero_si128(); 4]; N];
    let mut wk = [_mm_setzero_si128(); N];
    let mut n = [0; N];
    each!(N, i => {
        n[i] = first.wrapping_add(i as u32).swap_bytes();
        let wk = _mm_add_epi32(p.wk2, _mm_set_epi32(0, 0, n[i] as i32, 0));
        let abef = _mm_sha256rnds2_epu32(s[i].cdgh, s[i].abef, wk);
        s[i] = Lanes { abef, cdgh: s[i].abef };
    });
    four(&mut s, [words(PAD.wrapping_add(ROUND[4]), ROUND[5], ROUND[6], ROUND[7]); N]);
    four(&mut s, [k(8); N]);
    four(&mut s, [words(ROUND[12], ROUND[13], ROUND[14], HEADER_BITS.wrapping_add(ROUND[15])); N]);
    each!(N, i => {
        let from_nonce = _mm_set_epi32(n[i] as i32, small0(n[i]) as i32, 0, 0);
        w[i][0] = _mm_add_epi32(p.w16, from_nonce);
        wk[i] = _mm_add_epi32(p.wk16, from_nonce);
    });
    four(&mut s, wk);
    each!(N, i => {
        w[i][1] = _mm_sha256msg2_epu32(p.w20, w[i][0]);
        wk[i] = _mm_add_epi32(w[i][1], k(20));
    });
    four(&mut s, wk);
    each!(N, i => {
        w[i][2] = _mm_sha256msg2_epu32(_mm_alignr_epi8::<4>(w[i][1], w[i][0]), w[i][1]);
        wk[i] = _mm_add_epi32(w[i][2], k(24));
    });
    four(&mut s, wk);
    each!(N, i => {
        let ninth = _mm_alignr_epi8::<4>(w[i][2], w[i][1]);
        w[i][3] = _mm_sha256msg2_epu32(_mm_add_epi32(p.w28, ninth), w[i][2]);
        wk[i] = _mm_add_epi32(w[i][3], k(28));
    });
    four(&mut s, wk);
    (s, w)
}

/// From the header's second block after its last round: the hash of the hash after round 31, with message
/// words 16 to 31.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn second_hash_to_32<const N: usize>(
    p: &Fixed,
    first: [Lanes; N],
) -> ([Lanes; N], [[__m128i; 4]; N]) {
    let (pad, bits) = (words(PAD, 0, 0, 0), words(0, 0, 0, DIGEST_BITS));
    let mut s = [Lanes::new(INITIAL); N];
    let mut w = [[pad; 4]; N];
    let mut wk = [pad; N];
    each!(N, i => {
        let abef = _mm_add_epi32(first[i].abef, p.middle.abef);
        let cdgh = _mm_add_epi32(first[i].cdgh, p.middle.cdgh);
        // ABEF, CDGH -> ABCD, EFGH: the first hash is the message of the second.
        let feba = _mm_shuffle_epi32::<0x1B>(abef);
        let ghcd = _mm_shuffle_epi32::<0xB1>(cdgh);
        w[i][0] = _mm_blend_epi16::<0xF0>(feba, ghcd);
        w[i][1] = _mm_alignr_epi8::<8>(ghcd, feba);
        wk[i] = _mm_add_epi32(w[i][0], k(0));
    });
    four(&mut s, wk);
    each!(N, i => wk[i] = _mm_add_epi32(w[i][1], k(4)));
    four(&mut s, wk);
    four(&mut s, [words(PAD.wrapping_add(ROUND[8]), ROUND[9], ROUND[10], ROUND[11]); N]);
    four(&mut s, [words(ROUND[12], ROUND[13], ROUND[14], DIGEST_BITS.wrapping_add(ROUND[15])); N]);
    each!(N, i => {
        let sum = _mm_sha256msg1_epu32(w[i][0], w[i][1]);
        w[i][2] = _mm_sha256msg2_epu32(sum, bits);
        wk[i] = _mm_add_epi32(w[i][2], k(16));
    });
    four(&mut s, wk);
    each!(N, i => {
        w[i][3] = next([w[i][1], pad, bits, w[i][2]]);
        wk[i] = _mm_add_epi32(w[i][3], k(20));
    });
    four(&mut s, wk);
    each!(N, i => {
        let ninth = _mm_alignr_epi8::<4>(w[i][3], w[i][2]);
        w[i][0] = _mm_sha256msg2_epu32(_mm_add_epi32(pad, ninth), w[i][3]);
        wk[i] = _mm_add_epi32(w[i][0], k(24));
    });
    four(&mut s, wk);
    each!(N, i => {
        let last = next([bits, w[i][2], w[i][3], w[i][0]]);
        w[i] = [w[i][2], w[i][3], w[i][0], last];
        wk[i] = _mm_add_epi32(last, k(28));
    });
    four(&mut s, wk);
    (s, w)
}

/// Rounds `T..T+4` with message words made from the sixteen before, which move on by four.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn advance<const N: usize, const T: usize>(s: &mut [Lanes; N], w: &mut [[__m128i; 4]; N]) {
    let mut wk = [_mm_setzero_si128(); N];
    each!(N, i => {
        let x = next(w[i]);
        w[i] = [w[i][1], w[i][2], w[i][3], x];
        wk[i] = _mm_add_epi32(x, k(T));
    });
    four(s, wk);
}

/// Four rounds; `wk` are message words plus round constants.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn four<const N: usize>(s: &mut [Lanes; N], wk: [__m128i; N]) {
    each!(N, i => s[i].cdgh = _mm_sha256rnds2_epu32(s[i].cdgh, s[i].abef, wk[i]));
    each!(N, i => {
        let upper = _mm_shuffle_epi32::<0x0E>(wk[i]);
        s[i].abef = _mm_sha256rnds2_epu32(s[i].abef, s[i].cdgh, upper);
    });
}

/// Message words `t+16..t+20` from the sixteen words from `t`.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn next([w0, w4, w8, w12]: [__m128i; 4]) -> __m128i {
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w4), _mm_alignr_epi8::<4>(w12, w8));
    _mm_sha256msg2_epu32(sum, w12)
}

/// Round constants `t..t+4`.
#[inline]
#[target_feature(enable = "sse2")]
fn k(t: usize) -> __m128i {
    words(ROUND[t], ROUND[t + 1], ROUND[t + 2], ROUND[t + 3])
}

/// Four words, the first in the lowest lane.
#[inline]
#[target_feature(enable = "sse2")]
fn words(w0: u32, w1: u32, w2: u32, w3: u32) -> __m128i {
    _mm_set_epi32(w3 as i32, w2 as i32, w1 as i32, w0 as i32)
}
