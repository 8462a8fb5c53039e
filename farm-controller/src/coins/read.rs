//! Rows of a coin feed, from JSON and from CSV (`docs/coin-feed.md`).

use std::path::Path;

use roadbed_protocol::{HashesPerSecond, Millis, Money, UnixMillis};
use serde_json::Value;

use super::{CoinReading, Offer};
use crate::config::{Decimal, Moment, span_words};
use crate::feeds::open_bounded;
use crate::hashprice::AskError;

/// Columns of CSV and fields of JSON.
const FIELDS: [&str; 7] = [
    "coin",
    "algorithm",
    "revenue_per_day",
    "per_hashes_per_second",
    "currency",
    "as_of",
    "source",
];
/// Rows that are looked at: more than any list of coins has.
const ROWS_MAX: usize = 2_000;
/// Reasons that are kept; the others are counted.
const LEFT_OUT_MAX: usize = 20;
/// Longest file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest text of a row.
const TEXT_MAX: usize = 120;

/// What makes a row count.
pub(super) struct Wanted<'w> {
    pub currency: &'w str,
    pub now: UnixMillis,
    pub hold: Millis,
}

/// A document: a list of rows, or an object with one in `coins`.
pub(super) fn of_json(
    document: &Value,
    from: &str,
    wanted: &Wanted<'_>,
) -> Result<CoinReading, AskError> {
    let rows = document.as_array().or_else(|| document.get("coins")?.as_array());
    let rows = rows.ok_or_else(|| fault(from, "expected a list of rows, or one in \"coins\""))?;
    let cell = |row: &Value, field: &str| match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => {
            String::new()
        }
    };
    let rows = rows.iter().map(|row| FIELDS.map(|field| cell(row, field)));
    reading(rows, from, wanted)
}

pub(super) fn of_csv(file: &Path, wanted: &Wanted<'_>) -> Result<CoinReading, AskError> {
    let from = file.display().to_string();
    let opened = open_bounded(file, FILE_BYTES_MAX).map_err(|problem| fault(&from, &problem))?;
    let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(opened);
    let headers = reader.headers().map_err(|error| fault(&from, &error.to_string()))?.clone();
    let mut columns = [0; FIELDS.len()];
    for (column, field) in columns.iter_mut().zip(FIELDS) {
        *column = headers.iter().position(|header| header == field).ok_or_else(|| {
            fault(&from, &format!("no column \"{field}\"; expected: {}", FIELDS.join(", ")))
        })?;
    }
    let mut rows = Vec::new();
    for row in reader.records().take(ROWS_MAX + 1) {
        let row = row.map_err(|error| fault(&from, &error.to_string()))?;
        rows.push(columns.map(|at| row.get(at).unwrap_or_default().to_owned()));
    }
    reading(rows.into_iter(), &from, wanted)
}

fn fault(file: &str, problem: &str) -> AskError {
    AskError::File { file: file.to_owned(), problem: problem.to_owned() }
}

fn reading(
    rows: impl Iterator<Item = [String; FIELDS.len()]>,
    from: &str,
    wanted: &Wanted<'_>,
) -> Result<CoinReading, AskError> {
    let (mut offers, mut left_out, mut more) = (Vec::new(), Vec::new(), 0_usize);
    for (index, row) in rows.enumerate() {
        if index == ROWS_MAX {
            left_out.push(format!("rows after the first {ROWS_MAX} are not looked at"));
            break;
        }
        match offer(row, wanted) {
            Ok(offer) => offers.push(offer),
            Err(reason) if left_out.len() < LEFT_OUT_MAX => {
                left_out.push(format!("row {}: {reason}", index + 1));
            }
            Err(_) => more += 1,
        }
    }
    if more > 0 {
        left_out.push(format!("and {more} more rows"));
    }
    if offers.is_empty() {
        let problem = match left_out.first() {
            Some(reason) => format!("no row counts: {reason}"),
            None => "it has no rows".to_owned(),
        };
        return Err(fault(from, &problem));
    }
    Ok(CoinReading { asked_at: wanted.now, offers, left_out })
}

fn offer(row: [String; FIELDS.len()], wanted: &Wanted<'_>) -> Result<Offer, String> {
    let [coin, algorithm, revenue, per, currency, as_of, source] = row;
    for (field, text) in [("coin", &coin), ("algorithm", &algorithm), ("source", &source)] {
        if text.is_empty() || text.chars().count() > TEXT_MAX || text.chars().any(char::is_control)
        {
            return Err(format!("{field}: expected a text of 1 to {TEXT_MAX} characters"));
        }
    }
    if !currency.eq_ignore_ascii_case(wanted.currency) {
        let own = wanted.currency;
        return Err(format!("{coin}: currency is {currency:.9?}; expected {own}, the site's own"));
    }
    let Decimal(revenue) =
        revenue.parse().map_err(|error| format!("{coin}: revenue_per_day: {error}"))?;
    if revenue < 0 {
        return Err(format!("{coin}: revenue_per_day is negative"));
    }
    let per: u64 = per.parse().ok().filter(|per| *per > 0).ok_or_else(|| {
        format!("{coin}: per_hashes_per_second: expected a whole number above zero")
    })?;
    let Moment(as_of) = as_of
        .parse()
        .map_err(|_error| format!("{coin}: as_of: expected a time like 2026-11-24T12:00:00Z"))?;
    let offer = Offer {
        coin,
        algorithm,
        revenue_per_day: Money(revenue),
        per_hashes_per_second: HashesPerSecond(per),
        // A clock that runs ahead of ours makes no figure younger than now.
        as_of: as_of.min(wanted.now),
        source,
    };
    if !offer.stands(wanted.now, wanted.hold) {
        let (age, hold) = (span_words(wanted.now.since(offer.as_of)), span_words(wanted.hold));
        return Err(format!("{}: its figure is {age} old; at most {hold} counts", offer.coin));
    }
    Ok(offer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
    const WANTED: Wanted<'_> = Wanted { currency: "USD", now: NOW, hold: Millis::from_hours(24) };

    #[test]
    fn rows_that_do_not_count_are_left_out_with_their_reason() {
        let row = |coin: &str, as_of: &str, currency: &str, per: i64| {
            json!({"coin": coin, "algorithm": "KawPow", "revenue_per_day": 1.25, "currency": currency,
                "per_hashes_per_second": per, "as_of": as_of, "source": "operator"})
        };
        let fresh = "2023-11-14T22:00:00Z";
        let document = json!({"coins": [
            row("A", fresh, "usd", 30_000_000), row("B", "2023-11-01T00:00:00Z", "USD", 1),
            row("C", fresh, "EUR", 1), row("D", fresh, "USD", 0), 7,
            row("E", "2033-01-01T00:00:00Z", "USD", 1),
        ]});
        let reading = of_json(&document, "x", &WANTED).unwrap();
        let coins: Vec<_> = reading.offers.iter().map(|offer| &*offer.coin).collect();
        assert_eq!(coins, ["A", "E"]);
        assert_eq!(reading.offers[0].revenue_per_day, Money(1_250_000));
        assert_eq!(reading.offers[1].as_of, NOW);
        let said = reading.left_out.join("\n");
        for part in [
            "row 2: B: its figure is",
            "row 3: C: currency is \"EUR\"",
            "row 4: D: per_",
            "row 5: coin:",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let old = json!([row("B", "2023-11-01T00:00:00Z", "USD", 1)]);
        let said = of_json(&old, "x", &WANTED).unwrap_err().to_string();
        assert!(said.starts_with("x: no row counts: row 1: B: its figure is"), "{said}");
        assert!(of_json(&json!({}), "x", &WANTED).is_err());
    }

    #[test]
    fn a_file_has_the_same_columns_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coins.csv");
        let head = "source,coin,algorithm,revenue_per_day,per_hashes_per_second,currency,as_of";
        let row = "pool,RVN,kawpow,0.75,30000000,USD,2023-11-14T22:00:00Z";
        std::fs::write(&file, format!("{head}\n{row}\n")).unwrap();
        let offer = of_csv(&file, &WANTED).unwrap().offers.remove(0);
        assert_eq!(
            (&*offer.coin, &*offer.source, offer.revenue_per_day),
            ("RVN", "pool", Money(750_000))
        );
        std::fs::write(&file, "coin\nRVN\n").unwrap();
        let said = of_csv(&file, &WANTED).unwrap_err().to_string();
        assert!(said.contains("no column \"algorithm\"; expected: coin, algorithm, "), "{said}");
        assert!(of_csv(&folder.path().join("absent.csv"), &WANTED).is_err());
    }

    proptest! {
        #[test]
        fn hostile_documents_do_not_panic(texts in proptest::collection::vec("\\PC{0,30}", 7), raw in "\\PC{0,200}") {
            let row: serde_json::Map<String, Value> =
                FIELDS.iter().zip(&texts).map(|(field, text)| ((*field).to_owned(), json!(text))).collect();
            let _ = of_json(&json!([row]), "x", &WANTED);
            if let Ok(document) = serde_json::from_str(&raw) {
                let _ = of_json(&document, "x", &WANTED);
            }
        }
    }
}
