//! From the tensor names of Hugging Face models to GGUF's, and what changes with the name.
//!
//! Source: llama.cpp, `gguf-py/gguf/tensor_mapping.py` for names; `conversion/llama.py` (`permute`) and
//! `conversion/gemma.py` (the 1 that norms add) for values.

use crate::llm::Architecture;

/// What a tensor becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Renamed {
    pub name: String,
    /// Its rows (or, of a vector, elements) belong to heads whose two halves are to be interleaved.
    pub interleaved: bool,
    /// One is added to every weight.
    pub plus_one: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Weight(Renamed),
    /// Computed from the config; old checkpoints stored it.
    Dropped,
    Unknown,
}

/// What becomes of a tensor.
pub(super) fn fate(architecture: Architecture, name: &str) -> Fate {
    if name.ends_with(".rotary_emb.inv_freq") {
        return Fate::Dropped;
    }
    let (interleaves, gemma) = match architecture {
        Architecture::Llama => (true, false),
        Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe => (false, false),
        Architecture::Gemma2 | Architecture::Gemma3 => (false, true),
    };
    let new = match name {
        "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
        "model.norm.weight" => "output_norm.weight".to_owned(),
        "lm_head.weight" => "output.weight".to_owned(),
        _ => match layer_part(name, gemma) {
            Some(new) => new,
            None => return Fate::Unknown,
        },
    };
    let of_heads = |part: &str| {
        new.ends_with(&format!(".{part}.weight")) || new.ends_with(&format!(".{part}.bias"))
    };
    Fate::Weight(Renamed {
        interleaved: interleaves && (of_heads("attn_q") || of_heads("attn_k")),
        plus_one: gemma && new.ends_with("norm.weight"),
        name: new,
    })
}

fn layer_part(name: &str, gemma: bool) -> Option<String> {
    let (layer, part, ending) = layer_and_part(name.strip_prefix("model.layers.")?)?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" if gemma => "post_attention_norm",
        "post_attention_layernorm" => "ffn_norm",
        "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{ending}"))
}

/// The layer, the part and its ending in a name such as `12.mlp.up_proj.weight`.
pub(super) fn layer_and_part(name: &str) -> Option<(usize, &str, &str)> {
    let (layer, part) = name.split_once('.')?;
    let (part, ending) = part.rsplit_once('.')?;
    // "01" would be a second name for layer 1.
    let layer: usize = layer.parse().ok().filter(|number: &usize| number.to_string() == layer)?;
    Some((layer, part, ending))
}

/// Where row `row` of interleaved pairs lies in heads of two halves, `head` rows each.
pub(super) fn half_split_row(row: usize, head: usize) -> usize {
    let (first, within) = (row / head * head, row % head);
    first + within / 2 + within % 2 * (head / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_by_family() {
        let new = |architecture, name| match fate(architecture, name) {
            Fate::Weight(renamed) => renamed,
            other => panic!("{name}: {other:?}"),
        };
        let q = new(Architecture::Llama, "model.layers.12.self_attn.q_proj.weight");
        assert_eq!((q.name.as_str(), q.interleaved), ("blk.12.attn_q.weight", true));
        let q = new(Architecture::Qwen2, "model.layers.0.self_attn.q_proj.bias");
        assert_eq!((q.name.as_str(), q.interleaved), ("blk.0.attn_q.bias", false));
        let norm = new(Architecture::Qwen3, "model.layers.0.post_attention_layernorm.weight");
        assert_eq!((norm.name.as_str(), norm.plus_one), ("blk.0.ffn_norm.weight", false));
        let norm = new(Architecture::Gemma3, "model.layers.0.post_attention_layernorm.weight");
        assert_eq!((norm.name.as_str(), norm.plus_one), ("blk.0.post_attention_norm.weight", true));
        let stored = "model.layers.0.self_attn.rotary_emb.inv_freq";
        assert_eq!(fate(Architecture::Llama, stored), Fate::Dropped);
        // Neither another spelling nor GGUF's own name gets in.
        let odd = ["model.layers.01.mlp.up_proj.weight", "model.layers.0.mlp.bottom.weight"];
        for odd in odd.into_iter().chain(["blk.0.attn_q.weight", "x", ""]) {
            assert_eq!(fate(Architecture::Llama, odd), Fate::Unknown, "{odd}");
        }
    }

    #[test]
    fn pairs_of_halves_become_neighbours() {
        let rows: Vec<usize> = (0..8).map(|row| half_split_row(row, 4)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
