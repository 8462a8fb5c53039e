//! Where a model's weights come from: a GGUF file or a Hugging Face folder, seen alike.
//!
//! Names, metadata keys and layouts are GGUF's in both cases, whatever the container says: what loads a
//! model knows one vocabulary.

use std::collections::BTreeMap;
use std::path::Path;

use crate::gguf::{GgufError, GgufFile, Metadata, TensorEntry};
use crate::llm::EngineError;
use crate::safetensors::SafetensorsFolder;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// An open model. Entries given to its methods must be its own.
pub trait WeightSource: Send + Sync {
    fn metadata(&self) -> &Metadata;

    /// Every tensor by its GGUF name.
    fn entries(&self) -> &BTreeMap<String, TensorEntry>;

    /// The bytes of one row, `entry.row_bytes()` of them.
    fn row(&self, entry: &TensorEntry, row: usize) -> &[u8];

    /// All weights of a tensor as f32, row-major.
    fn weights(&self, entry: &TensorEntry) -> Vec<f32>;

    /// The model's tokenizer; [`TokenizerError::Missing`] if it has none.
    fn tokenizer(&self) -> Result<Tokenizer, TokenizerError>;

    fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.entries().get(name)
    }

    fn require_tensor(&self, name: &str) -> Result<&TensorEntry, GgufError> {
        self.tensor(name).ok_or_else(|| GgufError::missing_tensor(name))
    }
}

/// Opens a GGUF file or a folder with `config.json` and `*.safetensors`.
pub fn open(path: &Path) -> Result<Box<dyn WeightSource>, EngineError> {
    Ok(match path.is_dir() {
        true => Box::new(SafetensorsFolder::open(path)?),
        false => Box::new(GgufFile::open(path)?),
    })
}
