//! Which tensors a model must have, which it may have, and their shapes.
//!
//! A tensor this table does not know would be left out of the computation and the model would speak
//! nonsense, so it is an error. Names: llama.cpp, `src/llama-arch.cpp`.

use std::collections::BTreeSet;

use crate::gguf::{GgufError, TensorEntry};
use crate::source::WeightSource;

use super::config::{Experts, ModelConfig};
use super::error::EngineError;

/// Factors of the rotations, one per pair.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}
use Presence::{Optional, Required};

/// One tensor of a layer.
struct Part {
    name: &'static str,
    presence: Presence,
    rows: usize,
    columns: usize,
}

/// The name of a layer's tensor in the file.
pub(crate) fn layer_tensor(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}")
}

fn parts(config: &ModelConfig) -> Vec<Part> {
    let family = config.family();
    let (hidden, ffn, head) = (config.hidden, config.ffn, config.head);
    let (queries, keys) = (config.heads * head, config.kv_heads * head);
    let mut parts = Vec::new();
    let mut add = |presence, name, rows, columns| {
        parts.push(Part { name, presence, rows, columns });
    };
    add(Required, "attn_norm.weight", 1, hidden);
    add(Required, "attn_q.weight", queries, hidden);
    add(Required, "attn_k.weight", keys, hidden);
    add(Required, "attn_v.weight", keys, hidden);
    add(Required, "attn_output.weight", hidden, queries);
    add(Required, "ffn_norm.weight", 1, hidden);
    add(Optional, "attn_q.bias", 1, queries);
    add(Optional, "attn_k.bias", 1, keys);
    add(Optional, "attn_v.bias", 1, keys);
    add(Optional, "attn_output.bias", 1, hidden);
    match config.experts {
        None => {
            add(Required, "ffn_gate.weight", ffn, hidden);
            add(Required, "ffn_up.weight", ffn, hidden);
            add(Required, "ffn_down.weight", hidden, ffn);
            add(Optional, "ffn_gate.bias", 1, ffn);
            add(Optional, "ffn_up.bias", 1, ffn);
            add(Optional, "ffn_down.bias", 1, hidden);
        }
        // One expert's rows behind the other's.
        Some(Experts { count, ffn, .. }) => {
            add(Required, "ffn_gate_inp.weight", count, hidden);
            add(Required, "ffn_gate_exps.weight", count * ffn, hidden);
            add(Required, "ffn_up_exps.weight", count * ffn, hidden);
            add(Required, "ffn_down_exps.weight", count * hidden, ffn);
        }
    }
    if family.head_norms {
        add(Required, "attn_q_norm.weight", 1, head);
        add(Required, "attn_k_norm.weight", 1, head);
    }
    if family.post_norms {
        add(Required, "post_attention_norm.weight", 1, hidden);
        add(Required, "post_ffw_norm.weight", 1, hidden);
    }
    parts
}

/// Checks that the file's tensors are those of the model, no more, no fewer, and have its shapes.
pub(super) fn check(file: &dyn WeightSource, config: &ModelConfig) -> Result<(), EngineError> {
    let parts = parts(config);
    let mut known = BTreeSet::new();
    for layer in 0..config.layers {
        for part in &parts {
            let name = layer_tensor(layer, part.name);
            if part.presence == Required || file.tensor(&name).is_some() {
                shaped(file, &name, part.rows, part.columns)?;
            }
            known.insert(name);
        }
    }
    shaped(file, "output_norm.weight", 1, config.hidden)?;
    shaped(file, "token_embd.weight", config.vocabulary, config.hidden)?;
    if !config.tied {
        shaped(file, "output.weight", config.vocabulary, config.hidden)?;
    }
    rope_factors(file, config)?;
    let global = ["output_norm.weight", "token_embd.weight", "output.weight", ROPE_FACTORS];
    let unknown = file
        .entries()
        .values()
        .find(|entry| !known.contains(&entry.name) && !global.contains(&entry.name.as_str()));
    match unknown {
        None => Ok(()),
        Some(entry) => Err(EngineError::UnsupportedModel {
            reason: format!(
                "tensor {} is not known in a model of architecture '{}' with {} layers",
                entry.name,
                config.architecture.word(),
                config.layers
            ),
        }),
    }
}

/// The factors that divide the frequencies of the rotations, if the file has them.
pub(crate) fn rope_factors(
    file: &dyn WeightSource,
    config: &ModelConfig,
) -> Result<Option<Vec<f32>>, GgufError> {
    if file.tensor(ROPE_FACTORS).is_none() {
        return Ok(None);
    }
    let factors = file.weights(shaped(file, ROPE_FACTORS, 1, config.rope.dimensions / 2)?);
    match factors.iter().find(|factor| !(1e-6..=1e6).contains(*factor)) {
        None => Ok(Some(factors)),
        Some(factor) => Err(GgufError::Tensor {
            name: ROPE_FACTORS.to_owned(),
            reason: format!("a factor of {factor}; expected 0.000001 to 1000000"),
        }),
    }
}

/// A tensor that must have exactly this shape.
pub(crate) fn shaped<'f>(
    file: &'f dyn WeightSource,
    name: &str,
    rows: usize,
    columns: usize,
) -> Result<&'f TensorEntry, GgufError> {
    let entry = file.require_tensor(name)?;
    if (entry.rows, entry.columns) != (rows, columns) {
        return Err(GgufError::Tensor {
            name: name.to_owned(),
            reason: format!("is {} x {}, expected {rows} x {columns}", entry.rows, entry.columns),
        });
    }
    Ok(entry)
}
