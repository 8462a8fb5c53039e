//! Everything of Roadbed that runs on a GPU: language models, Proof of Compute, SHA-256d.
//!
//! The only crate that compiles wgpu. It knows nothing of farms, brokers or money: the agent calls
//! it with a model file, an adapter choice and numbers, and gets numbers back. Calls block, so the
//! agent gives each [`Engine`] a thread of its own.
//!
//! Every kernel is plain WGSL in `shaders/`, listed once in [`kernels`], and has a twin in obvious
//! CPU code ([`mod@reference`] and beside the PoC and hash kernels) that the tests hold it against.

pub mod adapter;
pub mod embedding;
pub mod gguf;
pub mod gpu;
pub mod grammar;
pub mod hash;
pub mod infval;
pub mod kernels;
pub mod llm;
mod mapped;
pub mod poc;
pub mod reference;
pub mod safetensors;
pub mod source;
pub mod synthetic;
pub mod template;
pub mod tokenizer;

pub use adapter::{AdapterChoice, AdapterKind, AdapterSummary, list_adapters};
pub use embedding::{Encoder, EncoderInfo, EncoderNeed, EncoderOptions};
pub use gpu::{Gpu, GpuError};
pub use llm::{
    AdapterLabel, AtLeast, BatchLoad, Card, ContractDraw, Conversation, Engine, EngineError,
    EngineInfo, EngineOptions, FinishReason, GenerateRequest, Generation, LogprobsMode, Message,
    NewToken, PositionLogprobs, Sampling, Scoring, SequenceEvent, SequenceId, StageInfo, Timings,
    TokenEvent, TokenLogprob, Usage,
};
