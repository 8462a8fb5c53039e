//! Stand-ins that speak Stratum V2: a pool for miners, and a template provider for real pools.
//!
//! Both are built on the server halves of the crates whose client halves the agent uses, so they cannot find an error
//! that both halves share. The published vectors of the specification and the real `pool_sv2` (tests/peers) are there
//! for that.

pub mod pool;
pub mod server;
pub mod templates;
pub mod wire;
