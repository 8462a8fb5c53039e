//! Artifacts for a list of nonces, by the engine that also serves the model.
//!
//! What belongs to the round (reflection vectors on the GPU, the input generator) is prepared once
//! in a [`Prover`]; after that a nonce is inputs, one forward pass, and a read-out on the host. The
//! engine is borrowed per pass, so between two passes it can do something else.

use std::sync::atomic::{AtomicBool, Ordering};

use super::PocError;
use super::artifact::Artifact;
use super::generator::InputGenerator;
use super::inputs::{INPUT_VALUES_MAX, InputStreams};
use super::reflection::layer_vectors;
use super::scheme::{DecodeRefusal, Scheme};
use super::seed::Identity;
use crate::llm::{Engine, ProofEmbeddings, ProofInputs, Reflections};

/// Tokens of one forward pass on a GPU: several nonces at once where they are short.
const PASS_TOKENS: usize = 4096;
/// Most nonces of one pass; the network's own nodes take 32.
const PASS_NONCES_MAX: usize = 32;
/// Most nonces of one request; a validation samples a few hundred.
pub const REQUEST_NONCES_MAX: usize = 1 << 16;

/// What every nonce of a round shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    pub identity: Identity,
    /// Tokens of the pseudo prompt.
    pub seq_len: usize,
    /// Dimensions of the artifact, [`super::K_DIM`] on the network.
    pub k_dim: usize,
    /// `poc_stronger_rng` of the request.
    pub stronger_rng: bool,
    pub scheme: Scheme,
}

/// A round and the nonces wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRequest {
    pub round: Round,
    pub nonces: Vec<u32>,
}

/// How a request ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofSummary {
    pub artifacts: usize,
    /// Nonces whose hidden state held a NaN; the network expects them to be left out.
    pub dropped: Vec<u32>,
    /// Whether every nonce was worked on.
    pub complete: bool,
}

/// A round made ready on one engine's GPU.
pub struct Prover {
    round: Round,
    hidden: u32,
    reflections: Reflections,
    inputs: InputGenerator,
    pass_nonces: usize,
}

impl Prover {
    /// Uploads the round's reflection vectors and prepares the input generator.
    ///
    /// # Errors
    /// A round this model cannot run ([`PocError::Request`]), or a failure of the GPU.
    pub fn new(engine: &Engine, round: Round) -> Result<Self, PocError> {
        match round.scheme {
            Scheme::Prefill => {}
            Scheme::Decode(_) => return Err(DecodeRefusal::NoCodebook.into()),
        }
        let info = engine.info();
        let refuse = |why: String| Err(PocError::Request(why));
        if round.seq_len == 0 || round.seq_len > info.context_tokens {
            let context = info.context_tokens;
            return refuse(format!("seq_len {}, the context holds {context}", round.seq_len));
        }
        if round.k_dim == 0 || round.k_dim > info.hidden {
            return refuse(format!("k_dim {}, the model has {}", round.k_dim, info.hidden));
        }
        let count = round.seq_len.checked_mul(info.hidden).and_then(|n| u32::try_from(n).ok());
        let (Some(count), Ok(hidden)) = (count, u32::try_from(info.hidden)) else {
            return refuse(format!("seq_len {} x hidden {}", round.seq_len, info.hidden));
        };
        let gpu = engine.gpu();
        let pass_nonces = if gpu.is_software() {
            // No gain on a CPU, and one nonce a pass keeps a stop prompt.
            1
        } else {
            let fits = (gpu.limits().max_storage_buffer_binding_size / (4 * u64::from(count)))
                .min(u64::from(INPUT_VALUES_MAX / count));
            let fits = usize::try_from(fits).unwrap_or(PASS_NONCES_MAX);
            (PASS_TOKENS / round.seq_len).min(fits).clamp(1, PASS_NONCES_MAX)
        };
        let vectors = layer_vectors(&round.identity, info.layers, hidden);
        Ok(Self {
            reflections: Reflections::upload(engine, &vectors)?,
            inputs: InputGenerator::new(std::sync::Arc::clone(gpu), count, pass_nonces)?,
            hidden,
            pass_nonces,
            round,
        })
    }

    /// The round this prover was made for.
    #[must_use]
    pub fn round(&self) -> &Round {
        &self.round
    }

    /// Most nonces [`Self::prove`] takes at once.
    #[must_use]
    pub fn pass_nonces(&self) -> usize {
        self.pass_nonces
    }

    /// Final-norm hidden states `[hidden]` of the last tokens of up to [`Self::pass_nonces`]
    /// nonces.
    ///
    /// `engine` must be the one this prover was made with.
    ///
    /// # Errors
    /// Too many nonces, or a failure of the engine.
    pub fn hidden_states(
        &self,
        engine: &mut Engine,
        nonces: &[u32],
    ) -> Result<Vec<Vec<f32>>, PocError> {
        let count = self.hidden * self.round.seq_len as u32;
        let Round { identity, stronger_rng, .. } = &self.round;
        let streams: Vec<InputStreams> = nonces
            .iter()
            .map(|&nonce| InputStreams::new(identity, nonce, count, *stronger_rng))
            .collect();
        let embeddings = ProofEmbeddings::Device(self.inputs.generate(&streams)?);
        Ok(engine.prove_hidden(&ProofInputs {
            sequences: nonces.len(),
            tokens: self.round.seq_len,
            embeddings,
            reflections: Some(&self.reflections),
        })?)
    }

    /// Artifacts of up to [`Self::pass_nonces`] nonces, in order; `None` for a nonce that gave NaN.
    ///
    /// # Errors
    /// As [`Self::hidden_states`].
    pub fn prove(
        &self,
        engine: &mut Engine,
        nonces: &[u32],
    ) -> Result<Vec<Option<Artifact>>, PocError> {
        let hidden = self.hidden_states(engine, nonces)?;
        let Round { identity, k_dim, .. } = &self.round;
        let read_out = |(&nonce, hidden): (&u32, &Vec<f32>)| {
            Artifact::read_out(identity, nonce, hidden, *k_dim)
        };
        Ok(nonces.iter().zip(&hidden).map(read_out).collect())
    }
}

/// Proves every nonce of a request, handing each artifact to `on_artifact` as soon as it exists.
///
/// `stop` is looked at before every forward pass.
///
/// # Errors
/// A request this model cannot run, or a failure of the GPU; artifacts already handed out stay
/// good.
pub fn compute_artifacts(
    engine: &mut Engine,
    request: &ProofRequest,
    stop: &AtomicBool,
    on_artifact: &mut dyn FnMut(Artifact),
) -> Result<ProofSummary, PocError> {
    if request.nonces.len() > REQUEST_NONCES_MAX {
        let count = request.nonces.len();
        let why = format!("{count} nonces in one request, at most {REQUEST_NONCES_MAX}");
        return Err(PocError::Request(why));
    }
    let prover = Prover::new(engine, request.round.clone())?;
    let mut summary = ProofSummary::default();
    for nonces in request.nonces.chunks(prover.pass_nonces()) {
        if stop.load(Ordering::Relaxed) {
            return Ok(summary);
        }
        for (&nonce, artifact) in nonces.iter().zip(prover.prove(engine, nonces)?) {
            match artifact {
                Some(artifact) => {
                    summary.artifacts += 1;
                    on_artifact(artifact);
                }
                None => summary.dropped.push(nonce),
            }
        }
    }
    summary.complete = true;
    Ok(summary)
}
