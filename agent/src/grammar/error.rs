//! Why an answer cannot be given the wanted form.

/// The one error of this module. All of it is the request's fault but [`GrammarError::Vocabulary`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// A bound on what a stranger may make us compile.
    #[error("the schema is too large: more than {most} {what}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many are taken.
        most: usize,
    },
    /// Not a schema, or one that cannot be followed token by token.
    #[error("the schema cannot be used: {0}")]
    Unsupported(String),
    /// The model's tokens.
    #[error("the vocabulary cannot be made a prefix tree: {0}")]
    Vocabulary(String),
}
