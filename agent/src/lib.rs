//! The agent of a rig: it starts by itself, obeys signed assignments, and never does more than its lease allows.
//!
//! ```text
//! broker <-> link -> runtime (one task per rig owns its rig machine) -> driver -> hardware
//!                      |                                                  ^
//!                      +-> journal -> link (rows, until acknowledged)     +-- engine, proof, faces, miner | asic
//! ```
//! The rig machine itself is pure and lives in `farm-core`; this crate is its shell: sockets, processes, sensors.

pub mod asic;
pub mod cli;
pub mod clock;
pub mod config;
pub mod driver;
pub mod journal;
pub mod link;
mod random;
pub mod runtime;
pub mod sensors;

#[cfg(feature = "gpu")]
mod child;
#[cfg(feature = "gpu")]
pub mod embedding;
#[cfg(feature = "gpu")]
pub mod engine;
#[cfg(feature = "gpu")]
pub mod faces;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "gpu")]
pub mod grammar;
#[cfg(feature = "gpu")]
pub mod inference;
#[cfg(feature = "gpu")]
mod measured;
#[cfg(feature = "gpu")]
pub mod miner;
#[cfg(feature = "gpu")]
pub mod proof;
#[cfg(feature = "gpu")]
mod tls;
