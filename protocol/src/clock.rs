//! Points in time and spans, as integers. Nothing here reads a clock: the shells pass time in.
//!
//! All times in messages are *farm time*: Unix milliseconds on a real farm; in the demo the farm's clock runs faster
//! than the wall's, and every process is told the same origin and rate.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, farm time.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

/// A span of time in milliseconds, never negative.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Nothing at all.
    pub const ZERO: Self = Self(0);

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    /// A span of whole minutes.
    #[must_use]
    pub const fn from_mins(minutes: u64) -> Self {
        Self(minutes * 60_000)
    }

    /// A span of whole hours.
    #[must_use]
    pub const fn from_hours(hours: u64) -> Self {
        Self(hours * 3_600_000)
    }
}

impl UnixMillis {
    /// Time from `earlier` to `self`; zero when `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Start of the slot of length `slot` that holds this time.
    #[must_use]
    pub fn floor_to(self, slot: Millis) -> Self {
        let slot = i64::try_from(slot.0.max(1)).unwrap_or(i64::MAX);
        Self(self.0.div_euclid(slot) * slot)
    }

    /// Hours and minutes of the UTC day, for people.
    #[must_use]
    pub fn hour_minute_utc(self) -> (u8, u8) {
        let minute_of_day = self.0.div_euclid(60_000).rem_euclid(1_440);
        let hour = u8::try_from(minute_of_day / 60).unwrap_or(0);
        (hour, u8::try_from(minute_of_day % 60).unwrap_or(0))
    }
}

impl Add<Millis> for UnixMillis {
    type Output = Self;
    fn add(self, span: Millis) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

impl Sub<Millis> for UnixMillis {
    type Output = Self;
    fn sub(self, span: Millis) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for UnixMillis {
    /// `HH:MM` of the UTC day.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute) = self.hour_minute_utc();
        write!(f, "{hour:02}:{minute:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_slots() {
        let t = UnixMillis(5_400_000);
        assert_eq!(t.floor_to(Millis::from_hours(1)), UnixMillis(3_600_000));
        assert_eq!(t.to_string(), "01:30");
        assert_eq!(UnixMillis(1).since(UnixMillis(5)), Millis::ZERO);
        assert_eq!(UnixMillis(-1).floor_to(Millis(10)), UnixMillis(-10));
    }
}
