//! Why a model folder was refused: file, place and reason.

/// A bad model folder. Folders come from the network, so nothing in them is believed.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{file}: {reason}")]
    Malformed { file: String, reason: String },
    #[error("{file}: tensor {name}: {reason}")]
    Tensor { file: String, name: String, reason: String },
    #[error("config.json: {reason}")]
    Config { reason: String },
}
