//! Which kernels a model runs on: a default by the adapter's kind, or what was measured on it.

use crate::kernels::llm::{Matmul, Method};
use crate::kernels::matvec::{Activations, MatvecShape, MatvecVariant};

/// The kernels of one loaded model.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub method: Method,
    /// Size of the adapter's smallest subgroup, if it offers any.
    pub subgroup_lanes: Option<u32>,
    pub activations: Activations,
}

impl Choice {
    /// How decoding multiplies with a matrix.
    pub fn matvec(&self, shape: MatvecShape) -> MatvecVariant {
        self.matvec_of(self.activations, shape)
    }

    /// The same with activations of one kind.
    pub fn matvec_of(&self, activations: Activations, shape: MatvecShape) -> MatvecVariant {
        let MatvecShape { format, columns, .. } = shape;
        MatvecVariant::of(self.method, self.subgroup_lanes, activations, format, columns)
    }

    /// How several rows are multiplied with a matrix when a prompt is read.
    pub fn matmul(&self, _shape: MatvecShape) -> Matmul {
        Matmul::of(self.method, self.subgroup_lanes)
    }
}
