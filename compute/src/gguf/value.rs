//! Metadata values, widened to few types: nobody cares whether a layer count was u16 or u32.

use std::collections::BTreeMap;

use super::error::GgufError;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Vec<Value>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned number",
            Self::Signed(_) => "a signed number",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
        }
    }
}

/// The key-value part of a file, with typed look-ups whose errors name the key.
#[derive(Clone, Debug, Default)]
pub struct Metadata(pub(super) BTreeMap<String, Value>);

impl Metadata {
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets a key, for a source that is no GGUF file.
    pub(crate) fn insert(&mut self, key: String, value: Value) {
        self.0.insert(key, value);
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn require<T>(&self, key: &str, found: Option<T>) -> Result<T, GgufError> {
        found.ok_or_else(|| GgufError::Metadata {
            key: key.to_owned(),
            reason: "missing".to_owned(),
        })
    }

    fn wrong(key: &str, wanted: &str, value: &Value) -> GgufError {
        GgufError::Metadata {
            key: key.to_owned(),
            reason: format!("expected {wanted}, found {}", value.kind()),
        }
    }

    /// A count that fits a `usize`.
    pub fn count(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let number = match self.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(n)) => usize::try_from(*n).ok(),
            Some(Value::Signed(n)) => usize::try_from(*n).ok(),
            Some(other) => return Err(Self::wrong(key, "a count", other)),
        };
        number.map(Some).ok_or_else(|| GgufError::Metadata {
            key: key.to_owned(),
            reason: "the number is negative or too large".to_owned(),
        })
    }

    pub fn require_count(&self, key: &str) -> Result<usize, GgufError> {
        let found = self.count(key)?;
        self.require(key, found)
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(f)) if f.is_finite() => Ok(Some(*f)),
            Some(other) => Err(Self::wrong(key, "a finite float", other)),
        }
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(Self::wrong(key, "a boolean", other)),
        }
    }

    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(Self::wrong(key, "a string", other)),
        }
    }

    pub fn require_string(&self, key: &str) -> Result<&str, GgufError> {
        let found = self.string(key)?;
        self.require(key, found)
    }

    pub fn array(&self, key: &str) -> Result<Option<&[Value]>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(a)) => Ok(Some(a)),
            Some(other) => Err(Self::wrong(key, "an array", other)),
        }
    }

    /// An array of strings.
    pub fn require_strings(&self, key: &str) -> Result<Vec<&str>, GgufError> {
        let found = self.array(key)?;
        self.require(key, found)?
            .iter()
            .map(|value| match value {
                Value::String(s) => Ok(s.as_str()),
                other => Err(Self::wrong(key, "an array of strings", other)),
            })
            .collect()
    }
}
