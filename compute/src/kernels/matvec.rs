//! Variants of the matrix-vector product, which is what decoding spends its time on.
//!
//! All read weights in any format; they differ in who adds up with whom. [`MatvecVariant::x_rows`]
//! rows of activations share one reading of the weights, each summed in the order it has alone.

use super::Kernel;
use super::llm::{Method, WeightFormat, matvec};

/// Weight rows that one invocation, or the lanes that work together, multiply at once.
const ROWS_PER_SET: u32 = 4;
/// Most rows of activations that share one reading of the weights.
pub const X_ROWS_MAX: u32 = 8;

/// Who adds up with whom; each has its `shaders/lib/sum_*.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Every invocation alone: CPU adapters.
    Lane,
    /// Lanes in a tree through shared memory: any GPU.
    Tree,
}

/// One way to multiply, for matrices of some width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatvecVariant {
    pub sharing: Sharing,
    /// Invocations of a workgroup.
    pub workgroup: u32,
    /// Invocations that share a set of rows; a power of two that divides `workgroup`.
    pub lanes: u32,
    /// Eights of columns that an invocation takes at a time: 1, 2 or 4.
    pub parts: u32,
}

impl MatvecVariant {
    /// What suits a kind of adapter untried.
    #[must_use]
    pub fn of(method: Method, columns: usize) -> Self {
        match method {
            // Lanes of lavapipe's vector unit.
            Method::Lane => Self { sharing: Sharing::Lane, workgroup: 8, lanes: 1, parts: 4 },
            Method::Group => {
                let lanes = (columns as u32 / 32).next_power_of_two().clamp(8, 32);
                Self { sharing: Sharing::Tree, workgroup: 64, lanes, parts: 1 }
            }
        }
    }

    /// How many rows of activations a dispatch over `rows` of them takes at a time: 1, 2, 4 or 8.
    #[must_use]
    pub fn x_rows(rows: u32) -> u32 {
        rows.next_power_of_two().clamp(1, X_ROWS_MAX)
    }

    #[must_use]
    pub fn kernel(self, format: WeightFormat) -> &'static Kernel {
        matvec(format, self.sharing)
    }

    #[must_use]
    pub fn constants(self, x_rows: u32) -> Vec<(&'static str, f64)> {
        let mut constants = vec![
            ("WORKGROUP", f64::from(self.workgroup)),
            ("PARTS", f64::from(self.parts)),
            ("X_ROWS", f64::from(x_rows)),
        ];
        match self.sharing {
            Sharing::Lane => {}
            Sharing::Tree => constants.push(("LANES", f64::from(self.lanes))),
        }
        constants
    }

    /// Workgroups over the rows of a matrix.
    #[must_use]
    pub fn groups(self, rows: u32) -> u32 {
        rows.div_ceil(self.workgroup / self.lanes * ROWS_PER_SET)
    }
}
