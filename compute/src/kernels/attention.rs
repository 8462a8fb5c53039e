//! Kernels that turn and file queries, keys and values, and those that attend over the paged caches.
//!
//! Attention runs over *spans* of positions and puts them together afterwards, so that a long context
//! fills a GPU even for a single row. Prefill has rows enough and takes all positions as one span.

use serde::{Deserialize, Serialize};

use super::Kernel;
use super::llm::Method;
use super::matvec::spreads;
use super::{Binding::Read, Binding::ReadWrite, Binding::Uniform};

/// Positions of a span while decoding, at most.
pub const SPAN_DECODE: u32 = 256;

/// Positions of a span while decoding. A GPU takes a tile for each workgroup: one row of a model with eight KV heads
/// fills few of its units as it is, and what it waits for is memory, tile after tile. A CPU driver takes several: every
/// span is more to put together.
#[must_use]
pub fn span_decode(method: Method) -> u32 {
    match method {
        Method::Lane => SPAN_DECODE,
        Method::Group => WORKGROUP_GROUP,
    }
}

/// Longer than any sequence.
pub const SPAN_PREFILL: u32 = 1 << 30;
/// Query heads that share one loading of keys and values in a workgroup.
pub const HEADS_TOGETHER: u32 = 4;
/// Invocations of a workgroup on a GPU. Each holds four floats of a head, of which there are 512 at
/// most; WebGPU's smallest limit is 256 invocations.
const WORKGROUP_GROUP: u32 = 128;
/// Fewest on a CPU adapter: the lanes of its vector unit (lavapipe: 8).
const WORKGROUP_LANE_MIN: u32 = 8;

/// Floats of a head that eight lanes of four hold; `attention_spread.wgsl` has room for so many such pieces.
const PIECE_FLOATS: u32 = 32;
const PIECES_MAX: u32 = 4;

/// Values that are moved, or turned once.
const COPY_TOLERANCE: f32 = 1e-6;
/// f32 sums in another order than the twin's: a few units in the last place of the terms.
const SUM_TOLERANCE: f32 = 2e-5;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvFormat {
    /// As they were computed.
    #[default]
    F32,
    /// Half the memory.
    F16,
    /// Signed bytes with a scale for each 16: a little more than a quarter of the memory.
    Q8,
}

impl KvFormat {
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8];

    /// The word for it in options and documents.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    /// Words of one head of one position.
    #[must_use]
    pub fn record_words(self, head: usize) -> usize {
        match self {
            Self::F32 => head,
            Self::F16 => head / 2,
            Self::Q8 => head / 4 + head.div_ceil(2 * Q8_BLOCK),
        }
    }

    /// Floats of a head that one invocation of [`rope`] makes.
    #[must_use]
    pub fn piece(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 4,
            Self::Q8 => 2 * Q8_BLOCK,
        }
    }
}

/// Levels of a scale of [`KvFormat::Q8`].
pub const Q8_BLOCK: usize = 16;

macro_rules! rope {
    ($format:literal, $write:literal, $tolerance:expr) => {
        Kernel {
            name: concat!("rope_", $format),
            source: crate::wgsl!(
                "lib/step.wgsl",
                "lib/rows.wgsl",
                "lib/pages.wgsl",
                "lib/attention_shape.wgsl",
                $write,
                "rope.wgsl"
            ),
            entry: "main",
            bindings: &[Uniform, Uniform, Read, Read, Read, Read, ReadWrite, ReadWrite, ReadWrite],
            constants: &[("WORKGROUP", 64.0)],
            tolerance: $tolerance,
        }
    };
}

macro_rules! attention {
    ($format:literal, $read:literal) => {
        Kernel {
            name: concat!("attention_", $format),
            source: crate::wgsl!(
                "lib/step.wgsl",
                "lib/rows.wgsl",
                "lib/pages.wgsl",
                "lib/attention_shape.wgsl",
                $read,
                "lib/attention_tile.wgsl",
                "attention.wgsl"
            ),
            entry: "main",
            bindings: &[Uniform, Uniform, Read, Read, Read, Read, Read, ReadWrite],
            constants: &[
                ("WORKGROUP", WORKGROUP_GROUP as f64),
                ("SPAN", SPAN_DECODE as f64),
                ("TREE", 1.0),
            ],
            tolerance: SUM_TOLERANCE,
        }
    };
}

static ROPE: [Kernel; KvFormat::ALL.len()] = [
    rope!("f32", "lib/cache_write_f32.wgsl", COPY_TOLERANCE),
    // A driver may round to either neighbour.
    rope!("f16", "lib/cache_write_f16.wgsl", 1.0 / 1024.0),
    // What lies between two levels may become either.
    rope!("q8", "lib/cache_write_q8.wgsl", 1.01 / 127.0),
];

static ATTENTION: [Kernel; KvFormat::ALL.len()] = [
    attention!("f32", "lib/cache_read_f32.wgsl"),
    attention!("f16", "lib/cache_read_f16.wgsl"),
    attention!("q8", "lib/cache_read_q8.wgsl"),
];

macro_rules! spread {
    ($format:literal, $read:literal) => {
        Kernel {
            name: concat!("attention_spread_", $format),
            source: crate::wgsl!(
                "lib/step.wgsl",
                "lib/rows.wgsl",
                "lib/pages.wgsl",
                "lib/attention_shape.wgsl",
                $read,
                "lib/heads_spread.wgsl",
                "attention_spread.wgsl"
            ),
            entry: "main",
            bindings: &[Uniform, Uniform, Read, Read, Read, Read, Read, ReadWrite],
            constants: &[("SPAN", SPAN_DECODE as f64), ("PIECES", 2.0)],
            tolerance: SUM_TOLERANCE,
        }
    };
}

static SPREAD: [Kernel; KvFormat::ALL.len()] = [
    spread!("f32", "lib/cache_read_f32.wgsl"),
    spread!("f16", "lib/cache_read_f16.wgsl"),
    spread!("q8", "lib/cache_read_q8.wgsl"),
];

fn of_format(kernels: &'static [Kernel; 3], format: KvFormat) -> &'static Kernel {
    let [f32, f16, q8] = kernels;
    match format {
        KvFormat::F32 => f32,
        KvFormat::F16 => f16,
        KvFormat::Q8 => q8,
    }
}

/// Turns queries and keys and files keys and values.
#[must_use]
pub fn rope(format: KvFormat) -> &'static Kernel {
    of_format(&ROPE, format)
}

/// Who attends over a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attending {
    /// A workgroup through shared memory, of as many invocations as suit the method.
    Together(Method),
    /// Eight lanes of a subgroup that hand each other what they loaded: CPU adapters that offer
    /// subgroups of eight or more, for heads of 32 to 128 floats.
    Spread,
}

impl Attending {
    /// What suits a kind of adapter. `subgroup_lanes` is the size of its smallest subgroup, if it
    /// offers any.
    #[must_use]
    pub fn of(method: Method, subgroup_lanes: Option<u32>, head: u32) -> Self {
        let whole = head.is_multiple_of(PIECE_FLOATS) && head <= PIECES_MAX * PIECE_FLOATS;
        match method {
            Method::Lane if whole && spreads(subgroup_lanes) => Self::Spread,
            Method::Lane | Method::Group => Self::Together(method),
        }
    }

    #[must_use]
    pub fn kernel(self, format: KvFormat) -> &'static Kernel {
        match self {
            Self::Together(_) => of_format(&ATTENTION, format),
            Self::Spread => of_format(&SPREAD, format),
        }
    }

    /// Constants for heads of `head` floats. On a CPU driver a barrier is dear, so there a workgroup has
    /// no more invocations than a head has vectors.
    #[must_use]
    pub fn constants(self, head: u32, span: u32) -> Vec<(&'static str, f64)> {
        let vectors = (head / 4).next_power_of_two();
        let span = ("SPAN", f64::from(span));
        let (workgroup, tree) = match self {
            Self::Spread => return vec![span, ("PIECES", f64::from(head / PIECE_FLOATS))],
            Self::Together(Method::Lane) => (vectors.max(WORKGROUP_LANE_MIN), 0.0),
            Self::Together(Method::Group) => (vectors.max(WORKGROUP_GROUP), 1.0),
        };
        vec![("WORKGROUP", f64::from(workgroup)), span, ("TREE", tree)]
    }
}

/// Puts the spans together.
pub static ATTENTION_REDUCE: Kernel = Kernel {
    name: "attention_reduce",
    source: crate::wgsl!(
        "lib/step.wgsl",
        "lib/rows.wgsl",
        "lib/attention_shape.wgsl",
        "attention_reduce.wgsl"
    ),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
    constants: &[("WORKGROUP", 64.0), ("SPAN", SPAN_DECODE as f64)],
    tolerance: SUM_TOLERANCE,
};

/// Workgroups for each row and span: KV heads, times the blocks of query heads that share one.
#[must_use]
pub fn head_blocks(heads: u32, kv_heads: u32) -> u32 {
    kv_heads * (heads / kv_heads).div_ceil(HEADS_TOGETHER)
}

/// Every row of this file.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    ROPE.iter().chain(&ATTENTION).chain(&SPREAD).chain([&ATTENTION_REDUCE])
}
