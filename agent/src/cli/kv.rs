//! `--kv`: how keys and values are kept, as the command line spells it.

use clap::ValueEnum;
use roadbed_compute::llm::KvFormat;

/// As `--kv` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvChoice {
    /// As they were computed.
    F32,
    /// Half the memory.
    F16,
    /// Bytes with a scale for each 16: a little more than a quarter of the memory.
    Q8,
}

impl From<KvChoice> for KvFormat {
    fn from(choice: KvChoice) -> Self {
        match choice {
            KvChoice::F32 => Self::F32,
            KvChoice::F16 => Self::F16,
            KvChoice::Q8 => Self::Q8,
        }
    }
}
