//! 256-bit targets: when a hash is work, and how much work it stands for.
//!
//! A block hash is a little-endian number of 32 bytes; a share is valid when hash <= target. Pools
//! speak of difficulty instead, `target = floor(diff1 / difficulty)`, and blocks carry the compact
//! form nBits. All three meet here, and only here.

use std::fmt;

use super::HashError;

/// A 256-bit number, big-endian bytes: their order is the order of numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(pub [u8; 32]);

/// Significant part of the target of difficulty 1, `0xFFFF << 208`.
const DIFF1_MANTISSA: u64 = 0xFFFF;
const DIFF1_SHIFT: i32 = 208;

impl Target {
    /// The easiest target: every hash meets it.
    pub const MAX: Self = Self([0xFF; 32]);

    /// A hash as hashed (internal byte order), read as a number.
    #[must_use]
    pub fn of_hash(hash: &[u8; 32]) -> Self {
        let mut bytes = *hash;
        bytes.reverse();
        Self(bytes)
    }

    /// Whether a hash in internal byte order is work for this target.
    #[must_use]
    pub fn admits(&self, hash: &[u8; 32]) -> bool {
        Self::of_hash(hash) <= *self
    }

    /// Target of a pool difficulty, `floor(diff1 / difficulty)`, capped at [`Self::MAX`].
    ///
    /// Exact for the f64 given; pools that divide in floating point agree to about 52 bits.
    ///
    /// # Errors
    /// Refuses zero, negative and non-finite difficulties.
    pub fn from_difficulty(difficulty: f64) -> Result<Self, HashError> {
        if !difficulty.is_finite() || difficulty <= 0.0 {
            return Err(HashError::Target(format!("difficulty {difficulty} is not above zero")));
        }
        let (mantissa, exponent) = split(difficulty);
        // floor(diff1 / (m 2^e)) = floor((0xFFFF << (208 - e)) / m), bit by bit.
        let shift = DIFF1_SHIFT - exponent;
        let dividend_bits = if shift >= 0 {
            (DIFF1_MANTISSA, shift)
        } else {
            (DIFF1_MANTISSA.checked_shr(shift.unsigned_abs()).unwrap_or(0), 0)
        };
        Ok(divide(dividend_bits.0, dividend_bits.1, mantissa))
    }

    /// Target of the compact form in a block header.
    ///
    /// # Errors
    /// Refuses negative, zero and overflowing values, as a node does.
    pub fn from_nbits(nbits: u32) -> Result<Self, HashError> {
        let refuse = |why: &str| Err(HashError::Target(format!("nBits {nbits:08x}: {why}")));
        let (size, mantissa) = ((nbits >> 24) as usize, nbits & 0x007F_FFFF);
        if nbits & 0x0080_0000 != 0 && mantissa != 0 {
            return refuse("negative");
        }
        let mut bytes = [0u8; 32];
        for (place, byte) in mantissa.to_be_bytes()[1..].iter().enumerate() {
            // The mantissa's three bytes are the top of a number of `size` bytes.
            match size.checked_sub(place + 1) {
                Some(power) if power < 32 => bytes[31 - power] = *byte,
                Some(_) if *byte != 0 => return refuse("beyond 256 bits"),
                Some(_) | None => {}
            }
        }
        if bytes == [0; 32] {
            return refuse("zero");
        }
        Ok(Self(bytes))
    }

    /// The compact form; keeps the top three bytes.
    #[must_use]
    pub fn to_nbits(self) -> u32 {
        let Some(first) = self.0.iter().position(|&byte| byte != 0) else { return 0 };
        let byte = |index: usize| u32::from(self.0.get(index).copied().unwrap_or(0));
        let mut size = (32 - first) as u32;
        let mut mantissa = (byte(first) << 16) | (byte(first + 1) << 8) | byte(first + 2);
        // The top bit is a sign; a mantissa that would set it moves down a byte.
        if mantissa & 0x0080_0000 != 0 {
            mantissa >>= 8;
            size += 1;
        }
        (size << 24) | mantissa
    }

    /// `diff1 / self`, the difficulty a share of exactly this hash or target is worth.
    #[must_use]
    pub fn difficulty(self) -> f64 {
        DIFF1_MANTISSA as f64 * 2f64.powi(DIFF1_SHIFT) / self.as_f64()
    }

    /// Mean number of hashes until one meets this target, `2^256 / (target + 1)`.
    #[must_use]
    pub fn expected_hashes(self) -> f64 {
        2f64.powi(256) / (self.as_f64() + 1.0)
    }

    /// Reads 64 hex digits, most significant first, as command lines and pools write a target.
    ///
    /// # Errors
    /// Any other text.
    pub fn from_hex(text: &str) -> Result<Self, HashError> {
        Ok(Self(super::hex::decode_exact("target", text)?))
    }

    /// Top 32 bits: what the kernels compare before the host checks the rest.
    #[must_use]
    pub fn top_word(self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    fn as_f64(self) -> f64 {
        self.0.iter().fold(0.0, |sum, &byte| sum * 256.0 + f64::from(byte))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", super::hex::encode(&self.0))
    }
}

/// `value = mantissa * 2^exponent` exactly, for a positive finite f64.
fn split(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let (field, fraction) = (((bits >> 52) & 0x7FF) as i32, bits & ((1 << 52) - 1));
    if field == 0 { (fraction, -1074) } else { (fraction | (1 << 52), field - 1075) }
}

/// `floor((high << zeros) / divisor)`, capped at 2^256 - 1.
fn divide(high: u64, zeros: i32, divisor: u64) -> Target {
    let (mut quotient, mut remainder) = ([0u8; 32], 0u128);
    for position in (0..zeros + 64).rev() {
        let bit = if position >= zeros { (high >> (position - zeros)) & 1 } else { 0 };
        remainder = (remainder << 1) | u128::from(bit);
        if remainder >= u128::from(divisor) {
            remainder -= u128::from(divisor);
            match usize::try_from(position) {
                Ok(power) if power < 256 => quotient[31 - power / 8] |= 1 << (power % 8),
                Ok(_) | Err(_) => return Target::MAX,
            }
        }
    }
    Target(quotient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::vectors;
    use proptest::prelude::*;

    #[test]
    fn nbits_targets_and_difficulties_match() {
        let table = vectors::document("targets.json");
        for case in table["nbits"].as_array().unwrap() {
            let nbits = vectors::hex_word(&case["nbits_hex"]);
            let target = Target::from_nbits(nbits).unwrap();
            assert_eq!(target, vectors::target(&case["target_hex"]));
            assert_eq!(target.to_nbits(), vectors::hex_word(&case["roundtrip_nbits_hex"]));
            vectors::assert_close(target.difficulty(), &case["difficulty"]);
            vectors::assert_close(target.expected_hashes(), &case["expected_hashes"]);
        }
    }

    #[test]
    fn pool_difficulties_give_the_published_targets() {
        let table = vectors::document("targets.json");
        assert_eq!(
            Target::from_difficulty(1.0).unwrap(),
            vectors::target(&table["diff1_target_hex"])
        );
        for case in table["pool_difficulty"].as_array().unwrap() {
            let difficulty = case["difficulty"].as_f64().unwrap();
            let target = Target::from_difficulty(difficulty).unwrap();
            let want = vectors::target(&case["target_hex"]);
            if difficulty.fract() == 0.0 {
                assert_eq!(target, want, "difficulty {difficulty}");
            } else {
                // Only about 52 bits of a fractional difficulty mean anything.
                let error = (target.as_f64() - want.as_f64()).abs() / want.as_f64();
                assert!(error < 1e-15, "difficulty {difficulty}: {error}");
            }
            vectors::assert_close(target.expected_hashes(), &case["expected_hashes"]);
        }
        for case in table["share_rate"].as_array().unwrap() {
            let target = Target::from_difficulty(case["difficulty"].as_f64().unwrap()).unwrap();
            let seconds = target.expected_hashes() / case["hashrate_hs"].as_f64().unwrap();
            vectors::assert_close(seconds, &case["expected_seconds_per_share"]);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for difficulty in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Target::from_difficulty(difficulty).is_err(), "{difficulty}");
        }
        for nbits in [0, 0x0100_0000, 0x1D80_FFFF, 0x2300_0001, 0x2201_0000, 0xFF12_3456] {
            assert!(Target::from_nbits(nbits).is_err(), "{nbits:08x}");
        }
        assert_eq!(Target::from_difficulty(1e-300).unwrap(), Target::MAX);
        assert_eq!(Target::from_difficulty(1e300).unwrap(), Target([0; 32]));
    }

    proptest! {
        #[test]
        fn targets_fall_as_difficulties_rise(a in 1e-9f64..1e15, factor in 1.0001f64..1e6) {
            let easy = Target::from_difficulty(a).unwrap();
            let hard = Target::from_difficulty(a * factor).unwrap();
            prop_assert!(hard < easy || easy == Target::MAX);
        }

        #[test]
        fn any_nbits_gives_a_target_or_an_error(nbits in any::<u32>()) {
            if let Ok(target) = Target::from_nbits(nbits) {
                prop_assert_eq!(Target::from_nbits(target.to_nbits()).unwrap(), target);
            }
        }
    }
}
