//! Points in time as people write them: RFC 3339 with an offset, and the time of a site's day.

use std::fmt;
use std::str::FromStr;

use roadbed_protocol::{Millis, UnixMillis};
use serde::{Deserialize, Deserializer};

use super::decimal::from_text;

const MINUTE_MILLIS: i64 = 60_000;
/// Minutes in a day.
pub const DAY_MINUTES: u16 = 1_440;

/// A moment written as `2021-10-25T13:00:00-05:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub UnixMillis);

/// A minute of the site's own day, written as `06:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayTime(pub u16);

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no time; expected {expected}")]
pub struct MomentError {
    text: String,
    expected: &'static str,
}

impl DayTime {
    /// The minute of the UTC day, where the site's clock is `offset_minutes` ahead of UTC.
    #[must_use]
    pub fn utc_minute(self, offset_minutes: i16) -> u16 {
        let minute = i32::from(self.0) - i32::from(offset_minutes);
        u16::try_from(minute.rem_euclid(i32::from(DAY_MINUTES))).unwrap_or(0)
    }
}

/// The site's minute of the day at `at`.
#[must_use]
pub fn local_minute(at: UnixMillis, offset_minutes: i16) -> u16 {
    let minutes = at.0.div_euclid(MINUTE_MILLIS) + i64::from(offset_minutes);
    u16::try_from(minutes.rem_euclid(i64::from(DAY_MINUTES))).unwrap_or(0)
}

/// The start of the site's day that holds `at`.
#[must_use]
pub fn local_midnight(at: UnixMillis, offset_minutes: i16) -> UnixMillis {
    let shift = i64::from(offset_minutes) * MINUTE_MILLIS;
    let day = i64::from(DAY_MINUTES) * MINUTE_MILLIS;
    UnixMillis((at.0 + shift).div_euclid(day) * day - shift)
}

/// `HH:MM` on the site's clock.
#[must_use]
pub fn local_hour_minute(at: UnixMillis, offset_minutes: i16) -> String {
    DayTime(local_minute(at, offset_minutes)).to_string()
}

impl FromStr for DayTime {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let minute = || {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
            (hours < 24 && minutes < 60).then(|| Self(u16::from(hours) * 60 + u16::from(minutes)))
        };
        minute().ok_or_else(|| MomentError {
            text: cut(text),
            expected: "a time of day like \"06:30\"",
        })
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        parse_moment(text).map(Self).ok_or_else(|| MomentError {
            text: cut(text),
            expected: "date, time and offset like 2021-10-25T13:00:00-05:00 or ...Z",
        })
    }
}

impl<'de> Deserialize<'de> for DayTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a time of day")
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "date, time and offset")
    }
}

impl fmt::Display for DayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

fn two_digits(text: &str) -> Option<u8> {
    (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn parse_moment(text: &str) -> Option<UnixMillis> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-');
    let year: i64 = parts.next().filter(|y| y.len() == 4)?.parse().ok().filter(|y| *y >= 1970)?;
    let month = i64::from(two_digits(parts.next()?)?);
    let day = i64::from(two_digits(parts.next()?)?);
    let offset_at = rest.find(['Z', '+', '-'])?;
    let (time, offset) = rest.split_at_checked(offset_at)?;
    let mut parts = time.splitn(3, ':');
    let hour = i64::from(two_digits(parts.next()?)?);
    let minute = i64::from(two_digits(parts.next()?)?);
    let second = parts.next().map_or(Some(0), two_digits).map(i64::from)?;
    let legal = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let minutes = days_from_epoch(year, month, day) * 1_440 + hour * 60 + minute;
    let millis = (minutes - offset_minutes(offset)?) * MINUTE_MILLIS + second * 1_000;
    legal.then_some(UnixMillis(millis))
}

fn offset_minutes(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours <= 14 && minutes < 60).then(|| sign * (i64::from(hours) * 60 + i64::from(minutes)))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, counted year by year from a leap-day formula: `year >= 1970`.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let past = year - 1;
    let leap_days = (past / 4 - past / 100 + past / 400) - (1_969 / 4 - 1_969 / 100 + 1_969 / 400);
    let months: i64 = (1..month).map(|month| days_in_month(year, month)).sum();
    (year - 1_970) * 365 + leap_days + months + day - 1
}

/// A span as hours and minutes, for people.
#[must_use]
pub fn span_words(span: Millis) -> String {
    let minutes = span.0 / 60_000;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        let millis = |text: &str| text.parse::<Moment>().map(|moment| moment.0.0).ok();
        assert_eq!(millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(millis("2021-10-25T00:00:00-05:00"), Some(1_635_138_000_000));
        assert_eq!(millis("2000-02-29T12:30:15+02:30"), Some(951_818_415_000));
        assert_eq!(millis("2024-12-31 23:59Z"), Some(1_735_689_540_000));
        for bad in [
            "",
            "2021-10-25",
            "2021-02-29T00:00Z",
            "2021-10-25T24:00Z",
            "2021-10-25T00:00",
            "21-10-25T00:00Z",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_day_begins_where_the_site_is() {
        let at = "2021-10-25T03:00:00Z".parse::<Moment>().unwrap().0;
        assert_eq!(local_minute(at, -300), 22 * 60);
        let midnight = "2021-10-24T00:00:00-05:00".parse::<Moment>().unwrap().0;
        assert_eq!(local_midnight(at, -300), midnight);
        assert_eq!("22:00".parse::<DayTime>().unwrap().utc_minute(-300), 180);
        assert!("7:00".parse::<DayTime>().is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,30}", date in "[0-9T:Z+-]{0,26}") {
            let _ = (text.parse::<Moment>(), date.parse::<Moment>(), text.parse::<DayTime>());
        }
    }
}
