//! Why a GGUF file was refused: place and reason.

/// A bad model file. Files come from the network, so nothing in them is believed.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("at byte {offset}, {what}: {reason}")]
    Malformed { offset: usize, what: String, reason: String },
    #[error("metadata key {key}: {reason}")]
    Metadata { key: String, reason: String },
    #[error("tensor {name}: {reason}")]
    Tensor { name: String, reason: String },
}

impl GgufError {
    pub(crate) fn missing_tensor(name: &str) -> Self {
        Self::Tensor { name: name.to_owned(), reason: "missing".to_owned() }
    }
}
