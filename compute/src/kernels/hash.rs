//! Kernels of SHA-256d.

use super::Binding::{ReadWrite, Uniform};
use super::Kernel;
use crate::wgsl;

pub const KERNELS: &[Kernel] = &[SHA256D];

/// Candidates among a range of nonces; exact.
pub const SHA256D: Kernel = Kernel {
    name: "sha256d",
    source: wgsl!("hash/sha256d.wgsl"),
    entry: "main",
    bindings: &[Uniform, ReadWrite],
    constants: &[("WORKGROUP", 64.0)],
    tolerance: 0.0,
};
