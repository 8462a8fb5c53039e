//! The language-model engine: a Llama-family model from a GGUF file on one GPU.
//!
//! [`Engine`] is what the agent uses. All calls block until the GPU answers; give an engine its own
//! thread. Proof of Compute uses [`Engine::prove_hidden`] with its own input embeddings.

mod engine;
mod error;
mod proof;
mod request;

pub use engine::{AdapterLabel, Engine, EngineInfo, EngineOptions};
pub use error::EngineError;
pub use proof::{ProofEmbeddings, ProofInputs, Reflections};
pub use request::{
    FinishReason, GenerateRequest, Generation, Message, PositionLogprobs, STOP_STRINGS_MAX,
    Sampling, TOP_LOGPROBS_MAX, Timings, TokenEvent, TokenLogprob, Usage,
};
