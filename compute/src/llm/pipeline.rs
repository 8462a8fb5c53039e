//! A model on one card or several: to the engine it is one forward pass either way.
//!
//! ```text
//! ids -> stage 1: embed, layers 0..k -> rows of x -> stage 2: layers k..n, norm, head -> logits
//! ```
//! Rows travel through host memory, read back once and written once: cards of a mining rig hang on PCIe x1
//! risers and cannot reach each other, and a row is a few kilobytes. Every stage has the page tables and
//! the keys and values of its own layers; so pages are handed out once, for all.
//!
//! Prompts are read in portions that follow one another through the stages, so that all cards work at once. An answer's
//! next token needs its last, so while few answers are under way the cards take turns.
//!
//! Each stage runs the kernels a single card would, on the same rows, so no answer changes. One card is
//! one stage and nothing is copied.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, mpsc};
use std::thread;

use crate::gpu::{Gpu, GpuError};
use crate::kernels::matvec::Activations;

use super::error::EngineError;
use super::forward::{Forward, Input, Output, Pass};
use super::op::{Op, Phase};
use super::params::Row;

/// Rows of prompts that a portion has at least: with fewer, a card would be longer at reading its weights than at
/// multiplying.
const PORTION_ROWS_MIN: usize = 32;
/// Portions of a pass for each stage. The first and the last stage idle for all portions but one of the others' time; more
/// portions idle less and read weights more often.
const PORTIONS_PER_STAGE: usize = 2;
/// Portions that wait before a stage: one, so that it never waits itself while the one before it is as quick.
const PORTIONS_WAITING_MAX: usize = 1;

/// Consecutive rows of a pass.
struct Portion<'a> {
    whole: Pass<'a>,
    rows: Range<usize>,
    /// Those of the wanted rows that are among them, counted from the first.
    selected: Vec<u32>,
    input: Input<'a>,
}

impl<'a> Portion<'a> {
    /// `width` floats are a row of input.
    fn new(whole: Pass<'a>, input: &Input<'a>, rows: Range<usize>, width: usize) -> Self {
        let input = match *input {
            Input::Ids(ids) => Input::Ids(&ids[rows.clone()]),
            Input::Rows(all) => Input::Rows(&all[rows.start * width..rows.end * width]),
            Input::Buffer(buffer, first) => Input::Buffer(buffer, first + rows.start),
        };
        // Rows come portion by portion: one of a later portion must not have been asked for earlier.
        assert!(whole.selected.is_sorted(), "the engine selects rows in order");
        let inside = |row: &&u32| rows.contains(&(**row as usize));
        let selected =
            whole.selected.iter().filter(inside).map(|row| row - rows.start as u32).collect();
        Self { whole, selected, input, rows }
    }

    /// The wanted ones among the portion's rows.
    fn selected_of<'r>(&self, rows: &'r [f32], width: usize) -> impl Iterator<Item = f32> + 'r
    where
        'a: 'r,
    {
        let selected = self.selected.clone();
        selected
            .into_iter()
            .flat_map(move |row| rows[row as usize * width..][..width].iter().copied())
    }

    fn run(&self) -> Pass<'_> {
        Pass {
            phase: self.whole.phase,
            rows: &self.whole.rows[self.rows.clone()],
            selected: &self.selected,
            experts: match self.whole.experts {
                [] => &[],
                all => &all[self.rows.clone()],
            },
        }
    }
}

/// The stages of a model, at least one, in order.
pub(super) struct LayerPipeline {
    first: Forward,
    /// Behind the first.
    further: Vec<Forward>,
}

impl LayerPipeline {
    /// `None` without a stage.
    pub fn new(stages: Vec<Forward>) -> Option<Self> {
        let mut stages = stages.into_iter();
        Some(Self { first: stages.next()?, further: stages.collect() })
    }

    pub fn stages(&self) -> impl Iterator<Item = &Forward> {
        std::iter::once(&self.first).chain(&self.further)
    }

    fn last(&self) -> &Forward {
        self.further.last().unwrap_or(&self.first)
    }

    /// Says on which card of several something failed.
    fn named<T>(&self, stage: usize, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if self.further.is_empty() {
            return result;
        }
        result.map_err(|error| EngineError::Stage {
            stage: stage + 1,
            stages: 1 + self.further.len(),
            adapter: self.stages().nth(stage).map(adapter_name).unwrap_or_default(),
            error: Box::new(error),
        })
    }

    /// Longest sequence.
    pub fn context(&self) -> usize {
        self.first.context()
    }

    /// Pages for proofs and replays.
    pub fn scratch_pages(&self) -> usize {
        self.first.scratch_pages()
    }

    /// Word at which the table of the scratch pages begins.
    pub fn scratch_at(&self) -> usize {
        self.first.scratch_at()
    }

    /// Rows on scratch pages, `page` being the first of their sequence's.
    pub fn scratch_rows(&self, position: usize, count: usize, page: usize) -> Vec<Row> {
        self.first.scratch_rows(position, count, page)
    }

    /// Word at which a running sequence's page table begins.
    pub fn table_at(&self, table: usize) -> usize {
        self.first.table_at(table)
    }

    /// Enters pages into a page table, from word `at` on.
    pub fn write_pages(&self, at: usize, pages: &[u32]) {
        self.stages().for_each(|stage| stage.write_pages(at, pages));
    }

    /// Most rows of one pass: several cards work on as many at once as they are.
    pub fn chunk(&self) -> usize {
        self.rows_in_one() * (1 + self.further.len())
    }

    /// Most rows of [`Self::pass_in_one`].
    pub fn rows_in_one(&self) -> usize {
        self.first.chunk()
    }

    /// The first card.
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.first.gpu()
    }

    /// The card of a layer.
    pub fn gpu_of(&self, layer: usize) -> &Arc<Gpu> {
        let mut end = 0;
        let stage = self.stages().find(|stage| {
            end += stage.layer_count();
            layer < end
        });
        stage.unwrap_or_else(|| self.last()).gpu()
    }

    /// True if decoding multiplies floats.
    pub fn decodes_floats(&self) -> bool {
        self.stages().all(|stage| stage.choice().activations == Activations::F32)
    }

    /// Fails if a card was lost since it was opened.
    pub fn check(&self, what: &str) -> Result<(), EngineError> {
        for (at, stage) in self.stages().enumerate() {
            self.named(at, stage.gpu().check(what).map_err(EngineError::from))?;
        }
        Ok(())
    }

    /// Binds a round's reflection vectors, one per layer and on its card, to the residual streams.
    pub fn reflections(&self, vectors: &[wgpu::Buffer]) -> Result<Vec<Vec<Op>>, GpuError> {
        let mut from = 0;
        self.stages()
            .map(|stage| {
                let layers = from..from + stage.layer_count();
                from = layers.end;
                stage.reflections(vectors.get(layers).unwrap_or_default())
            })
            .collect()
    }

    /// Runs all layers over `input`, then reads `output`. Reflections, if any, follow every layer.
    ///
    /// Several cards work on many rows of prompts together: while one has the first rows, the one before it has the
    /// next.
    pub fn pass(
        &self,
        run: Pass<'_>,
        input: &Input<'_>,
        reflections: &[Vec<Op>],
        output: Output<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let stages = 1 + self.further.len();
        let rows = run.rows.len();
        let portion_rows = match run.phase {
            // Each row's weights would be read once more for every portion.
            Phase::Decode => rows,
            Phase::Prefill => rows.div_ceil(PORTIONS_PER_STAGE * stages).max(PORTION_ROWS_MIN),
        };
        let portion_rows = portion_rows.min(self.rows_in_one());
        if stages == 1 || rows <= portion_rows {
            return self.pass_in_one(run, input, reflections, output);
        }
        let width = self.first.hidden();
        let run = match output {
            Output::Nothing => Pass { selected: &[], ..run },
            Output::Residual | Output::Hidden | Output::Logits | Output::Likeliest(_) => run,
        };
        let starts = (0..rows).step_by(portion_rows);
        let portions: Vec<Portion<'_>> = starts
            .map(|start| Portion::new(run, input, start..rows.min(start + portion_rows), width))
            .collect();
        let wanted = self.overlapped(&portions, reflections)?;
        self.named(self.further.len(), self.last().finish_rows(run.phase, &wanted, output))
    }

    /// As [`Self::pass`], one card after the other, so that [`Self::select`] may ask for any row.
    pub fn pass_in_one(
        &self,
        run: Pass<'_>,
        input: &Input<'_>,
        reflections: &[Vec<Op>],
        output: Output,
    ) -> Result<Vec<f32>, EngineError> {
        let of = |stage: usize| reflections.get(stage).map(Vec::as_slice).unwrap_or_default();
        let Some(last) = self.further.len().checked_sub(1) else {
            return self.first.pass(run, input, of(0), output);
        };
        let mut rows = self.named(0, self.first.pass(run, input, of(0), Output::Residual))?;
        for (at, stage) in self.further.iter().enumerate() {
            let output = if at == last { output } else { Output::Residual };
            let passed = stage.pass(run, &Input::Rows(&rows), of(at + 1), output);
            rows = self.named(at + 1, passed)?;
        }
        Ok(rows)
    }

    /// Runs portions through all layers and returns the wanted rows of the residual stream. A thread for every further
    /// stage; rows wait between two of them in a queue of one portion.
    fn overlapped(
        &self,
        portions: &[Portion<'_>],
        reflections: &[Vec<Op>],
    ) -> Result<Vec<f32>, EngineError> {
        let of = |stage: usize| reflections.get(stage).map(Vec::as_slice).unwrap_or_default();
        thread::scope(|scope| {
            let (to_second, mut from_before) = mpsc::sync_channel::<Vec<f32>>(PORTIONS_WAITING_MAX);
            let mut running = Vec::with_capacity(self.further.len());
            for (at, stage) in self.further.iter().enumerate() {
                let is_last = at + 1 == self.further.len();
                let (to_next, from_this) = mpsc::sync_channel(PORTIONS_WAITING_MAX);
                let incoming = std::mem::replace(&mut from_before, from_this);
                running.push(scope.spawn(move || {
                    let mut wanted = Vec::new();
                    for (portion, rows) in portions.iter().zip(incoming) {
                        let output = match is_last && portion.selected.is_empty() {
                            true => Output::Nothing,
                            false => Output::Residual,
                        };
                        let input = Input::Rows(&rows);
                        let passed = stage.pass(portion.run(), &input, of(at + 1), output);
                        let rows = self.named(at + 1, passed)?;
                        if is_last {
                            wanted.extend(portion.selected_of(&rows, stage.hidden()));
                        } else if to_next.send(rows).is_err() {
                            // The next stage has stopped, and says itself why.
                            break;
                        }
                    }
                    Ok(wanted)
                }));
            }
            let first = portions.iter().try_for_each(|portion| {
                let passed =
                    self.first.pass(portion.run(), &portion.input, of(0), Output::Residual);
                // As above.
                drop(to_second.send(self.named(0, passed)?));
                Ok::<(), EngineError>(())
            });
            drop(to_second);
            let further: Vec<Result<Vec<f32>, EngineError>> = running
                .into_iter()
                .map(|stage| stage.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect();
            first?;
            // Only the last stage has any.
            Ok(further.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
        })
    }

    /// Norm and head once more, for other rows of the last pass.
    pub fn select(&self, run: Pass<'_>, output: Output<'_>) -> Result<Vec<f32>, EngineError> {
        self.named(self.further.len(), self.last().select(run, output))
    }

    /// True if [`Output::Likeliest`] can be had.
    pub fn tells_likeliest(&self) -> bool {
        self.last().tells_likeliest()
    }

    /// The logits of one of the rows that the last pass selected.
    pub fn logits_of(&self, row: usize) -> Result<Vec<f32>, EngineError> {
        self.named(self.further.len(), self.last().logits_of(row))
    }
}

fn adapter_name(stage: &Forward) -> String {
    stage.gpu().summary().to_string()
}
