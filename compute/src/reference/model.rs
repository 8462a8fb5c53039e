//! A whole forward pass on the CPU, weights dequantised to f32: the oracle of the GPU engine.

use super::ops::{self, Heads, Scoring};
use crate::llm::{Activation, EngineError, ModelConfig, tensors};
use crate::source::WeightSource;

/// A matrix `[_, columns]` with its bias.
struct Linear {
    weights: Vec<f32>,
    columns: usize,
    bias: Option<Vec<f32>>,
}

impl Linear {
    fn of(&self, x: &[f32]) -> Vec<f32> {
        let mut out = ops::matmul(&self.weights, self.columns, x);
        if let Some(bias) = &self.bias {
            ops::bias(&mut out, bias);
        }
        out
    }
}

enum FeedForward {
    Dense(Dense),
    Experts { router: Linear, experts: Vec<Dense> },
}

struct Dense {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Dense {
    fn of(&self, x: &[f32], activation: Activation) -> Vec<f32> {
        let ffn = self.down.columns;
        let (gate, up) = (self.gate.of(x), self.up.of(x));
        let gate_up: Vec<f32> = gate
            .chunks_exact(ffn)
            .zip(up.chunks_exact(ffn))
            .flat_map(|(g, u)| g.iter().chain(u))
            .copied()
            .collect();
        self.down.of(&match activation {
            Activation::Silu => ops::silu_mul(&gate_up, ffn),
            Activation::Gelu => ops::gelu_mul(&gate_up, ffn),
        })
    }
}

struct Layer {
    attention_norm: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Of queries and of keys.
    head_norms: Option<(Vec<f32>, Vec<f32>)>,
    output: Linear,
    attention_post_norm: Option<Vec<f32>>,
    ffn_norm: Vec<f32>,
    feed_forward: FeedForward,
    ffn_post_norm: Option<Vec<f32>>,
    angles: Vec<[f32; 2]>,
    scoring: Scoring,
}

/// A model in plain memory.
pub struct ReferenceModel {
    pub config: ModelConfig,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Option<Vec<f32>>,
}

/// Keys and values of one sequence, per layer `[positions, kv_heads * head]`.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    positions: usize,
}

impl ReferenceModel {
    /// Dequantises a file; sequences may be up to `positions` long.
    pub fn from_source(file: &dyn WeightSource, positions: usize) -> Result<Self, EngineError> {
        let config = ModelConfig::from_source(file)?;
        let weights = |name: &str| -> Result<Vec<f32>, EngineError> {
            Ok(file.weights(file.require_tensor(name)?))
        };
        Ok(Self {
            embedding: weights("token_embd.weight")?,
            output_norm: weights("output_norm.weight")?,
            output: match config.tied {
                true => None,
                false => Some(weights("output.weight")?),
            },
            layers: (0..config.layers)
                .map(|index| Layer::from_source(file, &config, index, positions))
                .collect::<Result<_, _>>()?,
            config,
        })
    }

    /// Input embeddings of `ids`.
    #[must_use]
    pub fn embed(&self, ids: &[u32]) -> Vec<f32> {
        let mut x = ops::embed(&self.embedding, self.config.hidden, ids);
        ops::scale(&mut x, self.config.embedding_scale);
        x
    }

    /// Runs rows `[tokens, hidden]` through all layers, after what is in `cache`, and returns the
    /// final-norm hidden state of every row. `reflections[i]` follows layer i.
    #[must_use]
    pub fn forward(&self, x: Vec<f32>, cache: &mut Cache, reflections: &[Vec<f32>]) -> Vec<f32> {
        self.forward_routed(x, cache, reflections, &[])
    }

    /// As [`Self::forward`], with the first expert of every row given: `firsts[layer][row]`; the router is not asked.
    #[must_use]
    pub fn forward_routed(
        &self,
        mut x: Vec<f32>,
        cache: &mut Cache,
        reflections: &[Vec<f32>],
        firsts: &[Vec<u32>],
    ) -> Vec<f32> {
        let c = &self.config;
        cache.layers.resize_with(c.layers, Default::default);
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = ops::rms_norm(&x, &layer.attention_norm, c.epsilon);
            let attended = self.attend(layer, &normed, &mut cache.layers[index], cache.positions);
            let branch = layer.output.of(&attended);
            ops::add(&mut x, &self.post_normed(branch, layer.attention_post_norm.as_deref()));
            let normed = ops::rms_norm(&x, &layer.ffn_norm, c.epsilon);
            let branch = self.feed_forward(layer, &normed, firsts.get(index));
            ops::add(&mut x, &self.post_normed(branch, layer.ffn_post_norm.as_deref()));
            if let Some(v) = reflections.get(index) {
                ops::reflect(&mut x, v);
            }
        }
        cache.positions += x.len() / c.hidden;
        ops::rms_norm(&x, &self.output_norm, c.epsilon)
    }

    fn post_normed(&self, branch: Vec<f32>, norm: Option<&[f32]>) -> Vec<f32> {
        match norm {
            Some(weight) => ops::rms_norm(&branch, weight, self.config.epsilon),
            None => branch,
        }
    }

    fn feed_forward(&self, layer: &Layer, normed: &[f32], firsts: Option<&Vec<u32>>) -> Vec<f32> {
        let activation = self.config.family().activation;
        match (&layer.feed_forward, self.config.experts) {
            (FeedForward::Dense(dense), _) => dense.of(normed, activation),
            (FeedForward::Experts { router, experts }, shape) => {
                let used = shape.map_or(0, |shape| shape.used);
                let routes = match firsts {
                    Some(firsts) => ops::forced_routes(firsts, experts.len(), used),
                    None => ops::route_experts(&router.of(normed), experts.len(), used),
                };
                let rows = normed.chunks_exact(self.config.hidden);
                rows.zip(routes)
                    .flat_map(|(row, route)| {
                        let mut sum = vec![0.0; row.len()];
                        for (expert, share) in route {
                            let mut part = experts[expert].of(row, activation);
                            ops::scale(&mut part, share);
                            ops::add(&mut sum, &part);
                        }
                        sum
                    })
                    .collect()
            }
        }
    }

    fn attend(
        &self,
        layer: &Layer,
        normed: &[f32],
        (keys, values): &mut (Vec<f32>, Vec<f32>),
        first: usize,
    ) -> Vec<f32> {
        let c = &self.config;
        let (mut q, mut k) = (layer.q.of(normed), layer.k.of(normed));
        values.extend(layer.v.of(normed));
        if let Some((q_norm, k_norm)) = &layer.head_norms {
            q = ops::rms_norm(&q, q_norm, c.epsilon);
            k = ops::rms_norm(&k, k_norm, c.epsilon);
        }
        let (q_width, kv_width) = (c.heads * c.head, c.kv_heads * c.head);
        let half_split = c.family().half_split;
        let pairs = c.rope.dimensions / 2;
        let angles = |row: usize| &layer.angles[(first + row) * pairs..][..pairs];
        for (row, k) in k.chunks_exact_mut(kv_width).enumerate() {
            ops::rope(k, c.head, angles(row), half_split);
        }
        keys.extend(k);
        let shape = Heads { heads: c.heads, kv_heads: c.kv_heads, head: c.head };
        let mut out = Vec::with_capacity(q.len());
        for (row, q) in q.chunks_exact_mut(q_width).enumerate() {
            ops::rope(q, c.head, angles(row), half_split);
            let seen = (first + row + 1) * kv_width;
            out.extend(ops::attention(q, &keys[..seen], &values[..seen], shape, layer.scoring));
        }
        out
    }

    /// Logits of final-norm hidden states: `[rows, vocabulary]`.
    #[must_use]
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let head = self.output.as_ref().unwrap_or(&self.embedding);
        let mut logits = ops::matmul(head, self.config.hidden, hidden);
        if self.config.logit_softcap != 0.0 {
            ops::softcap(&mut logits, self.config.logit_softcap);
        }
        logits
    }
}

impl Layer {
    fn from_source(
        file: &dyn WeightSource,
        config: &ModelConfig,
        index: usize,
        positions: usize,
    ) -> Result<Self, EngineError> {
        let family = config.family();
        let optional =
            |part: &str| file.tensor(&tensors::layer_tensor(index, part)).map(|t| file.weights(t));
        let weights = |part: &str| -> Result<Vec<f32>, EngineError> {
            Ok(file.weights(file.require_tensor(&tensors::layer_tensor(index, part))?))
        };
        let weights_if = |has: bool, part: &str| has.then(|| weights(part)).transpose();
        let linear = |part: &str, columns: usize| -> Result<Linear, EngineError> {
            Ok(Linear {
                weights: weights(&format!("{part}.weight"))?,
                columns,
                bias: optional(&format!("{part}.bias")),
            })
        };
        // The file's factors are for a stretched context, and layers with a window need none.
        let own_base = config.is_local(index) && config.local_rope != config.rope;
        let factors = match own_base {
            true => None,
            false => tensors::rope_factors(file, config)?,
        };
        Ok(Self {
            attention_norm: weights("attn_norm.weight")?,
            q: linear("attn_q", config.hidden)?,
            k: linear("attn_k", config.hidden)?,
            v: linear("attn_v", config.hidden)?,
            head_norms: match family.head_norms {
                true => Some((weights("attn_q_norm.weight")?, weights("attn_k_norm.weight")?)),
                false => None,
            },
            output: linear("attn_output", config.heads * config.head)?,
            attention_post_norm: weights_if(family.post_norms, "post_attention_norm.weight")?,
            ffn_norm: weights("ffn_norm.weight")?,
            feed_forward: match config.experts {
                None => FeedForward::Dense(Dense {
                    gate: linear("ffn_gate", config.hidden)?,
                    up: linear("ffn_up", config.hidden)?,
                    down: linear("ffn_down", config.ffn)?,
                }),
                Some(shape) => {
                    let stack = |part: &str, columns: usize| -> Result<Vec<Linear>, EngineError> {
                        let all = weights(part)?;
                        let matrices = all.chunks_exact(all.len() / shape.count);
                        Ok(matrices
                            .map(|weights| Linear {
                                weights: weights.to_vec(),
                                columns,
                                bias: None,
                            })
                            .collect())
                    };
                    let gates = stack("ffn_gate_exps.weight", config.hidden)?;
                    let ups = stack("ffn_up_exps.weight", config.hidden)?;
                    let downs = stack("ffn_down_exps.weight", shape.ffn)?;
                    FeedForward::Experts {
                        router: linear("ffn_gate_inp", config.hidden)?,
                        experts: gates
                            .into_iter()
                            .zip(ups)
                            .zip(downs)
                            .map(|((gate, up), down)| Dense { gate, up, down })
                            .collect(),
                    }
                }
            },
            ffn_post_norm: weights_if(family.post_norms, "post_ffw_norm.weight")?,
            angles: config.layer_rope(index).angles(positions, factors.as_deref()),
            scoring: Scoring {
                scale: config.score_scale,
                window: config.layer_window(index),
                softcap: config.score_softcap,
            },
        })
    }
}
