//! What an answer must look like, as the set of tokens that may come next.

mod mask;

pub use mask::TokenMask;
