//! Decimal numbers of ten digits, as the deterministic sampling contract computes with them.
//!
//! Executor and validator must get the same weights to the last bit on any machine, so the contract
//! leaves binary floats: every result is rounded to ten decimal digits, half to even, as the General
//! Decimal Arithmetic of IEEE 754 says. Operands are exact: a parsed number keeps all its digits, only
//! results are rounded, and comparisons round nothing. Numbers of this size fit machine words, so there
//! is no big integer here. `tests/data/infval` holds every operation against Python's `decimal`, with
//! which the network computes.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Digits of a result.
const PRECISION: i64 = 10;
/// Digits a parsed number may have: a double's shortest text has 17, and a product of two fits a word.
const PARSED_DIGITS_MAX: usize = 19;
/// Exponents a parsed number may have, either way: a double's reach to 324.
const PARSED_EXPONENT_MAX: i64 = 400;
/// Smallest exponent of the last digit (`Etiny` of Python's default context, whose `Emin` is -999999).
const EXPONENT_TINY: i64 = -999_999 - PRECISION + 1;
/// Digits an operand is raised to when another is added; two such fit a word.
const RAISED_DIGITS: u32 = 37;

/// A finite number, `coefficient * 10^exponent`. Equal numbers are equal, whatever their zeros at the end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Decimal {
    negative: bool,
    coefficient: u128,
    exponent: i64,
}

/// Why a text is no number of the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no decimal number of at most {PARSED_DIGITS_MAX} digits with an exponent within \
     {PARSED_EXPONENT_MAX}"
)]
pub struct NotDecimal {
    text: String,
}

impl Decimal {
    pub const ZERO: Self = Self::integer(0);
    pub const ONE: Self = Self::integer(1);

    #[must_use]
    pub const fn integer(value: u64) -> Self {
        Self { negative: false, coefficient: value as u128, exponent: 0 }
    }

    /// What the shortest text of a double says, which is the contract's value of it; `None` if it is
    /// not finite.
    #[must_use]
    pub fn of(value: f64) -> Option<Self> {
        format!("{value:e}").parse().ok()
    }

    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.coefficient == 0
    }

    #[must_use]
    pub const fn is_positive(&self) -> bool {
        !self.negative && self.coefficient > 0
    }

    #[must_use]
    pub const fn is_negative(&self) -> bool {
        self.negative && self.coefficient > 0
    }

    #[must_use]
    pub fn add(&self, other: &Self) -> Self {
        let (high, low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        if high.is_zero() || low.is_zero() {
            let other = if high.is_zero() { low } else { high };
            return rounded(other.negative, other.coefficient, other.exponent, false);
        }
        let gap = (high.exponent - low.exponent).unsigned_abs();
        let room = RAISED_DIGITS - digits(high.coefficient);
        let raised = gap.min(u64::from(room)) as u32;
        let above = high.coefficient * power(raised);
        // Digits of the lower number below all of these only tell that there is something there.
        let (below, lost) = match u32::try_from(gap - u64::from(raised)) {
            Ok(by) if by <= 38 => (low.coefficient / power(by), low.coefficient % power(by) > 0),
            Ok(_) | Err(_) => (0, true),
        };
        let exponent = high.exponent - i64::from(raised);
        if high.negative == low.negative {
            return rounded(high.negative, above + below, exponent, lost);
        }
        match above.cmp(&below) {
            Ordering::Less => rounded(low.negative, below - above, exponent, lost),
            // Without the part lost, the last digit is one less and something is left over.
            Ordering::Equal | Ordering::Greater => {
                rounded(high.negative, above - below - u128::from(lost), exponent, lost)
            }
        }
    }

    #[must_use]
    pub fn sub(&self, other: &Self) -> Self {
        self.add(&Self { negative: !other.negative, ..*other })
    }

    #[must_use]
    pub fn mul(&self, other: &Self) -> Self {
        let product = self.coefficient * other.coefficient;
        rounded(self.negative != other.negative, product, self.exponent + other.exponent, false)
    }

    /// `None` if `other` is zero.
    #[must_use]
    pub fn div(&self, other: &Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let wanted = digits(other.coefficient) + PRECISION as u32 + 2;
        let raised = wanted.saturating_sub(digits(self.coefficient));
        let dividend = self.coefficient * power(raised);
        let (quotient, rest) = (dividend / other.coefficient, dividend % other.coefficient);
        let exponent = self.exponent - other.exponent - i64::from(raised);
        Some(rounded(self.negative != other.negative, quotient, exponent, rest > 0))
    }

    /// The nearest integer, the even one of two equally near.
    #[must_use]
    pub fn to_integer(&self) -> i64 {
        let value = match u32::try_from(self.exponent) {
            Ok(exponent) => self.coefficient.saturating_mul(power(exponent.min(38))),
            Err(_) => without_last(self.coefficient, self.exponent.unsigned_abs(), false),
        };
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        if self.negative { -value } else { value }
    }

    /// Its digits as an integer, and the exponent of the last of them.
    pub(super) const fn parts(&self) -> (u128, i64) {
        (self.coefficient, self.exponent)
    }

    #[must_use]
    pub const fn abs(&self) -> Self {
        Self { negative: false, ..*self }
    }

    /// Exponent of the place before its first digit.
    pub(super) const fn top(&self) -> i64 {
        self.exponent + digits(self.coefficient) as i64
    }

    fn cmp_size(&self, other: &Self) -> Ordering {
        if self.is_zero() || other.is_zero() {
            return self.coefficient.min(1).cmp(&other.coefficient.min(1));
        }
        let at_one_exponent = || {
            let lowest = self.exponent.min(other.exponent);
            let raised = |of: &Self| of.coefficient * power((of.exponent - lowest) as u32);
            raised(self).cmp(&raised(other))
        };
        self.top().cmp(&other.top()).then_with(at_one_exponent)
    }
}

/// A result, rounded to its digits. `lost` says that it is a little larger than the coefficient.
pub(super) fn rounded(negative: bool, coefficient: u128, exponent: i64, lost: bool) -> Decimal {
    let over = i64::from(digits(coefficient)) - PRECISION;
    let drop = over.max(EXPONENT_TINY - exponent).max(0);
    let coefficient = without_last(coefficient, drop.unsigned_abs(), lost);
    Decimal { negative, coefficient, exponent: exponent + drop }
}

/// A coefficient without its last digits, rounded half to even. What rounds up to one digit more ends in
/// a zero, so it still is a number of its length.
fn without_last(coefficient: u128, drop: u64, lost: bool) -> u128 {
    let Some(by) = u32::try_from(drop).ok().filter(|drop| *drop <= 38).map(power) else {
        return 0;
    };
    let (kept, rest) = (coefficient / by, coefficient % by);
    let up = match (2 * rest).cmp(&by) {
        Ordering::Greater => true,
        Ordering::Equal => lost || kept % 2 == 1,
        Ordering::Less => false,
    };
    kept + u128::from(up)
}

const fn digits(coefficient: u128) -> u32 {
    match coefficient.checked_ilog10() {
        Some(log) => log + 1,
        None => 1,
    }
}

const fn power(exponent: u32) -> u128 {
    10_u128.pow(exponent)
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_negative(), other.is_negative()) {
            (false, false) => self.cmp_size(other),
            (true, true) => other.cmp_size(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal {}

impl FromStr for Decimal {
    type Err = NotDecimal;

    fn from_str(text: &str) -> Result<Self, NotDecimal> {
        parse(text).ok_or_else(|| NotDecimal { text: text.chars().take(40).collect() })
    }
}

/// `[sign] digits [. digits] [e exponent]`, with a digit at least before the exponent.
fn parse(text: &str) -> Option<Decimal> {
    let (text, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all = [whole, fraction].concat();
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let counting = all.trim_start_matches('0');
    if counting.len() > PARSED_DIGITS_MAX {
        return None;
    }
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let within = (-PARSED_EXPONENT_MAX..=PARSED_EXPONENT_MAX).contains(&exponent);
    let coefficient = if counting.is_empty() { 0 } else { counting.parse().ok()? };
    within.then_some(Decimal { negative, coefficient, exponent })
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        write!(formatter, "{sign}{}e{}", self.coefficient, self.exponent)
    }
}

impl TryFrom<String> for Decimal {
    type Error = NotDecimal;

    fn try_from(text: String) -> Result<Self, NotDecimal> {
        text.parse()
    }
}

impl From<Decimal> for String {
    fn from(number: Decimal) -> Self {
        number.to_string()
    }
}

/// A double as Python writes it: the fewest digits that read back as the same number, with an exponent
/// below 1e-4 and from 1e16 on. The contract's canonical text of a logprob.
#[must_use]
pub fn python_text(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((number, exponent)) = text.split_once('e') else {
        return text;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{number}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A number that Python wrote; results reach farther than what may be parsed.
    fn golden(text: &str) -> Decimal {
        let (number, exponent) = text.split_once('E').unwrap_or((text, "0"));
        let parsed: Decimal = number.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        Decimal { exponent: parsed.exponent + exponent.parse::<i64>().unwrap(), ..parsed }
    }

    #[test]
    fn every_operation_is_pythons() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/infval/decimal.txt");
        let mut seen = std::collections::BTreeMap::new();
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            *seen.entry(words[0].to_owned()).or_insert(0) += 1;
            let number = |at: usize| golden(words[at]);
            match words[0] {
                "add" => assert_eq!(number(1).add(&number(2)), number(3), "{line}"),
                "sub" => assert_eq!(number(1).sub(&number(2)), number(3), "{line}"),
                "mul" => assert_eq!(number(1).mul(&number(2)), number(3), "{line}"),
                "div" => {
                    let wanted = words.get(3).map(|text| golden(text));
                    assert_eq!(number(1).div(&number(2)), wanted, "{line}");
                }
                "cmp" => {
                    let order: i8 = words[3].parse().unwrap();
                    assert_eq!(number(1).cmp(&number(2)) as i8, order, "{line}");
                }
                "exp" => assert_eq!(number(1).exp(), number(2), "{line}"),
                "int" => assert_eq!(number(1).to_integer().to_string(), words[2], "{line}"),
                "text" => {
                    let value = f64::from_bits(u64::from_str_radix(words[1], 16).unwrap());
                    assert_eq!(python_text(value), words[2]);
                    assert_eq!(Decimal::of(value), Some(golden(&words[2].replace('e', "E"))));
                }
                other => panic!("{other}"),
            }
        }
        assert!(seen.len() == 8 && seen.values().all(|count| *count > 300), "{seen:?}");
    }

    #[test]
    fn what_is_no_number_of_the_contract_is_refused() {
        for text in
            ["", "-", ".", "e5", "1e", "NaN", "inf", "-Infinity", "1_0", " 1", "1.2.3", "0x1", "٣"]
        {
            assert!(text.parse::<Decimal>().is_err(), "{text}");
        }
        assert!("12345678901234567890".parse::<Decimal>().is_err());
        assert!(
            "1e401".parse::<Decimal>().is_err() && "1e-99999999999".parse::<Decimal>().is_err()
        );
        assert_eq!("0000.00100".parse::<Decimal>(), "+1e-3".parse());
        assert_eq!(Decimal::of(f64::NAN), None);
        assert_eq!(Decimal::of(f64::NEG_INFINITY), None);
        assert_eq!("-0.0".parse::<Decimal>(), Ok(Decimal::ZERO));
    }

    proptest! {
        #[test]
        fn texts_of_numbers_are_read_back(value in proptest::num::f64::NORMAL) {
            let number = Decimal::of(value).unwrap();
            prop_assert_eq!(python_text(value).parse(), Ok(number));
            prop_assert_eq!(number.to_string().parse(), Ok(number));
            let kept: Decimal = serde_json::from_str(&serde_json::to_string(&number).unwrap()).unwrap();
            prop_assert_eq!(kept, number);
        }

        #[test]
        fn any_text_is_a_number_or_refused(text in "[-+]?[0-9.]{0,25}([eE][-+]?[0-9]{0,22})?|.{0,9}") {
            if let Ok(number) = text.parse::<Decimal>() {
                // No operation goes wrong on what was read.
                let other = number.add(&Decimal::ONE).sub(&number).mul(&number);
                let _ = (other.div(&number), other.exp(), number.exp(), number.to_integer());
                prop_assert_eq!(number.cmp(&number), Ordering::Equal);
            }
        }
    }
}
