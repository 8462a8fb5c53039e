//! What an answer must look like, as the set of tokens that may come next.
//!
//! The engine knows no schema: whoever asks for a form brings a [`Grammar`], and the engine draws
//! each token from what its state allows.

mod mask;

use std::fmt::Debug;
use std::sync::Arc;

pub use mask::TokenMask;

/// Why a grammar can go no further; the words are for the customer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarFault(pub String);

/// How far one answer has come in its grammar. All calls come from the engine's thread.
pub trait GrammarState: Send {
    /// The tokens that may come next, the end-of-text tokens among them where the answer may end.
    /// Never empty.
    fn allowed(&mut self) -> Result<TokenMask, GrammarFault>;

    /// Goes on by a token that was drawn from the allowed ones.
    fn take(&mut self, id: u32) -> Result<(), GrammarFault>;

    /// True if nothing can follow but the end, so that it need not be drawn.
    fn is_complete(&self) -> bool;
}

/// Begins answers of one form; several may be under way at once.
pub trait GrammarStart: Debug + Send + Sync {
    /// An answer of which nothing is written yet.
    fn start(&self) -> Box<dyn GrammarState>;
}

/// The form an answer must have. Cheap to clone; equal to its clones only.
#[derive(Clone, Debug)]
pub struct Grammar(Arc<dyn GrammarStart>);

impl Grammar {
    #[must_use]
    pub fn new(start: impl GrammarStart + 'static) -> Self {
        Self(Arc::new(start))
    }

    /// An answer of which nothing is written yet.
    #[must_use]
    pub fn start(&self) -> Box<dyn GrammarState> {
        self.0.start()
    }
}

impl PartialEq for Grammar {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
