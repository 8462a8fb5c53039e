//! Loading weights: all cores pack rows, and the packed pieces go to the GPU one after another.
//!
//! The file is mapped and only read where it is being packed; what is packed waits in pieces of bounded
//! size. So a model larger than the host's memory loads, in little more memory than the pieces.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::gguf::TensorEntry;
use crate::gpu::Gpu;
use crate::source::WeightSource;

use super::error::EngineError;
use super::packing::{self, Packed};

/// Packed bytes of one piece: enough that starting a thread for it costs nothing.
const PIECE_BYTES: usize = 8 << 20;
/// Most threads, hence most pieces in memory at once; more would only wait for the disk and the bus.
const THREADS_MAX: usize = 16;

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// Bytes of weights on the GPU, as they are in the file.
    Weights { done_bytes: u64, total_bytes: u64 },
    /// Kernels that are compiled.
    Kernels { done: usize, total: usize },
    /// Matrices, counting those of one shape and type once, whose kernels are tried out.
    Tuning { done: usize, total: usize },
}

/// Rows `[first, first + count)` of tensors one above the other.
struct Piece<'s> {
    parts: Vec<(&'s TensorEntry, Range<usize>)>,
}

/// Brings a model's weights to the GPU and says how far it is.
pub(crate) struct Loader<'a> {
    pub gpu: &'a Gpu,
    pub source: &'a dyn WeightSource,
    pub progress: &'a dyn Fn(LoadProgress),
    /// Set by another thread that wants no model any more.
    pub break_off: Option<&'a AtomicBool>,
    done_bytes: Cell<u64>,
    total_bytes: u64,
}

impl<'a> Loader<'a> {
    pub fn new(
        gpu: &'a Gpu,
        source: &'a dyn WeightSource,
        progress: &'a dyn Fn(LoadProgress),
    ) -> Self {
        let total_bytes = source.entries().values().map(|entry| entry.bytes() as u64).sum();
        let done_bytes = Cell::new(0);
        Self { gpu, source, progress, break_off: None, done_bytes, total_bytes }
    }

    /// Fails once nobody wants the model any more.
    pub fn check_wanted(&self) -> Result<(), EngineError> {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        if self.break_off.is_some_and(is_set) { Err(EngineError::BrokenOff) } else { Ok(()) }
    }

    /// The same for the next card of a model that is split over several.
    pub fn next_onto(self, gpu: &'a Gpu) -> Self {
        Self { gpu, ..self }
    }

    /// All weights of a tensor as f32, whatever its type: norms and biases.
    pub fn floats(&self, entry: &TensorEntry) -> Vec<f32> {
        self.count(entry.bytes());
        self.source.weights(entry)
    }

    fn count(&self, bytes: usize) {
        // An embedding table that is also the output matrix may be on two cards.
        let done_bytes = (self.done_bytes.get() + bytes as u64).min(self.total_bytes);
        self.done_bytes.set(done_bytes);
        (self.progress)(LoadProgress::Weights { done_bytes, total_bytes: self.total_bytes });
    }

    /// Packs rows `rows` of `entries`, taken as one matrix, into two buffers of their own. All entries
    /// have the same format and width.
    pub fn fill(
        &self,
        entries: &[&TensorEntry],
        rows: Range<usize>,
        quants: &wgpu::Buffer,
        scales: &wgpu::Buffer,
    ) -> Result<(), EngineError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let (quant_bytes, scale_bytes) =
            packing::row_bytes(packing::format_of(first.kind), first.columns);
        let piece_rows = (PIECE_BYTES / (quant_bytes + scale_bytes)).max(1);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let pieces: Vec<Piece<'_>> = rows
            .clone()
            .step_by(piece_rows)
            .map(|from| Piece::new(entries, from..rows.end.min(from + piece_rows)))
            .collect();
        let (mut quants_at, mut scales_at) = (0, 0);
        for together in pieces.chunks(threads) {
            self.check_wanted()?;
            for packed in self.pack(together) {
                let packed = packed?;
                self.gpu.write(quants, quants_at, &packed.quants);
                self.gpu.write(scales, scales_at, &packed.scales);
                quants_at += packed.quants.len() as u64;
                scales_at += packed.scales.len() as u64;
            }
            // Staging memory of the upload is given back only once it was submitted.
            self.gpu.flush(&first.name)?;
            self.count(together.iter().map(Piece::file_bytes).sum());
        }
        Ok(())
    }

    /// One thread for each piece, except for a single one.
    fn pack(&self, pieces: &[Piece<'_>]) -> Vec<Result<Packed, EngineError>> {
        if let [piece] = pieces {
            return vec![piece.pack(self.source)];
        }
        let source = self.source;
        thread::scope(|scope| {
            let running: Vec<_> = pieces
                .iter()
                .map(|piece| (piece, scope.spawn(move || piece.pack(source))))
                .collect();
            running
                .into_iter()
                // A thread that died is run again here, so that its panic is ours.
                .map(|(piece, thread)| thread.join().unwrap_or_else(|_| piece.pack(source)))
                .collect()
        })
    }
}

impl<'s> Piece<'s> {
    /// Rows `rows` of all tensors together.
    fn new(entries: &[&'s TensorEntry], rows: Range<usize>) -> Self {
        let mut parts = Vec::new();
        let mut above = 0;
        for entry in entries {
            let from = rows.start.max(above) - above;
            let to = rows.end.min(above + entry.rows).saturating_sub(above);
            if from < to {
                parts.push((*entry, from..to));
            }
            above += entry.rows;
        }
        Self { parts }
    }

    fn file_bytes(&self) -> usize {
        self.parts.iter().map(|(entry, rows)| rows.len() * entry.row_bytes()).sum()
    }

    fn pack(&self, source: &dyn WeightSource) -> Result<Packed, EngineError> {
        let mut packed = Packed::default();
        for (entry, rows) in &self.parts {
            let (quants, scales) =
                packing::row_bytes(packing::format_of(entry.kind), entry.columns);
            packed.quants.reserve(quants * rows.len());
            packed.scales.reserve(scales * rows.len());
            for row in rows.clone() {
                packing::pack_row(entry.kind, &entry.name, source.row(entry, row), &mut packed)?;
            }
        }
        Ok(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorType;

    #[test]
    fn pieces_cut_through_tensors() {
        let mut file = crate::gguf::writer::GgufWriter::default();
        for (name, rows) in [("a", 3), ("b", 1), ("c", 5)] {
            file.tensor(name, TensorType::F32, 32, &vec![0.0; 32 * rows]).unwrap();
        }
        let file = crate::gguf::GgufFile::from_bytes(file.finish()).unwrap();
        let entries: Vec<&TensorEntry> = file.tensors().collect();
        let cut = |rows: Range<usize>| {
            let parts = Piece::new(&entries, rows).parts;
            parts.into_iter().map(|(entry, rows)| (entry.name.clone(), rows)).collect::<Vec<_>>()
        };
        let part = |name: &str, rows: Range<usize>| (name.to_owned(), rows);
        assert_eq!(cut(0..9), [part("a", 0..3), part("b", 0..1), part("c", 0..5)]);
        assert_eq!(cut(2..5), [part("a", 2..3), part("b", 0..1), part("c", 0..1)]);
        assert_eq!(cut(3..4), [part("b", 0..1)]);
        assert_eq!(cut(6..8), [part("c", 2..4)]);
    }
}
