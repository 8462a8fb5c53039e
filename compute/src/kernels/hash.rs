//! Kernels of SHA-256d: every form of the search, and the measure of a device's integer rate.

use serde::{Deserialize, Serialize};

use super::Binding::{ReadWrite, Uniform};
use super::Kernel;
use crate::wgsl;

pub const KERNELS: &[Kernel] =
    &[U32_OR, U32_XOR, VEC2_OR, VEC2_XOR, VEC4_OR, VEC4_XOR, INTEGER_RATE];

/// Instructions of one turn of [`INTEGER_RATE`].
pub const OPERATIONS_PER_TURN: u64 = 24;

/// How many nonces one invocation tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    U32,
    Vec2,
    Vec4,
}

impl Width {
    /// Nonces an invocation.
    #[must_use]
    pub fn lanes(self) -> u32 {
        match self {
            Self::U32 => 1,
            Self::Vec2 => 2,
            Self::Vec4 => 4,
        }
    }
}

/// How the majority of three bits is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Majority {
    /// With and and or: one instruction where there is logic of three operands.
    Or,
    /// With differences, half of which the round before has computed.
    Xor,
}

/// One form of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HashVariant {
    pub width: Width,
    pub majority: Majority,
    /// Invocations in a workgroup.
    pub workgroup: u32,
}

impl std::fmt::Display for HashVariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.kernel().name;
        write!(f, "{} x{}", name.trim_start_matches("sha256d_"), self.workgroup)
    }
}

impl HashVariant {
    /// Before anything is known of an adapter. Wide vectors fill the lanes of a CPU driver no better than it does itself.
    pub const UNTRIED: Self = Self { width: Width::U32, majority: Majority::Or, workgroup: 64 };

    /// Every kernel once, in workgroups of 64.
    #[must_use]
    pub fn kernels() -> Vec<Self> {
        [Width::U32, Width::Vec2, Width::Vec4]
            .into_iter()
            .flat_map(|width| {
                [Majority::Or, Majority::Xor].map(|majority| Self {
                    width,
                    majority,
                    workgroup: 64,
                })
            })
            .collect()
    }

    /// The row of the table.
    #[must_use]
    pub fn kernel(self) -> &'static Kernel {
        match (self.width, self.majority) {
            (Width::U32, Majority::Or) => &U32_OR,
            (Width::U32, Majority::Xor) => &U32_XOR,
            (Width::Vec2, Majority::Or) => &VEC2_OR,
            (Width::Vec2, Majority::Xor) => &VEC2_XOR,
            (Width::Vec4, Majority::Or) => &VEC4_OR,
            (Width::Vec4, Majority::Xor) => &VEC4_XOR,
        }
    }
}

/// Candidates among a range of nonces; exact.
macro_rules! search {
    ($row:ident, $name:literal, $lanes:literal, $majority:literal) => {
        pub const $row: Kernel = Kernel {
            name: $name,
            source: wgsl!($lanes, $majority, "hash/sha256d.wgsl"),
            entry: "main",
            bindings: &[Uniform, ReadWrite],
            constants: &[("WORKGROUP", 64.0)],
            tolerance: 0.0,
        };
    };
}

search!(U32_OR, "sha256d_u32_or", "hash/lanes_u32.wgsl", "hash/majority_or.wgsl");
search!(U32_XOR, "sha256d_u32_xor", "hash/lanes_u32.wgsl", "hash/majority_xor.wgsl");
search!(VEC2_OR, "sha256d_vec2_or", "hash/lanes_vec2.wgsl", "hash/majority_or.wgsl");
search!(VEC2_XOR, "sha256d_vec2_xor", "hash/lanes_vec2.wgsl", "hash/majority_xor.wgsl");
search!(VEC4_OR, "sha256d_vec4_or", "hash/lanes_vec4.wgsl", "hash/majority_or.wgsl");
search!(VEC4_XOR, "sha256d_vec4_xor", "hash/lanes_vec4.wgsl", "hash/majority_xor.wgsl");

/// Integer operations to time; exact.
pub const INTEGER_RATE: Kernel = Kernel {
    name: "integer_rate",
    source: wgsl!("hash/integer_rate.wgsl"),
    entry: "main",
    bindings: &[Uniform, ReadWrite],
    constants: &[("WORKGROUP", 64.0)],
    tolerance: 0.0,
};
