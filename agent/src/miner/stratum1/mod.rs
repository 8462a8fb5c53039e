//! Stratum V1: JSON in lines.

mod line;
pub mod message;
mod session;

pub use session::Session;
