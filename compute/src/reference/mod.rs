//! CPU twins of the kernels: obvious f32 code, the oracle of every equivalence test.
//!
//! [`ops`] has one function per kernel; [`model`] strings them together into a whole forward pass on
//! dequantised weights. Nothing here is tuned beyond sharing rows among threads.

pub mod cache;
pub mod encoder;
pub mod model;
pub mod ops;
pub mod quantised;
pub mod top;
