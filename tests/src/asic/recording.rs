//! Recorded answers as JSON documents, and how live values are written over recorded ones.

use serde_json::Value;

/// Reads an answer that is part of this program.
///
/// # Panics
/// When the file in `tests/data/asic` is no JSON: a fault of the repository, found by every test that starts a miner.
#[must_use]
pub fn embedded(text: &str) -> Value {
    serde_json::from_str(text).expect("recorded answers in tests/data/asic are JSON")
}

/// Writes `value` over the recorded value at `pointer` (RFC 6901).
///
/// A pointer that leads nowhere would leave a recorded value where a live one is meant, so it stops a debug build.
pub fn patch(document: &mut Value, pointer: &str, value: impl Into<Value>) {
    let slot = document.pointer_mut(pointer);
    debug_assert!(slot.is_some(), "no recorded value at {pointer}");
    if let Some(slot) = slot {
        *slot = value.into();
    }
}

/// Rounded to two decimals, as the firmwares print.
#[must_use]
pub fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
