//! Stratum V2: the binary, encrypted dialect of pools, in which a pool proves who it is.
//!
//! [`noise`] turns bytes into messages, [`setup`] are the first words, [`channel`] is what the pool and we agree is
//! being mined, [`session`] is the conversation. What V1 does with lines and difficulty is done here with frames and
//! targets; to the link and the hash threads both look the same.

pub mod channel;
pub mod noise;
pub mod session;
pub mod setup;

pub use session::Session;
