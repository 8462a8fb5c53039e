//! What the outside sees of a GPU rig: an MLNode for Gonka's Network Node and the OpenAI API for customers, on one port.
//!
//! ```text
//! socket -> door (path, auth, body) -> mlnode | openai -> Node (state machine, gate) -> engine, proof
//! socket -> pocstream (gRPC) -> callbacks of the proof side that wait to be fetched
//! ```
//! Both faces are thin: they read a request into types, call, and write the answer in the form their clients expect.

mod body;
mod door;
mod gate;
mod metrics;
mod mlnode;
mod node;
mod openai;
mod path_end;
pub mod pocstream;
mod reply;

pub use door::{Faces, FacesSettings, serve};
pub use gate::{Gate, GateControl};
pub use mlnode::ModelHub;
pub use node::{
    AnswerDefaults, Node, NodeParts, NodePatience, NodeState, StopFault, UpFault, UpStatus,
};
