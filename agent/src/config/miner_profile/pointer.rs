//! Places in a JSON document: RFC 6901, with `*` for every element of a list and every value of an object.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// Values that one place may stand for; a machine has fewer GPUs, and what is beyond is not looked at.
pub const MATCHES_MAX: usize = 256;
/// Deepest place.
const STEPS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Each,
}

/// See the module head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<Step>);

/// Why a text is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It must begin with a slash.
    #[error(
        "{0:?} is no place in an answer; expected /question/key/.., for example /summary/hashrate"
    )]
    Shape(String),
    /// No answer is that deep.
    #[error("a place has at most {STEPS_MAX} steps")]
    TooDeep,
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let Some(path) = text.strip_prefix('/').filter(|path| !path.is_empty()) else {
            return Err(PointerError::Shape(text.chars().take(100).collect()));
        };
        let steps = path.split('/').map(|step| match step {
            "*" => Step::Each,
            key => Step::Key(key.replace("~1", "/").replace("~0", "~")),
        });
        let steps: Vec<Step> = steps.collect();
        if steps.len() > STEPS_MAX {
            return Err(PointerError::TooDeep);
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match step {
                Step::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1"))?,
                Step::Each => f.write_str("/*")?,
            }
        }
        Ok(())
    }
}

impl Pointer {
    /// The name it begins with; nothing if that is `*`.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        match self.0.first() {
            Some(Step::Key(key)) => Some(key),
            Some(Step::Each) | None => None,
        }
    }

    /// The values it stands for, at most [`MATCHES_MAX`].
    #[must_use]
    pub fn find<'v>(&self, document: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![document];
        for step in &self.0 {
            let mut next: Vec<&'v Value> = Vec::new();
            for value in found {
                let room = MATCHES_MAX.saturating_sub(next.len());
                match (step, value) {
                    (Step::Key(key), Value::Object(members)) => {
                        next.extend(members.get(key).into_iter().take(room));
                    }
                    (Step::Key(key), Value::Array(elements)) => {
                        let element = key.parse().ok().and_then(|index: usize| elements.get(index));
                        next.extend(element.into_iter().take(room));
                    }
                    (Step::Each, Value::Object(members)) => {
                        next.extend(members.values().take(room))
                    }
                    (Step::Each, Value::Array(elements)) => next.extend(elements.iter().take(room)),
                    (
                        Step::Key(_) | Step::Each,
                        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_),
                    ) => {}
                }
            }
            found = next;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_found_in_lists_and_objects() {
        let document = json!({"s": {"gpus": [{"r": 1}, {"r": 2}, {"x": 3}], "by": {"a": 4, "b/c": 5}, "MHS 30s": 6}});
        let find = |text: &str| {
            let found = text.parse::<Pointer>().unwrap();
            assert_eq!(found.to_string(), text);
            found
                .find(&document)
                .into_iter()
                .map(|value| value.as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(find("/s/gpus/*/r"), [1, 2]);
        assert_eq!(find("/s/gpus/1/r"), [2]);
        assert_eq!(find("/s/by/*"), [4, 5]);
        assert_eq!(find("/s/by/b~1c"), [5]);
        assert_eq!(find("/s/MHS 30s"), [6]);
        assert!(find("/s/nothing/*").is_empty() && find("/s/MHS 30s/0").is_empty());
        for bad in ["", "/", "s"] {
            assert!(bad.parse::<Pointer>().is_err(), "{bad}");
        }
        assert_eq!("/a".repeat(17).parse::<Pointer>(), Err(PointerError::TooDeep));
    }

    #[test]
    fn a_long_list_is_not_looked_at_to_its_end() {
        let document = json!({"l": vec![vec![1; 1_000]; 1_000]});
        assert_eq!("/l/*/*".parse::<Pointer>().unwrap().find(&document).len(), MATCHES_MAX);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[/*~01a]{0,40}") {
            if let Ok(place) = text.parse::<Pointer>() {
                let document = json!({"a": [{"0": [1]}]});
                prop_assert!(place.find(&document).len() <= MATCHES_MAX);
            }
        }
    }
}
