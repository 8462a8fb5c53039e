//! What log probabilities tell of where a request does not say, in one word.

use clap::ValueEnum;

/// What log probabilities tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogprobsWord {
    /// The model itself.
    #[default]
    Raw,
    /// What is drawn from: after penalties, temperature and filters.
    Processed,
}

impl std::str::FromStr for LogprobsWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        <Self as ValueEnum>::from_str(text, false)
            .map_err(|_unknown| format!("{text:?} is none of raw, processed"))
    }
}
