//! The language-model engine: a model from a GGUF file on one GPU, or split over several.
//!
//! [`Engine`] is what the agent uses. All calls block until the GPU answers; give an engine its own
//! thread. Proof of Compute uses [`Engine::prove_hidden`] with its own input embeddings.
//!
//! Weights stay quantised on the GPU and are decoded inside the kernels; activations and the KV cache
//! are f32 unless fewer bits are asked for, so results agree with an f32 reference to the last few bits.

mod architecture;
mod attention;
mod batch;
mod config;
mod draw;
mod engine;
mod error;
mod experts;
mod forward;
mod generation;
mod host_work;
mod kv;
mod layer;
mod likeliest;
pub(crate) mod loader;
mod logprobs;
pub(crate) mod matrix;
mod memory;
pub(crate) mod op;
pub mod packing;
pub mod params;
mod pipeline;
pub(crate) mod plan;
mod processed;
mod proof;
mod replay;
mod request;
mod rope;
mod sampler;
mod sequence;
mod split;
mod stream;
pub(crate) mod tensors;
mod top;
mod tuner;
pub(crate) mod tuning;
mod weights;

pub use crate::kernels::attention::KvFormat;
pub use crate::kernels::matvec::Activations;
pub use architecture::{Activation, Architecture, Family, Windows};
pub use batch::BatchLoad;
pub use config::{Experts, ModelConfig};
pub use engine::{AdapterLabel, Card, Engine, EngineInfo, EngineOptions, StageInfo};
pub use error::EngineError;
pub use host_work::HostWork;
pub use loader::LoadProgress;
pub use memory::MemoryNeed;
pub use proof::{ProofEmbeddings, ProofInputs, ProofPlace, Reflections};
pub use request::{
    AtLeast, ContractDraw, Conversation, FinishReason, GenerateRequest, Generation, LOGIT_BIAS_MAX,
    LogprobsMode, Message, PositionLogprobs, STOP_STRINGS_MAX, Sampling, Scoring, TOP_LOGPROBS_MAX,
    Timings, TokenEvent, TokenLogprob, Usage,
};
pub use rope::{Rope, Yarn};
pub use sequence::{NewToken, SequenceEvent, SequenceId};
pub use tuning::{Found, Trial, TunedShape, Tuning};
