//! Which kernels a model runs on: a default by the adapter's kind, or what was measured on it.
//!
//! A choice is made once, when a model is loaded, and stays: so a token's result depends on what is loaded
//! and never on what was measured since. What was measured is kept per adapter and driver, in a small
//! file beside the compiled pipelines, and counts as long as the kernels' texts are the same.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::gpu::{AdapterStore, Gpu};
use crate::kernels::Kernel;
use crate::kernels::llm::{Matmul, Method, WeightFormat};
use crate::kernels::matvec::{Activations, MatvecShape, MatvecVariant};

/// Ending of the file.
const FILE: &str = "tuning.json";
/// What the file looks like; another number is another program's.
const VERSION: u32 = 1;
/// A few hundred shapes with everything that was tried.
const BYTES_MAX: u64 = 4 << 20;
/// Shapes that are kept, the newest: those of dozens of models.
const SHAPES_MAX: usize = 400;

/// Whether kernels are chosen by trying them out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// By the adapter's kind alone: the same on every machine of a kind.
    #[default]
    Off,
    /// As was found before on this adapter and driver, else by trying now.
    Stored,
    /// By trying now, whatever was found before.
    Again,
}

/// One kernel that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial<T> {
    pub variant: T,
    /// For the work of [`Found::flop`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nanoseconds: Option<u64>,
    /// Why it cannot be taken, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<String>,
}

/// What was found about one kind of product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found<T> {
    pub chosen: T,
    /// Time of the chosen for `flop` operations.
    pub nanoseconds: u64,
    pub flop: u64,
    pub trials: Vec<Trial<T>>,
}

/// How matrices of one shape are multiplied with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedShape {
    pub format: WeightFormat,
    pub columns: usize,
    pub rows: usize,
    /// What decoding was asked to multiply with.
    pub activations: Activations,
    /// Digest of everything that was to be tried.
    pub kernels: String,
    /// One row of activations.
    pub decode: Found<MatvecVariant>,
    /// Many rows.
    pub prefill: Found<Matmul>,
}

impl TunedShape {
    pub(super) fn is_of(&self, shape: MatvecShape, activations: Activations) -> bool {
        let own = MatvecShape { format: self.format, columns: self.columns, rows: self.rows };
        own == shape && self.activations == activations
    }
}

/// The kernels of one loaded model.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub method: Method,
    /// Size of the adapter's smallest subgroup, if it offers any.
    subgroup_lanes: Option<u32>,
    pub activations: Activations,
    tuned: Arc<[TunedShape]>,
}

impl Choice {
    /// What suits an adapter's kind.
    pub fn untried(gpu: &Gpu, method: Option<Method>, activations: Activations) -> Self {
        Self {
            method: method.unwrap_or_else(|| Method::of(gpu.is_software())),
            subgroup_lanes: gpu.subgroup_lanes(),
            activations,
            tuned: Arc::new([]),
        }
    }

    /// The same with what was found on the adapter.
    pub fn tuned(self, shapes: Vec<TunedShape>) -> Self {
        Self { tuned: shapes.into(), ..self }
    }

    /// What was found on the adapter.
    pub fn shapes(&self) -> &[TunedShape] {
        &self.tuned
    }

    fn found(&self, activations: Activations, shape: MatvecShape) -> Option<&TunedShape> {
        self.tuned.iter().find(|tuned| tuned.is_of(shape, activations))
    }

    /// How decoding multiplies with a matrix.
    pub fn matvec(&self, shape: MatvecShape) -> MatvecVariant {
        self.matvec_of(self.activations, shape)
    }

    /// The same with activations of one kind.
    pub fn matvec_of(&self, activations: Activations, shape: MatvecShape) -> MatvecVariant {
        let MatvecShape { format, columns, .. } = shape;
        self.found(activations, shape).map_or_else(
            || MatvecVariant::of(self.method, self.subgroup_lanes, activations, format, columns),
            |tuned| tuned.decode.chosen,
        )
    }

    /// How several rows are multiplied with a matrix when a prompt is read.
    pub fn matmul(&self, shape: MatvecShape) -> Matmul {
        self.found(self.activations, shape).map_or_else(
            || Matmul::of(self.method, self.subgroup_lanes),
            |tuned| tuned.prefill.chosen,
        )
    }

    /// What may be tried for matrices of one shape; the untried choice comes first.
    pub(super) fn candidates(&self, shape: MatvecShape) -> Candidates {
        let MatvecShape { format, columns, .. } = shape;
        let (method, lanes) = (self.method, self.subgroup_lanes);
        let decode = MatvecVariant::candidates(method, lanes, self.activations, format, columns);
        let prefill = Matmul::candidates(method, lanes);
        let mut digest = Sha256::new();
        let mut enter = |kernel: &Kernel, variant: &dyn std::fmt::Debug| {
            digest.update(format!("{} {variant:?}\n{}", kernel.name, kernel.source.text));
        };
        decode.iter().for_each(|variant| enter(variant.kernel(format), variant));
        prefill.iter().for_each(|matmul| enter(matmul.kernel(format), matmul));
        let digest = digest.finalize();
        let kernels = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Candidates { kernels, decode, prefill }
    }

    /// Operations a second of products with many rows, as measured; nothing if nothing was.
    pub fn flop_per_second(&self) -> Option<f64> {
        let (mut weights, mut seconds) = (0.0, 0.0);
        for TunedShape { rows, columns, prefill, .. } in self.tuned.iter() {
            let count = (rows * columns) as f64;
            weights += count;
            seconds += count * 1e-9 * prefill.nanoseconds as f64 / prefill.flop as f64;
        }
        (seconds > 0.0).then(|| weights / seconds)
    }
}

/// Longest that one submission to a GPU should take: what shows on a screen is drawn between two, and
/// the watchdogs of drivers (amdgpu's above all) never come near.
const SUBMIT_SECONDS: f64 = 0.030;
/// Operations a second of a GPU that nobody has measured: the slowest cards we meet, in our kernels.
const UNTRIED_FLOP_PER_SECOND: f64 = 1e12;
/// Bounds of a submission, whatever was measured: below, a submission costs more than its work; above, a
/// wrong measurement would do harm.
const SUBMIT_FLOP: std::ops::RangeInclusive<f64> = 1e9..=1e12;
/// Fewest rows of a chunk, however slow the card: fewer than a kernel's tile would be wasted.
const CHUNK_ROWS_MIN: usize = 32;

/// Operations of one submission. A CPU driver has no watchdog and takes whole chunks.
pub(super) fn submit_flop_max(gpu: &Gpu, choice: &Choice) -> f64 {
    match gpu.is_software() {
        true => f64::INFINITY,
        false => submit_flop(choice.flop_per_second()),
    }
}

fn submit_flop(measured_per_second: Option<f64>) -> f64 {
    let per_second = measured_per_second.unwrap_or(UNTRIED_FLOP_PER_SECOND);
    (per_second * SUBMIT_SECONDS).clamp(*SUBMIT_FLOP.start(), *SUBMIT_FLOP.end())
}

/// Rows of a chunk whose largest product is one short dispatch; `largest` is a matrix of the layers.
pub(super) fn product_rows_max(gpu: &Gpu, choice: &Choice, largest: Option<MatvecShape>) -> usize {
    match (gpu.is_software(), largest) {
        (true, _) | (_, None) => usize::MAX,
        (false, Some(shape)) => {
            let rows = submit_flop_max(gpu, choice) / shape.flop_per_row();
            (rows as usize).max(CHUNK_ROWS_MIN)
        }
    }
}

/// What may be tried for matrices of one shape.
pub(super) struct Candidates {
    /// Digest of all of them, constants and texts.
    pub kernels: String,
    pub decode: Vec<MatvecVariant>,
    pub prefill: Vec<Matmul>,
}

impl Candidates {
    /// True if `tuned` was chosen among just these.
    pub fn fit(&self, tuned: &TunedShape) -> bool {
        tuned.kernels == self.kernels
            && self.decode.contains(&MatvecVariant { whole: false, ..tuned.decode.chosen })
            && self.prefill.contains(&tuned.prefill.chosen)
            && tuned.prefill.nanoseconds > 0
            && tuned.prefill.flop > 0
    }
}

/// What was found on one adapter with one driver, in all models.
#[derive(Debug, Serialize, Deserialize)]
struct TuningFile {
    version: u32,
    /// For whoever reads the file; its name tells adapters apart.
    adapter: String,
    driver: String,
    shapes: Vec<TunedShape>,
}

/// Everything that is kept about an adapter; nothing if there is no file, or none that can be read.
pub(super) fn read(store: Option<&AdapterStore>) -> Vec<TunedShape> {
    let Some(store) = store else { return Vec::new() };
    let Some(data) = store.read(FILE, BYTES_MAX) else { return Vec::new() };
    match serde_json::from_slice::<TuningFile>(&data) {
        Ok(file) if file.version == VERSION => file.shapes,
        Ok(file) => {
            store.passed_over(FILE, &format!("it is of version {}", file.version));
            Vec::new()
        }
        Err(error) => {
            store.passed_over(FILE, &error.to_string());
            Vec::new()
        }
    }
}

/// Keeps `new` in front of what is kept already.
pub(super) fn write(gpu: &Gpu, new: &[TunedShape]) {
    let Some(store) = gpu.store() else { return };
    let replaced = |old: &TunedShape| {
        let shape = MatvecShape { format: old.format, columns: old.columns, rows: old.rows };
        new.iter().any(|tuned| tuned.is_of(shape, old.activations))
    };
    let old = read(Some(store)).into_iter().filter(|old| !replaced(old));
    let shapes = new.iter().cloned().chain(old).take(SHAPES_MAX).collect();
    let file = TuningFile {
        version: VERSION,
        adapter: gpu.summary().name.clone(),
        driver: gpu.summary().driver.clone(),
        shapes,
    };
    match serde_json::to_vec_pretty(&file) {
        Ok(data) => store.write(FILE, &data),
        Err(error) => store.passed_over(FILE, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_are_short_within_bounds() {
        assert_eq!(submit_flop(None), 30e9);
        assert_eq!(submit_flop(Some(2e12)), 60e9);
        assert_eq!(submit_flop(Some(1.0)), 1e9);
        assert_eq!(submit_flop(Some(f64::INFINITY)), 1e12);
    }
}
