//! Models of random weights in the shape of real ones, as GGUF files: for measurements and tests
//! that must not depend on a download.
//!
//! A model of seven billion weights is larger than the memory of many machines, so the bytes are
//! made while they are written. What they are depends only on architecture, shape, type and seed:
//! the same arguments give the same file everywhere.
//!
//! The weights are blocks of random levels under scales chosen so that a row has the spread
//! `1 / sqrt(columns)` of a freshly initialised model: activations stay near one through any number of
//! layers and logits are ordinary numbers. The text such a model speaks is noise, in bytes.

mod noise;
mod shape;
mod vocabulary;

use std::io::{self, Write};

use crate::gguf::TensorType;
use crate::gguf::writer::{Field, GgufWriter};

pub use crate::llm::Architecture;
pub use shape::{Shape, UnknownName};

/// Bytes made at a time; a row longer than this is made whole.
const PIECE_BYTES: usize = 1 << 20;
/// Experts of architectures that have them. A token's together are as wide as the shape's feed-forward part.
const EXPERTS: usize = 8;
const EXPERTS_USED: usize = 2;
const DENSE: [&str; 3] = ["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"];
/// The window of architectures that attend to near positions only in some layers.
const WINDOW_TOKENS: u32 = 512;

/// A model to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    pub architecture: Architecture,
    pub shape: Shape,
    /// Type of every matrix whose rows are whole blocks of it; others take [`Synthetic::kind_of`].
    pub kind: TensorType,
    pub seed: u64,
}

/// What a tensor is for, which decides its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Random with spread `1 / sqrt(columns)`.
    Matrix,
    /// The same, smaller by `sqrt(2 layers)`: added to the residual stream.
    Output,
    /// Near one.
    Norm,
    /// Near zero.
    Bias,
}

struct Tensor {
    name: String,
    role: Role,
    rows: usize,
    columns: usize,
}

impl Synthetic {
    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| (tensor.rows * tensor.columns) as u64).sum()
    }

    /// Size of the file, but for its first few hundred kilobytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| {
            let kind = self.kind_in(tensor);
            tensor.rows * (tensor.columns / kind.block_weights()) * kind.block_bytes()
        };
        self.tensors().iter().map(|tensor| bytes(tensor) as u64).sum()
    }

    /// The type of a matrix of so many columns: the wanted one, or Q8_0 where its blocks do not fit, as
    /// llama.cpp's converter falls back too, or F16 where not even those do.
    #[must_use]
    pub fn kind_of(&self, columns: usize) -> TensorType {
        [self.kind, TensorType::Q8_0]
            .into_iter()
            .find(|kind| columns.is_multiple_of(kind.block_weights()))
            .unwrap_or(TensorType::F16)
    }

    fn kind_in(&self, tensor: &Tensor) -> TensorType {
        match tensor.role {
            Role::Matrix | Role::Output => self.kind_of(tensor.columns),
            Role::Norm | Role::Bias => TensorType::F32,
        }
    }

    /// Writes the file; `told` hears the bytes written so far, about once a megabyte.
    ///
    /// # Errors
    /// What `out` could not write.
    pub fn write(&self, out: &mut dyn Write, told: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut writer = GgufWriter::default();
        self.metadata(&mut writer);
        let tensors = self.tensors();
        for tensor in &tensors {
            let kind = self.kind_in(tensor);
            writer.promised_tensor(&tensor.name, kind, tensor.columns, tensor.rows);
            if tensor.name.ends_with("_exps.weight") {
                writer.stacked(EXPERTS);
            }
        }
        let mut done = 0;
        writer.stream(out, &mut |out, index| {
            // As many tensors were promised as there are.
            let Some(tensor) = tensors.get(index) else { return Ok(()) };
            self.fill(out, tensor, index, &mut |bytes| {
                done += bytes as u64;
                told(done);
            })
        })
    }

    fn fill(
        &self,
        out: &mut dyn Write,
        tensor: &Tensor,
        index: usize,
        told: &mut dyn FnMut(usize),
    ) -> io::Result<()> {
        let kind = self.kind_in(tensor);
        let mut noise = noise::Noise::new(self.seed, index as u64);
        let blocks_per_row = tensor.columns / kind.block_weights();
        let mut left = blocks_per_row * tensor.rows;
        let piece = (PIECE_BYTES / kind.block_bytes()).max(1);
        let mut bytes = Vec::with_capacity(piece * kind.block_bytes());
        while left > 0 {
            let count = piece.min(left);
            bytes.clear();
            match tensor.role {
                Role::Matrix => noise.blocks(kind, count, self.spread(tensor), &mut bytes),
                Role::Output => {
                    let spread = self.spread(tensor) / (2.0 * self.shape.layers as f32).sqrt();
                    noise.blocks(kind, count, spread, &mut bytes);
                }
                Role::Norm => noise.floats(count, 1.0, 0.1, &mut bytes),
                Role::Bias => noise.floats(count, 0.0, 0.1, &mut bytes),
            }
            out.write_all(&bytes)?;
            told(bytes.len());
            left -= count;
        }
        Ok(())
    }

    fn spread(&self, tensor: &Tensor) -> f32 {
        1.0 / (tensor.columns as f32).sqrt()
    }

    fn tensors(&self) -> Vec<Tensor> {
        let shape = &self.shape;
        let hidden = shape.hidden;
        let whole = |name: &str, role: Role, rows: usize, columns: usize| Tensor {
            name: name.to_owned(),
            role,
            rows,
            columns,
        };
        let mut tensors = vec![
            whole("token_embd.weight", Role::Matrix, shape.vocabulary, hidden),
            whole("output_norm.weight", Role::Norm, 1, hidden),
        ];
        if !self.is_tied() {
            tensors.push(whole("output.weight", Role::Matrix, shape.vocabulary, hidden));
        }
        for layer in 0..shape.layers {
            let named = |(name, role, rows, columns): (&str, Role, usize, usize)| {
                whole(&format!("blk.{layer}.{name}"), role, rows, columns)
            };
            tensors.extend(self.layer().into_iter().map(named));
        }
        tensors
    }

    /// Gemma has no output matrix of its own.
    fn is_tied(&self) -> bool {
        self.shape.tied || self.architecture.family().scaled_embeddings
    }

    fn expert_ffn(&self) -> usize {
        self.shape.ffn / EXPERTS_USED
    }

    /// Name, role, rows and columns of a layer's tensors. Names: llama.cpp `src/llama-arch.cpp`.
    fn layer(&self) -> Vec<(&'static str, Role, usize, usize)> {
        let Shape { hidden, ffn, head, .. } = self.shape;
        let (queries, keys) = (self.shape.heads * head, self.shape.kv_heads * head);
        let mut layer = vec![
            ("attn_norm.weight", Role::Norm, 1, hidden),
            ("attn_q.weight", Role::Matrix, queries, hidden),
            ("attn_k.weight", Role::Matrix, keys, hidden),
            ("attn_v.weight", Role::Matrix, keys, hidden),
            ("attn_output.weight", Role::Output, hidden, queries),
            ("ffn_norm.weight", Role::Norm, 1, hidden),
            ("ffn_gate.weight", Role::Matrix, ffn, hidden),
            ("ffn_up.weight", Role::Matrix, ffn, hidden),
            ("ffn_down.weight", Role::Output, hidden, ffn),
        ];
        let head_norms = [
            ("attn_q_norm.weight", Role::Norm, 1, head),
            ("attn_k_norm.weight", Role::Norm, 1, head),
        ];
        let after_norms = [
            ("post_attention_norm.weight", Role::Norm, 1, hidden),
            ("post_ffw_norm.weight", Role::Norm, 1, hidden),
        ];
        match self.architecture {
            Architecture::Llama => {}
            Architecture::Qwen2 => layer.extend([
                ("attn_q.bias", Role::Bias, 1, queries),
                ("attn_k.bias", Role::Bias, 1, keys),
                ("attn_v.bias", Role::Bias, 1, keys),
            ]),
            Architecture::Qwen3 => layer.extend(head_norms),
            Architecture::Qwen3Moe => {
                layer.extend(head_norms);
                layer.retain(|(name, ..)| !DENSE.contains(name));
                let ffn = self.expert_ffn();
                layer.extend([
                    ("ffn_gate_inp.weight", Role::Matrix, EXPERTS, hidden),
                    ("ffn_gate_exps.weight", Role::Matrix, EXPERTS * ffn, hidden),
                    ("ffn_up_exps.weight", Role::Matrix, EXPERTS * ffn, hidden),
                    ("ffn_down_exps.weight", Role::Output, EXPERTS * hidden, ffn),
                ]);
            }
            Architecture::Gemma2 => layer.extend(after_norms),
            Architecture::Gemma3 => {
                layer.extend(after_norms);
                layer.extend(head_norms);
            }
        }
        layer
    }

    fn metadata(&self, file: &mut GgufWriter) {
        let shape = &self.shape;
        let arch = self.architecture.word();
        let count = |value: usize| Field::U32(u32::try_from(value).unwrap_or(u32::MAX));
        let name = format!("synthetic {} {arch} {}", shape.name, self.kind);
        file.field("general.architecture", &Field::Text(arch));
        file.field("general.name", &Field::Text(&name));
        let mut fields = vec![
            ("block_count", count(shape.layers)),
            ("context_length", count(shape.context_tokens)),
            ("embedding_length", count(shape.hidden)),
            ("feed_forward_length", count(shape.ffn)),
            ("attention.head_count", count(shape.heads)),
            ("attention.head_count_kv", count(shape.kv_heads)),
            ("attention.key_length", count(shape.head)),
            ("attention.value_length", count(shape.head)),
            ("attention.layer_norm_rms_epsilon", Field::F32(1e-5)),
            ("rope.dimension_count", count(shape.head)),
            ("rope.freq_base", Field::F32(shape::rope_base(self.architecture))),
            ("vocab_size", count(shape.vocabulary)),
        ];
        match self.architecture {
            Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => {}
            Architecture::Qwen3Moe => fields.extend([
                ("expert_count", count(EXPERTS)),
                ("expert_used_count", count(EXPERTS_USED)),
                ("expert_feed_forward_length", count(self.expert_ffn())),
            ]),
            Architecture::Gemma2 => fields.extend([
                ("attn_logit_softcapping", Field::F32(50.0)),
                ("final_logit_softcapping", Field::F32(30.0)),
                ("attention.sliding_window", Field::U32(WINDOW_TOKENS)),
            ]),
            Architecture::Gemma3 => {
                fields.push(("attention.sliding_window", Field::U32(WINDOW_TOKENS)));
            }
        }
        for (key, field) in &fields {
            file.field(&format!("{arch}.{key}"), field);
        }
        vocabulary::write(file, shape.vocabulary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgufFile;

    fn synthetic(architecture: Architecture, kind: TensorType) -> Synthetic {
        let shape = Shape::named("tiny").unwrap();
        Synthetic { architecture, shape, kind, seed: 7 }
    }

    fn written(model: &Synthetic) -> GgufFile {
        let mut bytes = Vec::new();
        let mut told = 0;
        model.write(&mut bytes, &mut |done| told = done).unwrap();
        assert_eq!(told, model.bytes());
        GgufFile::from_bytes(bytes).unwrap()
    }

    #[test]
    fn every_type_and_architecture_has_ordinary_weights() {
        for architecture in Architecture::ALL {
            for kind in TensorType::ALL {
                let model = synthetic(architecture, kind);
                let file = written(&model);
                let count: usize = file.tensors().map(|t| t.rows * t.columns).sum();
                assert_eq!(count as u64, model.parameters());
                crate::llm::ModelConfig::from_source(&file).unwrap();
                let up = match architecture.family().experts {
                    true => "blk.0.ffn_up_exps.weight",
                    false => "blk.0.ffn_up.weight",
                };
                let entry = file.require_tensor(up).unwrap();
                assert_eq!(entry.kind, kind, "256 columns suit every type");
                let weights = file.weights(entry);
                let mean = weights.iter().sum::<f32>() / weights.len() as f32;
                let spread = (weights.iter().map(|w| (w - mean).powi(2)).sum::<f32>()
                    / weights.len() as f32)
                    .sqrt();
                let wanted = 1.0 / (entry.columns as f32).sqrt();
                assert!((spread / wanted - 1.0).abs() < 0.1, "{kind}: {spread}, not {wanted}");
                assert!(mean.abs() < 0.1 * wanted, "{kind}: mean {mean}");
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let bytes = |seed: u64| {
            let model = Synthetic { seed, ..synthetic(Architecture::Llama, TensorType::Q4_0) };
            let mut bytes = Vec::new();
            model.write(&mut bytes, &mut |_| ()).unwrap();
            bytes
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn a_type_whose_blocks_do_not_fit_gives_way() {
        let shape = Shape::named("135m").unwrap();
        let model = Synthetic { shape, ..synthetic(Architecture::Llama, TensorType::Q4K) };
        assert_eq!((model.kind_of(576), model.kind_of(1536)), (TensorType::Q8_0, TensorType::Q4K));
        assert_eq!(model.kind_of(100), TensorType::F16);
        // SmolLM2-135M has 134,515,008.
        assert_eq!(model.parameters(), 134_515_008);
    }
}
