//! A GGUF file of a real, tiny encoder without a tokenizer: it takes token ids.

use std::path::Path;

use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::writer::{Field, GgufWriter};

pub const DIMENSIONS: usize = 32;
const VOCABULARY: usize = 16;
const TOKENS_MAX: usize = 8;

/// Writes it; its weights are some wave.
pub fn write(path: &Path) {
    let mut file = GgufWriter::default();
    file.field("general.architecture", &Field::Text("bert"));
    for (key, value) in [
        ("block_count", 1),
        ("embedding_length", DIMENSIONS as u32),
        ("feed_forward_length", 64),
        ("attention.head_count", 2),
        ("context_length", TOKENS_MAX as u32),
        ("pooling_type", 1),
    ] {
        file.field(&format!("bert.{key}"), &Field::U32(value));
    }
    let mut at = 0.0_f32;
    let mut add = |name: &str, rows: usize, columns: usize| {
        let weights: Vec<f32> = (0..rows * columns)
            .map(|_| {
                at += 1.0;
                (at * 0.7).sin()
            })
            .collect();
        file.tensor(name, TensorType::F32, columns, &weights).unwrap();
    };
    add("token_embd.weight", VOCABULARY, DIMENSIONS);
    add("position_embd.weight", TOKENS_MAX, DIMENSIONS);
    add("token_embd_norm.weight", 1, DIMENSIONS);
    add("token_embd_norm.bias", 1, DIMENSIONS);
    for (part, rows, columns) in [
        ("attn_q", DIMENSIONS, DIMENSIONS),
        ("attn_k", DIMENSIONS, DIMENSIONS),
        ("attn_v", DIMENSIONS, DIMENSIONS),
        ("attn_output", DIMENSIONS, DIMENSIONS),
        ("attn_output_norm", 1, DIMENSIONS),
        ("ffn_up", 64, DIMENSIONS),
        ("ffn_down", DIMENSIONS, 64),
        ("layer_output_norm", 1, DIMENSIONS),
    ] {
        add(&format!("blk.0.{part}.weight"), rows, columns);
        add(&format!("blk.0.{part}.bias"), 1, if rows == 1 { columns } else { rows });
    }
    std::fs::write(path, file.finish()).unwrap();
}
