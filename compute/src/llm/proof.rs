//! The forward pass Proof of Compute needs: embeddings in, last hidden states out.

use super::engine::Engine;
use super::op::Op;
use crate::gpu::GpuError;

/// Unit vectors of one round, one per decoder layer, each on its layer's GPU.
///
/// After decoder layer i (every one, the last included, hence before the final norm) the residual
/// stream of every token becomes `x - 2 (x . v_i) v_i` (Gonka PoC v2, section 3 step 3). They depend
/// on the block only: upload them once per round, onto the engine that will run it.
pub struct Reflections {
    layers: usize,
    pub(super) hidden: usize,
    /// One dispatch per layer, stage by stage.
    pub(super) ops: Vec<Vec<Op>>,
}

impl Reflections {
    /// Uploads `vectors`, one of length `hidden` per layer, already normalised.
    pub fn upload(engine: &Engine, vectors: &[Vec<f32>]) -> Result<Self, GpuError> {
        let layers = vectors
            .iter()
            .enumerate()
            .map(|(layer, v)| {
                let gpu = engine.forward.gpu_of(layer);
                gpu.storage_with("reflection vector", bytemuck::cast_slice(v))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let ops = engine.forward.reflections(&layers)?;
        Ok(Self { layers: vectors.len(), hidden: vectors.first().map_or(0, Vec::len), ops })
    }

    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers
    }
}

/// Where the input embeddings are.
pub enum ProofEmbeddings<'a> {
    /// Row-major `[sequences, tokens, hidden]`.
    Host(&'a [f32]),
    /// The same layout in a GPU buffer with `COPY_SRC`, from offset 0, on the engine's (first) device.
    Device(&'a wgpu::Buffer),
}

/// Where the sequences of a batch lie in the cache of proofs and replays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProofPlace {
    /// Nowhere for long: each is whole, and nothing comes after it.
    #[default]
    Whole,
    /// Each goes on at `position`, after what it was given before, and will have `room` tokens in the end. A sequence
    /// keeps its number; nothing else may prove or replay in between.
    Kept {
        /// Tokens each sequence has already.
        position: usize,
        /// Tokens each sequence may come to.
        room: usize,
        /// Number of the batch's first sequence among those that are kept.
        first: usize,
    },
}

/// One batch of independent sequences for [`crate::Engine::prove_hidden`].
pub struct ProofInputs<'a> {
    pub sequences: usize,
    /// New tokens of every sequence (PoC's `seq_len`).
    pub tokens: usize,
    pub embeddings: ProofEmbeddings<'a>,
    /// `None` runs the plain model on embeddings.
    pub reflections: Option<&'a Reflections>,
    pub place: ProofPlace,
    /// Of every sequence, the first of the experts its tokens meet in each layer; empty where the router decides.
    pub experts: &'a [Vec<u32>],
}
