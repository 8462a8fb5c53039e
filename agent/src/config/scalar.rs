//! Single values of a config file, each checked while the parser still knows its line.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::clock::RATE_MAX;

/// A value read from text where it stands, so that the parser knows line and field of what is wrong with it.
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T> Deserialize<'de> for Parsed<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T> Visitor<'_> for Reader<T>
        where
            T: FromStr,
            T::Err: fmt::Display,
        {
            type Value = Parsed<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map(Parsed).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Reader(PhantomData))
    }
}

/// A whole number within bounds, checked where it stands.
#[derive(Clone, Copy)]
pub(super) struct Bounded<const LEAST: u64, const MOST: u64>(pub(super) u64);

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Bounded<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<const LEAST: u64, const MOST: u64>;
        impl<const LEAST: u64, const MOST: u64> Visitor<'_> for Reader<LEAST, MOST> {
            type Value = Bounded<LEAST, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {LEAST} to {MOST}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                if (LEAST..=MOST).contains(&number) {
                    Ok(Bounded(number))
                } else {
                    Err(E::invalid_value(Unexpected::Unsigned(number), &self))
                }
            }
        }
        deserializer.deserialize_u64(Reader)
    }
}

/// A clock rate, checked where it stands.
pub(super) struct Rate(pub(super) f64);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Rate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number above 0, at most {RATE_MAX}")
            }
            fn visit_f64<E: de::Error>(self, rate: f64) -> Result<Rate, E> {
                if rate > 0.0 && rate <= RATE_MAX {
                    Ok(Rate(rate))
                } else {
                    Err(E::invalid_value(Unexpected::Float(rate), &self))
                }
            }
            fn visit_u64<E: de::Error>(self, rate: u64) -> Result<Rate, E> {
                self.visit_f64(rate as f64)
            }
            fn visit_i64<E: de::Error>(self, rate: i64) -> Result<Rate, E> {
                self.visit_f64(rate as f64)
            }
        }
        deserializer.deserialize_f64(Reader)
    }
}
