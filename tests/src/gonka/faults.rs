//! How the public API misbehaves on purpose: numbers as strings, fields left out, endpoints missing, old answers, slow ones.
//!
//! Everything a reader of somebody else's node meets sooner or later. All are off by default, can be set in the config, and
//! can be changed while it runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// Fields that older versions do not have.
const OPTIONAL: [&str; 12] = [
    "next_epoch_stages",
    "poc_exchange_window",
    "poc_validation_exchange_window",
    "effective_epoch_index",
    "is_confirmation_poc_active",
    "active_confirmation_poc_event",
    "cap_weight",
    "utilization",
    "capacity",
    "confirmation_weight_scales",
    "seed",
    "v_ram",
];

/// The public API's manners.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Every number is written as a string.
    pub numbers_as_strings: bool,
    /// Fields that older versions do not have are left out.
    pub no_optional_fields: bool,
    /// Paths that end in one of these are answered with 404.
    pub not_found: BTreeSet<String>,
    /// Paths that end in one of these are answered with 500 and a text that is no JSON.
    pub broken: BTreeSet<String>,
    /// Paths that end in one of these are answered with 200 and a text that is no JSON.
    pub garbled: BTreeSet<String>,
    /// No new block comes.
    pub halted: bool,
    /// Whatever was answered once is answered again.
    pub stale: bool,
    /// Milliseconds of wall time before every answer.
    pub slow_ms: u64,
    /// What was answered while `stale` was set.
    #[serde(skip)]
    pub kept: BTreeMap<String, (u16, Value)>,
}

impl Faults {
    /// Whether a path is among those that `ends` names.
    fn names(ends: &BTreeSet<String>, path: &str) -> bool {
        ends.iter().any(|end| path.ends_with(end.as_str()))
    }

    /// The answer as it is given, from the answer as it should be.
    pub fn bend(&mut self, path: &str, right: (u16, Value)) -> (u16, Value) {
        if Self::names(&self.not_found, path) {
            return (404, serde_json::json!({ "error": "Not Found" }));
        }
        if Self::names(&self.broken, path) {
            return (500, Value::Null);
        }
        if Self::names(&self.garbled, path) {
            return (200, Value::Null);
        }
        let right = if self.stale {
            self.kept.entry(path.to_owned()).or_insert(right).clone()
        } else {
            self.kept.clear();
            right
        };
        let (status, mut document) = right;
        if self.no_optional_fields {
            strip(&mut document);
        }
        if self.numbers_as_strings {
            stringify(&mut document);
        }
        (status, document)
    }
}

fn strip(document: &mut Value) {
    match document {
        Value::Object(fields) => {
            OPTIONAL.iter().for_each(|name| drop(fields.remove(*name)));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn stringify(document: &mut Value) {
    match document {
        Value::Object(fields) => fields.values_mut().for_each(stringify),
        Value::Array(items) => items.iter_mut().for_each(stringify),
        Value::Number(number) => *document = Value::String(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_bent_as_told() {
        let right =
            || (200, json!({ "height": 5, "next_epoch_stages": {}, "list": [{ "n": 1.5 }] }));
        let mut faults = Faults::default();
        assert_eq!(faults.bend("/a", right()), right());
        faults.numbers_as_strings = true;
        faults.no_optional_fields = true;
        let bent = (200, json!({ "height": "5", "list": [{ "n": "1.5" }] }));
        assert_eq!(faults.bend("/a", right()), bent);
        let mut stale = Faults { stale: true, ..Faults::default() };
        assert_eq!(stale.bend("/a", right()), right());
        assert_eq!(stale.bend("/a", (200, json!(9))), right(), "as before");
        let ends = ["/a".to_owned()].into();
        let mut missing = Faults { not_found: ends, ..Faults::default() };
        assert_eq!(missing.bend("/x/a", right()).0, 404);
        assert_eq!(missing.bend("/x/b", right()).0, 200);
        let ends = ["/a".to_owned()].into();
        let mut garbled = Faults { garbled: ends, ..Faults::default() };
        assert_eq!(garbled.bend("/a", right()), (200, Value::Null), "said as a text");
    }
}
