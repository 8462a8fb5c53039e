//! How an operator wants a model shared out over several GPUs, in one word.

use std::fmt;
use std::str::FromStr;

/// How a model is shared out over several GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// Replicas where it fits one GPU, else layers over as few as hold it.
    #[default]
    Auto,
    /// A whole model on every GPU.
    Replicas,
    /// One model, its layers over all GPUs.
    Layers,
}

impl Split {
    const ALL: [Self; 3] = [Self::Auto, Self::Replicas, Self::Layers];

    /// The word on the command line and in the config file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Replicas => "replicas",
            Self::Layers => "layers",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|split| split.word() == text);
        named.ok_or_else(|| format!("{text:?} is none of auto, replicas, layers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for split in Split::ALL {
            assert_eq!(split.to_string().parse(), Ok(split));
        }
        assert!("tensor".parse::<Split>().is_err());
    }
}
