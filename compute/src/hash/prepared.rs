//! What no nonce changes in a header's double hash, worked out once a job.
//!
//! Of the header's second block only word 3 is the nonce. The first three rounds come before it, the
//! fourth only adds it, and of the next sixteen message words two are constant and the others lack
//! terms, because words 5 to 14 are zero. Every kernel starts from here: vectors of nonces on a CPU,
//! SHA instructions, WGSL.

use super::sha256::{HEADER_BITS, Midstate, PAD, ROUND, round};

/// The parts of a job that do not depend on the nonce. `n` is the nonce word: the nonce, bytes swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// State after the header's first 64 bytes.
    pub middle: [u32; 8],
    /// Message words 0 to 2 of the second block.
    pub tail: [u32; 3],
    /// State after rounds 0 and 1.
    pub second: [u32; 8],
    /// State after round 2.
    pub third: [u32; 8],
    /// A and E after round 3, less `n`.
    pub fourth: [u32; 2],
    /// Message words 16 and 17.
    pub w16: u32,
    pub w17: u32,
    /// Word 18 less `small0(n)`, word 19 less `n`.
    pub w18: u32,
    pub w19: u32,
    /// `W15 + small0(W16)` of word 31, and `W16 + small0(W17)` of word 32.
    pub w31: u32,
    pub w32: u32,
}

impl Prepared {
    #[must_use]
    pub fn new(midstate: &Midstate) -> Self {
        let Midstate { state, tail } = *midstate;
        let next = |s, i: usize| round(s, tail[i].wrapping_add(ROUND[i]));
        let second = next(next(state, 0), 1);
        let third = next(second, 2);
        let fourth = round(third, ROUND[3]);
        let w16 = tail[0].wrapping_add(small0(tail[1]));
        let w17 = small1(HEADER_BITS).wrapping_add(small0(tail[2])).wrapping_add(tail[1]);
        Self {
            middle: state,
            tail,
            second,
            third,
            fourth: [fourth[0], fourth[4]],
            w16,
            w17,
            w18: small1(w16).wrapping_add(tail[2]),
            w19: small1(w17).wrapping_add(small0(PAD)),
            w31: small0(w16).wrapping_add(HEADER_BITS),
            w32: small0(w17).wrapping_add(w16),
        }
    }
}

/// What a hash's last state word must share no bit with to be worth a full check.
///
/// The hash is a little-endian number: its top word is the last state word, bytes swapped. All bits
/// above the highest of the target's top word must be zero.
#[must_use]
pub fn reject_mask(top_word: u32) -> u32 {
    let above = u32::MAX.checked_shl(u32::BITS - top_word.leading_zeros()).unwrap_or(0);
    above.swap_bytes()
}

/// FIPS 180-4 section 4.1.2, (4.6).
pub(super) fn small0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3)
}

/// (4.7) there.
fn small1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mask_rejects_just_what_has_a_higher_bit() {
        for (top, mask) in [(0, u32::MAX), (1, 0xFEFF_FFFF), (0xFF, 0x00FF_FFFF), (u32::MAX, 0)] {
            assert_eq!(reject_mask(top), mask, "{top:08x}");
        }
    }

    proptest! {
        /// Nothing that meets the target is rejected, and at most as much again passes.
        #[test]
        fn the_mask_never_rejects_work(top in any::<u32>(), word in any::<u32>(), shift in 0u32..32) {
            let top = top >> shift;
            let number = word.swap_bytes();
            let passes = word & reject_mask(top) == 0;
            prop_assert!(passes || number > top);
            prop_assert!(!passes || u64::from(number) <= 2 * u64::from(top) + 1);
        }
    }
}
