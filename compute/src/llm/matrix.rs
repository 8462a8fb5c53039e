//! Weight matrices on the GPU: packed, sharded under the adapter's binding limit, ready to dispatch.

use crate::gguf::TensorEntry;
use crate::gpu::{Gpu, GpuError};
use crate::kernels::llm::{self, Matmul, WeightFormat};
use crate::kernels::matvec::{
    Activations, MatvecShape, MatvecVariant, QUANTISE_Q16, QUANTISE_WORKGROUP,
};

use crate::source::WeightSource;

use super::error::EngineError;
use super::loader::Loader;
use super::op::{Grid, Op, Variant};
use super::packing;
use super::params::{MatrixShape, QuantiseShape};
use super::tuning::Choice;

/// Largest shard even where bindings may be larger: some drivers slow down or fail above it.
const SHARD_BYTES_MAX: u64 = 1 << 30;

/// Consecutive rows of a matrix in buffers of their own.
struct Shard {
    row_first: usize,
    rows: usize,
    quants: wgpu::Buffer,
    scales: wgpu::Buffer,
}

/// The buffers of a shard.
pub(super) struct ShardBindings<'a> {
    pub shape: wgpu::Buffer,
    pub quants: &'a wgpu::Buffer,
    pub scales: &'a wgpu::Buffer,
}

/// The weights of a shard.
#[derive(Clone, Copy)]
pub(super) struct ShardBuffers<'a> {
    pub row_first: usize,
    pub quants: &'a wgpu::Buffer,
    pub scales: &'a wgpu::Buffer,
}

/// A matrix `[rows, columns]` in one format.
pub(super) struct Matrix {
    format: WeightFormat,
    columns: usize,
    rows: usize,
    shards: Vec<Shard>,
    /// Names of its tensors, one above the other.
    tensors: Vec<String>,
}

/// Where a product goes: `[.., stride]` floats, starting at `first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub stride: usize,
    pub first: usize,
    pub accumulate: bool,
    /// The activations are the step's selected rows.
    pub selecting: bool,
}

impl Matrix {
    /// Uploads tensors of equal format and width as one matrix, rows in the given order.
    fn upload(
        loader: &Loader<'_>,
        entries: &[&TensorEntry],
        bytes_max: u64,
    ) -> Result<Self, EngineError> {
        let name = &entries[0].name;
        let format = packing::format_of(entries[0].kind);
        let columns = entries[0].columns;
        let (quant_bytes, scale_bytes) = packing::row_bytes(format, columns);
        let row_bytes = quant_bytes.max(scale_bytes) as u64;
        let shard_rows = usize::try_from(bytes_max / row_bytes).unwrap_or(usize::MAX);
        if shard_rows == 0 {
            return Err(GpuError::Limit {
                what: format!("one row of tensor {name}"),
                needed_bytes: row_bytes,
                limit_bytes: bytes_max,
                limit: "max_storage_buffer_binding_size",
            }
            .into());
        }
        let rows = entries.iter().map(|entry| entry.rows).sum();
        let storage = |bytes: usize| loader.gpu.storage(name, bytes as u64);
        let shards = (0..rows)
            .step_by(shard_rows)
            .map(|row_first| {
                let count = shard_rows.min(rows - row_first);
                let quants = storage(count * quant_bytes)?;
                // Formats without scales still have the binding; eight bytes are one element of any.
                let scales = storage((count * scale_bytes).max(8))?;
                loader.fill(entries, row_first..row_first + count, &quants, &scales)?;
                Ok(Shard { row_first, rows: count, quants, scales })
            })
            .collect::<Result<_, EngineError>>()?;
        let tensors = entries.iter().map(|entry| entry.name.clone()).collect();
        Ok(Self { format, columns, rows, shards, tensors })
    }

    /// Uploads one tensor as it lies, all its dimensions but the first taken as rows.
    pub fn upload_one(loader: &Loader<'_>, name: &str) -> Result<Self, EngineError> {
        let entry = loader.source.require_tensor(name)?;
        Self::upload(loader, &[entry], shard_bytes(loader.gpu))
    }

    pub fn format(&self) -> WeightFormat {
        self.format
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What a kernel of one shard is bound to.
    pub fn bindings(&self, gpu: &Gpu, target: Target) -> Result<Vec<ShardBindings<'_>>, GpuError> {
        self.shards
            .iter()
            .map(|shard| {
                Ok(ShardBindings {
                    shape: gpu.constant("matrix", &self.shape(shard, target))?,
                    quants: &shard.quants,
                    scales: &shard.scales,
                })
            })
            .collect()
    }

    /// Its parts, each with the shape that kernels are chosen by.
    pub fn shards(&self) -> impl Iterator<Item = (MatvecShape, ShardBuffers<'_>)> {
        self.shards.iter().map(|shard| {
            let Shard { row_first, rows, quants, scales } = shard;
            (self.matvec_shape(*rows), ShardBuffers { row_first: *row_first, quants, scales })
        })
    }

    /// The tensor that a row comes from, and the row's number there.
    pub fn tensor_row<'s>(
        &self,
        source: &'s dyn WeightSource,
        mut row: usize,
    ) -> Result<(&'s TensorEntry, usize), EngineError> {
        for name in &self.tensors {
            let entry = source.require_tensor(name)?;
            if row < entry.rows {
                return Ok((entry, row));
            }
            row -= entry.rows;
        }
        Err(super::engine::bad("row", format!("{row} is beyond the matrix")))
    }

    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.quants.size() + s.scales.size()).sum()
    }

    fn shape(&self, shard: &Shard, target: Target) -> MatrixShape {
        MatrixShape {
            columns: self.columns as u32,
            rows: shard.rows as u32,
            row_first: shard.row_first as u32,
            out_stride: target.stride as u32,
            out_first: target.first as u32,
            accumulate: u32::from(target.accumulate),
            selecting: u32::from(target.selecting),
            padding: 0,
        }
    }

    /// Dispatches that multiply activations with this matrix.
    fn product(
        &self,
        gpu: &Gpu,
        choice: &Choice,
        buffers: Product<'_>,
        target: Target,
    ) -> Result<Vec<Op>, GpuError> {
        let Product { step, x, out, .. } = buffers;
        let selecting = target.selecting;
        self.shards
            .iter()
            .map(|shard| {
                let rows = shard.rows as u32;
                let shape = gpu.constant("matrix", &self.shape(shard, target))?;
                let operands = [step, &shape, &shard.quants, &shard.scales, x, out];
                let kind = self.matvec_shape(shard.rows);
                let matmul = choice.matmul(kind);
                let many = gpu.planned(matmul.kernel(self.format), matmul.constants())?;
                let bind_group = gpu.bind(&many, &operands)?;
                let vector = match buffers.quantised {
                    Some(_) => choice.matvec(kind),
                    None => choice.matvec_of(Activations::F32, kind),
                };
                let few = |x_rows: u32| -> Result<Variant, GpuError> {
                    let x_rows = vector.together(x_rows);
                    let constants = vector.constants(x_rows);
                    let pipeline = gpu.planned(vector.kernel(self.format), &constants)?;
                    let bind_group = match (vector.activations, buffers.quantised) {
                        (Activations::Q16, Some(rows)) => {
                            let [step, shape, quants, scales, _, out] = operands;
                            let operands =
                                [step, shape, quants, scales, &rows.words, out, &rows.scales];
                            gpu.bind(&pipeline, &operands)?
                        }
                        (Activations::F32, _) | (Activations::Q16, None) => bind_group.clone(),
                    };
                    let groups = vector.groups(rows);
                    Ok(Variant {
                        pipeline,
                        bind_group,
                        grid: Grid::Folded { groups, x_rows, selecting },
                    })
                };
                let [tile_rows, x_rows] = matmul.tile();
                let across = rows.div_ceil(tile_rows);
                let grid = match matmul {
                    Matmul::Lane | Matmul::Tile | Matmul::Registers | Matmul::RegistersNarrow => {
                        Grid::Tiles { across, rows_per_tile: x_rows, selecting }
                    }
                    Matmul::Spread => Grid::Folded { groups: across, x_rows, selecting },
                };
                Ok(Op::Product {
                    decode: [few(1)?, few(2)?, few(4)?, few(8)?],
                    selecting,
                    flop_per_row: kind.flop_per_row(),
                    prefill: Variant { pipeline: many, bind_group: bind_group.clone(), grid },
                })
            })
            .collect()
    }

    /// How rows are multiplied with a shard of so many rows when decoding.
    fn vector(&self, choice: &Choice, rows: usize) -> MatvecVariant {
        choice.matvec(self.matvec_shape(rows))
    }

    fn matvec_shape(&self, rows: usize) -> MatvecShape {
        MatvecShape { format: self.format, columns: self.columns, rows }
    }

    /// Dispatches that look ids up in this matrix as a table.
    pub fn lookup(
        &self,
        gpu: &Gpu,
        step: &wgpu::Buffer,
        ids: &wgpu::Buffer,
        out: &wgpu::Buffer,
    ) -> Result<Vec<Op>, GpuError> {
        let target = Target { stride: self.columns, first: 0, accumulate: false, selecting: false };
        let pipeline = gpu.planned(llm::embed(self.format), &[])?;
        self.shards
            .iter()
            .map(|shard| {
                let shape = gpu.constant("table", &self.shape(shard, target))?;
                let buffers = [step, &shape, &shard.quants, &shard.scales, ids, out];
                Ok(Op::Single(Variant {
                    bind_group: gpu.bind(&pipeline, &buffers)?,
                    pipeline: pipeline.clone(),
                    grid: Grid::Elements { across: (self.columns as u32 / 8).div_ceil(64) },
                }))
            })
            .collect()
    }
}

/// Most bytes of one shard on this adapter.
fn shard_bytes(gpu: &Gpu) -> u64 {
    gpu.binding_bytes_max().min(SHARD_BYTES_MAX)
}

/// Matrices that read the same activations and write side by side: neighbours of one format are fused
/// into one dispatch (queries, keys and values; gate and up).
pub(crate) struct Fused {
    matrices: Vec<(usize, Matrix)>,
    width: usize,
}

impl Fused {
    pub fn upload(loader: &Loader<'_>, names: &[String]) -> Result<Self, EngineError> {
        let entries = names
            .iter()
            .map(|name| loader.source.require_tensor(name))
            .collect::<Result<Vec<_>, _>>()?;
        let bytes_max = shard_bytes(loader.gpu);
        let mut fused = Self { matrices: Vec::new(), width: 0 };
        for group in
            entries.chunk_by(|a, b| packing::format_of(a.kind) == packing::format_of(b.kind))
        {
            let matrix = Matrix::upload(loader, group, bytes_max)?;
            let rows = matrix.rows;
            fused.matrices.push((fused.width, matrix));
            fused.width += rows;
        }
        Ok(fused)
    }

    /// The matrices, one beside the other.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.matrices.iter().map(|(_, matrix)| matrix)
    }

    pub fn bytes(&self) -> u64 {
        self.matrices.iter().map(|(_, m)| m.bytes()).sum()
    }

    /// Dispatches of the whole product; rows of `out` are as wide as all matrices together.
    pub fn product(
        &self,
        gpu: &Gpu,
        choice: &Choice,
        buffers: Product<'_>,
    ) -> Result<Vec<Op>, GpuError> {
        let mut ops = Vec::new();
        let columns = self.matrices.first().map_or(0, |(_, matrix)| matrix.columns);
        let quantises = |matrix: &Matrix| {
            matrix
                .shards
                .iter()
                .any(|shard| matrix.vector(choice, shard.rows).activations == Activations::Q16)
        };
        if let Some(rows) = buffers.quantised
            && self.matrices.iter().any(|(_, matrix)| quantises(matrix))
        {
            ops.push(Op::Decode(rows.quantise(gpu, buffers, columns)?));
        }
        for (first, matrix) in &self.matrices {
            let target = Target {
                stride: self.width,
                first: *first,
                accumulate: buffers.accumulate,
                selecting: buffers.selecting,
            };
            ops.extend(matrix.product(gpu, choice, buffers, target)?);
        }
        Ok(ops)
    }

    pub fn lookup(
        &self,
        gpu: &Gpu,
        step: &wgpu::Buffer,
        ids: &wgpu::Buffer,
        out: &wgpu::Buffer,
    ) -> Result<Vec<Op>, GpuError> {
        let mut ops = Vec::new();
        for (_, matrix) in &self.matrices {
            ops.extend(matrix.lookup(gpu, step, ids, out)?);
        }
        Ok(ops)
    }
}

/// What a product reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub step: &'a wgpu::Buffer,
    pub x: &'a wgpu::Buffer,
    /// Where `x` may be quantised to.
    pub quantised: Option<&'a QuantisedRows>,
    pub out: &'a wgpu::Buffer,
    pub accumulate: bool,
    pub selecting: bool,
}

/// Room for the rows of one product as whole numbers of two bytes.
pub(crate) struct QuantisedRows {
    words: wgpu::Buffer,
    scales: wgpu::Buffer,
}

impl QuantisedRows {
    /// Room for `rows` rows of at most `columns` floats.
    pub fn new(gpu: &Gpu, rows: usize, columns: usize) -> Result<Self, GpuError> {
        let levels = (rows * columns) as u64;
        Ok(Self {
            words: gpu.storage("quantised rows", 2 * levels)?,
            // A pair of floats per block of 32.
            scales: gpu.storage("scales of rows", levels / 4)?,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.words.size() + self.scales.size()
    }

    fn quantise(
        &self,
        gpu: &Gpu,
        product: Product<'_>,
        columns: usize,
    ) -> Result<Variant, GpuError> {
        let shape = QuantiseShape {
            columns: columns as u32,
            selecting: u32::from(product.selecting),
            padding: [0; 2],
        };
        let shape = gpu.constant("quantise", &shape)?;
        let pipeline = gpu.planned(&QUANTISE_Q16, &[])?;
        let buffers = [product.step, &shape, product.x, &self.scales, &self.words];
        Ok(Variant {
            bind_group: gpu.bind(&pipeline, &buffers)?,
            pipeline,
            grid: Grid::Tiles {
                across: (columns / packing::BLOCK).div_ceil(QUANTISE_WORKGROUP) as u32,
                rows_per_tile: 1,
                selecting: product.selecting,
            },
        })
    }
}
