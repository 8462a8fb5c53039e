//! Tries the kernels of matrix products out on the adapter, with the model's own matrices.
//!
//! ```text
//! matrices of one shape and type -> every candidate: run, check against the CPU twin, time
//!                                -> fastest first: are its rows independent of their neighbours? -> take it
//! ```
//! A candidate that the driver refuses, whose results are off, or whose rows depend on who is multiplied
//! beside them (ADR 7) is dropped with a line in the log: a driver's fault costs speed, not answers.
//! Time is bounded; what it does not suffice for keeps the default and is tried at the next load.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::gguf::dequant::dequantise;
use crate::gpu::{Gpu, GpuError, Pipeline, Stopwatch};
use crate::kernels::Kernel;
use crate::kernels::llm::Matmul;
use crate::kernels::matvec::{Activations, MatvecShape, MatvecVariant, X_ROWS_MAX};
use crate::reference::ops;
use crate::reference::quantised::{dequantise_q16, quantise_q16, split_levels};
use crate::source::WeightSource;

use super::error::EngineError;
use super::loader::{LoadProgress, Loader};
use super::matrix::{Matrix, ShardBuffers};
use super::op::fold;
use super::params::{MatrixShape, Step};
use super::tuning::{self, Candidates, Choice, Found, Trial, TunedShape, Tuning};
use super::weights::Weights;

/// Longest that trying out may take at one load.
const TIME_GPU_MAX: Duration = Duration::from_secs(10);
/// A CPU driver compiles slowly, has few candidates, and its users wait for a first answer.
const TIME_SOFTWARE_MAX: Duration = Duration::from_secs(3);
/// Matrices of one shape that are multiplied in turn, so that a GPU's cache does not hold them all.
const MATRICES_MAX: usize = 32;
/// How much faster than the untried choice another must be, lest noise decides.
const ADVANTAGE_MIN: f64 = 1.05;
/// Measurements of a candidate, the shortest of which counts: others on the machine only add to one.
const MEASUREMENTS: usize = 3;
/// Dispatches of one measurement.
const DISPATCHES_MAX: u32 = 64;
/// A candidate this much slower than the best is not measured again.
const HOPELESS: f64 = 1.5;
/// One this much slower at the first go is not measured at all.
const HOPELESS_AT_ONCE: f64 = 4.0;
/// A card at rest has a low clock, and takes some time to raise it.
const WAKING: Duration = Duration::from_millis(50);
/// Rows of a matrix that are held against the twin: the first, the last and some between.
const CHECKED_ROWS: usize = 64;

/// How long one measurement should be: far above the clock's grain.
fn measurement_time(gpu: &Gpu) -> Duration {
    Duration::from_millis(if gpu.is_software() { 10 } else { 3 })
}

/// Rows of activations and operations of one product that prefill is tried with: about 15 ms on the
/// slowest adapters of either kind.
fn prefill_work(gpu: &Gpu) -> (usize, usize) {
    if gpu.is_software() { (64, 50_000_000) } else { (128, 4_000_000_000) }
}

/// The choice for a model: what is known, what is found out now, else the untried.
///
/// # Errors
/// A lost device, or a load that nobody wants any more. What else goes wrong costs a candidate.
pub(super) fn tune(
    loader: &Loader<'_>,
    weights: &Weights,
    untried: Choice,
    tuning: Tuning,
) -> Result<Choice, EngineError> {
    let (gpu, source) = (loader.gpu, loader.source);
    let known = match tuning {
        Tuning::Off => return Ok(untried),
        Tuning::Stored => tuning::read(gpu.store()),
        Tuning::Again => Vec::new(),
    };
    let subjects = subjects(weights);
    let mut tuned = Vec::new();
    let mut new = Vec::new();
    let mut tuner = None;
    let mut left_out = 0;
    for (done, subject) in subjects.iter().enumerate() {
        let candidates = untried.candidates(subject.shape);
        let is_it = |known: &&TunedShape| {
            known.is_of(subject.shape, untried.activations) && candidates.fit(known)
        };
        if let Some(known) = known.iter().find(is_it) {
            tuned.push(known.clone());
            continue;
        }
        let tuner = match &tuner {
            Some(tuner) => tuner,
            None => tuner.insert(Tuner::new(gpu, source, untried.activations)?),
        };
        loader.check_wanted()?;
        (loader.progress)(LoadProgress::Tuning { done, total: subjects.len() });
        match tuner.try_out(subject, &candidates) {
            Ok(Some(found)) => new.push(found),
            Ok(None) => left_out += 1,
            Err(error) if error.is_device_lost() => return Err(error),
            Err(error) => {
                tracing::warn!(shape = ?subject.shape, %error, "kernels cannot be tried out");
            }
        }
    }
    if left_out > 0 {
        tracing::info!(left_out, "shapes of matrices that keep the default kernels for now");
    }
    if !new.is_empty() {
        tuning::write(gpu, &new);
    }
    tuned.extend(new);
    Ok(untried.tuned(tuned))
}

/// Matrices of one shape and type.
struct Subject<'w> {
    shape: MatvecShape,
    matrices: Vec<(&'w Matrix, ShardBuffers<'w>)>,
    /// Of all such matrices in the model.
    weights: usize,
}

/// A model's matrices by shape, those with most weights first.
fn subjects(weights: &Weights) -> Vec<Subject<'_>> {
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for matrix in weights.matrices() {
        for (shape, buffers) in matrix.shards() {
            let known = subjects.iter_mut().find(|subject| subject.shape == shape);
            let weights = shape.rows * shape.columns;
            match known {
                Some(subject) => {
                    subject.weights += weights;
                    if subject.matrices.len() < MATRICES_MAX {
                        subject.matrices.push((matrix, buffers));
                    }
                }
                None => {
                    subjects.push(Subject { shape, matrices: vec![(matrix, buffers)], weights });
                }
            }
        }
    }
    subjects.sort_by_key(|subject| std::cmp::Reverse(subject.weights));
    subjects
}

/// What all trials share.
struct Tuner<'a> {
    gpu: &'a Gpu,
    source: &'a dyn WeightSource,
    activations: Activations,
    stopwatch: Stopwatch,
    until: Instant,
    awake: Cell<bool>,
}

/// Operands of the products of one subject.
struct Bed {
    /// Rows of the product, at most those of the matrices.
    rows: u32,
    x_rows: u32,
    /// All rows of activations, and the first alone.
    steps: [wgpu::Buffer; 2],
    shape: wgpu::Buffer,
    x: wgpu::Buffer,
    quantised: Option<[wgpu::Buffer; 2]>,
    out: wgpu::Buffer,
    checked: Vec<usize>,
    /// `[x_rows, checked]`, with floats and with quantised activations.
    expected: Vec<f32>,
    expected_quantised: Vec<f32>,
}

/// One kernel with what it works on.
struct Runner<'b> {
    bed: &'b Bed,
    kernel: &'static Kernel,
    quantised: bool,
    /// Over all rows of activations: of each matrix in turn.
    all: Vec<wgpu::BindGroup>,
    /// Over the first row alone.
    one: Vec<wgpu::BindGroup>,
}

impl<'a> Tuner<'a> {
    fn new(
        gpu: &'a Gpu,
        source: &'a dyn WeightSource,
        activations: Activations,
    ) -> Result<Self, GpuError> {
        let longest = if gpu.is_software() { TIME_SOFTWARE_MAX } else { TIME_GPU_MAX };
        let (stopwatch, until) = (Stopwatch::new(gpu)?, Instant::now() + longest);
        Ok(Self { gpu, source, activations, stopwatch, until, awake: Cell::new(false) })
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// `None` if time is up, or no kernel can be taken.
    fn try_out(
        &self,
        subject: &Subject<'_>,
        candidates: &Candidates,
    ) -> Result<Option<TunedShape>, EngineError> {
        if self.is_late() {
            return Ok(None);
        }
        let Some(decode) = self.decode(subject, &candidates.decode)? else { return Ok(None) };
        let Some(prefill) = self.prefill(subject, &candidates.prefill)? else { return Ok(None) };
        let MatvecShape { format, columns, rows } = subject.shape;
        tracing::info!(
            ?format,
            columns,
            rows,
            decode = ?decode.chosen,
            prefill = ?prefill.chosen,
            "kernels chosen by trying them out"
        );
        let complete = decode.trials.len() == candidates.decode.len()
            && prefill.trials.len() == candidates.prefill.len();
        // What time did not suffice for is tried again: no digest, no use to the next load.
        let kernels = if complete { candidates.kernels.clone() } else { String::new() };
        let activations = self.activations;
        Ok(Some(TunedShape { format, columns, rows, activations, kernels, decode, prefill }))
    }

    fn decode(
        &self,
        subject: &Subject<'_>,
        candidates: &[MatvecVariant],
    ) -> Result<Option<Found<MatvecVariant>>, EngineError> {
        let shape = subject.shape;
        let bed = self.bed(subject, X_ROWS_MAX as usize, shape.rows)?;
        let planned = candidates
            .iter()
            .map(|v| self.gpu.planned(v.kernel(shape.format), &v.constants(1)))
            .collect::<Result<Vec<_>, _>>()?;
        // A refusal is met again by the candidate it belongs to.
        let _ = self.gpu.compile(&planned, &mut |_, _| ());
        let groups = |variant: MatvecVariant, x_rows: u32, together: u32| {
            let [x, y, _] = fold(variant.groups(bed.rows));
            [x, y, x_rows.div_ceil(together)]
        };
        let runner = |variant: MatvecVariant, together: u32| {
            let kernel = variant.kernel(shape.format);
            let constants = variant.constants(variant.together(together));
            let pipeline = self.gpu.pipeline(kernel, &constants)?;
            let quantised = variant.activations == Activations::Q16;
            Ok::<_, GpuError>((self.runner(subject, &bed, &pipeline, quantised)?, pipeline))
        };
        let time = |variant: MatvecVariant, best: Option<f64>| {
            let (runner, pipeline) = runner(variant, 1)?;
            let together = variant.together(1);
            self.checked(&runner, &pipeline, groups(variant, bed.x_rows, together))?;
            self.wake(&runner.one, &pipeline, groups(variant, 1, together))?;
            self.timed(&runner.one, &pipeline, groups(variant, 1, together), best)
        };
        // A token's result must not depend on who is decoded beside it.
        let sound = |variant: MatvecVariant| {
            let (alone, pipeline) = runner(variant, 1)?;
            let each = groups(variant, bed.x_rows, variant.together(1));
            let wanted = self.run(&alone.all, &pipeline, each, &bed)?;
            for together in [2, 4, X_ROWS_MAX] {
                let (runner, pipeline) = runner(variant, together)?;
                let groups = groups(variant, bed.x_rows, variant.together(together));
                if self.run(&runner.all, &pipeline, groups, &bed)? != wanted {
                    return Err(Dropped::new(format!("rows differ {together} at a time")));
                }
            }
            Ok(())
        };
        let flop = shape.flop_per_row() as u64;
        sound_or_whole(candidates, flop, &|| self.is_late(), &time, &sound)
    }

    fn prefill(
        &self,
        subject: &Subject<'_>,
        candidates: &[Matmul],
    ) -> Result<Option<Found<Matmul>>, EngineError> {
        let shape = subject.shape;
        let (x_rows, flop_max) = prefill_work(self.gpu);
        let rows = (flop_max / (2 * shape.columns * x_rows)).max(CHECKED_ROWS).min(shape.rows);
        let bed = self.bed(subject, x_rows, rows)?;
        let runner = |matmul: Matmul| {
            let pipeline = self.gpu.pipeline(matmul.kernel(shape.format), matmul.constants())?;
            Ok::<_, GpuError>((self.runner(subject, &bed, &pipeline, false)?, pipeline))
        };
        let time = |matmul: Matmul, best: Option<f64>| {
            let (runner, pipeline) = runner(matmul)?;
            let groups = matmul.groups(bed.rows, bed.x_rows);
            self.checked(&runner, &pipeline, groups)?;
            self.timed(&runner.all, &pipeline, groups, best)
        };
        // Nor must a prompt's on how it is cut into chunks.
        let sound = |matmul: Matmul| {
            let (runner, pipeline) = runner(matmul)?;
            let groups = |x_rows| matmul.groups(bed.rows, x_rows);
            let all = self.run(&runner.all, &pipeline, groups(bed.x_rows), &bed)?;
            let one = self.run(&runner.one, &pipeline, groups(1), &bed)?;
            match all[..bed.rows as usize] == one[..bed.rows as usize] {
                true => Ok(()),
                false => Err(Dropped::new("a row differs when it is alone".to_owned())),
            }
        };
        let flop = 2 * (rows * shape.columns * x_rows) as u64;
        best(candidates, flop, &|| self.is_late(), &time, &sound)
    }

    fn bed(&self, subject: &Subject<'_>, x_rows: usize, rows: usize) -> Result<Bed, EngineError> {
        let (gpu, columns) = (self.gpu, subject.shape.columns);
        let x = noise(x_rows * columns);
        let step =
            |rows: usize| Step { rows: rows as u32, selected: rows as u32, ..Step::default() };
        let shape = MatrixShape {
            columns: columns as u32,
            rows: rows as u32,
            out_stride: rows as u32,
            ..MatrixShape::default()
        };
        let checked = checked_rows(rows);
        let mut weights = Vec::with_capacity(checked.len() * columns);
        if let Some((matrix, buffers)) = subject.matrices.first() {
            for &row in &checked {
                let (entry, row) = matrix.tensor_row(self.source, buffers.row_first + row)?;
                weights.extend(dequantise(entry.kind, self.source.row(entry, row)));
            }
        }
        let (mut quantised, mut expected_quantised) = (None, Vec::new());
        if self.activations == Activations::Q16 {
            let (levels, scales) = quantise_q16(&x);
            let words = gpu.storage_with("words", bytemuck::cast_slice(&split_levels(&levels)))?;
            quantised = Some([words, gpu.storage_with("scales", bytemuck::cast_slice(&scales))?]);
            expected_quantised = ops::matmul(&weights, columns, &dequantise_q16(&levels, &scales));
        }
        Ok(Bed {
            rows: rows as u32,
            x_rows: x_rows as u32,
            steps: [gpu.uniform("step", &step(x_rows))?, gpu.uniform("step", &step(1))?],
            shape: gpu.uniform("shape", &shape)?,
            expected: ops::matmul(&weights, columns, &x),
            x: gpu.storage_with("x", bytemuck::cast_slice(&x))?,
            quantised,
            out: gpu.storage("out", (rows * x_rows) as u64 * 4)?,
            checked,
            expected_quantised,
        })
    }

    fn runner<'b>(
        &self,
        subject: &Subject<'_>,
        bed: &'b Bed,
        pipeline: &Pipeline,
        quantised: bool,
    ) -> Result<Runner<'b>, GpuError> {
        let bind = |step: &wgpu::Buffer| {
            let of_matrix = |(_, buffers): &(&Matrix, ShardBuffers<'_>)| {
                let ShardBuffers { quants, scales, .. } = *buffers;
                let mut operands = vec![step, &bed.shape, quants, scales, &bed.x, &bed.out];
                if let (true, Some([words, word_scales])) = (quantised, &bed.quantised) {
                    operands[4] = words;
                    operands.push(word_scales);
                }
                self.gpu.bind(pipeline, &operands)
            };
            subject.matrices.iter().map(of_matrix).collect::<Result<Vec<_>, _>>()
        };
        let [all, one] = &bed.steps;
        let kernel = pipeline.kernel();
        Ok(Runner { bed, kernel, quantised, all: bind(all)?, one: bind(one)? })
    }

    /// The product with the first matrix, bit for bit.
    fn run(
        &self,
        matrices: &[wgpu::BindGroup],
        pipeline: &Pipeline,
        groups: [u32; 3],
        bed: &Bed,
    ) -> Result<Vec<u32>, GpuError> {
        let what = pipeline.kernel().name;
        let mut encoder = self.gpu.encoder(what);
        // What the kernel before has written must not pass for this one's.
        encoder.clear_buffer(&bed.out, 0, None);
        if let Some(matrix) = matrices.first() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            Gpu::dispatch(&mut pass, pipeline, matrix, groups);
        }
        self.gpu.run(encoder, what)?;
        Ok(bytemuck::pod_collect_to_vec(&self.gpu.read(&bed.out, bed.out.size(), what)?))
    }

    fn checked(
        &self,
        runner: &Runner<'_>,
        pipeline: &Pipeline,
        groups: [u32; 3],
    ) -> Result<(), Dropped> {
        let Runner { bed, kernel, .. } = runner;
        let found = self.run(&runner.all, pipeline, groups, bed)?;
        let expected = if runner.quantised { &bed.expected_quantised } else { &bed.expected };
        compare(kernel, &found, bed.rows as usize, &bed.checked, expected)
    }

    /// Keeps the card busy until it runs at the speed of work, before anything is measured.
    fn wake(
        &self,
        matrices: &[wgpu::BindGroup],
        pipeline: &Pipeline,
        groups: [u32; 3],
    ) -> Result<(), GpuError> {
        if self.awake.replace(true) || self.gpu.is_software() {
            return Ok(());
        }
        let until = Instant::now() + WAKING;
        while Instant::now() < until {
            self.stopwatch.time(self.gpu, pipeline.kernel().name, |pass| {
                for matrix in matrices {
                    Gpu::dispatch(pass, pipeline, matrix, groups);
                }
            })?;
        }
        Ok(())
    }

    /// Seconds of one dispatch, the matrices taking turns.
    fn timed(
        &self,
        matrices: &[wgpu::BindGroup],
        pipeline: &Pipeline,
        groups: [u32; 3],
        best: Option<f64>,
    ) -> Result<f64, Dropped> {
        let measure = |dispatches: u32| {
            let time = self.stopwatch.time(self.gpu, pipeline.kernel().name, |pass| {
                for matrix in matrices.iter().cycle().take(dispatches as usize) {
                    Gpu::dispatch(pass, pipeline, matrix, groups);
                }
            })?;
            Ok::<_, GpuError>(time.as_secs_f64() / f64::from(dispatches))
        };
        let single = measure(1)?;
        if best.is_some_and(|best| single > best * HOPELESS_AT_ONCE) {
            return Ok(single);
        }
        let wanted = measurement_time(self.gpu).as_secs_f64() / single.max(1e-9);
        let dispatches = (wanted as u32).clamp(1, DISPATCHES_MAX);
        let mut shortest = f64::INFINITY;
        for _ in 0..MEASUREMENTS {
            shortest = shortest.min(measure(dispatches)?);
            if best.is_some_and(|best| shortest > best * HOPELESS) {
                break;
            }
        }
        Ok(shortest)
    }
}

/// Holds rows `checked` of the product, bit patterns `[_, rows]`, against the twin's `[_, checked]`.
fn compare(
    kernel: &Kernel,
    found: &[u32],
    rows: usize,
    checked: &[usize],
    expected: &[f32],
) -> Result<(), Dropped> {
    let scale = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    for (found, expected) in found.chunks_exact(rows).zip(expected.chunks_exact(checked.len())) {
        for (&row, &expected) in checked.iter().zip(expected) {
            let found = f32::from_bits(found[row]);
            if !kernel.accepts(found, expected, scale) {
                return Err(Dropped::new(format!("row {row} gives {found}, not {expected}")));
            }
        }
    }
    Ok(())
}

/// The fastest whose rows are independent of their neighbours. If none is, because the driver's compiler rounds
/// otherwise in each kernel, the fastest of those where one kernel serves any number of rows: slower for few, and
/// the same for all.
fn sound_or_whole(
    candidates: &[MatvecVariant],
    flop: u64,
    is_late: &dyn Fn() -> bool,
    time: &dyn Fn(MatvecVariant, Option<f64>) -> Result<f64, Dropped>,
    sound: &dyn Fn(MatvecVariant) -> Result<(), Dropped>,
) -> Result<Option<Found<MatvecVariant>>, EngineError> {
    if let Some(found) = best(candidates, flop, is_late, time, sound)? {
        return Ok(Some(found));
    }
    let whole: Vec<_> = candidates.iter().map(|v| MatvecVariant { whole: true, ..*v }).collect();
    best(&whole, flop, is_late, time, sound)
}

/// Times all candidates, as far as time suffices, and takes the fastest that is sound; `None` if none
/// is.
fn best<T: Copy + PartialEq + std::fmt::Debug>(
    candidates: &[T],
    flop: u64,
    is_late: &dyn Fn() -> bool,
    time: &dyn Fn(T, Option<f64>) -> Result<f64, Dropped>,
    sound: &dyn Fn(T) -> Result<(), Dropped>,
) -> Result<Option<Found<T>>, EngineError> {
    let mut trials: Vec<Trial<T>> = Vec::new();
    let mut best: Option<f64> = None;
    for (index, &variant) in candidates.iter().enumerate() {
        if index > 0 && is_late() {
            break;
        }
        let mut trial = Trial { variant, nanoseconds: None, dropped: None };
        match time(variant, best) {
            Ok(seconds) => {
                best = Some(best.map_or(seconds, |best| best.min(seconds)));
                trial.nanoseconds = Some((seconds * 1e9).round().max(1.0) as u64);
            }
            Err(dropped) => trial.dropped = Some(dropped.reason_unless_lost(&variant)?),
        }
        trials.push(trial);
    }
    loop {
        let rank = |index: usize, nanoseconds: u64| match index {
            0 => nanoseconds as f64 / ADVANTAGE_MIN,
            _ => nanoseconds as f64,
        };
        let fastest = trials
            .iter_mut()
            .enumerate()
            .filter(|(_, trial)| trial.dropped.is_none())
            .filter_map(|(index, trial)| Some((rank(index, trial.nanoseconds?), trial)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, trial)) = fastest else { return Ok(None) };
        match sound(trial.variant) {
            Ok(()) => {
                let (chosen, nanoseconds) = (trial.variant, trial.nanoseconds.unwrap_or_default());
                return Ok(Some(Found { chosen, nanoseconds, flop, trials }));
            }
            Err(dropped) => {
                trial.dropped = Some(dropped.reason_unless_lost(&trial.variant)?);
            }
        }
    }
}

/// Why a candidate cannot be taken.
enum Dropped {
    Gpu(GpuError),
    Wrong(String),
}

impl Dropped {
    fn new(reason: String) -> Self {
        Self::Wrong(reason)
    }

    /// Logs it; a lost device is nobody's fault here and ends the trials.
    fn reason_unless_lost(self, variant: &dyn std::fmt::Debug) -> Result<String, EngineError> {
        let reason = match self {
            Self::Gpu(error) if error.is_device_lost() => return Err(error.into()),
            Self::Gpu(error) => error.to_string(),
            Self::Wrong(reason) => reason,
        };
        tracing::warn!(?variant, reason, "a kernel is dropped on this adapter");
        Ok(reason)
    }
}

impl From<GpuError> for Dropped {
    fn from(error: GpuError) -> Self {
        Self::Gpu(error)
    }
}

/// Numbers between -1 and 1 without a pattern; what a twin gets the kernels get.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / (1_u32 << 31) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The first and last rows, where kernels err, and some between.
fn checked_rows(rows: usize) -> Vec<usize> {
    let part = CHECKED_ROWS / 4;
    let mut checked: Vec<usize> = (0..part)
        .chain(rows.saturating_sub(part)..rows)
        .chain((0..2 * part).map(|i| i * rows / (2 * part)))
        .filter(|row| *row < rows)
        .collect();
    checked.sort_unstable();
    checked.dedup();
    checked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::llm::{Method, WeightFormat, embed};

    #[test]
    fn checked_rows_are_in_the_matrix_and_at_its_ends() {
        for rows in [1, 2, 63, 64, 65, 49_152] {
            let checked = checked_rows(rows);
            assert!(checked.len() <= CHECKED_ROWS && checked.is_sorted());
            assert_eq!((checked.first(), checked.last()), (Some(&0), Some(&(rows - 1))));
        }
    }

    #[test]
    fn a_result_that_is_off_is_seen() {
        let kernel = embed(WeightFormat::F32);
        let found = [1.0_f32, 9.0, 2.0, 3.0, 9.0, 4.0].map(f32::to_bits);
        let off = |expected: [f32; 4]| compare(kernel, &found, 3, &[0, 2], &expected).is_err();
        assert!(!off([1.0, 2.0, 3.0, 4.0]));
        assert!(off([1.0, 2.0, 3.0, 4.001]) && off([1.0, 0.0, 3.0, 4.0]));
        let nothing = [f32::NAN.to_bits(); 3];
        assert!(compare(kernel, &nothing, 3, &[0, 2], &[0.0, 0.0]).is_err());
    }

    /// Who is chosen among numbers that take their tenth in seconds; `broken` cannot be timed, `unsound`
    /// cannot be taken.
    fn chosen(candidates: &[i32], broken: &[i32], unsound: &[i32]) -> Option<i32> {
        let time = |n: i32, _| match broken.contains(&n) {
            true => Err(Dropped::new("broken".to_owned())),
            false => Ok(f64::from(n) / 10.0),
        };
        let sound = |n: i32| match unsound.contains(&n) {
            true => Err(Dropped::new("unsound".to_owned())),
            false => Ok(()),
        };
        let found = best(candidates, 1, &|| false, &time, &sound).unwrap()?;
        assert_eq!(found.trials.len(), candidates.len());
        assert_eq!(found.nanoseconds, found.chosen as u64 * 100_000_000);
        let wrong = |n| broken.contains(n) || unsound.contains(n);
        let mut dropped = found.trials.iter().filter(|trial| trial.dropped.is_some());
        assert!(dropped.all(|trial| wrong(&trial.variant)) && !wrong(&found.chosen));
        Some(found.chosen)
    }

    #[test]
    fn the_fastest_that_is_right_is_taken() {
        assert_eq!(chosen(&[300, 100, 200], &[], &[]), Some(100));
        assert_eq!(chosen(&[300, 100, 200], &[100], &[]), Some(200));
        assert_eq!(chosen(&[300, 100, 200], &[], &[100]), Some(200));
        assert_eq!(chosen(&[300, 100, 200], &[300], &[100, 200]), None);
        // Hardly faster than the untried choice is noise.
        assert_eq!(chosen(&[104, 100], &[], &[]), Some(104));
        assert_eq!(chosen(&[106, 100], &[], &[]), Some(100));
    }

    #[test]
    fn one_kernel_serves_all_rows_where_each_rounds_its_own_way() {
        let (format, columns) = (WeightFormat::Q4, 4096);
        let floats = Activations::F32;
        let candidates =
            MatvecVariant::candidates(Method::Group, Some(32), floats, format, columns);
        let time = |v: MatvecVariant, _| Ok(f64::from(v.workgroup * 1000 + v.lanes + v.parts));
        let find = |sound: &dyn Fn(MatvecVariant) -> bool| {
            let sound = |v| sound(v).then_some(()).ok_or(Dropped::new("rows differ".to_owned()));
            sound_or_whole(&candidates, 1, &|| false, &time, &sound).unwrap()
        };
        let found = find(&|v| v.whole).unwrap();
        assert!(found.chosen.whole && found.trials.len() == candidates.len());
        assert_eq!(found.chosen.together(1), X_ROWS_MAX);
        let adaptive = find(&|v| v.lanes == 32).unwrap().chosen;
        assert!(!adaptive.whole && adaptive.together(2) == 2 && adaptive.lanes == 32);
        assert!(find(&|_| false).is_none());
    }

    #[test]
    fn time_and_devices_end() {
        let timed = Cell::new(0);
        let time = |n: i32, _| {
            timed.set(timed.get() + 1);
            Ok(f64::from(n))
        };
        let late = || timed.get() >= 2;
        let found = best(&[3, 2, 1], 1, &late, &time, &|_| Ok(())).unwrap().unwrap();
        assert_eq!((found.chosen, found.trials.len()), (2, 2));
        let lost = |_: i32, _| {
            Err(GpuError::Lost { what: "a test".to_owned(), reason: "gone".to_owned() }.into())
        };
        let ended = best(&[1], 1, &|| false, &lost, &|_| Ok(()));
        assert!(ended.is_err_and(|error| error.is_device_lost()));
    }
}
