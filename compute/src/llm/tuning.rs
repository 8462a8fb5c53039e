//! Which kernels a model runs on: a default by the adapter's kind, or what was measured on it.

use crate::kernels::llm::{Matmul, Method};
use crate::kernels::matvec::{Activations, MatvecShape, MatvecVariant};

/// The kernels of one loaded model.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub method: Method,
    pub activations: Activations,
}

impl Choice {
    /// How decoding multiplies with a matrix.
    pub fn matvec(&self, shape: MatvecShape) -> MatvecVariant {
        MatvecVariant::of(self.method, self.activations, shape.format, shape.columns)
    }

    /// How several rows are multiplied with a matrix when a prompt is read.
    pub fn matmul(&self, _shape: MatvecShape) -> Matmul {
        Matmul::of(self.method)
    }
}
