//! Where tests find the real model and the vectors.

use std::path::{Path, PathBuf};

/// The SmolLM2 file that `make setup` fetches. Missing is a failure, not a skip: without it nothing
/// shows that the engine computes what the rest of the world computes.
pub fn smollm2() -> PathBuf {
    let root = std::env::var_os("ROADBED_MODELS").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/roadbed/models")
        },
        PathBuf::from,
    );
    for folder in [root.join("smollm2-135m"), root.clone()] {
        let found = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|e| e == "gguf"));
        if let Some(path) = found {
            return path;
        }
    }
    panic!("no SmolLM2 model under {}: run `make setup`", root.display());
}

/// A JSON file under `tests/data/`.
pub fn vectors(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// An array of unsigned numbers in JSON.
pub fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| u32::try_from(v.as_u64().unwrap()).unwrap()).collect()
}
