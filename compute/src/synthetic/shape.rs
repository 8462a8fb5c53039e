//! Named shapes and architectures of synthetic models.

use std::fmt;
use std::str::FromStr;

use crate::llm::Architecture;

/// How big a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub name: &'static str,
    pub layers: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Floats per head.
    pub head: usize,
    pub vocabulary: usize,
    pub context_tokens: usize,
    /// True if the output matrix is the embedding table.
    pub tied: bool,
}

/// Rows of the table: name, layers, hidden, ffn, heads, KV heads, head, vocabulary, context, tied.
/// The shapes are those of SmolLM2 135M and 360M, Qwen2.5 0.5B, Llama 3.2 1B and 3B, Mistral 7B, Llama 3.1 8B
/// and Llama 2 13B, so that speeds can be compared with published ones.
#[rustfmt::skip]
const SHAPES: &[(&str, [usize; 8], bool)] = &[
    ("tiny", [2, 256, 512, 4, 2, 64, 512, 512], true),
    ("135m", [30, 576, 1536, 9, 3, 64, 49_152, 8192], true),
    ("360m", [32, 960, 2560, 15, 5, 64, 49_152, 8192], true),
    ("0.5b", [24, 896, 4864, 14, 2, 64, 151_936, 32_768], true),
    ("1b", [16, 2048, 8192, 32, 8, 64, 128_256, 131_072], true),
    ("3b", [28, 3072, 8192, 24, 8, 128, 128_256, 131_072], true),
    ("7b", [32, 4096, 14_336, 32, 8, 128, 32_000, 32_768], false),
    ("8b", [32, 4096, 14_336, 32, 8, 128, 128_256, 131_072], false),
    ("13b", [40, 5120, 13_824, 40, 40, 128, 32_000, 4096], false),
];

impl Shape {
    /// Every name there is, smallest first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|(name, _, _)| *name)
    }

    /// A shape by name, case ignored.
    ///
    /// # Errors
    /// [`UnknownName`], which lists the names there are.
    pub fn named(name: &str) -> Result<Self, UnknownName> {
        let row = SHAPES.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name));
        let Some((name, sizes, tied)) = row else {
            return Err(UnknownName::new("shape", name, Self::names()));
        };
        let [layers, hidden, ffn, heads, kv_heads, head, vocabulary, context_tokens] = *sizes;
        Ok(Self {
            name,
            layers,
            hidden,
            ffn,
            heads,
            kv_heads,
            head,
            vocabulary,
            context_tokens,
            tied: *tied,
        })
    }
}

/// Base of the rotations, as the published models of each have it.
pub(super) fn rope_base(architecture: Architecture) -> f32 {
    match architecture {
        Architecture::Llama | Architecture::Gemma2 => 10_000.0,
        Architecture::Qwen2
        | Architecture::Qwen3
        | Architecture::Qwen3Moe
        | Architecture::Gemma3 => 1_000_000.0,
    }
}

impl FromStr for Architecture {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.word().eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                UnknownName::new("architecture", name, Self::ALL.into_iter().map(Self::word))
            })
    }
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: String,
}

impl UnknownName {
    /// `what` is what the name should have been, `known` what it could have been.
    pub fn new<'n>(what: &'static str, name: &str, known: impl Iterator<Item = &'n str>) -> Self {
        let known = known.collect::<Vec<_>>().join(", ");
        Self { what, name: name.to_owned(), known }
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no {}; known: {}", self.name, self.what, self.known)
    }
}

impl std::error::Error for UnknownName {}
