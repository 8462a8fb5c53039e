//! The agent's integration tests: one binary, because each is a link.

mod asic;
#[cfg(feature = "gpu")]
mod miner;
