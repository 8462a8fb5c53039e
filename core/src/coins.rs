//! What hashing pays on a coin, from somebody's figure of a day's revenue, in integers.
//!
//! `revenue * rate / per` is what a rate earns in a day where `per` hashes a second earn `revenue`. Whoever states the
//! revenue has put difficulty, reward and price into it; with a figure of that kind nothing else need be known of a coin.

use roadbed_protocol::{HashesPerSecond, MicrosPerHour, Money};

/// Hours in a day.
const DAY_HOURS: i128 = 24;
/// All of a figure, in the millionths of a percent that fees are told in.
pub const WHOLE_FEE: i64 = 100_000_000;

/// Somebody's word on what hashing pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRevenue {
    /// What is earned in a day, before any fee of a pool.
    pub revenue: Money,
    /// By as many hashes a second; never zero.
    pub per: HashesPerSecond,
}

impl DayRevenue {
    /// What `rate` earns in an hour when the pool keeps `fee` millionths of a percent; none when `per` is zero.
    /// Rounded towards nothing, and held at the largest figure there is.
    #[must_use]
    pub fn per_hour(self, rate: HashesPerSecond, fee: i64) -> Option<MicrosPerHour> {
        // Below 2^63 * 2^64.
        let day = (i128::from(self.revenue.0) * i128::from(rate.0))
            .checked_div(i128::from(self.per.0))?;
        let kept = i128::from(WHOLE_FEE - fee.clamp(0, WHOLE_FEE));
        let whole = i128::from(WHOLE_FEE);
        // In two parts, so that the product stays small.
        let after = day / whole * kept + day % whole * kept / whole;
        Some(MicrosPerHour(i64::try_from(after / DAY_HOURS).unwrap_or(i64::MAX)))
    }
}

/// The name of an algorithm as it is compared: feeds write `SHA-256d`, `sha256d` and `SHA256D`.
#[must_use]
pub fn algorithm_key(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_becomes_an_hour() {
        // 1.20 a day for 100 MH/s; 250 MH/s after 1 %: 1.20 * 2.5 / 24 * 0.99 = 0.12375.
        let day = DayRevenue { revenue: Money(1_200_000), per: HashesPerSecond(100_000_000) };
        let rate = HashesPerSecond(250_000_000);
        assert_eq!(day.per_hour(rate, 1_000_000), Some(MicrosPerHour(123_750)));
        assert_eq!(day.per_hour(rate, WHOLE_FEE), Some(MicrosPerHour(0)));
        assert_eq!(DayRevenue { per: HashesPerSecond(0), ..day }.per_hour(rate, 0), None);
        assert_eq!(algorithm_key("SHA-256d"), algorithm_key("sha256D"));
    }

    proptest! {
        #[test]
        fn no_figure_overflows_and_a_fee_only_takes(
            revenue in any::<i64>(), per in 1_u64.., rate in any::<u64>(), fee in any::<i64>(),
        ) {
            let day = DayRevenue { revenue: Money(revenue), per: HashesPerSecond(per) };
            let earned = day.per_hour(HashesPerSecond(rate), fee).unwrap();
            let whole = day.per_hour(HashesPerSecond(rate), 0).unwrap();
            prop_assert!(earned.0.unsigned_abs() <= whole.0.unsigned_abs());
        }

        #[test]
        fn twice_the_rate_is_twice_the_income(revenue in 0_i64..1 << 40, per in 1_u64..1 << 40, rate in 0_u64..1 << 40) {
            let day = DayRevenue { revenue: Money(revenue), per: HashesPerSecond(per) };
            let one = day.per_hour(HashesPerSecond(rate), 0).unwrap().0;
            let two = day.per_hour(HashesPerSecond(2 * rate), 0).unwrap().0;
            prop_assert!(one == i64::MAX || two == i64::MAX || (two - 2 * one).abs() <= 2);
        }
    }
}
