//! The agent's integration tests: one binary, because each is a link.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "gpu")]
mod ai;
mod asic;
mod control;
#[cfg(feature = "gpu")]
mod gonka;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod miner;
#[cfg(feature = "gpu")]
mod models;
