//! Kernels of SHA-256d.

use super::Kernel;

pub const KERNELS: &[Kernel] = &[];
