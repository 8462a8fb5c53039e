//! The language-model engine of a GPU rig: a thread for each replica of the model, which owns its GPUs, and jobs in one
//! bounded queue in front of them all.
//!
//! ```text
//! faces, proof, cli -> EngineService (queue) -+-> engine thread -> EngineBackend -> GPU, or several
//!                                              +-> engine thread -> EngineBackend -> GPU    (replicas)
//! ```
//! GPU calls block, so the engine has an operating-system thread of its own and everything else stays asynchronous.
//! What answers behind the queue is an [`EngineBackend`], our own WGSL engine. A server on the same machine can take the
//! place of all of it: [`upstream`].

pub mod adapter_memory;
mod answers;
pub mod backend;
pub mod catalogue;
mod change;
mod fault;
pub mod inventory;
mod job;
pub mod kept;
pub mod pace;
mod placement;
mod proving;
pub mod pull;
pub(crate) mod queue;
mod recovery;
pub mod rendering;
mod replay;
mod replica;
mod rig;
mod service;
pub mod space;
pub mod startup;
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
    Answer, Claims, Prompt, ProofEnd, ProofOrder, ReplayExtent, RunningGeneration, ScoreRequest,
    Scored, StreamToken, TOKENS_BUFFERED_MAX, TextRequest, TokenText, Tokenized,
};
pub use pace::{MeasuredRate, RateOf};
pub use pull::{PullError, pull, remove};
pub use queue::JOBS_QUEUED_MAX;
pub use replica::{ReplicaView, Standing};
pub use service::{EngineService, EngineState, EngineStats, Occupancy};
