//! Decimal figures as people write them, read exactly into millionths: `18.3` is 18 300 000, never 18.299999.
//!
//! YAML and CSV would hand over binary floats; this type asks for the text instead.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};

/// Digits after the point that are kept.
const FRACTION_DIGITS: usize = 6;
/// Largest whole part read: a price or a sum above it is a typing error, and its millionths still fit an `i64`.
const WHOLE_MAX: i64 = 1_000_000_000_000;

/// An exact decimal, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Decimal(pub i64);

/// Why a text is no decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no decimal number; expected digits with at most 6 after the point, like -12.5"
)]
pub struct DecimalError {
    /// The refused text, cut to 40 characters.
    pub text: String,
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        parse(text.trim())
            .map(Self)
            .ok_or_else(|| DecimalError { text: text.chars().take(40).collect() })
    }
}

fn parse(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let fraction = fraction.trim_end_matches('0');
    if !is_number(whole) || fraction.len() > FRACTION_DIGITS {
        return None;
    }
    let whole: i64 = whole.parse().ok().filter(|whole| *whole <= WHOLE_MAX)?;
    let micros = if fraction.is_empty() {
        0
    } else if is_number(fraction) {
        let scale = 10_i64.pow(u32::try_from(FRACTION_DIGITS - fraction.len()).ok()?);
        fraction.parse::<i64>().ok()? * scale
    } else {
        return None;
    };
    let value = whole * 1_000_000 + micros;
    Some(if negative { -value } else { value })
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a decimal number")
    }
}

/// Reads a scalar by its text. The error arises inside the parser's visit, so that it gets the scalar's own place.
pub(super) fn from_text<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Text<T>(&'static str, PhantomData<T>);
    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expected, PhantomData))
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        let text = format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn figures_are_exact() {
        let read = |text: &str| text.parse::<Decimal>().map(|decimal| decimal.0).ok();
        assert_eq!(read("18.3"), Some(18_300_000));
        assert_eq!(read("-0.000001"), Some(-1));
        assert_eq!(read("7."), Some(7_000_000));
        assert_eq!(read("0.10000000000"), Some(100_000));
        for bad in [
            "",
            "-",
            ".5",
            "1e3",
            "1,5",
            "nan",
            "0.0000001",
            "9999999999999",
            "1.2.3",
            "--1",
            "1 2",
            "+1",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(micros in -1_000_000_000_000_i64..1_000_000_000_000) {
            let decimal = Decimal(micros);
            prop_assert_eq!(decimal.to_string().parse::<Decimal>(), Ok(decimal));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Decimal>();
        }
    }
}
