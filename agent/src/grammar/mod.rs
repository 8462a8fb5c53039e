//! Answers of a wanted form: from a JSON schema to the tokens a model may draw next.
//!
//! The parsing is the `llguidance` crate's: it walks the vocabulary's prefix tree and the grammar together. Our part is
//! to hand it the vocabulary in the form it wants, to bound what a stranger's schema may cost, and to keep its types out
//! of everything else.
//!
//! ```text
//! GrammarCompiler (one a model) --compile(spec)--> Grammar (one a request)
//!     --start()--> state (one an answer): allowed() -> draw -> take(id) -> ..
//! ```

mod compiler;
mod error;
mod state;

pub use compiler::{GrammarCompiler, GrammarSpec};
pub use error::GrammarError;

#[cfg(test)]
mod tests;
