//! `exp` of a decimal number, correctly rounded to the contract's ten digits.
//!
//! It is computed with 120 binary digits after the point, about 36 decimal ones. `exp` of a rational
//! number other than 0 is never a tie, so the digits behind the tenth decide; 15 of them are looked at
//! here and the rest only counts as something more. Of the operands that the contract can bring about,
//! some 10^12, none is expected to come nearer to a tie than 10^-12 of a last digit.

use super::decimal::{Decimal, rounded};

/// Binary digits after the point.
const POINT: u32 = 120;
/// `ln(10) * 2^120`, and the 64 binary digits that follow.
const LN_10: u128 = 0x024d_7637_76aa_a2b0_5ba9_5b58_ae0b_4c28;
const LN_10_NEXT: u128 = 0xa38a_3fb3_e769_77e4;
/// `exp` of anything below minus this is nearer to 0 than to the smallest number there is.
const UNDERFLOW: Decimal = Decimal::integer(2_400_000);
/// `exp` of a number below 0 whose first digit is at most the twelfth after the point is one.
const ONE_TO_PLACE: i64 = -12;
/// The next term of the sum is below its last digit: 2.31^48 / 48! < 2^-140.
const TERMS: u128 = 48;

impl Decimal {
    /// `e` to this power, for powers that are not positive; a positive one counts as 0. (The contract
    /// subtracts the largest logprob from all.)
    #[must_use]
    pub fn exp(&self) -> Self {
        if !self.is_negative() || self.top() <= ONE_TO_PLACE {
            return Self::ONE;
        }
        let size = self.abs();
        if size > UNDERFLOW {
            return Self::ZERO;
        }
        // exp(-size) = 10^-tens * exp(rest), where rest is from 0 up to ln(10). The integer part of the
        // size may not fit, but the rest does, so all of it is computed modulo 2^128.
        let (coefficient, exponent) = size.parts();
        let estimate = coefficient as f64 * 10_f64.powi(exponent as i32) / std::f64::consts::LN_10;
        let mut tens = estimate.ceil() as i64;
        let mut rest = multiple_of_ln_10(tens).wrapping_sub(fixed(coefficient, exponent)) as i128;
        if rest < 0 {
            rest += LN_10 as i128;
            tens += 1;
        } else if rest >= LN_10 as i128 {
            rest -= LN_10 as i128;
            tens -= 1;
        }
        let power = series(rest.unsigned_abs());
        // 25 digits after the point.
        let (mut digits, mut part) = (power >> POINT, power & mask(POINT));
        for by in [1_000_000_000, 1_000_000_000, 10_000_000] {
            let whole;
            (whole, part) = raised(part, by);
            digits = digits * by + whole;
        }
        rounded(false, digits, -tens - 25, true)
    }
}

const fn mask(bits: u32) -> u128 {
    (1 << bits) - 1
}

/// A number as fixed point, modulo 2^128. Its first digit is after the twelfth after the point.
fn fixed(coefficient: u128, exponent: i64) -> u128 {
    let Ok(places) = u32::try_from(-exponent) else {
        return (coefficient * 10_u128.pow(exponent.unsigned_abs() as u32)) << POINT;
    };
    let by = 10_u128.pow(places);
    let (mut number, mut rest) = (coefficient / by, coefficient % by);
    // 24 binary digits at a time: the divisor has at most 100.
    for _ in 0..POINT / 24 {
        rest <<= 24;
        number = (number << 24) | (rest / by);
        rest %= by;
    }
    number
}

fn multiple_of_ln_10(times: i64) -> u128 {
    let times = u128::from(times.unsigned_abs());
    LN_10.wrapping_mul(times).wrapping_add((LN_10_NEXT * times) >> 64)
}

/// `exp` of a fixed-point number below 2.31.
fn series(power: u128) -> u128 {
    let mut term = 1 << POINT;
    let mut sum = term;
    for n in 1..=TERMS {
        term = product(term, power) / n;
        sum += term;
    }
    sum
}

/// Of two fixed-point numbers below 8.
fn product(a: u128, b: u128) -> u128 {
    let ((a_high, a_low), (b_high, b_low)) = ((a >> 64, a & mask(64)), (b >> 64, b & mask(64)));
    let (across, other) = (a_low * b_high, a_high * b_low);
    let middle = ((a_low * b_low) >> 64) + (across & mask(64)) + (other & mask(64));
    let high = a_high * b_high + (across >> 64) + (other >> 64) + (middle >> 64);
    (high << (128 - POINT)) | ((middle & mask(64)) >> (POINT - 64))
}

/// A part of one, times a number below 2^30: the whole ones and what is left.
fn raised(part: u128, by: u128) -> (u128, u128) {
    let low = (part & mask(60)) * by;
    let high = (part >> 60) * by + (low >> 60);
    (high >> 60, ((high & mask(60)) << 60) | (low & mask(60)))
}
