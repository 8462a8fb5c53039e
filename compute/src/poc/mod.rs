//! Proof of Compute v2: the artifact that shows a forward pass of the agreed model was run.
//!
//! A nonce seeds random input embeddings; the model runs with a seeded reflection after every
//! decoder layer; a few seeded dimensions of the last hidden state, rotated and normalised, are the
//! artifact. Everything seeded is exact integer work ([`seed`], [`pick`], [`nonces`]); everything
//! real has a stated tolerance, because validators compare by distance ([`verdict`]) and not by
//! bits.
//!
//! ```text
//! request -> seed -> inputs -> model with reflections -> artifact -> callback -> verdict
//! ```
//! That is the scheme the network runs, PREFILL. A second one, DECODE, goes on from there one token at a time
//! ([`steps`], [`codebook`], [`trajectory`]); [`scheme`] says when it is refused.

pub mod artifact;
pub mod codebook;
pub mod generator;
pub mod inputs;
pub mod nonces;
pub mod normal;
pub mod pick;
pub mod prover;
pub mod reflection;
pub mod scheme;
pub mod seed;
pub mod steps;
pub mod trajectory;
pub mod verdict;
pub mod walk;

#[cfg(test)]
pub(crate) mod vectors;

pub use artifact::{Artifact, K_DIM};
pub use codebook::{Codebook, CodebookError};
pub use nonces::{NonceSequence, NonceShare};
pub use prover::{ProofRequest, ProofSummary, Prover, Round, compute_artifacts, decode_support};
pub use scheme::{DecodeRefusal, DecodeTerms, Scheme};
pub use seed::Identity;
pub use trajectory::{Comparison, MarginKind, judge_trajectories};
pub use verdict::{StatTest, Verdict, judge};
pub use walk::Walks;

/// Why a proof could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PocError {
    /// The request asks for something that cannot exist; the caller must change it.
    #[error("proof request refused: {0}")]
    Request(String),
    /// A received artifact is not `k` finite half floats in base64.
    #[error("malformed artifact: {0}")]
    Malformed(String),
    /// The round is of a scheme that is not served here.
    #[error(transparent)]
    Unsupported(#[from] DecodeRefusal),
    #[error(transparent)]
    Gpu(#[from] crate::gpu::GpuError),
    #[error(transparent)]
    Engine(#[from] crate::llm::EngineError),
}
