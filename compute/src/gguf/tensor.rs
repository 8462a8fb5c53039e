//! Tensor types of ggml and the directory entry of one tensor.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Storage types this reader knows. Block sizes are those of ggml's `ggml-common.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TensorType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    /// Four-bit floats (e2m1) with a power of two per 32 (e8m0), of the OCP microscaling formats.
    Mxfp4,
}

impl TensorType {
    pub const ALL: [Self; 12] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Mxfp4,
    ];

    /// The number of this type in a file.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
            Self::Mxfp4 => 39,
        }
    }

    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.code() == code)
    }

    /// Weights per block; every row is a whole number of blocks.
    #[must_use]
    pub fn block_weights(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Mxfp4 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Mxfp4 => 17,
        }
    }

    /// Thousandths of a bit that a weight takes, its share of the block's scales included.
    #[must_use]
    pub fn millibits(self) -> usize {
        8_000 * self.block_bytes() / self.block_weights()
    }

    /// Whether a weight takes fewer than 16 bits: a file of such weights is another model than the one they were made of.
    #[must_use]
    pub fn is_below_16_bits(self) -> bool {
        self.millibits() < 16_000
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Mxfp4 => "MXFP4",
        })
    }
}

/// One tensor: where its bytes are and how they are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    pub name: String,
    pub kind: TensorType,
    /// Weights per row; ggml's first dimension.
    pub columns: usize,
    /// Product of the other dimensions; 1 for a vector.
    pub rows: usize,
    /// Offset from the start of the file and length, both checked against it.
    pub(crate) start: usize,
    pub(crate) bytes: usize,
    /// Which of its source's files it is in.
    pub(crate) file: usize,
    /// Rows (of a vector, elements) per head, if the file has each head's halves one after the other
    /// and they are to be read as neighbouring pairs; 0 if rows are in their place.
    pub(crate) interleaved_head: usize,
    /// One is added to every weight of this vector.
    pub(crate) plus_one: bool,
}

impl TensorEntry {
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.columns / self.kind.block_weights() * self.kind.block_bytes()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
