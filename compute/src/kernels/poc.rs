//! Kernels of Proof of Compute.

use super::Binding::{Read, ReadWrite, Uniform};
use super::Kernel;
use crate::wgsl;

pub const KERNELS: &[Kernel] = &[NORMALS];

/// Seeded standard normals; the bar of the published vectors.
pub const NORMALS: Kernel = Kernel {
    name: "poc_normals",
    source: wgsl!("poc/normals.wgsl"),
    entry: "main",
    bindings: &[Uniform, Read, ReadWrite],
    constants: &[("WORKGROUP", 64.0)],
    tolerance: 2e-6,
};
