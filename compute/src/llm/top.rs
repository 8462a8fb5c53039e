//! The dispatches that find the likeliest tokens of the selected rows, and reading their records back.

use crate::gpu::{Gpu, GpuError, Readback};
use crate::kernels::llm::Method;
use crate::kernels::top::{
    RECORD_FLOATS, STRANDS, TOP_K, TOP_STRANDS, VOCABULARY_MAX, Wish, constants, strand_groups,
};

use super::op::{Grid, Op, Variant};
use super::params::RowShape;
use super::plan::LOGIT_ROWS_MAX;

/// Key, two sums and a mark.
const STRAND_BYTES: usize = 16;

/// Of the stage that has the head.
pub(super) struct TopRows {
    wishes: wgpu::Buffer,
    records: wgpu::Buffer,
    pub readback: Readback,
    pub ops: [Op; 2],
}

/// Bytes of all of it.
pub(super) fn top_bytes() -> u64 {
    (LOGIT_ROWS_MAX * (size_of::<Wish>() + STRANDS * STRAND_BYTES + 2 * RECORD_FLOATS * 4)) as u64
}

impl TopRows {
    /// `None` for vocabularies whose ids do not fit a record.
    pub fn new(
        gpu: &Gpu,
        method: Method,
        vocabulary: usize,
        step: &wgpu::Buffer,
        logits: &wgpu::Buffer,
    ) -> Result<Option<Self>, GpuError> {
        if vocabulary > VOCABULARY_MAX {
            return Ok(None);
        }
        let rows = |what: &str, bytes: usize| gpu.storage(what, (LOGIT_ROWS_MAX * bytes) as u64);
        let wishes = rows("wishes", size_of::<Wish>())?;
        let strands = rows("strands of logits", STRANDS * STRAND_BYTES)?;
        let records = rows("likeliest tokens", RECORD_FLOATS * 4)?;
        let shape = RowShape { columns: vocabulary as u32, ..RowShape::default() };
        let shape = gpu.uniform("top", &shape)?;
        let grid = |across| Grid::Tiles { across, rows_per_tile: 1, selecting: true };
        let first = gpu.planned(&TOP_STRANDS, &[])?;
        let second = gpu.planned(&TOP_K, constants(method))?;
        let ops = [
            Op::Single(Variant {
                bind_group: gpu.bind(&first, &[step, &shape, logits, &wishes, &strands])?,
                pipeline: first,
                grid: grid(strand_groups()),
            }),
            Op::Single(Variant {
                bind_group: gpu
                    .bind(&second, &[step, &shape, logits, &wishes, &strands, &records])?,
                pipeline: second,
                grid: grid(1),
            }),
        ];
        let readback = gpu.readback("likeliest tokens", records.size())?;
        Ok(Some(Self { wishes, records, readback, ops }))
    }

    /// What is asked of the selected rows of the next submission.
    pub fn ask(&self, gpu: &Gpu, wishes: &[Wish]) {
        gpu.write(&self.wishes, 0, bytemuck::cast_slice(wishes));
    }

    pub fn records(&self) -> &wgpu::Buffer {
        &self.records
    }
}
