//! An external OpenAI-compatible server in the engine's place: vLLM, a llama.cpp server, an official MLNode.
//!
//! ```text
//! faces -> UpstreamService (door: bounds, names, counts) -> wire -> the server
//!                 ^ state                                             ^ starts, asks, stops
//!                 +------------------- keeper ------------------------+
//! ```
//! Requests pass as they are written, because a server offers more than our engine knows of: only the model's name is
//! changed, and tokens are counted. What the rig machine and the faces see, states, drain, unload, restarts, is that of
//! our own engine (ADR 11).

mod events;
mod fault;
mod keeper;
mod passage;
mod probe;
mod service;
mod splice;
mod wire;

pub use fault::{PassFault, UpstreamFault};
pub use passage::{Asked, Passed, Piece};
pub use probe::ProofPaths;
pub use service::{Bounds, UpstreamService, model_of};
pub(crate) use splice::{set_inner, set_member};
