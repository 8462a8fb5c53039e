//! Vectors of the x86 instruction sets as lanes: SSE2 (4 nonces), AVX2 (8) and AVX-512 (16).

use super::prepared::Prepared;

/// Proof that this CPU has AVX2.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// Proof that this CPU has AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx2 {
    /// `Some` on a CPU with the instructions used here.
    #[must_use]
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Calls `candidate` with each nonce whose last state word shares no bit with `mask`.
    #[expect(unsafe_code, reason = "the token proves the instructions present")]
    pub fn scan(
        self,
        prepared: &Prepared,
        mask: u32,
        start: u32,
        count: u32,
        candidate: &mut dyn FnMut(u32),
    ) {
        // SAFETY: `self` exists only if `detect` found the feature.
        unsafe { eight::scan(prepared, mask, start, count, candidate) }
    }
}

impl Avx512 {
    /// `Some` on a CPU with the instructions used here.
    #[must_use]
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    /// Calls `candidate` with each nonce whose last state word shares no bit with `mask`.
    #[expect(unsafe_code, reason = "the token proves the instructions present")]
    pub fn scan(
        self,
        prepared: &Prepared,
        mask: u32,
        start: u32,
        count: u32,
        candidate: &mut dyn FnMut(u32),
    ) {
        // SAFETY: `self` exists only if `detect` found the feature.
        unsafe { sixteen::scan(prepared, mask, start, count, candidate) }
    }
}

/// The same with SSE2, which every x86-64 has.
#[expect(unsafe_code, reason = "SSE2 is part of x86-64")]
pub fn scan_sse2(
    prepared: &Prepared,
    mask: u32,
    start: u32,
    count: u32,
    candidate: &mut dyn FnMut(u32),
) {
    // SAFETY: there is no x86-64 without SSE2.
    unsafe { four::scan(prepared, mask, start, count, candidate) }
}

/// Four words.
mod four {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_movemask_ps,
        _mm_or_si128, _mm_set1_epi32, _mm_setr_epi32, _mm_setzero_si128, _mm_slli_epi32,
        _mm_srli_epi32, _mm_xor_si128,
    };

    use crate::hash::lanes::lanes;

    type V = __m128i;
    const LANES: u32 = 4;

    lanes!(#[target_feature(enable = "sse2")]);

    #[inline]
    #[target_feature(enable = "sse2")]
    fn splat(word: u32) -> V {
        _mm_set1_epi32(word as i32)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn iota() -> V {
        _mm_setr_epi32(0, 1, 2, 3)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn add(a: V, b: V) -> V {
        _mm_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn rotate<const R: i32, const L: i32>(x: V) -> V {
        _mm_or_si128(_mm_srli_epi32::<R>(x), _mm_slli_epi32::<L>(x))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn shift<const R: i32>(x: V) -> V {
        _mm_srli_epi32::<R>(x)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn xor3(a: V, b: V, c: V) -> V {
        _mm_xor_si128(_mm_xor_si128(a, b), c)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn choose(e: V, f: V, g: V) -> V {
        _mm_xor_si128(g, _mm_and_si128(e, _mm_xor_si128(f, g)))
    }

    /// In this form the compiler sees that `b ^ c` is the `a ^ b` of the round before.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn majority(a: V, b: V, c: V) -> V {
        _mm_xor_si128(b, _mm_and_si128(_mm_xor_si128(a, b), _mm_xor_si128(b, c)))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn clear_of(x: V, mask: V) -> u32 {
        let equal = _mm_cmpeq_epi32(_mm_and_si128(x, mask), _mm_setzero_si128());
        _mm_movemask_ps(_mm_castsi128_ps(equal)) as u32
    }
}

/// Eight words.
mod eight {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cmpeq_epi32,
        _mm256_movemask_ps, _mm256_or_si256, _mm256_set1_epi32, _mm256_setr_epi32,
        _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_xor_si256,
    };

    use crate::hash::lanes::lanes;

    type V = __m256i;
    const LANES: u32 = 8;

    lanes!(#[target_feature(enable = "avx2")]);

    #[inline]
    #[target_feature(enable = "avx2")]
    fn splat(word: u32) -> V {
        _mm256_set1_epi32(word as i32)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn iota() -> V {
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(a: V, b: V) -> V {
        _mm256_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn rotate<const R: i32, const L: i32>(x: V) -> V {
        _mm256_or_si256(_mm256_srli_epi32::<R>(x), _mm256_slli_epi32::<L>(x))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn shift<const R: i32>(x: V) -> V {
        _mm256_srli_epi32::<R>(x)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn xor3(a: V, b: V, c: V) -> V {
        _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn choose(e: V, f: V, g: V) -> V {
        _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)))
    }

    /// In this form the compiler sees that `b ^ c` is the `a ^ b` of the round before.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn majority(a: V, b: V, c: V) -> V {
        _mm256_xor_si256(b, _mm256_and_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(b, c)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn clear_of(x: V, mask: V) -> u32 {
        let equal = _mm256_cmpeq_epi32(_mm256_and_si256(x, mask), _mm256_setzero_si256());
        _mm256_movemask_ps(_mm256_castsi256_ps(equal)) as u32
    }
}

/// Sixteen words, with a rotation and logic of three operands.
mod sixteen {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_setr_epi32,
        _mm512_srli_epi32, _mm512_ternarylogic_epi32, _mm512_testn_epi32_mask,
    };

    use crate::hash::lanes::lanes;

    type V = __m512i;
    const LANES: u32 = 16;

    lanes!(#[target_feature(enable = "avx512f")]);

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn splat(word: u32) -> V {
        _mm512_set1_epi32(word as i32)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn iota() -> V {
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(a: V, b: V) -> V {
        _mm512_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rotate<const R: i32, const L: i32>(x: V) -> V {
        _mm512_ror_epi32::<R>(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn shift<const R: u32>(x: V) -> V {
        _mm512_srli_epi32::<R>(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn xor3(a: V, b: V, c: V) -> V {
        _mm512_ternarylogic_epi32::<0x96>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn choose(e: V, f: V, g: V) -> V {
        _mm512_ternarylogic_epi32::<0xCA>(e, f, g)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn majority(a: V, b: V, c: V) -> V {
        _mm512_ternarylogic_epi32::<0xE8>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn clear_of(x: V, mask: V) -> u32 {
        u32::from(_mm512_testn_epi32_mask(x, mask))
    }
}
