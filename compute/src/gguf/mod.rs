//! Reading GGUF model files: header, tensor directory, and the reference decoding of every type.
//!
//! The files come from strangers. Every count and offset is checked against the file's size before it
//! is used, nothing is reserved on the file's word, and what remains unknown is an error with its
//! place. Layout: ggml-org/ggml `docs/gguf.md`, versions 2 and 3, little-endian.

mod cursor;
pub mod dequant;
pub mod encode;
mod error;
mod split;
mod tensor;
mod value;
pub mod writer;

use std::collections::BTreeMap;
use std::path::Path;

pub use cursor::STRING_BYTES_MAX;
pub use error::GgufError;
pub use tensor::{TensorEntry, TensorType};
pub use value::{Metadata, Value};

use cursor::Cursor;

use crate::mapped::Bytes;
use crate::source::WeightSource;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// `GGUF`, read as a little-endian number.
const MAGIC: u32 = u32::from_le_bytes(*b"GGUF");
/// Most metadata entries; real files have a few dozen.
pub const METADATA_ENTRIES_MAX: u64 = 4096;
/// Most tensors; the largest published models have a few thousand.
pub const TENSORS_MAX: u64 = 65_536;
/// Most dimensions of a tensor (ggml's own limit).
const DIMENSIONS_MAX: u32 = 4;
/// Alignment of tensor data unless the file says otherwise.
const ALIGNMENT_DEFAULT: usize = 32;
/// Alignments above this would only serve to waste the file.
const ALIGNMENT_MAX: usize = 1 << 16;

/// An open model file, or several that make one model.
pub struct GgufFile {
    files: Vec<Bytes>,
    pub metadata: Metadata,
    tensors: BTreeMap<String, TensorEntry>,
}

impl GgufFile {
    /// Maps a file, and those that follow it if it is the first of several. They must not be truncated
    /// while they are open.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        split::join(path, Self::open_one(path)?)
    }

    fn open_one(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io { path: path.display().to_string(), source };
        Self::parse(Bytes::open(path).map_err(io)?)
    }

    /// Reads a file that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GgufError> {
        Self::parse(Bytes::Owned(bytes))
    }

    fn parse(bytes: Bytes) -> Result<Self, GgufError> {
        let data = bytes.as_slice();
        let mut cursor = Cursor::new(data);
        if cursor.u32("magic")? != MAGIC {
            return Err(cursor.malformed("magic", "this is no GGUF file"));
        }
        let version = cursor.u32("version")?;
        if !(2..=3).contains(&version) {
            return Err(cursor.malformed("version", format!("{version}; 2 and 3 are known")));
        }
        // A tensor entry takes at least 8 + 4 + 8 + 4 + 8 bytes, a metadata entry 8 + 4 + 1.
        let tensor_count = cursor.count(32, TENSORS_MAX, "tensor count")?;
        let entry_count = cursor.count(13, METADATA_ENTRIES_MAX, "metadata count")?;

        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let key = cursor.string("metadata key")?;
            let kind = cursor.u32(key)?;
            let value = cursor.value(kind, key, 0)?;
            if metadata.insert(key.to_owned(), value).is_some() {
                return Err(cursor.malformed(key, "the key appears twice"));
            }
        }
        let metadata = Metadata(metadata);
        let alignment = alignment(&metadata)?;

        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let entry = tensor_entry(&mut cursor)?;
            if let Some(twin) = tensors.insert(entry.name.clone(), entry) {
                return Err(cursor.malformed(&twin.name, "the tensor appears twice"));
            }
        }
        let data_start = cursor.position().next_multiple_of(alignment);
        for entry in tensors.values_mut() {
            place(entry, data_start, alignment, data.len())?;
        }
        Ok(Self { files: vec![bytes], metadata, tensors })
    }

    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.get(name)
    }

    pub fn require_tensor(&self, name: &str) -> Result<&TensorEntry, GgufError> {
        self.tensor(name).ok_or_else(|| GgufError::missing_tensor(name))
    }

    pub fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.tensors.values()
    }

    /// The raw bytes of a tensor of this file.
    #[must_use]
    pub fn data(&self, entry: &TensorEntry) -> &[u8] {
        &self.files[entry.file].as_slice()[entry.start..entry.start + entry.bytes]
    }

    /// All weights of a tensor as f32, row-major.
    #[must_use]
    pub fn weights(&self, entry: &TensorEntry) -> Vec<f32> {
        dequant::dequantise(entry.kind, self.data(entry))
    }
}

impl WeightSource for GgufFile {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    fn row(&self, entry: &TensorEntry, row: usize) -> &[u8] {
        let bytes = entry.row_bytes();
        &self.data(entry)[row * bytes..][..bytes]
    }

    fn weights(&self, entry: &TensorEntry) -> Vec<f32> {
        GgufFile::weights(self, entry)
    }

    fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_metadata(&self.metadata)
    }
}

fn alignment(metadata: &Metadata) -> Result<usize, GgufError> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.count(KEY)?.unwrap_or(ALIGNMENT_DEFAULT);
    if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
        return Err(GgufError::Metadata {
            key: KEY.to_owned(),
            reason: format!("{alignment} is no power of two up to {ALIGNMENT_MAX}"),
        });
    }
    Ok(alignment)
}

/// Reads one directory entry; `start` still counts from the data section.
fn tensor_entry(cursor: &mut Cursor<'_>) -> Result<TensorEntry, GgufError> {
    let name = cursor.string("tensor name")?.to_owned();
    let dimensions = cursor.u32(&name)?;
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err(cursor.malformed(&name, format!("{dimensions} dimensions")));
    }
    let mut sizes = [1_usize; DIMENSIONS_MAX as usize];
    for size in sizes.iter_mut().take(dimensions as usize) {
        let raw = cursor.u64(&name)?;
        *size = usize::try_from(raw)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| cursor.malformed(&name, format!("a dimension of {raw}")))?;
    }
    let code = cursor.u32(&name)?;
    let kind = TensorType::from_code(code)
        .ok_or_else(|| cursor.malformed(&name, format!("tensor type {code} is not supported")))?;
    let offset = cursor.u64(&name)?;
    let too_large =
        || GgufError::Tensor { name: name.clone(), reason: "its size overflows".to_owned() };
    let columns = sizes[0];
    if columns % kind.block_weights() != 0 {
        return Err(GgufError::Tensor {
            reason: format!("{columns} columns are no whole number of {kind} blocks"),
            name,
        });
    }
    let rows = sizes[1..]
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(*size))
        .ok_or_else(too_large)?;
    let bytes = (columns / kind.block_weights())
        .checked_mul(kind.block_bytes())
        .and_then(|row| row.checked_mul(rows))
        .ok_or_else(too_large)?;
    Ok(TensorEntry {
        start: usize::try_from(offset).map_err(|_| too_large())?,
        bytes,
        kind,
        columns,
        rows,
        name,
        file: 0,
        interleaved_head: 0,
        plus_one: false,
    })
}

/// Turns the entry's offset into one from the start of the file and checks that it fits.
fn place(
    entry: &mut TensorEntry,
    data_start: usize,
    alignment: usize,
    file_bytes: usize,
) -> Result<(), GgufError> {
    let bad = |reason: String| GgufError::Tensor { name: entry.name.clone(), reason };
    if !entry.start.is_multiple_of(alignment) {
        return Err(bad(format!("offset {} is not aligned", entry.start)));
    }
    let end = data_start.checked_add(entry.start).and_then(|start| start.checked_add(entry.bytes));
    match end {
        Some(end) if end <= file_bytes => {
            entry.start += data_start;
            Ok(())
        }
        _ => Err(bad(format!(
            "{} bytes at offset {} of the data reach beyond the file's {file_bytes} bytes",
            entry.bytes, entry.start
        ))),
    }
}
