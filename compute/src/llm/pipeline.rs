//! A model on one card or several: to the engine it is one forward pass either way.
//!
//! ```text
//! ids -> stage 1: embed, layers 0..k -> rows of x -> stage 2: layers k..n, norm, head -> logits
//! ```
//! Rows travel through host memory, read back once and written once: cards of a mining rig hang on PCIe x1
//! risers and cannot reach each other, and a row is a few kilobytes. Every stage has the page tables and
//! the keys and values of its own layers; so pages are handed out once, for all.
//!
//! Each stage runs the kernels a single card would, on the same rows, so no answer changes. One card is
//! one stage and nothing is copied.

use std::sync::Arc;

use crate::gpu::{Gpu, GpuError};

use super::error::EngineError;
use super::forward::{Forward, Input, Output, Pass};
use super::op::Op;
use super::params::Row;

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

    /// Most rows of one pass.
    pub fn chunk(&self) -> usize {
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
    pub fn pass(
        &self,
        run: Pass<'_>,
        input: &Input<'_>,
        reflections: &[Vec<Op>],
        output: Output<'_>,
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
