//! Which tensors an encoder must have and their shapes. Names: llama.cpp, `src/llama-arch.cpp`, `bert`.
//!
//! A tensor this table does not know would be left out of the computation, so it is an error.

use std::collections::BTreeSet;

use crate::llm::EngineError;
use crate::llm::tensors::{layer_tensor, shaped};
use crate::source::WeightSource;

use super::config::EncoderConfig;

/// Embeddings of the kinds of texts in a pair; a text alone is of the first.
pub(super) const KINDS: &str = "token_types.weight";

/// Checks that the file's tensors are those of the model, no more, no fewer, and have its shapes.
pub(super) fn check(file: &dyn WeightSource, config: &EncoderConfig) -> Result<(), EngineError> {
    let (hidden, ffn) = (config.hidden, config.ffn);
    let mut known = BTreeSet::new();
    let mut require = |name: String, rows: usize, columns: usize| {
        shaped(file, &name, rows, columns)?;
        known.insert(name);
        Ok::<(), EngineError>(())
    };
    require("token_embd.weight".to_owned(), config.vocabulary, hidden)?;
    require("position_embd.weight".to_owned(), config.positions, hidden)?;
    for ending in ["weight", "bias"] {
        require(format!("token_embd_norm.{ending}"), 1, hidden)?;
    }
    for layer in 0..config.layers {
        let matrices = [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, hidden),
            ("attn_v", hidden, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_up", ffn, hidden),
            ("ffn_down", hidden, ffn),
        ];
        for (part, rows, columns) in matrices {
            require(layer_tensor(layer, &format!("{part}.weight")), rows, columns)?;
            require(layer_tensor(layer, &format!("{part}.bias")), 1, rows)?;
        }
        for part in ["attn_output_norm", "layer_output_norm"] {
            require(layer_tensor(layer, &format!("{part}.weight")), 1, hidden)?;
            require(layer_tensor(layer, &format!("{part}.bias")), 1, hidden)?;
        }
    }
    if let Some(kinds) = file.tensor(KINDS) {
        require(KINDS.to_owned(), kinds.rows, hidden)?;
    }
    match file.entries().values().find(|entry| !known.contains(&entry.name)) {
        None => Ok(()),
        Some(entry) => Err(EngineError::UnsupportedModel {
            reason: format!(
                "tensor {} is not known in an encoder with {} layers",
                entry.name, config.layers
            ),
        }),
    }
}
