//! External miners: programs of others, run as children under supervision.
//!
//! ```text
//! config (profile, pool) -> launch -> runner -- effects --> child (own process group), API, GPU memory
//!                                      ^  |                        |
//!                                      |  +-- supervisor <-- events+
//!                                      |       (pure: states, clock passed in)
//!                             wanted: run, stop, cut
//! ```
//! What a miner is stands in a profile and nowhere in here. The supervisor decides and never acts; the runner acts and
//! never decides. A stop is over when nobody of the miner's process group is left and its GPU memory is free, or is said
//! to be not confirmed where nobody tells.

pub mod reply;
pub mod supervisor;

mod api;
mod launch;
mod leftover;
mod memory;
mod runner;
mod states;

pub use launch::Launch;
pub use leftover::{LeftoverError, end_leftovers, notes_folder};
pub use memory::{GpuMemory, MemoryGauge};
pub use runner::{ExternalHandle, ExternalShares, ExternalStatus, Surroundings, start};
