//! All weights of a model on the GPU.

use super::config::{Experts, ModelConfig};
use super::error::EngineError;
use super::experts::ExpertWeights;
use super::loader::Loader;
use super::matrix::{Fused, Matrix};
use super::split::Span;
use super::tensors::{self, layer_tensor};

/// What a layer may have in addition is `None` where the file or the family has none.
pub(super) struct LayerWeights {
    pub attention_norm: wgpu::Buffer,
    /// Queries, keys and values, rows in that order.
    pub qkv: Fused,
    pub qkv_bias: Option<wgpu::Buffer>,
    /// Norms of a head of queries and of a head of keys: `[2, head]`.
    pub head_norms: Option<wgpu::Buffer>,
    pub attention_output: Fused,
    pub attention_output_bias: Option<wgpu::Buffer>,
    pub attention_post_norm: Option<wgpu::Buffer>,
    pub ffn_norm: wgpu::Buffer,
    pub feed_forward: FeedForward,
    pub ffn_post_norm: Option<wgpu::Buffer>,
    /// (cos, sin) per position and pair; layers of one kind share it.
    pub angles: wgpu::Buffer,
    /// Positions the layer sees; 0 is all of them.
    pub window: usize,
}

pub(super) enum FeedForward {
    Dense(DenseWeights),
    Experts(ExpertWeights, Experts),
}

pub(super) struct DenseWeights {
    /// Gate, then up.
    pub gate_up: Fused,
    pub gate_up_bias: Option<wgpu::Buffer>,
    pub down: Fused,
    pub down_bias: Option<wgpu::Buffer>,
}

impl FeedForward {
    fn bytes(&self) -> u64 {
        match self {
            Self::Dense(dense) => {
                let biases = [&dense.gate_up_bias, &dense.down_bias];
                dense.gate_up.bytes()
                    + dense.down.bytes()
                    + biases.into_iter().flatten().map(wgpu::Buffer::size).sum::<u64>()
            }
            Self::Experts(experts, _) => experts.bytes(),
        }
    }
}

impl LayerWeights {
    fn bytes(&self) -> u64 {
        let vectors = [
            Some(&self.attention_norm),
            self.qkv_bias.as_ref(),
            self.head_norms.as_ref(),
            self.attention_output_bias.as_ref(),
            self.attention_post_norm.as_ref(),
            Some(&self.ffn_norm),
            self.ffn_post_norm.as_ref(),
        ];
        let matrices = [&self.qkv, &self.attention_output];
        vectors.into_iter().flatten().map(wgpu::Buffer::size).sum::<u64>()
            + matrices.into_iter().map(Fused::bytes).sum::<u64>()
            + self.feed_forward.bytes()
    }
}

/// The weights of one stage; of a whole model on one card.
pub(super) struct Weights {
    pub span: Span,
    /// Of the first stage.
    pub embedding: Option<Fused>,
    pub layers: Vec<LayerWeights>,
    /// Of the last stage.
    pub head: Option<Head>,
    pub bytes: u64,
}

/// What turns the residual stream into logits.
pub(super) struct Head {
    pub norm: wgpu::Buffer,
    /// `None` if the embedding table, which is on the same card, is the output matrix.
    output: Option<Fused>,
}

impl Weights {
    /// Uploads everything of a stage; `positions` is the context to prepare rotations for.
    pub fn upload(
        loader: &Loader<'_>,
        config: &ModelConfig,
        positions: usize,
        span: Span,
    ) -> Result<Self, EngineError> {
        let (gpu, file) = (loader.gpu, loader.source);
        let one = |name: &str| Fused::upload(loader, &[name.to_owned()]);
        let factors = tensors::rope_factors(file, config)?;
        let upload_angles =
            |what: &str, angles: &[[f32; 2]]| gpu.storage_with(what, bytemuck::cast_slice(angles));
        let angles =
            upload_angles("rope angles", &config.rope.angles(positions, factors.as_deref()))?;
        let mut bytes = angles.size();
        let has_local = span.layers.clone().any(|layer| config.is_local(layer));
        let local_angles = match has_local && config.local_rope != config.rope {
            false => angles.clone(),
            true => {
                let buffer =
                    upload_angles("local rope angles", &config.local_rope.angles(positions, None))?;
                bytes += buffer.size();
                buffer
            }
        };
        let layers = span
            .layers
            .clone()
            .map(|layer| {
                let angles = if config.is_local(layer) { &local_angles } else { &angles };
                upload_layer(loader, config, layer, angles.clone())
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let embedding = span.is_first().then(|| one("token_embd.weight")).transpose()?;
        let head = match span.is_last() {
            false => None,
            true => Some(Head {
                norm: vector(loader, "output_norm.weight")?,
                output: match (config.tied, span.is_first()) {
                    (false, _) => Some(one("output.weight")?),
                    (true, true) => None,
                    (true, false) => Some(one("token_embd.weight")?),
                },
            }),
        };
        let output = head.as_ref().and_then(|head| head.output.as_ref());
        bytes += embedding.iter().chain(output).map(Fused::bytes).sum::<u64>();
        bytes += layers.iter().map(LayerWeights::bytes).sum::<u64>();
        Ok(Self { span, embedding, layers, head, bytes })
    }

    /// Every matrix that whole rows are multiplied with; experts have kernels of their own.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layer_matrices().chain(self.head().into_iter().flat_map(|(_, head)| head.matrices()))
    }

    /// Those of the layers.
    pub fn layer_matrices(&self) -> impl Iterator<Item = &Matrix> {
        let of_layers = self.layers.iter().flat_map(|layer| {
            let feed_forward = match &layer.feed_forward {
                FeedForward::Dense(dense) => [Some(&dense.gate_up), Some(&dense.down)],
                FeedForward::Experts(..) => [None, None],
            };
            [&layer.qkv, &layer.attention_output]
                .into_iter()
                .chain(feed_forward.into_iter().flatten())
        });
        of_layers.flat_map(Fused::matrices)
    }

    /// Norm and matrix that turn the residual stream into logits, on the last stage.
    pub fn head(&self) -> Option<(&wgpu::Buffer, &Fused)> {
        let head = self.head.as_ref()?;
        Some((&head.norm, head.output.as_ref().or(self.embedding.as_ref())?))
    }
}

fn upload_layer(
    loader: &Loader<'_>,
    config: &ModelConfig,
    layer: usize,
    angles: wgpu::Buffer,
) -> Result<LayerWeights, EngineError> {
    let family = config.family();
    let name = |part: &str| layer_tensor(layer, part);
    let fused = |parts: &[&str]| {
        let names: Vec<String> = parts.iter().map(|part| name(&format!("{part}.weight"))).collect();
        Fused::upload(loader, &names)
    };
    let norm = |part: &str| vector(loader, &name(part));
    let norm_if = |has: bool, part: &str| has.then(|| norm(part)).transpose();
    let bias = |parts: &[(&str, usize)]| biases(loader, layer, parts);
    let (queries, keys) = (config.heads * config.head, config.kv_heads * config.head);
    Ok(LayerWeights {
        attention_norm: norm("attn_norm.weight")?,
        qkv: fused(&["attn_q", "attn_k", "attn_v"])?,
        qkv_bias: bias(&[("attn_q.bias", queries), ("attn_k.bias", keys), ("attn_v.bias", keys)])?,
        head_norms: match family.head_norms {
            false => None,
            true => {
                let floats = |part: &str| {
                    Ok::<_, EngineError>(loader.floats(loader.source.require_tensor(&name(part))?))
                };
                let mut both = floats("attn_q_norm.weight")?;
                both.extend(floats("attn_k_norm.weight")?);
                Some(loader.gpu.storage_with("head norms", bytemuck::cast_slice(&both))?)
            }
        },
        attention_output: fused(&["attn_output"])?,
        attention_output_bias: bias(&[("attn_output.bias", config.hidden)])?,
        attention_post_norm: norm_if(family.post_norms, "post_attention_norm.weight")?,
        ffn_norm: norm("ffn_norm.weight")?,
        feed_forward: match config.experts {
            Some(experts) => FeedForward::Experts(ExpertWeights::upload(loader, layer)?, experts),
            None => FeedForward::Dense(DenseWeights {
                gate_up: fused(&["ffn_gate", "ffn_up"])?,
                gate_up_bias: bias(&[("ffn_gate.bias", config.ffn), ("ffn_up.bias", config.ffn)])?,
                down: fused(&["ffn_down"])?,
                down_bias: bias(&[("ffn_down.bias", config.hidden)])?,
            }),
        },
        ffn_post_norm: norm_if(family.post_norms, "post_ffw_norm.weight")?,
        angles,
        window: config.layer_window(layer),
    })
}

/// A vector of weights as f32, whatever its type in the file.
fn vector(loader: &Loader<'_>, name: &str) -> Result<wgpu::Buffer, EngineError> {
    let weights = loader.floats(loader.source.require_tensor(name)?);
    Ok(loader.gpu.storage_with(name, bytemuck::cast_slice(&weights))?)
}

/// The biases of fused matrices side by side, zeros for those that have none; `None` if none has one.
fn biases(
    loader: &Loader<'_>,
    layer: usize,
    parts: &[(&str, usize)],
) -> Result<Option<wgpu::Buffer>, EngineError> {
    let mut all = Vec::new();
    let mut any = false;
    for (part, width) in parts {
        match loader.source.tensor(&layer_tensor(layer, part)) {
            Some(entry) => {
                any = true;
                all.extend(loader.floats(entry));
            }
            None => all.resize(all.len() + width, 0.0),
        }
    }
    Ok(any.then(|| loader.gpu.storage_with("biases", bytemuck::cast_slice(&all))).transpose()?)
}
