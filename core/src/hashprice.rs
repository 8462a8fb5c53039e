//! What a petahash per second earns in a day: difficulty, a mean block's reward and a price, in integers.
//!
//! A hash at difficulty `d` finds a block once in `d * 2^32`, so a rate `r` held for a day earns
//! `reward * r * 86400 / (d * 2^32)` (specs, hash-mining section 6). Every figure comes from outside with its age; nothing here
//! knows a default but Bitcoin's own halvings.

use std::fmt;
use std::str::FromStr;

use roadbed_protocol::Money;

/// Satoshis in a bitcoin.
pub const SATS_PER_BTC: u64 = 100_000_000;
/// Blocks between two halvings on every network but regtest.
pub const HALVING_BLOCKS: u64 = 210_000;
/// Reward of the first blocks (Bitcoin Core, `GetBlockSubsidy`).
const FIRST_SUBSIDY: u64 = 50 * SATS_PER_BTC;
/// Digits of a difficulty kept after the point.
const DIFFICULTY_DIGITS: usize = 6;
const MILLION: u128 = 1_000_000;
const DAY_SECONDS: u128 = 86_400;
const PETA: u128 = 1_000_000_000_000_000;
/// Hashes per difficulty, by the custom of pools and of the network's own figures.
const HASHES_PER_DIFFICULTY: u128 = 1 << 32;
/// Seconds between blocks that the difficulty aims at.
const BLOCK_SECONDS: u128 = 600;
/// Largest difficulty read: a hundred million times today's, and what keeps its hashes inside 128 bits.
const DIFFICULTY_MAX: f64 = 1e22;
/// The same, as digits before the point.
const DIFFICULTY_WHOLE_DIGITS: usize = 22;
/// Largest sum read for one block: far above any there was, and what keeps the arithmetic inside 128 bits.
const REWARD_MAX: u64 = 1_000 * SATS_PER_BTC;

/// Satoshis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sats(pub u64);

impl fmt::Display for Sats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08} BTC", self.0 / SATS_PER_BTC, self.0 % SATS_PER_BTC)
    }
}

/// Difficulty of the network, in millionths; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Difficulty(u128);

/// Why a figure is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashpriceError {
    /// No digits with at most one point.
    #[error("is no decimal number")]
    NoNumber,
    /// Below what is kept: a test network.
    #[error("is below a millionth; hashing on such a network pays nothing that can be told")]
    TooSmall,
    /// Above anything the formula can hold.
    #[error("is larger than any that can be")]
    TooLarge,
}

impl Difficulty {
    /// From a JSON number, as nodes write it.
    ///
    /// # Errors
    /// [`HashpriceError`] when it is not finite, too small or too large.
    pub fn from_float(value: f64) -> Result<Self, HashpriceError> {
        if !value.is_finite() {
            return Err(HashpriceError::NoNumber);
        }
        if value > DIFFICULTY_MAX {
            return Err(HashpriceError::TooLarge);
        }
        Self::from_millionths((value * 1e6) as u128)
    }

    const fn from_millionths(millionths: u128) -> Result<Self, HashpriceError> {
        if millionths == 0 { Err(HashpriceError::TooSmall) } else { Ok(Self(millionths)) }
    }

    /// Hashes per second that find a block every ten minutes.
    #[must_use]
    pub const fn network_hashrate(self) -> u128 {
        self.0 * HASHES_PER_DIFFICULTY / (BLOCK_SECONDS * MILLION)
    }
}

impl FromStr for Difficulty {
    type Err = HashpriceError;

    fn from_str(text: &str) -> Result<Self, HashpriceError> {
        let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            // Nodes and pools also write exponents.
            let float: f64 = text.trim().parse().map_err(|_| HashpriceError::NoNumber)?;
            return Self::from_float(float);
        }
        if whole.len() > DIFFICULTY_WHOLE_DIGITS {
            return Err(HashpriceError::TooLarge);
        }
        let part = format!("{part:0<DIFFICULTY_DIGITS$}");
        let part = part.get(..DIFFICULTY_DIGITS).unwrap_or("0");
        let number = |text: &str| text.parse::<u128>().map_err(|_| HashpriceError::NoNumber);
        Self::from_millionths(number(whole)? * MILLION + number(part)?)
    }
}

impl fmt::Display for Difficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / MILLION, self.0 % MILLION);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// New coins of the block at `height`, where rewards halve every `halving_blocks`.
#[must_use]
pub fn subsidy(height: u64, halving_blocks: u64) -> Sats {
    let halvings = height.checked_div(halving_blocks).unwrap_or(0);
    let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
    // A shift by 64 or more is none in Rust; by then the subsidy has long been nothing.
    Sats(FIRST_SUBSIDY.checked_shr(halvings).unwrap_or(0))
}

/// Millionths of a satoshi that one PH/s earns in a day, before any fee of a pool.
///
/// # Errors
/// [`HashpriceError::TooLarge`] when a figure is beyond anything that can be.
pub fn micro_sats_per_ph_day(reward: Sats, difficulty: Difficulty) -> Result<u128, HashpriceError> {
    if reward.0 > REWARD_MAX {
        return Err(HashpriceError::TooLarge);
    }
    // At most 1e11 * 8.64e4 * 1e15 * 1e6 < 2^127.
    let won = u128::from(reward.0) * DAY_SECONDS * PETA * MILLION;
    let work = difficulty.0 * HASHES_PER_DIFFICULTY;
    let (whole, rest) = (won / work, won % work);
    // `rest` is below `work`; of a giant one the last digits are given up instead of overflowing.
    let part = match rest.checked_mul(MILLION) {
        Some(rest) => rest / work,
        None => rest / (work / MILLION).max(1),
    };
    whole.checked_mul(MILLION).map(|whole| whole + part).ok_or(HashpriceError::TooLarge)
}

/// The hashprice: what one PH/s earns in a day, in the currency of `price_per_btc`, before any fee of a pool.
///
/// # Errors
/// [`HashpriceError::TooLarge`] when a figure is beyond anything that can be.
pub fn per_ph_day(
    reward: Sats,
    difficulty: Difficulty,
    price_per_btc: Money,
) -> Result<Money, HashpriceError> {
    let earned = micro_sats_per_ph_day(reward, difficulty)?;
    let price = u128::try_from(price_per_btc.0).map_err(|_| HashpriceError::NoNumber)?;
    let micros = earned.checked_mul(price).ok_or(HashpriceError::TooLarge)?
        / (MILLION * u128::from(SATS_PER_BTC));
    i64::try_from(micros).map(Money).map_err(|_| HashpriceError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn difficulty(text: &str) -> Difficulty {
        text.parse().unwrap()
    }

    #[test]
    fn the_formula_gives_what_is_worked_out_by_hand() {
        // Difficulty 1e14: 4.294967296e23 hashes a block, 715.8278826 EH/s; a PH/s finds 86400e15 / 4.294967296e23 blocks
        // a day, times 3.2 BTC is 0.000643729.. BTC; at 100 000 that is 64.37.
        let d = difficulty("100000000000000");
        assert_eq!(d.network_hashrate(), 715_827_882_666_666_666_666);
        assert_eq!(micro_sats_per_ph_day(Sats(320_000_000), d), Ok(64_373_016_357));
        assert_eq!(per_ph_day(Sats(320_000_000), d, Money(100_000_000_000)), Ok(Money(64_373_016)));
    }

    #[test]
    fn subsidies_halve_until_nothing_is_left() {
        let at = |height| subsidy(height, HALVING_BLOCKS).0;
        assert_eq!(
            (at(0), at(209_999), at(210_000)),
            (5_000_000_000, 5_000_000_000, 2_500_000_000)
        );
        assert_eq!((at(840_000), at(1_050_000)), (312_500_000, 156_250_000));
        assert_eq!((at(210_000 * 32), at(210_000 * 33), at(u64::MAX)), (1, 0, 0));
        assert_eq!(subsidy(300, 150).0, 1_250_000_000);
        assert_eq!(subsidy(7, 0).0, 5_000_000_000);
    }

    #[test]
    fn figures_that_are_none_are_refused() {
        let refused = |text: &str| text.parse::<Difficulty>().unwrap_err();
        for text in ["", "x", "-1.x", "1.2.3", "nan", "inf"] {
            assert_eq!(refused(text), HashpriceError::NoNumber, "{text}");
        }
        // Regtest's own difficulty.
        assert_eq!(refused("4.656542373906925e-10"), HashpriceError::TooSmall);
        assert_eq!(refused("-3"), HashpriceError::TooSmall);
        assert_eq!(refused("0"), HashpriceError::TooSmall);
        assert_eq!(refused("1e25"), HashpriceError::TooLarge);
        assert_eq!(refused("1234567890123456789012345"), HashpriceError::TooLarge);
        assert_eq!(difficulty("1.5e+14").to_string(), "150000000000000");
        assert_eq!(difficulty("0.5").to_string(), "0.5");
        let one = difficulty("1");
        assert_eq!(per_ph_day(Sats(u64::MAX), one, Money(1)), Err(HashpriceError::TooLarge));
        assert_eq!(per_ph_day(Sats(1), one, Money(-1)), Err(HashpriceError::NoNumber));
    }

    proptest! {
        /// Against the same in floats, by the other way round: over the network's hashrate and 144 blocks a day.
        #[test]
        fn both_ways_of_the_field_agree(
            reward in 1_000u64..10_000_000_000, whole in 1_000_000u64..1_000_000_000_000_000,
            price in 1_000_000i64..1_000_000_000_000,
        ) {
            let d: Difficulty = whole.to_string().parse().unwrap();
            let network = whole as f64 * 4_294_967_296.0 / 600.0;
            let float = reward as f64 / 1e8 * 144.0 * 1e15 / network * price as f64;
            if float < 1e18 {
                let exact = per_ph_day(Sats(reward), d, Money(price)).unwrap().0 as f64;
                prop_assert!((exact - float).abs() <= 2.0 + float * 1e-9, "{exact} {float}");
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}", reward: u64, price: i64, float: f64) {
            for d in [text.parse::<Difficulty>(), Difficulty::from_float(float)].into_iter().flatten() {
                let _ = (per_ph_day(Sats(reward), d, Money(price)), d.network_hashrate());
            }
        }
    }
}
