//! The forward pass of one stage: static buffers, a list of dispatches made once, one encoder per pass.
//!
//! ```text
//! ids -> embed -> x --+-> norm -> qkv -> rope -> attention -> reduce -> output --+-> x
//!                     +------------------------------------------------------------------+
//!        x --+-> norm -> gate|up -> silu_mul -> down --+-> x  [-> reflect]      (every layer)
//!            +-----------------------------------------+
//!        selected rows of x -> norm -> normed [-> head -> logits]
//! ```
//! A model on one card is one stage with all of this; of a model split over several, the first embeds, the
//! last has norm and head, and rows of x travel between them (`pipeline.rs`).
//! Nothing is allocated per token. What changes from pass to pass is [`Step`] and one [`Row`] per token.

use std::sync::Arc;

use crate::gpu::{Gpu, GpuError};
use crate::kernels::llm;
use crate::kernels::top::{RECORD_FLOATS, Wish};

use super::config::ModelConfig;
use super::engine::bad;
use super::error::EngineError;
use super::host_work::{Began, HostClock, HostWork};
use super::matrix::Product;
use super::op::{Op, Phase, Variant};
use super::params::{Row, RowShape, Step};
use super::plan::{Buffers, CacheSize, LOGIT_ROWS_MAX, LayerCache, Plan, page_count, row_lines};
use super::split::Span;
use super::top::TopRows;
use super::tuning::{Choice, submit_flop_max};
use super::weights::Weights;

/// Layers of a submission when a card decodes: about a fifth of a millisecond of the host's work.
const HEAD_START_LAYERS: usize = 8;

/// What one pass runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    pub phase: Phase,
    pub rows: &'a [Row],
    /// Numbers of the rows whose results are wanted.
    pub selected: &'a [u32],
    /// The first expert of every row, in all layers of the model, where experts are given; else empty.
    pub experts: &'a [&'a [u32]],
}

/// How a selected row is told.
fn selecting(row: &u32) -> Row {
    Row { position: *row, pages_at: 0 }
}

impl Pass<'_> {
    fn step(&self) -> Step {
        Step {
            rows: self.rows.len() as u32,
            selected: self.selected.len() as u32,
            kv_length: self.rows.iter().map(|row| row.position + 1).max().unwrap_or(0),
            forced: u32::from(!self.experts.is_empty()),
        }
    }
}

/// Where a pass gets its input rows.
pub(super) enum Input<'a> {
    Ids(&'a [u32]),
    Rows(&'a [f32]),
    /// Rows in a GPU buffer from this row on.
    Buffer(&'a wgpu::Buffer, usize),
}

/// What to read back after a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Output<'a> {
    Nothing,
    /// The residual stream of all rows, for the next stage.
    Residual,
    /// Final-norm hidden states of the selected rows.
    Hidden,
    /// Logits of the selected rows.
    Logits,
    /// Records of the likeliest tokens of the selected rows, each row having its wish; only where
    /// [`Forward::tells_likeliest`].
    Likeliest(&'a [Wish]),
}

/// A stage ready to run.
pub(super) struct Forward {
    gpu: Arc<Gpu>,
    config: ModelConfig,
    choice: Choice,
    cache: CacheSize,
    chunk: usize,
    span: Span,
    buffers: Buffers,
    embed: Vec<Op>,
    layers: Vec<Vec<Op>>,
    /// The layers of proofs and replays, where these have a cache of their own.
    scratch_layers: Option<Vec<Vec<Op>>>,
    /// Of the last stage.
    final_norm: Option<Op>,
    head: Vec<Op>,
    top: Option<TopRows>,
    flop_per_row_and_layer: f64,
    attention_flop_per_row_and_position: f64,
    submit_flop_max: f64,
    host: HostClock,
    // Keeps the weight buffers' sizes known; the bind groups keep the buffers themselves alive.
    pub weight_bytes: u64,
    pub working_bytes: u64,
}

impl Forward {
    pub fn new(
        gpu: Arc<Gpu>,
        config: ModelConfig,
        weights: &Weights,
        choice: &Choice,
        cache: CacheSize,
        chunk: usize,
        told: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, EngineError> {
        let buffers = Buffers::new(&gpu, &config, cache, chunk, choice, &weights.span)?;
        let method = choice.method;
        let plan = Plan { gpu: &gpu, config: &config, method, choice, buffers: &buffers };
        let layers_on = |caches: &Vec<LayerCache>| {
            let layers = weights.layers.iter().zip(caches);
            let plans = layers.enumerate().map(|(at, (layer, cache))| plan.layer(at, layer, cache));
            plans.collect::<Result<Vec<_>, _>>()
        };
        let layers = layers_on(&buffers.caches)?;
        let scratch_layers = buffers.scratch_caches.as_ref().map(layers_on).transpose()?;
        let mut embed = Vec::new();
        if let Some(table) = &weights.embedding {
            embed = table.lookup(&gpu, &buffers.step, &buffers.ids, &buffers.x)?;
            embed.extend(plan.scaled_embeddings()?);
        }
        let (mut final_norm, mut head, mut top) = (None, Vec::new(), None);
        if let Some((norm, matrix)) = weights.head() {
            final_norm = Some(plan.norm(norm, true)?);
            head = matrix.product(
                &gpu,
                choice,
                Product {
                    step: &buffers.step,
                    x: &buffers.normed,
                    quantised: buffers.quantised.as_ref(),
                    out: &buffers.logits,
                    accumulate: false,
                    selecting: true,
                },
            )?;
            head.extend(plan.softcap()?);
            let (step, logits) = (&buffers.step, &buffers.logits);
            top = TopRows::new(&gpu, method, config.vocabulary, step, logits)?;
        }
        let both = layers.iter().chain(scratch_layers.iter().flatten());
        let ops = both.flatten().chain(&embed).chain(&head).chain(&final_norm);
        let ops = ops.chain(top.iter().flat_map(|top| &top.ops));
        gpu.compile(ops.flat_map(Op::pipelines), told)?;
        let width = config.qkv_width() + config.heads * config.head + 3 * config.ffn;
        Ok(Self {
            flop_per_row_and_layer: 2.0 * (width * config.hidden) as f64,
            attention_flop_per_row_and_position: 4.0 * (config.heads * config.head) as f64,
            submit_flop_max: submit_flop_max(&gpu, choice),
            host: HostClock::default(),
            weight_bytes: weights.bytes,
            working_bytes: buffers.bytes(),
            embed,
            layers,
            scratch_layers,
            final_norm,
            head,
            top,
            gpu,
            config,
            choice: choice.clone(),
            cache,
            chunk,
            span: weights.span.clone(),
            buffers,
        })
    }

    /// Longest sequence.
    pub fn context(&self) -> usize {
        self.cache.context
    }

    /// Pages for proofs and replays.
    pub fn scratch_pages(&self) -> usize {
        self.cache.scratch_pages()
    }

    /// Word at which the table of the scratch pages begins.
    pub fn scratch_at(&self) -> usize {
        self.cache.scratch_at()
    }

    /// Rows on scratch pages, `page` being the first of their sequence's.
    pub fn scratch_rows(&self, position: usize, count: usize, page: usize) -> Vec<Row> {
        let pages_at = (self.cache.scratch_at() + page) as u32;
        (position..position + count)
            .map(|position| Row { position: position as u32, pages_at })
            .collect()
    }

    /// Word at which a running sequence's page table begins.
    pub fn table_at(&self, table: usize) -> usize {
        table * page_count(self.cache.context)
    }

    /// Enters pages into a page table, from word `at` on.
    pub fn write_pages(&self, at: usize, pages: &[u32]) {
        self.gpu.write(&self.buffers.pages, at as u64 * 4, bytemuck::cast_slice(pages));
    }

    /// Most rows of one pass.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// The card.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The kernels it runs on.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// What passes that decoded have cost the host.
    pub fn host_work(&self) -> HostWork {
        self.host.read()
    }

    /// Floats of a row.
    pub fn hidden(&self) -> usize {
        self.config.hidden
    }

    /// Layers of this stage.
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Binds a round's reflection vectors to the residual stream, one dispatch per layer of the stage.
    pub fn reflections(&self, vectors: &[wgpu::Buffer]) -> Result<Vec<Op>, GpuError> {
        let shape = RowShape { columns: self.config.hidden as u32, ..RowShape::default() };
        let shape = self.gpu.uniform("reflection", &shape)?;
        let pipeline = self.gpu.pipeline(llm::reflect(self.choice.method), &[])?;
        vectors
            .iter()
            .map(|v| {
                let buffers = [&self.buffers.step, &shape, v, &self.buffers.x];
                Ok(Op::Single(Variant {
                    bind_group: self.gpu.bind(&pipeline, &buffers)?,
                    pipeline: pipeline.clone(),
                    grid: row_lines(self.choice.method, 1, false),
                }))
            })
            .collect()
    }

    /// Runs the stage's layers over `input`, then reads `output`. Reflections, if any, follow every layer.
    pub fn pass(
        &self,
        run: Pass<'_>,
        input: &Input<'_>,
        reflections: &[Op],
        output: Output<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let began = self.host.begin();
        let rows = run.rows.len();
        let step = run.step();
        assert!(
            rows > 0
                && rows.max(run.selected.len()) <= self.chunk
                && step.kv_length as usize <= self.cache.context,
            "the engine cuts its passes to the chunk and the context"
        );
        // One write for both: each takes memory of its own from the driver.
        let rows_and_selection: Vec<Row> =
            run.rows.iter().copied().chain(run.selected.iter().map(selecting)).collect();
        self.gpu.write(&self.buffers.rows, 0, bytemuck::cast_slice(&rows_and_selection));
        self.gpu.write(&self.buffers.step, 0, bytemuck::bytes_of(&step));
        self.give_experts(run.experts);
        let mut encoder = self.gpu.encoder("forward");
        self.bring_input(&mut encoder, &step, input);
        // One pass as long as it can be: each costs the host some time.
        let begin = |encoder: &mut wgpu::CommandEncoder| {
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime()
        };
        let mut pass = begin(&mut encoder);
        if let Input::Ids(_) = input {
            for op in &self.embed {
                op.dispatch(&mut pass, run.phase, &step);
            }
        }
        let mut flop = 0.0;
        let attention = self.attention_flop_per_row_and_position * f64::from(step.kv_length);
        // A decoding card waits for its host: it should have work before the host has written down all of it.
        let head_start = run.phase == Phase::Decode && !self.gpu.is_software();
        for (index, layer) in self.layers_for(run.rows).iter().enumerate() {
            let mut of_products = 0.0;
            if head_start && index > 0 && index.is_multiple_of(HEAD_START_LAYERS) {
                drop(pass);
                let full = std::mem::replace(&mut encoder, self.gpu.encoder("forward"));
                self.gpu.submit(full, "a part of a token")?;
                pass = begin(&mut encoder);
                flop = 0.0;
            }
            for op in layer.iter().chain(reflections.get(index)) {
                let more = op.product_flop(&step);
                if flop > 0.0 && flop + more > self.submit_flop_max {
                    drop(pass);
                    let full = std::mem::replace(&mut encoder, self.gpu.encoder("forward"));
                    self.gpu.submit(full, "a prefill chunk")?;
                    pass = begin(&mut encoder);
                    flop = 0.0;
                }
                op.dispatch(&mut pass, run.phase, &step);
                flop += more;
                of_products += more;
            }
            // Experts are no products that say what they take.
            let rest = (self.flop_per_row_and_layer * rows as f64 - of_products).max(0.0);
            flop += rest + attention * rows as f64;
        }
        drop(pass);
        self.finish(encoder, run.phase, &step, output, &began)
    }

    /// The layers that work on the cache these rows are in.
    fn layers_for(&self, rows: &[Row]) -> &[Vec<Op>] {
        let scratch = |row: &Row| row.pages_at as usize >= self.cache.scratch_at();
        match &self.scratch_layers {
            Some(layers) if rows.iter().any(scratch) => {
                assert!(rows.iter().all(scratch), "no pass mixes answers and replays");
                layers
            }
            Some(_) | None => &self.layers,
        }
    }

    /// True if it can tell the likeliest tokens.
    pub fn tells_likeliest(&self) -> bool {
        self.top.is_some()
    }

    /// The logits of one of the rows that the last pass selected.
    pub fn logits_of(&self, row: usize) -> Result<Vec<f32>, EngineError> {
        let what = "reading logits";
        let bytes = self.config.vocabulary as u64 * 4;
        let (encoder, readback) = (self.gpu.encoder(what), &self.buffers.readback);
        let at = row as u64 * bytes;
        let logits = &self.buffers.logits;
        let data = self.gpu.run_and_read(encoder, logits, at, bytes, readback, what)?;
        Ok(bytemuck::pod_collect_to_vec(&data))
    }

    /// Norm and head once more, for other rows of the last pass.
    pub fn select(&self, run: Pass<'_>, output: Output<'_>) -> Result<Vec<f32>, EngineError> {
        let began = self.host.begin();
        let step = run.step();
        self.set_selection(&run, &step);
        self.finish(self.gpu.encoder("head"), run.phase, &step, output, &began)
    }

    /// Norm and head for rows of the residual stream that came through the layers before.
    pub fn finish_rows(
        &self,
        phase: Phase,
        rows: &[f32],
        output: Output<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let mut found = Vec::new();
        let mut from = 0;
        for rows in rows.chunks(self.chunk * self.config.hidden) {
            let count = rows.len() / self.config.hidden;
            let output = match output {
                Output::Likeliest(wishes) => Output::Likeliest(&wishes[from..from + count]),
                Output::Nothing | Output::Residual | Output::Hidden | Output::Logits => output,
            };
            from += count;
            self.gpu.write(&self.buffers.x, 0, bytemuck::cast_slice(rows));
            let selected: Vec<u32> = (0..count as u32).collect();
            let nowhere = vec![Row { position: 0, pages_at: 0 }; count];
            found.extend(self.select(
                Pass { phase, rows: &nowhere, selected: &selected, experts: &[] },
                output,
            )?);
        }
        Ok(found)
    }

    fn set_selection(&self, run: &Pass<'_>, step: &Step) {
        assert!(run.selected.len() <= self.chunk, "the engine selects among the rows of a pass");
        let selection: Vec<Row> = run.selected.iter().map(selecting).collect();
        let at = size_of_val(run.rows) as u64;
        self.gpu.write(&self.buffers.rows, at, bytemuck::cast_slice(&selection));
        self.gpu.write(&self.buffers.step, 0, bytemuck::bytes_of(step));
    }

    /// Writes down which experts the rows of a pass meet in this card's layers.
    fn give_experts(&self, rows: &[&[u32]]) {
        if rows.is_empty() || self.config.experts.is_none() {
            return;
        }
        let own = self.span.layers.clone();
        let firsts: Vec<u32> = rows.iter().flat_map(|row| row[own.clone()].to_vec()).collect();
        self.gpu.write(&self.buffers.firsts, 0, bytemuck::cast_slice(&firsts));
    }

    fn bring_input(&self, encoder: &mut wgpu::CommandEncoder, step: &Step, input: &Input<'_>) {
        let row_bytes = self.config.hidden as u64 * 4;
        match input {
            Input::Ids(ids) => {
                self.gpu.write(&self.buffers.ids, 0, bytemuck::cast_slice(ids));
            }
            Input::Rows(rows) => {
                self.gpu.write(&self.buffers.x, 0, bytemuck::cast_slice(rows));
            }
            Input::Buffer(buffer, first_row) => encoder.copy_buffer_to_buffer(
                buffer,
                *first_row as u64 * row_bytes,
                &self.buffers.x,
                0,
                u64::from(step.rows) * row_bytes,
            ),
        }
    }

    fn finish(
        &self,
        mut encoder: wgpu::CommandEncoder,
        phase: Phase,
        step: &Step,
        output: Output<'_>,
        began: &Began,
    ) -> Result<Vec<f32>, EngineError> {
        const WHAT: &str = "a forward pass";
        let b = &self.buffers;
        let (source, width, readback) = match output {
            Output::Nothing => {
                self.gpu.run(encoder, WHAT)?;
                return Ok(Vec::new());
            }
            Output::Residual => (&b.x, self.config.hidden, &b.readback),
            Output::Hidden => (&b.normed, self.config.hidden, &b.readback),
            Output::Logits => (&b.logits, self.config.vocabulary, &b.readback),
            Output::Likeliest(wishes) => {
                let Some(top) = &self.top else {
                    return Err(bad("likeliest", "the vocabulary is too large"));
                };
                top.ask(&self.gpu, wishes);
                (top.records(), RECORD_FLOATS, &top.readback)
            }
        };
        let (selects, heads, top) = match output {
            Output::Nothing | Output::Residual => (false, false, None),
            Output::Hidden => (true, false, None),
            Output::Logits => (true, true, None),
            Output::Likeliest(_) => (true, true, self.top.as_ref()),
        };
        if selects {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            if let Some(op) = &self.final_norm {
                op.dispatch(&mut pass, phase, step);
            }
            if heads {
                assert!(
                    step.selected as usize <= LOGIT_ROWS_MAX,
                    "the engine asks for few logits at a time"
                );
                for op in self.head.iter().chain(top.iter().flat_map(|top| &top.ops)) {
                    op.dispatch(&mut pass, phase, step);
                }
            }
        }
        let rows = if selects { step.selected } else { step.rows };
        let bytes = u64::from(rows) * width as u64 * 4;
        let read = self.gpu.submit_and_map(encoder, source, 0, bytes, readback, WHAT)?;
        self.host.submitted(began, phase);
        let data = self.gpu.wait_and_read(&read, WHAT)?;
        Ok(bytemuck::pod_collect_to_vec(&data))
    }
}
