//! The agent's integration tests: one binary, because each is a link.

#[cfg(feature = "gpu")]
mod ai;
mod asic;
mod control;
#[cfg(feature = "gpu")]
mod miner;
