//! Tokenizer.
#[derive(Debug, thiserror::Error)]
#[error("bad tokenizer")]
pub struct TokenizerError;
