//! Reading JSON bodies field by field, so that an error names its place, whichever form it is then written in.
//!
//! Clients send bodies without a Content-Type and with fields we do not know; both are fine. What is missing or of the
//! wrong type is collected, all of it, with the words the network's own (Python) nodes use, because their tools read them.

use std::cell::RefCell;

use serde_json::{Map, Value, json};

/// Problems told at most: enough to mend a request, not a way to make a large answer from a small body.
const PROBLEMS_MAX: usize = 16;

/// One step on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Index(usize),
}

/// What is wrong with a body, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    /// Machine word of the network's own nodes (`missing`, `string_type`, ..).
    pub(super) kind: &'static str,
    pub(super) place: Vec<Step>,
    pub(super) message: String,
    pub(super) input: Value,
}

impl Problem {
    /// `messages.0.content`
    pub(super) fn place_text(&self) -> String {
        let step = |step: &Step| match step {
            Step::Field(name) => name.clone(),
            Step::Index(at) => at.to_string(),
        };
        self.place.iter().map(step).collect::<Vec<_>>().join(".")
    }

    /// One entry of a 422 answer.
    fn detail(&self) -> Value {
        let steps = self.place.iter().map(|step| match step {
            Step::Field(name) => json!(name),
            Step::Index(at) => json!(at),
        });
        let place: Vec<Value> = std::iter::once(json!("body")).chain(steps).collect();
        json!({"type": self.kind, "loc": place, "msg": self.message, "input": self.input})
    }
}

/// A body that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BodyFault {
    /// No JSON at all.
    Syntax { line: usize, column: usize, offset: usize, message: String },
    /// JSON, but not what was expected.
    Fields(Vec<Problem>),
}

impl BodyFault {
    /// The `detail` of a 422 answer.
    pub(super) fn details(&self) -> Value {
        match self {
            Self::Syntax { offset, message, .. } => json!([{
                "type": "json_invalid", "loc": ["body", offset], "msg": "JSON decode error",
                "input": {}, "ctx": {"error": message},
            }]),
            Self::Fields(problems) => problems.iter().map(Problem::detail).collect(),
        }
    }
}

/// Reads a body as an object and lets `read` take its fields.
pub(super) fn read_body<T>(
    body: &[u8],
    read: impl FnOnce(&Fields<'_>) -> Option<T>,
) -> Result<T, BodyFault> {
    let missing = |kind, message: &str, input| {
        BodyFault::Fields(vec![Problem { kind, place: vec![], message: message.into(), input }])
    };
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(missing("missing", "Field required", Value::Null));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| syntax(body, &error))?;
    let Value::Object(object) = &value else {
        let message = "Input should be a valid dictionary or object to extract fields from";
        return Err(missing("model_attributes_type", message, shortened(&value)));
    };
    let problems = RefCell::default();
    let read = read(&Fields { object, place: vec![], problems: &problems });
    let problems = problems.into_inner();
    match read {
        Some(value) if problems.is_empty() => Ok(value),
        Some(_) | None => Err(BodyFault::Fields(problems)),
    }
}

fn syntax(body: &[u8], error: &serde_json::Error) -> BodyFault {
    let (line, column) = (error.line(), error.column());
    let before: usize = body
        .split_inclusive(|&byte| byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = (before + column).saturating_sub(1).min(body.len());
    BodyFault::Syntax { line, column, offset, message: error.to_string() }
}

/// An input is quoted back only while it is small.
fn shortened(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) if text.len() <= 100 => value.clone(),
        Value::String(text) => json!(format!("{}..", text.chars().take(100).collect::<String>())),
        Value::Array(_) => json!([]),
        Value::Object(_) => json!({}),
    }
}

/// An object being read.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    place: Vec<Step>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Fields<'a> {
    /// Notes a problem with a field.
    pub(super) fn complain(&self, name: &str, kind: &'static str, message: impl Into<String>) {
        let input = self.object.get(name).map_or_else(|| json!({}), shortened);
        self.note(self.place_of(&[Step::Field(name.into())]), kind, message.into(), input);
    }

    fn note(&self, place: Vec<Step>, kind: &'static str, message: String, input: Value) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            problems.push(Problem { kind, place, message, input });
        }
    }

    fn place_of(&self, steps: &[Step]) -> Vec<Step> {
        self.place.iter().chain(steps).cloned().collect()
    }

    /// A field that is there and not null.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Names of fields not in `known`.
    pub(super) fn unknown(&self, known: &[&str]) -> Vec<&'a str> {
        self.object.keys().map(String::as_str).filter(|name| !known.contains(name)).collect()
    }

    /// A field that must be there.
    pub(super) fn required<T: FromJson<'a>>(&self, name: &str) -> Option<T> {
        if self.object.contains_key(name) {
            return self.read(name, self.object.get(name)?);
        }
        self.complain(name, "missing", "Field required");
        None
    }

    /// A field that may be absent or null.
    pub(super) fn optional<T: FromJson<'a>>(&self, name: &str) -> Option<T> {
        self.read(name, self.value(name)?)
    }

    /// A number that must be within limits.
    pub(super) fn within(&self, name: &str, least: f64, most: f64) -> Option<f64> {
        let value: f64 = self.optional(name)?;
        if (least..=most).contains(&value) {
            return Some(value);
        }
        self.complain(name, "out_of_range", format!("{value} is not within {least} and {most}"));
        None
    }

    fn read<T: FromJson<'a>>(&self, name: &str, value: &'a Value) -> Option<T> {
        let read = T::from_json(value);
        if read.is_none() {
            self.complain(name, T::KIND, T::MESSAGE);
        }
        read
    }

    /// A field that is an object.
    pub(super) fn object(&self, name: &str) -> Option<Fields<'a>> {
        let object: &Map<String, Value> = self.optional(name)?;
        Some(self.inner(object, &[Step::Field(name.into())]))
    }

    /// A field that is a list of objects, if it is there. An entry that is none is complained about.
    pub(super) fn objects(&self, name: &str) -> Option<Vec<Fields<'a>>> {
        let list: &Vec<Value> = self.optional(name)?;
        let entry = |(at, value): (usize, &'a Value)| {
            let steps = [Step::Field(name.into()), Step::Index(at)];
            let Value::Object(object) = value else {
                let message = "Input should be a valid dictionary".into();
                self.note(self.place_of(&steps), "dict_type", message, shortened(value));
                return None;
            };
            Some(self.inner(object, &steps))
        };
        Some(list.iter().enumerate().filter_map(entry).collect())
    }

    /// A list of plain values, if it is there. An entry of another type is complained about.
    pub(super) fn list<T: FromJson<'a>>(&self, name: &str) -> Option<Vec<T>> {
        let list: &Vec<Value> = self.optional(name)?;
        let entry = |(at, value): (usize, &'a Value)| {
            let read = T::from_json(value);
            if read.is_none() {
                let place = self.place_of(&[Step::Field(name.into()), Step::Index(at)]);
                self.note(place, T::KIND, T::MESSAGE.into(), shortened(value));
            }
            read
        };
        Some(list.iter().enumerate().filter_map(entry).collect())
    }

    fn inner(&self, object: &'a Map<String, Value>, steps: &[Step]) -> Fields<'a> {
        Fields { object, place: self.place_of(steps), problems: self.problems }
    }
}

/// A type a field can have.
pub(super) trait FromJson<'a>: Sized {
    const KIND: &'static str;
    const MESSAGE: &'static str;
    fn from_json(value: &'a Value) -> Option<Self>;
}

impl FromJson<'_> for String {
    const KIND: &'static str = "string_type";
    const MESSAGE: &'static str = "Input should be a valid string";
    fn from_json(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl FromJson<'_> for bool {
    const KIND: &'static str = "bool_type";
    const MESSAGE: &'static str = "Input should be a valid boolean";
    fn from_json(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FromJson<'_> for f64 {
    const KIND: &'static str = "float_type";
    const MESSAGE: &'static str = "Input should be a valid number";
    fn from_json(value: &Value) -> Option<Self> {
        value.as_f64().filter(|number| number.is_finite())
    }
}

impl FromJson<'_> for i64 {
    const KIND: &'static str = "int_type";
    const MESSAGE: &'static str = "Input should be a valid integer";
    fn from_json(value: &Value) -> Option<Self> {
        value.as_i64()
    }
}

impl FromJson<'_> for u32 {
    const KIND: &'static str = "int_type";
    const MESSAGE: &'static str = "Input should be a valid integer from 0 to 4294967295";
    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64().and_then(|number| Self::try_from(number).ok())
    }
}

impl FromJson<'_> for usize {
    const KIND: &'static str = "int_type";
    const MESSAGE: &'static str = "Input should be a valid integer, 0 or more";
    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64().and_then(|number| Self::try_from(number).ok())
    }
}

impl<'a> FromJson<'a> for &'a Vec<Value> {
    const KIND: &'static str = "list_type";
    const MESSAGE: &'static str = "Input should be a valid list";
    fn from_json(value: &'a Value) -> Option<Self> {
        value.as_array()
    }
}

impl<'a> FromJson<'a> for &'a Map<String, Value> {
    const KIND: &'static str = "dict_type";
    const MESSAGE: &'static str = "Input should be a valid dictionary";
    fn from_json(value: &'a Value) -> Option<Self> {
        value.as_object()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn syntax_errors_name_their_place() {
        let fault = read_body(b"{\n \"a\": nope}", |_| Some(())).unwrap_err();
        let BodyFault::Syntax { line, column, offset, .. } = fault else { panic!("{fault:?}") };
        // At the `o`, where `null` ends to be possible.
        assert_eq!((line, column, offset), (2, 8, 9));
        assert_eq!(fault.details()[0]["type"], "json_invalid");
    }

    #[test]
    fn every_problem_is_told() {
        let fault = read_body(br#"{"b": 1, "c": [1, "x"], "d": {"e": true}}"#, |fields| {
            let d = fields.object("d")?;
            let (_, _, _): (Option<String>, Option<String>, Option<String>) =
                (fields.required("a"), fields.optional("b"), d.required("e"));
            fields.list::<u32>("c")
        })
        .unwrap_err();
        let details = fault.details();
        assert_eq!(details[0]["loc"], json!(["body", "a"]));
        assert_eq!(details[1]["msg"], "Input should be a valid string");
        assert_eq!(details[2]["loc"], json!(["body", "d", "e"]));
        assert_eq!(details[3]["loc"], json!(["body", "c", 1]));
    }

    #[test]
    fn no_body_and_no_object_are_told_apart() {
        let kind =
            |body: &[u8]| read_body(body, |_| Some(())).unwrap_err().details()[0]["type"].clone();
        assert_eq!(kind(b" "), "missing");
        assert_eq!(kind(b"[]"), "model_attributes_type");
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read = |fields: &Fields<'_>| fields.required::<String>("a");
            if let Err(fault) = read_body(&body, read) {
                prop_assert!(fault.details().as_array().is_some_and(|list| !list.is_empty()));
            }
        }
    }
}
