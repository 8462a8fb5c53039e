//! Reads the published Proof of Compute vectors (`tests/data/poc`) for unit tests.

use serde_json::Value;

/// The whole document of one vector file.
pub fn document(file: &str) -> Value {
    let path = format!("{}/../tests/data/poc/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The `cases` list of one vector file; never empty, so a loop over it tests something.
pub fn cases(file: &str) -> Vec<Value> {
    let cases = document(file)["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{file} has no cases");
    cases
}

pub fn word(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

pub fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

pub fn counts(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(count).collect()
}

pub fn reals(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|item| item.as_f64().unwrap()).collect()
}

/// The identity a case names.
pub fn identity(case: &Value) -> super::Identity {
    super::Identity {
        block_hash: case["block_hash"].as_str().unwrap().into(),
        public_key: case["public_key"].as_str().unwrap_or_default().into(),
    }
}

/// Euclidean distance of two vectors of one length.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}
