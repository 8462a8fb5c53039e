//! The forward pass Proof of Compute needs: embeddings in, last hidden states out.

use super::engine::Engine;
use crate::gpu::GpuError;

/// Unit vectors of one round, one per decoder layer, each on its layer's GPU.
///
/// After decoder layer i (every one, the last included, hence before the final norm) the residual
/// stream of every token becomes `x - 2 (x . v_i) v_i` (Gonka PoC v2, section 3 step 3). They depend
/// on the block only: upload them once per round.
pub struct Reflections {
    pub(super) layers: Vec<wgpu::Buffer>,
    pub(super) hidden: usize,
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
            .collect::<Result<_, _>>()?;
        Ok(Self { layers, hidden: vectors.first().map_or(0, Vec::len) })
    }

    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }
}

/// Where the input embeddings are.
pub enum ProofEmbeddings<'a> {
    /// Row-major `[sequences, tokens, hidden]`.
    Host(&'a [f32]),
    /// The same layout in a GPU buffer with `COPY_SRC`, from offset 0, on the engine's (first) device.
    Device(&'a wgpu::Buffer),
}

/// One batch of independent sequences for [`crate::Engine::prove_hidden`].
pub struct ProofInputs<'a> {
    pub sequences: usize,
    /// Length of every sequence (PoC's `seq_len`).
    pub tokens: usize,
    pub embeddings: ProofEmbeddings<'a>,
    /// `None` runs the plain model on embeddings.
    pub reflections: Option<&'a Reflections>,
}
