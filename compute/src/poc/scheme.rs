//! Which of the network's two schemes a round follows.
//!
//! PREFILL is what the network runs. DECODE goes on from the prefill one generated token at a time, and its artifact is
//! the list of codebook points the steps came to. It hangs on a file that is published nowhere in text: without it a
//! round is refused, because an artifact made with any other codebook is fraud to every validator.

/// The scheme of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scheme {
    /// One prefill; the artifact is a vector.
    #[default]
    Prefill,
    /// A prefill and single-token steps behind it; the artifact is a trajectory.
    Decode(DecodeTerms),
}

/// What a DECODE round fixes beyond what every round does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeTerms {
    /// Steps behind the prefill (`max_tokens` of the request): a trajectory has one point more.
    pub max_tokens: usize,
}

impl Scheme {
    /// Tokens of a sequence that begins with a prefill of `seq_len`.
    #[must_use]
    pub const fn tokens(self, seq_len: usize) -> usize {
        match self {
            Self::Prefill => seq_len,
            Self::Decode(terms) => seq_len.saturating_add(terms.max_tokens),
        }
    }
}

/// Why DECODE is not served here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeRefusal {
    /// Nobody has named the network's file.
    #[error(
        "the DECODE scheme needs the network's codebook file, and none was given; name it as `codebook` below `gpu:` in agent.yaml, or with --poc-codebook"
    )]
    NoCodebook,
    /// The scheme picks 256 dimensions.
    #[error(
        "the DECODE scheme picks {} dimensions; the model has {hidden}",
        super::codebook::SPHERE_DIMS
    )]
    Narrow {
        /// Width of the model.
        hidden: usize,
    },
    /// What answers is no engine of ours.
    #[error("what answers on this rig proves by itself or not at all")]
    NotOurs,
}
