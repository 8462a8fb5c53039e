//! The chain's decimals: a whole number and a power of ten, as its messages write them.

use std::fmt;

/// `value * 10^exponent`, exactly as the chain wrote it (`{"value":"3024","exponent":-4}` is 0.3024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The digits.
    pub value: i64,
    /// The power of ten.
    pub exponent: i32,
}

impl Decimal {
    /// Largest power of ten, either way, that is read; the chain's own stay far below it.
    pub const EXPONENT_MAX: u32 = 18;

    /// A decimal; `None` when the exponent is beyond [`Self::EXPONENT_MAX`].
    #[must_use]
    pub const fn new(value: i64, exponent: i32) -> Option<Self> {
        if exponent.unsigned_abs() > Self::EXPONENT_MAX {
            return None;
        }
        Some(Self { value, exponent })
    }

    /// `amount * self`, towards zero; held at the ends of `i128`.
    #[must_use]
    pub const fn of(self, amount: i128) -> i128 {
        let product = amount.saturating_mul(self.value as i128);
        let power = 10_i128.pow(self.exponent.unsigned_abs());
        if self.exponent < 0 { product / power } else { product.saturating_mul(power) }
    }

    /// `amount / self`, towards zero; `None` when `self` is zero or the quotient leaves 128 bits.
    #[must_use]
    pub fn divide(self, amount: i128) -> Option<i128> {
        let power = 10_i128.pow(self.exponent.unsigned_abs());
        let value = i128::from(self.value);
        if self.exponent < 0 {
            amount.checked_mul(power)?.checked_div(value)
        } else {
            amount.checked_div(value)?.checked_div(power)
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exponent >= 0 {
            return write!(f, "{}", self.of(1));
        }
        let places = self.exponent.unsigned_abs() as usize;
        let digits = format!("{:0>width$}", self.value.unsigned_abs(), width = places + 1);
        let (whole, part) = digits.split_at(digits.len() - places);
        let sign = if self.value < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}.{part}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coefficient_scales_and_reads_as_people_write_it() {
        let coefficient = Decimal::new(3024, -4).unwrap();
        assert_eq!(coefficient.of(10_000), 3024);
        assert_eq!(coefficient.of(1), 0);
        assert_eq!(coefficient.to_string(), "0.3024");
        assert_eq!(Decimal::new(-475, -6).unwrap().to_string(), "-0.000475");
        assert_eq!(Decimal::new(12, 2).unwrap().to_string(), "1200");
        assert_eq!(Decimal::new(1, 19), None);
        assert_eq!(Decimal::new(32, 6).unwrap().divide(96_000_000), Some(3));
        assert_eq!(coefficient.divide(3024), Some(10_000));
        assert_eq!(Decimal::new(0, 0).unwrap().divide(1), None);
        assert_eq!(Decimal::new(i64::MAX, 18).unwrap().of(i128::MAX), i128::MAX);
    }
}
