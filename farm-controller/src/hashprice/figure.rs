//! One figure, asked now.

use std::path::Path;

use farm_core::plan::IncomeSource;
use roadbed_protocol::UnixMillis;
use serde_json::Value;

use super::AskError;
use crate::config::{Figure, Moment};
use crate::feeds::open_bounded;
use crate::gonka::client::NodeClient;

/// Largest file read: a row a minute for ten years is about as much.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Below it a number of seconds, above it of milliseconds: the year 5138 and the year 1973.
const SECONDS_MAX: i64 = 100_000_000_000;

/// A figure with its age, still text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub text: String,
    pub from: String,
    /// `None` for an assumption.
    pub true_at: Option<UnixMillis>,
}

impl Told {
    /// As what it should be.
    pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        what: &str,
    ) -> Result<T, AskError> {
        self.text.parse().map_err(|error: T::Err| self.wrong(what, &error.to_string()))
    }

    pub fn wrong(&self, what: &str, problem: &str) -> AskError {
        let text: String = self.text.chars().take(40).collect();
        let problem = format!("{text:?}: {problem}");
        AskError::Figure { what: what.to_owned(), from: self.from.clone(), problem }
    }
}

pub(super) async fn ask(figure: &Figure, now: UnixMillis) -> Result<Told, AskError> {
    match figure {
        Figure::Written { text, origin, source } => {
            let true_at = match origin {
                IncomeSource::Data { at } => Some(*at),
                IncomeSource::Assumption => None,
            };
            Ok(Told { text: text.clone(), from: source.clone(), true_at })
        }
        Figure::Csv { file, time_column, value_column } => {
            newest_row(file, time_column, value_column, now)
        }
        Figure::Http { url, pointer, time_pointer, authorities } => {
            let document = NodeClient::new(url, authorities.as_ref()).get("").await?;
            at_pointer(&document, url, pointer, time_pointer.as_deref(), now)
        }
    }
}

fn at_pointer(
    document: &Value,
    url: &str,
    pointer: &str,
    time_pointer: Option<&str>,
    now: UnixMillis,
) -> Result<Told, AskError> {
    let from = format!("{url} {pointer}");
    let scalar = |pointer: &str| match document.pointer(pointer) {
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => {
            let problem = "the document has no number there".to_owned();
            Err(AskError::Figure { what: pointer.to_owned(), from: url.to_owned(), problem })
        }
    };
    let text = scalar(pointer)?;
    let true_at = match time_pointer {
        None => now,
        Some(pointer) => {
            let text = scalar(pointer)?;
            moment(&text).ok_or_else(|| AskError::Figure {
                what: pointer.to_owned(),
                from: url.to_owned(),
                problem: "is no time; expected RFC 3339 or Unix seconds".to_owned(),
            })?
        }
    };
    // A clock that runs ahead of ours makes no figure younger than now.
    Ok(Told { text, from, true_at: Some(true_at.min(now)) })
}

/// RFC 3339, or Unix seconds or milliseconds.
fn moment(text: &str) -> Option<UnixMillis> {
    if let Ok(Moment(at)) = text.parse() {
        return Some(at);
    }
    let number: i64 = text.split('.').next()?.parse().ok().filter(|number| *number >= 0)?;
    Some(UnixMillis(if number < SECONDS_MAX { number.checked_mul(1_000)? } else { number }))
}

fn newest_row(
    file: &Path,
    time_column: &str,
    value_column: &str,
    now: UnixMillis,
) -> Result<Told, AskError> {
    let name = file.display().to_string();
    let fail = |problem: String| AskError::File { file: name.clone(), problem };
    let opened = open_bounded(file, FILE_BYTES_MAX).map_err(fail)?;
    let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(opened);
    let headers = reader.headers().map_err(|error| fail(error.to_string()))?.clone();
    let column = |wanted: &str| {
        headers.iter().position(|header| header == wanted).ok_or_else(|| {
            let found: Vec<_> = headers.iter().take(50).collect();
            fail(format!("no column \"{wanted}\"; expected one of: {}", found.join(", ")))
        })
    };
    let (time_at, value_at) = (column(time_column)?, column(value_column)?);
    let mut newest: Option<(UnixMillis, String)> = None;
    for row in reader.records() {
        let row = row.map_err(|error| fail(error.to_string()))?;
        let line = row.position().map_or(0, ::csv::Position::line);
        let cell = |at: usize| row.get(at).unwrap_or_default();
        let at = moment(cell(time_at)).ok_or_else(|| {
            fail(format!("line {line}: {time_column}: is no time; expected RFC 3339"))
        })?;
        if at <= now && newest.as_ref().is_none_or(|(former, _)| *former <= at) {
            newest = Some((at, cell(value_at).to_owned()));
        }
    }
    let (at, text) = newest.ok_or_else(|| fail("holds no figure for now or before".into()))?;
    Ok(Told { text, from: name.clone(), true_at: Some(at) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    #[test]
    fn a_figure_is_found_in_a_document_with_its_age() {
        let document =
            json!({"a": [{"usd": 97_000.5, "at": 1_699_999_000}], "t": "x", "s": " 12 "});
        let read = |pointer, time| at_pointer(&document, "http://x", pointer, time, NOW);
        let told = read("/a/0/usd", Some("/a/0/at")).unwrap();
        assert_eq!(
            (told.text.as_str(), told.true_at),
            ("97000.5", Some(UnixMillis(1_699_999_000_000)))
        );
        assert_eq!(read("/s", None).unwrap().text, "12");
        assert_eq!(read("/s", None).unwrap().true_at, Some(NOW));
        assert!(read("/a", None).is_err() && read("/b", None).is_err());
        assert!(read("/s", Some("/t")).is_err());
        assert_eq!(moment("2023-11-14T22:13:20Z"), Some(NOW));
        assert_eq!(moment("1700000000000"), Some(NOW));
        assert_eq!(moment("1700000000.25"), Some(NOW));
        assert_eq!(moment("-5"), None);
    }

    #[test]
    fn the_newest_row_that_is_not_to_come_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.csv");
        std::fs::write(
            &file,
            "t,v\n2023-11-14T22:00:00Z,2\n2023-11-14T21:00:00Z,1\n2033-01-01T00:00:00Z,9\n",
        )
        .unwrap();
        let told = newest_row(&file, "t", "v", NOW).unwrap();
        assert_eq!((told.text.as_str(), told.true_at), ("2", Some(UnixMillis(1_699_999_200_000))));
        let said = |time, value, now| newest_row(&file, time, value, now).unwrap_err().to_string();
        assert!(said("x", "v", NOW).ends_with("no column \"x\"; expected one of: t, v"));
        assert!(said("t", "v", UnixMillis(5)).ends_with("holds no figure for now or before"));
        std::fs::write(&file, "t,v\nsoon,2\n").unwrap();
        assert!(said("t", "v", NOW).contains("line 2: t: is no time"));
        assert!(newest_row(&folder.path().join("y.csv"), "t", "v", NOW).is_err());
    }

    proptest! {
        #[test]
        fn hostile_texts_do_not_panic(text in "\\PC{0,60}") {
            let _ = moment(&text);
            let document = json!({"a": text});
            let _ = at_pointer(&document, "http://x", &text, Some(&text), NOW);
        }
    }
}
