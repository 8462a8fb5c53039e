//! The language-model engine of a GPU rig: one thread that owns the GPU, jobs in a bounded queue in front of it.
//!
//! ```text
//! faces, proof, cli -> EngineService (queue) -> engine thread -> EngineBackend -> GPU
//! ```
//! GPU calls block, so the engine has an operating-system thread of its own and everything else stays asynchronous.
//! What answers behind the queue is an [`EngineBackend`], our own WGSL engine. A server on the same machine can take the
//! place of all of it: [`upstream`].

pub mod adapter_memory;
mod answers;
pub mod backend;
pub mod catalogue;
mod fault;
pub mod inventory;
mod job;
pub mod kept;
pub mod pull;
mod queue;
mod recovery;
pub mod rendering;
mod replay;
mod service;
pub mod space;
pub mod startup;
mod tls;
pub mod upstream;
mod wgpu;
mod worker;

pub(crate) use self::kept::kept_folder;
pub(crate) use self::recovery::Recoveries;
pub use self::wgpu::WgpuLoader;
pub(crate) use self::wgpu::telling;
pub use backend::{AnswerEvent, BackendLoader, EngineBackend, LoadRequest, ModelInfo, ProofStep};
pub use fault::EngineFault;
pub use job::{
    Answer, Prompt, ProofEnd, ProofOrder, RunningGeneration, ScoreRequest, Scored, StreamToken,
    TOKENS_BUFFERED_MAX, TextRequest, TokenText, Tokenized,
};
pub use pull::{PullError, pull, remove};
pub use queue::JOBS_QUEUED_MAX;
pub use service::{EngineService, EngineState, EngineStats, Occupancy};
