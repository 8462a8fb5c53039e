//! Fields of firmware replies, read with tolerance and held to what is physically possible.
//!
//! The same field comes as a number, as a number in text, or not at all, by version; and a unit
//! that changed between versions shows as a value no machine can have. Such a value is `None`.

use roadbed_protocol::{HashesPerSecond, MilliCelsius, Watts};
use serde_json::Value;

/// More than any miner with one supply draws; above it the unit is not watts.
const WATTS_MAX: f64 = 50_000.0;
/// One petahash per second, in GH/s: more than three times the best air-cooled machine.
const GIGAHASH_MAX: f64 = 1_000_000.0;
/// Sensors outside this range are broken or absent (they read 0 or 255).
const CELSIUS_MIN: f64 = -50.0;
const CELSIUS_MAX: f64 = 200.0;

/// A finite number, also from text.
#[must_use]
pub fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// A count; negative and fractional parts are dropped.
#[must_use]
pub fn count(value: &Value) -> Option<u64> {
    // Saturating by language rule, so no value can wrap.
    number(value).map(|number| number as u64)
}

/// Watts, to the nearest.
#[must_use]
pub fn watts(value: &Value) -> Option<Watts> {
    number(value)
        .filter(|watts| (0.0..=WATTS_MAX).contains(watts))
        .map(|watts| Watts(watts.round() as u64))
}

/// Hashrate given in GH/s.
#[must_use]
pub fn gigahash(value: &Value) -> Option<HashesPerSecond> {
    number(value)
        .filter(|rate| (0.0..=GIGAHASH_MAX).contains(rate))
        .map(|rate| HashesPerSecond((rate * 1e9) as u64))
}

/// Temperature given in degrees Celsius; 0 means "no sensor" in both families.
#[must_use]
pub fn celsius(value: &Value) -> Option<MilliCelsius> {
    number(value)
        .filter(|degrees| *degrees != 0.0 && (CELSIUS_MIN..=CELSIUS_MAX).contains(degrees))
        .map(|degrees| MilliCelsius((degrees * 1000.0) as i32))
}

/// The first part of a firmware's words, safe to log and short enough to show.
#[must_use]
pub fn excerpt(text: &str) -> String {
    const CHARACTERS_MAX: usize = 120;
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn numbers_come_in_many_coats() {
        assert_eq!(watts(&json!(1051)), Some(Watts(1051)));
        assert_eq!(watts(&json!(" 1051.4 ")), Some(Watts(1051)));
        assert_eq!(watts(&json!(-1)), None);
        assert_eq!(watts(&json!(1e9)), None);
        assert_eq!(watts(&json!("NaN")), None);
        assert_eq!(watts(&json!(null)), None);
        assert_eq!(gigahash(&json!("65000.5")), Some(HashesPerSecond(65_000_500_000_000)));
        // An M60S recording gives a hashrate in a unit that no machine can have.
        assert_eq!(gigahash(&json!(1.6e14)), None);
        assert_eq!(celsius(&json!(47.5)), Some(MilliCelsius(47_500)));
        assert_eq!(celsius(&json!(0)), None);
        assert_eq!(celsius(&json!(255)), None);
    }

    proptest! {
        #[test]
        fn no_number_panics(bits in any::<u64>(), text in ".{0,20}") {
            for value in [json!(f64::from_bits(bits)), json!(text), json!(bits)] {
                let _ = (watts(&value), gigahash(&value), celsius(&value), count(&value));
            }
        }
    }
}
