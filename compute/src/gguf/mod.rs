//! GGUF.
/// Place and reason of a bad file.
#[derive(Debug, thiserror::Error)]
#[error("bad file")]
pub struct GgufError;
