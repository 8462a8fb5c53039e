//! All weights of a model on the GPU.

use crate::gguf::{GgufError, GgufFile};
use crate::gpu::Gpu;

use super::config::ModelConfig;
use super::error::EngineError;
use super::matrix::Fused;

pub(super) struct LayerWeights {
    pub attention_norm: wgpu::Buffer,
    /// Queries, keys and values, rows in that order.
    pub qkv: Fused,
    pub attention_output: Fused,
    pub ffn_norm: wgpu::Buffer,
    /// Gate, then up.
    pub gate_up: Fused,
    pub down: Fused,
}

pub(super) struct Weights {
    pub embedding: Fused,
    pub layers: Vec<LayerWeights>,
    pub output_norm: wgpu::Buffer,
    /// `None` if the embedding table is the output matrix.
    pub output: Option<Fused>,
    /// (cos, sin) per position and pair.
    pub angles: wgpu::Buffer,
    pub bytes: u64,
}

impl Weights {
    /// Uploads everything; `positions` is the context to prepare rotations for.
    pub fn upload(
        gpu: &Gpu,
        file: &GgufFile,
        config: &ModelConfig,
        positions: usize,
    ) -> Result<Self, EngineError> {
        let one = |name: String| Fused::upload(gpu, file, &[name]);
        let layers = (0..config.layers)
            .map(|layer| upload_layer(gpu, file, layer))
            .collect::<Result<Vec<_>, EngineError>>()?;
        let embedding = one("token_embd.weight".to_owned())?;
        let output = match config.tied {
            true => None,
            false => Some(one("output.weight".to_owned())?),
        };
        let angles = gpu
            .storage_with("rope angles", bytemuck::cast_slice(&angles(file, config, positions)?))?;
        let mut bytes = embedding.bytes() + angles.size();
        bytes += output.as_ref().map_or(0, Fused::bytes);
        for layer in &layers {
            bytes += layer.attention_norm.size() + layer.ffn_norm.size();
            for matrix in [&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down] {
                bytes += matrix.bytes();
            }
        }
        Ok(Self {
            output_norm: vector(gpu, file, "output_norm.weight")?,
            embedding,
            layers,
            output,
            angles,
            bytes,
        })
    }

    /// The matrix that turns hidden states into logits.
    pub fn head(&self) -> &Fused {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

fn upload_layer(gpu: &Gpu, file: &GgufFile, layer: usize) -> Result<LayerWeights, EngineError> {
    let name = |part: &str| format!("blk.{layer}.{part}.weight");
    let fused = |parts: &[&str]| {
        let names: Vec<String> = parts.iter().map(|part| name(part)).collect();
        Fused::upload(gpu, file, &names)
    };
    Ok(LayerWeights {
        attention_norm: vector(gpu, file, &name("attn_norm"))?,
        qkv: fused(&["attn_q", "attn_k", "attn_v"])?,
        attention_output: fused(&["attn_output"])?,
        ffn_norm: vector(gpu, file, &name("ffn_norm"))?,
        gate_up: fused(&["ffn_gate", "ffn_up"])?,
        down: fused(&["ffn_down"])?,
    })
}

/// A vector of weights as f32, whatever its type in the file.
fn vector(gpu: &Gpu, file: &GgufFile, name: &str) -> Result<wgpu::Buffer, EngineError> {
    let weights = file.weights(file.require_tensor(name)?);
    Ok(gpu.storage_with(name, bytemuck::cast_slice(&weights))?)
}

fn angles(
    file: &GgufFile,
    config: &ModelConfig,
    positions: usize,
) -> Result<Vec<[f32; 2]>, EngineError> {
    const NAME: &str = "rope_freqs.weight";
    let factors = match file.tensor(NAME) {
        None => None,
        Some(entry) if entry.rows == 1 && entry.columns == config.rope / 2 => {
            Some(file.weights(entry))
        }
        Some(entry) => {
            return Err(GgufError::Tensor {
                name: NAME.to_owned(),
                reason: format!("{} factors for {} pairs", entry.columns, config.rope / 2),
            }
            .into());
        }
    };
    Ok(config.rope_angles(positions, factors.as_deref()))
}
