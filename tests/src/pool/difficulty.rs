//! Difficulties and targets as 256-bit numbers, written here again so that the pool shares no arithmetic with the miner.
//!
//! Difficulty 1 is the target `0x00000000ffff0000…00`. A share of difficulty d must hash to at most `floor(that / d)`.

/// A 256-bit number, most significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target(pub [u8; 32]);

impl Target {
    /// The target of a difficulty, or none when it is not a positive finite number.
    ///
    /// Long division of `0xffff << 208` by the difficulty's own fraction m/2^k: exact, and capped at 2^256 - 1.
    #[must_use]
    pub fn of_difficulty(difficulty: f64) -> Option<Self> {
        if !difficulty.is_finite() || difficulty <= 0.0 {
            return None;
        }
        // difficulty = mantissa * 2^exponent, mantissa a whole number below 2^53.
        let bits = difficulty.to_bits();
        let stored = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) =
            if stored == 0 { (fraction, -1_074) } else { (fraction | 1 << 52, stored - 1_075) };
        // 0xffff * 2^(208 - exponent) / mantissa, bit by bit from the top: 16 bits of ones, then zeros.
        let shift = 208 - exponent;
        if shift < 0 {
            return Some(Self([0; 32]));
        }
        let mut quotient = Self([0; 32]);
        let mut remainder: u128 = 0;
        for place in (0..shift + 16).rev() {
            remainder = remainder << 1 | u128::from(place >= shift);
            if remainder >= u128::from(mantissa) {
                remainder -= u128::from(mantissa);
                let Ok(place) = usize::try_from(place) else {
                    continue;
                };
                if place >= 256 {
                    return Some(Self([0xff; 32]));
                }
                quotient.0[31 - place / 8] |= 1 << (place % 8);
            }
        }
        Some(quotient)
    }

    /// The target a block header's compact `nBits` field stands for; negative and overflowing ones give zero.
    #[must_use]
    pub fn of_bits(bits: u32) -> Self {
        let mut bytes = [0; 32];
        let size = usize::try_from(bits >> 24).unwrap_or(0);
        let mantissa = (bits & 0x00ff_ffff).to_be_bytes();
        if bits & 0x0080_0000 == 0 && size <= 32 {
            for (place, byte) in mantissa[1..].iter().enumerate() {
                // Byte `place` of the mantissa stands at 256^(size - 1 - place).
                if let Some(power) = size.checked_sub(1 + place) {
                    bytes[31 - power] = *byte;
                }
            }
        }
        Self(bytes)
    }

    /// The compact form whose target is the highest not above this one.
    #[must_use]
    pub fn to_bits(self) -> u32 {
        let Some(first) = self.0.iter().position(|byte| *byte != 0) else {
            return 0;
        };
        // A mantissa must not look negative: a leading byte of 0x80 and more takes one more place.
        let first = if self.0[first] >= 0x80 { first.saturating_sub(1) } else { first };
        let size = u32::try_from(32 - first).unwrap_or(32);
        let byte = |place: usize| u32::from(self.0.get(first + place).copied().unwrap_or(0));
        size << 24 | byte(0) << 16 | byte(1) << 8 | byte(2)
    }

    /// Whether a hash as computed (least significant byte first, as Bitcoin reads it) meets this target.
    #[must_use]
    pub fn is_met_by(self, hash: &[u8; 32]) -> bool {
        let mut number = *hash;
        number.reverse();
        Self(number) <= self
    }
}

/// The difficulty a hash as computed would just meet; infinite for zero.
#[must_use]
pub fn difficulty_of(hash: &[u8; 32]) -> f64 {
    let number = hash.iter().rev().fold(0.0_f64, |sum, byte| sum.mul_add(256.0, f64::from(*byte)));
    65_535.0 * 2.0_f64.powi(208) / number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(target: Target) -> String {
        target.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn targets_of_known_difficulties() {
        let check = |difficulty, prefix: &str| {
            let target = Target::of_difficulty(difficulty).map(hex).unwrap_or_default();
            assert!(target.starts_with(prefix), "{difficulty}: {target}");
        };
        check(1.0, "00000000ffff00000000000000000000");
        check(2.0, "000000007fff80000000000000000000");
        check(1.525_878_906_25e-5, "0000ffff000000000000000000000000");
        check(2e-5, "0000c34f3caffff");
        check(1e-300, "ffffffffffff");
        check(1e300, "0000000000000000000000000000000000000000000000000000000000000000");
        assert_eq!(Target::of_difficulty(0.0), None);
        assert_eq!(Target::of_difficulty(f64::NAN), None);
    }

    #[test]
    fn compact_form_goes_both_ways() {
        for bits in [0x1d00_ffff, 0x207f_ffff, 0x1705_3894, 0x1b04_864c] {
            assert_eq!(Target::of_bits(bits).to_bits(), bits, "{bits:08x}");
        }
        assert_eq!(Target::of_bits(0x1d80_ffff), Target([0; 32]));
        assert_eq!(Target::of_bits(0x2300_ffff), Target([0; 32]));
    }

    #[test]
    fn a_hash_meets_its_own_difficulty() {
        let mut hash = [0_u8; 32];
        hash[28] = 0x12;
        hash[27] = 0x34;
        let difficulty = difficulty_of(&hash);
        let target = Target::of_difficulty(difficulty * 0.999);
        assert!(target.is_some_and(|target| target.is_met_by(&hash)));
        let target = Target::of_difficulty(difficulty * 1.001);
        assert!(target.is_some_and(|target| !target.is_met_by(&hash)));
    }
}
