//! Why a file's tokenizer cannot be used, or a text cannot be encoded.

use crate::gguf::GgufError;

#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    Metadata(#[from] GgufError),
    #[error("the model file carries no tokenizer, so only token ids can be used")]
    Missing,
    #[error("tokenizer model '{model}' is not supported; known: {known}")]
    UnsupportedModel { model: String, known: String },
    #[error("pre-tokeniser '{pre}' is not supported; known: {known}")]
    UnsupportedPre { pre: String, known: String },
    #[error("the tokenizer's {part} is not supported: {reason}")]
    UnsupportedPart { part: String, reason: String },
    #[error("bad vocabulary: {reason}")]
    Vocabulary { reason: String },
    #[error("{file} cannot be read: {reason}")]
    Json { file: &'static str, reason: String },
    #[error("the tokenizer's pattern '{pattern}' cannot be used: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("a text of {bytes} bytes is too long to encode; at most {max} bytes")]
    TextTooLong { bytes: usize, max: usize },
}
