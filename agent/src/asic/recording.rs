//! Recorded replies for unit tests, and ways to damage them.
//!
//! Damage happens at two levels: bytes are changed, cut or repeated, and values inside valid JSON
//! are replaced by hostile ones, because random bytes alone almost never get past the JSON reader.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Bytes of a file below `tests/data/asic`.
pub fn recording(path: &str) -> Vec<u8> {
    let path = format!("{}/../tests/data/asic/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Changes to a recording.
#[derive(Debug, Clone)]
pub struct Edits {
    /// Which values to replace, counted in document order, and by which hostile one.
    values: Vec<(usize, usize)>,
    /// Which bytes to overwrite.
    bytes: Vec<(usize, u8)>,
    /// Where to cut, if at all.
    cut: Option<usize>,
}

/// Any damage.
pub fn mutated() -> impl Strategy<Value = Edits> {
    let values = prop::collection::vec((0usize..200, 0usize..100), 0..6);
    let bytes = prop::collection::vec((any::<usize>(), any::<u8>()), 0..3);
    (values, bytes, prop::option::weighted(0.2, any::<usize>()))
        .prop_map(|(values, bytes, cut)| Edits { values, bytes, cut })
}

impl Edits {
    /// The damaged reply.
    pub fn apply(&self, recording: &[u8]) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(recording).unwrap();
        for &(place, poison) in &self.values {
            let mut left = place;
            replace(&mut value, &mut left, &hostile(poison));
        }
        let mut bytes = value.to_string().into_bytes();
        for &(place, byte) in &self.bytes {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        if let Some(cut) = self.cut {
            bytes.truncate(cut % bytes.len());
        }
        bytes
    }
}

fn hostile(choice: usize) -> Value {
    let list = [
        json!(null),
        json!(true),
        json!(false),
        json!(-1),
        json!(1e308),
        json!(-1e308),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("NaN"),
        json!("~ TH"),
        json!("18446744073709551616"),
        json!("\u{0}\u{7f}\u{1F600}"),
        json!("x".repeat(5_000)),
        json!([]),
        json!({}),
        json!([[[[1]]]]),
        json!({"STATUS": "E"}),
    ];
    list[choice % list.len()].clone()
}

/// Replaces the value `left` places further on in document order.
fn replace(value: &mut Value, left: &mut usize, poison: &Value) -> bool {
    if *left == 0 {
        *value = poison.clone();
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, left, poison)),
        Value::Object(fields) => fields.values_mut().any(|item| replace(item, left, poison)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
