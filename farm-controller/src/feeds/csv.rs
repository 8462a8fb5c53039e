//! Prices from a CSV file: one column of moments, one of prices per MWh, read exactly.
//!
//! Foreign files are hostile until read: the size is bounded, every figure is checked, a moment that comes twice with two
//! prices is an error, and a missing hour is told instead of papered over.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use farm_core::forecast::{PricePoint, PriceSeries};
use roadbed_protocol::{MicrosPerMwh, Millis, UnixMillis};

use crate::config::{Decimal, Moment};

/// Largest file read: ten years of five-minute prices are about 50 MiB.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Gaps told in full; a file with more is told so.
const GAPS_TOLD_MAX: usize = 10;
/// Prices outside of this, per MWh, are a wrong unit, not a market: the widest caps of real markets lie well inside.
const PRICE_MAX: i64 = 100_000_000_000;

/// Which columns to read.
#[derive(Debug, Clone, Copy)]
pub struct PriceColumns<'a> {
    /// Moment from which the price holds, RFC 3339.
    pub time: &'a str,
    /// Price per MWh.
    pub price: &'a str,
}

/// Prices of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTable {
    /// By moment; one price each.
    pub points: Vec<PricePoint>,
    /// How long the last one holds.
    pub step: Millis,
    /// Stretches without a price.
    pub gaps: Vec<Gap>,
}

/// A stretch without a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First moment without one.
    pub from: UnixMillis,
    /// Length.
    pub length: Millis,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} min from {} UTC", self.length.0 / 60_000, self.from)
    }
}

/// Why a feed cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A column is missing.
    #[error("{}:1: no column \"{column}\"; expected one of: {}", path.display(), found.join(", "))]
    Column {
        /// The file.
        path: PathBuf,
        /// The column wanted.
        column: String,
        /// The columns there are.
        found: Vec<String>,
    },
    /// A row is wrong.
    #[error("{}:{line}: {column}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The column.
        column: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// There is no price in it.
    #[error("{}: holds no prices", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl FeedError {
    /// Whether trying again may help: a file that is being replaced comes back.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Empty { .. } => true,
            Self::Column { .. } | Self::Row { .. } => false,
        }
    }
}

impl PriceTable {
    /// As a series, with `adder` on every price.
    #[must_use]
    pub fn series(&self, adder: MicrosPerMwh) -> PriceSeries {
        let points =
            self.points.iter().map(|point| PricePoint { at: point.at, price: point.price + adder });
        PriceSeries::new(points.collect(), self.step)
    }
}

/// Reads a file whose prices hold for `step` each.
///
/// # Errors
/// [`FeedError`] with line and column.
pub fn read_prices(
    path: &Path,
    columns: PriceColumns<'_>,
    step: Millis,
) -> Result<PriceTable, FeedError> {
    let unreadable = |reason: String| FeedError::Unreadable { path: path.to_path_buf(), reason };
    let file = open_bounded(path, FILE_BYTES_MAX).map_err(unreadable)?;
    read_prices_from(file, path, columns, step)
}

/// Opens a file of at most `most` bytes; a longer one is refused, never read in part.
///
/// # Errors
/// Why not, in one line.
pub fn open_bounded(path: &Path, most: u64) -> Result<impl Read, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    if size > most {
        return Err(format!("is {size} bytes; at most {most} are read"));
    }
    Ok(file.take(most))
}

/// As [`read_prices`], from anything that can be read; `name` is for errors.
///
/// # Errors
/// [`FeedError`] with line and column.
pub fn read_prices_from(
    input: impl Read,
    name: &Path,
    columns: PriceColumns<'_>,
    step: Millis,
) -> Result<PriceTable, FeedError> {
    let path = || name.to_path_buf();
    let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(input);
    let unreadable =
        |error: ::csv::Error| FeedError::Unreadable { path: path(), reason: error.to_string() };
    let headers = reader.headers().map_err(unreadable)?.clone();
    let find = |column: &str| {
        headers.iter().position(|header| header == column).ok_or_else(|| FeedError::Column {
            path: path(),
            column: column.to_owned(),
            found: headers.iter().take(50).map(str::to_owned).collect(),
        })
    };
    let (time_at, price_at) = (find(columns.time)?, find(columns.price)?);
    let mut points: BTreeMap<UnixMillis, MicrosPerMwh> = BTreeMap::new();
    for row in reader.records() {
        let row = row.map_err(unreadable)?;
        let line = row.position().map_or(0, ::csv::Position::line);
        let fail = |column: &str, problem: String| FeedError::Row {
            path: path(),
            line,
            column: column.to_owned(),
            problem,
        };
        let Moment(at) =
            row.get(time_at).unwrap_or_default().parse().map_err(
                |error: crate::config::MomentError| fail(columns.time, error.to_string()),
            )?;
        let price: Decimal =
            row.get(price_at).unwrap_or_default().parse().map_err(
                |error: crate::config::DecimalError| fail(columns.price, error.to_string()),
            )?;
        if price.0.abs() > PRICE_MAX {
            let problem = format!("{price} per MWh is no market price; expected a price per MWh");
            return Err(fail(columns.price, problem));
        }
        let price = MicrosPerMwh(price.0);
        if points.insert(at, price).is_some_and(|former| former != price) {
            return Err(fail(columns.time, format!("{at} UTC comes twice with two prices")));
        }
    }
    if points.is_empty() {
        return Err(FeedError::Empty { path: path() });
    }
    let points: Vec<_> = points.into_iter().map(|(at, price)| PricePoint { at, price }).collect();
    let gaps = gaps(&points, step);
    Ok(PriceTable { points, step, gaps })
}

fn gaps(points: &[PricePoint], step: Millis) -> Vec<Gap> {
    points
        .windows(2)
        .map(|pair| Gap { from: pair[0].at + step, length: pair[1].at.since(pair[0].at + step) })
        .filter(|gap| gap.length > Millis::ZERO)
        .take(GAPS_TOLD_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Millis = Millis::from_hours(1);
    const COLUMNS: PriceColumns<'_> = PriceColumns { time: "t", price: "p" };

    fn read(text: &str) -> Result<PriceTable, FeedError> {
        read_prices_from(text.as_bytes(), Path::new("x.csv"), COLUMNS, HOUR)
    }

    #[test]
    fn prices_are_exact_and_in_order() {
        let table = read("t,p\n2021-01-01T01:00:00Z,-0.28\n2021-01-01T00:00:00Z,18.3\n").unwrap();
        let prices: Vec<_> = table.points.iter().map(|point| point.price.0).collect();
        assert_eq!(prices, vec![18_300_000, -280_000]);
        assert!(table.gaps.is_empty());
    }

    #[test]
    fn a_missing_hour_is_told() {
        let table = read("p,t\n1,2021-01-01T00:00:00Z\n2,2021-01-01T03:00:00Z\n").unwrap();
        assert_eq!(table.gaps.len(), 1);
        assert_eq!(table.gaps[0].length, Millis::from_hours(2));
    }

    #[test]
    fn every_complaint_has_its_place() {
        let message = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(message("a,b\n1,2\n"), "x.csv:1: no column \"t\"; expected one of: a, b");
        assert_eq!(
            message("t,p\n2021-01-01T00:00:00Z,cheap\n"),
            "x.csv:2: p: \"cheap\" is no decimal number; expected digits with at most 6 after the point, like -12.5"
        );
        assert_eq!(
            message("t,p\nyesterday,1\n"),
            "x.csv:2: t: \"yesterday\" is no time; expected date, time and offset like 2021-10-25T13:00:00-05:00 or ...Z"
        );
        assert_eq!(
            message("t,p\n2021-01-01T00:00:00Z,1\n2021-01-01T00:00:00Z,2\n"),
            "x.csv:3: t: 00:00 UTC comes twice with two prices"
        );
        assert_eq!(message("t,p\n"), "x.csv: holds no prices");
        assert!(message("t,p\n2021-01-01T00:00:00Z,900000\n").contains("no market price"));
        assert!(message("t,p\n1\n").starts_with("x.csv: cannot be read"));
    }

    proptest! {
        #[test]
        fn hostile_files_are_refused_not_obeyed(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_prices_from(&bytes[..], Path::new("x.csv"), COLUMNS, HOUR);
            let _ = read_prices_from([b"t,p\n", &bytes[..]].concat().as_slice(), Path::new("x.csv"), COLUMNS, HOUR);
        }
    }
}
