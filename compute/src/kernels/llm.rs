//! Kernels of the language-model forward pass.

use super::Kernel;

pub const KERNELS: &[Kernel] = &[];
