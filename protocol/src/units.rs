//! Power, energy, money and rates as integers, so that no sum ever depends on its order.
//!
//! Money is in millionths of the site's currency; prices are such millionths per megawatt-hour or per hour. Energy is
//! integrated exactly in watt-milliseconds and shown in watt-hours.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::{Deserialize, Serialize};

use crate::clock::Millis;

/// Millionths of a currency unit in one unit.
pub const MICROS_PER_UNIT: i64 = 1_000_000;
/// Watt-milliseconds in one watt-hour.
const WATT_MILLIS_PER_WATT_HOUR: u128 = 3_600_000;
/// Watt-milliseconds in one megawatt-hour.
const WATT_MILLIS_PER_MWH: i128 = 3_600_000_000_000;
/// Milliseconds in one hour.
const MILLIS_PER_HOUR: i128 = 3_600_000;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// Difference, held at the smallest value.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::ZERO, Add::add)
            }
        }
    };
}

unit!(
    /// Electrical power in watts, at the wall.
    Watts(u64)
);
unit!(
    /// Energy in watt-hours.
    WattHours(u64)
);
unit!(
    /// Energy in watt-milliseconds: what the meter sums, so that short samples lose nothing.
    WattMillis(u128)
);
unit!(
    /// Hashes per second.
    HashesPerSecond(u64)
);
unit!(
    /// Money in millionths of the site's currency; negative is a loss.
    Money(i64)
);
unit!(
    /// A price of energy: millionths of the site's currency per megawatt-hour. May be negative.
    MicrosPerMwh(i64)
);
unit!(
    /// A rate of income or cost: millionths of the site's currency per hour.
    MicrosPerHour(i64)
);
unit!(
    /// Temperature in thousandths of a degree Celsius.
    MilliCelsius(i32)
);

impl Sub for Money {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl SubAssign for Money {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Money {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Sub for MicrosPerHour {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl Watts {
    /// Energy of this power held for `span`.
    #[must_use]
    pub fn over(self, span: Millis) -> WattMillis {
        WattMillis(u128::from(self.0) * u128::from(span.0))
    }
}

impl WattMillis {
    /// Whole watt-hours, rounded down.
    #[must_use]
    pub fn watt_hours(self) -> WattHours {
        WattHours(u64::try_from(self.0 / WATT_MILLIS_PER_WATT_HOUR).unwrap_or(u64::MAX))
    }

    /// What this energy costs at `price`, rounded to the nearest millionth, ties away from zero.
    #[must_use]
    pub fn cost(self, price: MicrosPerMwh) -> Money {
        let energy = i128::try_from(self.0).unwrap_or(i128::MAX);
        Money(divide_rounded(energy.saturating_mul(i128::from(price.0)), WATT_MILLIS_PER_MWH))
    }
}

impl MicrosPerMwh {
    /// Cost of drawing `power` at this price, per hour.
    #[must_use]
    pub fn rate(self, power: Watts) -> MicrosPerHour {
        MicrosPerHour(divide_rounded(i128::from(self.0) * i128::from(power.0), 1_000_000))
    }
}

impl MicrosPerHour {
    /// Money at this rate after `span`, rounded to the nearest millionth, ties away from zero.
    #[must_use]
    pub fn over(self, span: Millis) -> Money {
        Money(divide_rounded(i128::from(self.0) * i128::from(span.0), MILLIS_PER_HOUR))
    }
}

/// `numerator / denominator` to the nearest integer, ties away from zero, held within `i64`.
fn divide_rounded(numerator: i128, denominator: i128) -> i64 {
    let half = denominator / 2;
    let shifted =
        if numerator < 0 { numerator.saturating_sub(half) } else { numerator.saturating_add(half) };
    let quotient = shifted / denominator;
    i64::try_from(quotient).unwrap_or(if quotient < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Watts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 10_000 {
            f.pad(&format!("{}.{} kW", self.0 / 1_000, self.0 % 1_000 / 100))
        } else {
            f.pad(&format!("{} W", self.0))
        }
    }
}

impl fmt::Display for WattHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:02} kWh", self.0 / 1_000, self.0 % 1_000 / 10))
    }
}

impl fmt::Display for Money {
    /// Units with four decimals, cut, not rounded: a console must never show more than there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        f.pad(&format!("{sign}{}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100))
    }
}

impl fmt::Display for MicrosPerMwh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        f.pad(&format!("{sign}{}.{:02}/MWh", micros / 1_000_000, micros % 1_000_000 / 10_000))
    }
}

impl fmt::Display for MicrosPerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/h", Money(self.0)))
    }
}

impl fmt::Display for HashesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STEPS: [(u64, &str); 5] = [
            (1_000_000_000_000_000, "PH/s"),
            (1_000_000_000_000, "TH/s"),
            (1_000_000_000, "GH/s"),
            (1_000_000, "MH/s"),
            (1_000, "kH/s"),
        ];
        for (size, name) in STEPS {
            if self.0 >= size {
                return f.pad(&format!("{}.{} {name}", self.0 / size, self.0 % size / (size / 10)));
            }
        }
        f.pad(&format!("{} H/s", self.0))
    }
}

impl fmt::Display for MilliCelsius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} °C", self.0 / 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_and_cost_are_exact() {
        let energy = Watts(3_000).over(Millis::from_hours(2));
        assert_eq!(energy.watt_hours(), WattHours(6_000));
        // 6 kWh at 50 per MWh are 0.30.
        assert_eq!(energy.cost(MicrosPerMwh(50_000_000)), Money(300_000));
        assert_eq!(energy.cost(MicrosPerMwh(-50_000_000)), Money(-300_000));
        assert_eq!(MicrosPerMwh(50_000_000).rate(Watts(3_000)), MicrosPerHour(150_000));
        assert_eq!(MicrosPerHour(150_000).over(Millis::from_hours(2)), Money(300_000));
    }

    #[test]
    fn rounding_is_symmetric() {
        assert_eq!(divide_rounded(5, 10), 1);
        assert_eq!(divide_rounded(-5, 10), -1);
        assert_eq!(divide_rounded(4, 10), 0);
        assert_eq!(divide_rounded(i128::MAX, 1), i64::MAX);
        assert_eq!(divide_rounded(i128::MIN, 1), i64::MIN);
    }

    #[test]
    fn people_can_read_them() {
        assert_eq!(Watts(3_250).to_string(), "3250 W");
        assert_eq!(Watts(21_350).to_string(), "21.3 kW");
        assert_eq!(Money(-1_234_567).to_string(), "-1.2345");
        assert_eq!(MicrosPerMwh(18_300_000).to_string(), "18.30/MWh");
        assert_eq!(HashesPerSecond(121_800_000_000_000).to_string(), "121.8 TH/s");
    }
}
