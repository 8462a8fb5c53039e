//! Reads the published mining vectors (`tests/data/mining`) for unit tests.

use serde_json::Value;

use super::{Target, hex};

/// The whole document of one vector file.
pub fn document(file: &str) -> Value {
    let path = format!("{}/../tests/data/mining/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file that is one list; never empty, so a loop over it tests something.
pub fn list(file: &str) -> Vec<Value> {
    let list = document(file).as_array().unwrap().clone();
    assert!(!list.is_empty(), "{file} has no cases");
    list
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

pub fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    hex::decode_exact("vector", text(value)).unwrap()
}

pub fn hex_word(value: &Value) -> u32 {
    u32::from_be_bytes(bytes(value))
}

pub fn words(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(hex_word).collect()
}

pub fn target(value: &Value) -> Target {
    Target(bytes(value))
}

/// Equal within the rounding of one f64 operation or two.
pub fn assert_close(got: f64, want: &Value) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= 1e-12 * want.abs(), "{got} against {want}");
}

/// Every scan of `nonce_scans.json` finds exactly its hits, in range order.
pub fn check_scans(backend: &mut dyn super::HashBackend) {
    let stop = std::sync::atomic::AtomicBool::new(false);
    for case in list("nonce_scans.json") {
        let request = super::ScanRequest {
            header: bytes(&case["header76_hex"]),
            target: target(&case["target_hex"]),
            start: u32::try_from(case["start"].as_u64().unwrap()).unwrap(),
            count: case["count"].as_u64().unwrap(),
        };
        let (hits, summary) = super::collect(backend, &request, &stop).unwrap();
        assert_eq!((summary.hashes, summary.complete), (request.count, true));
        let expected = case["hits"].as_array().unwrap();
        let name = text(&case["name"]);
        assert_eq!(hits.len(), expected.len(), "{name} on {}", backend.name());
        for (hit, want) in hits.iter().zip(expected) {
            assert_eq!(hit.nonce, hex_word(&want["nonce_hex"]), "{name} on {}", backend.name());
            let number = Target::of_hash(&hit.hash);
            assert_eq!(number, target(&want["hash_display"]), "{name}");
            assert_close(number.difficulty(), &want["share_difficulty"]);
        }
    }
}
