//! Kernels of Proof of Compute.

use super::Kernel;

pub const KERNELS: &[Kernel] = &[];
