//! Looking into a JSON answer of a chain: numbers that may be texts, fields that may be absent, decimals in two parts.
//!
//! Go's servers write the same number as `7` in one answer and as `"7"` in the next, leave out what is zero, and add
//! fields with every release. So nothing is read by a fixed shape: each field is looked for, and what is missing though
//! it is needed is named by its path.

use farm_core::gonka::{Decimal, Height, Ngonka};
use serde_json::Value;

/// Longest piece of an answer that an error repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// What an answer lacks, or has in a shape that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}, found {found}")]
pub struct ShapeError {
    /// The field, from the top of the answer.
    pub path: String,
    /// What was expected there.
    pub expected: &'static str,
    /// The beginning of what is there.
    pub found: String,
}

/// A place in an answer.
#[derive(Debug, Clone)]
pub struct Place<'v> {
    value: Option<&'v Value>,
    path: String,
}

impl<'v> Place<'v> {
    /// The whole answer.
    #[must_use]
    pub fn top(value: &'v Value) -> Self {
        Self { value: Some(value), path: String::new() }
    }

    /// A field of it, there or not.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let value = self.value.and_then(|value| value.get(name));
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { value: value.filter(|value| !value.is_null()), path }
    }

    /// The first of several names of a field that is there; the first name if none is.
    #[must_use]
    pub fn either(&self, names: &[&str]) -> Self {
        let found = names.iter().map(|name| self.field(name)).find(Self::is_there);
        found.unwrap_or_else(|| self.field(names.first().copied().unwrap_or_default()))
    }

    /// The field if it is there, else this place itself: answers of the chain API are wrapped in a field of their name,
    /// those of the API process are not.
    #[must_use]
    pub fn unwrapped(&self, name: &str) -> Self {
        let inner = self.field(name);
        if inner.is_there() { inner } else { self.clone() }
    }

    /// Whether it is there and not null.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.value.is_some()
    }

    /// Its elements; none when it is absent or no list.
    pub fn list(&self) -> impl Iterator<Item = Place<'v>> + use<'v> {
        let path = self.path.clone();
        let elements = self.value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        elements.iter().enumerate().map(move |(index, value)| Place {
            value: Some(value),
            path: format!("{path}[{index}]"),
        })
    }

    /// The lists among its fields that hold objects: for answers whose field's name differs from release to release.
    #[must_use]
    pub fn any_list(&self) -> Self {
        let fields = self.value.and_then(Value::as_object).into_iter().flatten();
        let lists = fields.filter(|(_, value)| {
            value.as_array().is_some_and(|list| list.iter().any(Value::is_object))
        });
        lists.map(|(name, _)| self.field(name)).next().unwrap_or_else(|| self.clone())
    }

    /// A whole number, written as one or as text.
    #[must_use]
    pub fn whole(&self) -> Option<i128> {
        match self.value? {
            Value::Number(number) => {
                number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
            }
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// A whole number that is not negative and fits.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.whole().and_then(|number| u64::try_from(number).ok())
    }

    /// The same, and zero when it is absent: zero is left out by the chain's encoder.
    ///
    /// # Errors
    /// [`ShapeError`] when something else is there.
    pub fn count_or_zero(&self) -> Result<u64, ShapeError> {
        if self.is_there() { self.needed_count() } else { Ok(0) }
    }

    /// The same, needed.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn needed_count(&self) -> Result<u64, ShapeError> {
        self.count().ok_or_else(|| self.error("a whole number"))
    }

    /// A height.
    #[must_use]
    pub fn height(&self) -> Option<Height> {
        self.whole().and_then(|number| i64::try_from(number).ok()).map(Height)
    }

    /// A height that is needed.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn needed_height(&self) -> Result<Height, ShapeError> {
        self.height().ok_or_else(|| self.error("a block height"))
    }

    /// Blocks.
    #[must_use]
    pub fn blocks(&self) -> Option<i64> {
        self.height().map(|height| height.0)
    }

    /// Billionths of a GNK; none when negative.
    #[must_use]
    pub fn ngonka(&self) -> Option<Ngonka> {
        self.whole().and_then(|number| u128::try_from(number).ok()).map(Ngonka)
    }

    /// `{"value": .., "exponent": ..}` with each part a number or a text; also a plain number, or a text like `0.05`.
    #[must_use]
    pub fn decimal(&self) -> Option<Decimal> {
        match self.value? {
            Value::Object(_) => {
                let part = |name: &str| {
                    let place = self.field(name);
                    // The encoder leaves a zero out.
                    if place.is_there() { place.whole() } else { Some(0) }
                };
                let value = i64::try_from(part("value")?).ok()?;
                Decimal::new(value, i32::try_from(part("exponent")?).ok()?)
            }
            Value::String(text) => written_decimal(text.trim()),
            Value::Number(number) => written_decimal(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) => None,
        }
    }

    /// A text that is not empty.
    #[must_use]
    pub fn text(&self) -> Option<&'v str> {
        self.value.and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A text that is needed.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn needed_text(&self) -> Result<&'v str, ShapeError> {
        self.text().ok_or_else(|| self.error("a text"))
    }

    /// All texts of a list.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.list().filter_map(|place| place.text().map(str::to_owned)).collect()
    }

    /// The names of its fields, or its texts if it is a list.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        match self.value.and_then(Value::as_object) {
            Some(fields) => fields.keys().cloned().collect(),
            None => self.texts(),
        }
    }

    /// True or false; false when it is absent, as the chain's encoder has it.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.value.and_then(Value::as_bool).unwrap_or(false)
    }

    /// True or false, if it is there.
    #[must_use]
    pub fn truth(&self) -> Option<bool> {
        self.value.and_then(Value::as_bool)
    }

    /// A complaint about this place.
    #[must_use]
    pub fn error(&self, expected: &'static str) -> ShapeError {
        let found = self.value.map_or("nothing".to_owned(), |value| {
            let text = value.to_string();
            match text.char_indices().nth(SHOWN_CHARS_MAX) {
                Some((end, _)) => format!("{}..", &text[..end]),
                None => text,
            }
        });
        let path = if self.path.is_empty() { "the answer".to_owned() } else { self.path.clone() };
        ShapeError { path, expected, found }
    }
}

/// `-0.000475` or `3e-4` as digits and a power of ten; `None` when it is no number or has too many digits.
fn written_decimal(text: &str) -> Option<Decimal> {
    let (digits, power) = match text.split_once(['e', 'E']) {
        Some((digits, power)) => (digits, power.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    // Cosmos writes 18 places; trailing zeros say nothing and would not fit.
    let part = part.trim_end_matches('0');
    if whole.is_empty() || !(whole.bytes().chain(part.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: i64 = format!("{whole}{part}").parse().ok()?;
    let places = i32::try_from(part.len()).ok()?;
    Decimal::new(if negative { -value } else { value }, power.checked_sub(places)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_however_they_are_written() {
        let answer = json!({"a": 7, "b": "7", "c": 7.5, "d": "x", "e": -1, "f": null});
        let top = Place::top(&answer);
        let count = |name: &str| top.field(name).count();
        assert_eq!([count("a"), count("b")], [Some(7), Some(7)]);
        assert_eq!([count("c"), count("d"), count("e"), count("f"), count("g")], [None; 5]);
        assert_eq!(top.field("f").count_or_zero(), Ok(0));
        let error = top.field("d").count_or_zero().unwrap_err();
        assert_eq!(error.to_string(), "d: expected a whole number, found \"x\"");
    }

    #[test]
    fn decimals_are_read_however_they_are_written() {
        let read = |value: Value| Place::top(&value).decimal().map(|decimal| decimal.to_string());
        assert_eq!(read(json!({"value": "3024", "exponent": -4})).as_deref(), Some("0.3024"));
        assert_eq!(read(json!({"value": 3024, "exponent": "-4"})).as_deref(), Some("0.3024"));
        assert_eq!(read(json!({"value": "5"})).as_deref(), Some("5"));
        assert_eq!(read(json!("0.050000000000000000")).as_deref(), Some("0.05"));
        assert_eq!(read(json!("-0.000475")).as_deref(), Some("-0.000475"));
        assert_eq!(read(json!(0.62)).as_deref(), Some("0.62"));
        assert_eq!(read(json!({"value": "1", "exponent": 99})), None);
        assert_eq!(read(json!("1.2.3")), None);
        assert_eq!(read(json!("")), None);
    }
}
