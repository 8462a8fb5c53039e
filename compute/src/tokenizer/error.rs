//! Why a file's tokenizer cannot be used.

use crate::gguf::GgufError;

#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    Metadata(#[from] GgufError),
    #[error("the model file carries no tokenizer, so only token ids can be used")]
    Missing,
    #[error("tokenizer model '{model}' is not supported; byte-level BPE ('gpt2') is")]
    UnsupportedModel { model: String },
    #[error("pre-tokeniser '{pre}' is not supported; known: {known}")]
    UnsupportedPre { pre: String, known: String },
    #[error("bad vocabulary: {reason}")]
    Vocabulary { reason: String },
    #[error("the text could not be split: {reason}")]
    Split { reason: String },
}
