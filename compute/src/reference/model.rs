//! A whole forward pass on the CPU, weights dequantised to f32: the oracle of the GPU engine.

use super::ops::{self, Heads, Scoring};
use crate::gguf::GgufFile;
use crate::llm::{EngineError, ModelConfig};

struct Layer {
    attention_norm: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    output: Vec<f32>,
    ffn_norm: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

/// A model in plain memory.
pub struct ReferenceModel {
    pub config: ModelConfig,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Option<Vec<f32>>,
    angles: Vec<[f32; 2]>,
}

/// Keys and values of one sequence, per layer `[positions, kv_heads * head]`.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    positions: usize,
}

impl ReferenceModel {
    /// Dequantises a file; sequences may be up to `positions` long.
    pub fn from_gguf(file: &GgufFile, positions: usize) -> Result<Self, EngineError> {
        let config = ModelConfig::from_gguf(file)?;
        let weights = |name: &str| -> Result<Vec<f32>, EngineError> {
            Ok(file.weights(file.require_tensor(name)?))
        };
        let layers = (0..config.layers)
            .map(|i| {
                let part = |name: &str| weights(&format!("blk.{i}.{name}.weight"));
                Ok(Layer {
                    attention_norm: part("attn_norm")?,
                    q: part("attn_q")?,
                    k: part("attn_k")?,
                    v: part("attn_v")?,
                    output: part("attn_output")?,
                    ffn_norm: part("ffn_norm")?,
                    gate: part("ffn_gate")?,
                    up: part("ffn_up")?,
                    down: part("ffn_down")?,
                })
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let factors = file.tensor("rope_freqs.weight").map(|t| file.weights(t));
        Ok(Self {
            embedding: weights("token_embd.weight")?,
            output_norm: weights("output_norm.weight")?,
            output: match config.tied {
                true => None,
                false => Some(weights("output.weight")?),
            },
            angles: config.rope_angles(positions, factors.as_deref()),
            layers,
            config,
        })
    }

    /// Input embeddings of `ids`.
    #[must_use]
    pub fn embed(&self, ids: &[u32]) -> Vec<f32> {
        ops::embed(&self.embedding, self.config.hidden, ids)
    }

    /// Runs rows `[tokens, hidden]` through all layers, after what is in `cache`, and returns the
    /// final-norm hidden state of every row. `reflections[i]` follows layer i.
    #[must_use]
    pub fn forward(
        &self,
        mut x: Vec<f32>,
        cache: &mut Cache,
        reflections: &[Vec<f32>],
    ) -> Vec<f32> {
        let c = &self.config;
        cache.layers.resize_with(c.layers, Default::default);
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = ops::rms_norm(&x, &layer.attention_norm, c.epsilon);
            let attended = self.attend(layer, &normed, &mut cache.layers[index], cache.positions);
            ops::add(&mut x, &ops::matmul(&layer.output, c.heads * c.head, &attended));
            let normed = ops::rms_norm(&x, &layer.ffn_norm, c.epsilon);
            let gate = ops::matmul(&layer.gate, c.hidden, &normed);
            let up = ops::matmul(&layer.up, c.hidden, &normed);
            let gate_up: Vec<f32> = gate
                .chunks_exact(c.ffn)
                .zip(up.chunks_exact(c.ffn))
                .flat_map(|(g, u)| g.iter().chain(u))
                .copied()
                .collect();
            let gated = ops::silu_mul(&gate_up, c.ffn);
            ops::add(&mut x, &ops::matmul(&layer.down, c.ffn, &gated));
            if let Some(v) = reflections.get(index) {
                ops::reflect(&mut x, v);
            }
        }
        cache.positions += x.len() / c.hidden;
        ops::rms_norm(&x, &self.output_norm, c.epsilon)
    }

    fn attend(
        &self,
        layer: &Layer,
        normed: &[f32],
        (keys, values): &mut (Vec<f32>, Vec<f32>),
        first: usize,
    ) -> Vec<f32> {
        let c = &self.config;
        let mut q = ops::matmul(&layer.q, c.hidden, normed);
        let mut k = ops::matmul(&layer.k, c.hidden, normed);
        values.extend(ops::matmul(&layer.v, c.hidden, normed));
        let (q_width, kv_width) = (c.heads * c.head, c.kv_heads * c.head);
        let angles = |row: usize| &self.angles[(first + row) * (c.rope / 2)..][..c.rope / 2];
        for (row, k) in k.chunks_exact_mut(kv_width).enumerate() {
            ops::rope(k, c.head, angles(row), false);
        }
        keys.extend(k);
        let shape = Heads { heads: c.heads, kv_heads: c.kv_heads, head: c.head };
        let mut out = Vec::with_capacity(q.len());
        for (row, q) in q.chunks_exact_mut(q_width).enumerate() {
            ops::rope(q, c.head, angles(row), false);
            let seen = (first + row + 1) * kv_width;
            let scoring = Scoring::of_head(c.head);
            out.extend(ops::attention(q, &keys[..seen], &values[..seen], shape, scoring));
        }
        out
    }

    /// Logits of final-norm hidden states: `[rows, vocabulary]`.
    #[must_use]
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let head = self.output.as_ref().unwrap_or(&self.embedding);
        ops::matmul(head, self.config.hidden, hidden)
    }
}
