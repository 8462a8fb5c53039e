//! Writing GGUF files: small models for tests and synthetic models for measurements.

use std::io::{self, Write};

use super::encode::encode;
use super::error::GgufError;
use super::tensor::TensorType;

const ALIGNMENT: usize = 32;

struct Tensor {
    name: String,
    kind: TensorType,
    dimensions: Vec<u64>,
    bytes: usize,
    /// Nothing for a promised tensor, whose bytes are asked for while the file is written.
    data: Option<Vec<u8>>,
}

/// A metadata value to write.
#[derive(Clone, Debug)]
pub enum Field<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Texts(&'a [String]),
    I32s(&'a [i32]),
    F32s(&'a [f32]),
}

/// Collects metadata and tensors and writes them in one go.
#[derive(Default)]
pub struct GgufWriter {
    fields: Vec<u8>,
    field_count: u64,
    tensors: Vec<Tensor>,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl GgufWriter {
    pub fn field(&mut self, key: &str, field: &Field<'_>) -> &mut Self {
        let out = &mut self.fields;
        put_text(out, key);
        let code = |out: &mut Vec<u8>, code: u32| out.extend(code.to_le_bytes());
        match field {
            Field::U32(value) => {
                code(out, 4);
                out.extend(value.to_le_bytes());
            }
            Field::F32(value) => {
                code(out, 6);
                out.extend(value.to_le_bytes());
            }
            Field::Bool(value) => {
                code(out, 7);
                out.push(u8::from(*value));
            }
            Field::Text(value) => {
                code(out, 8);
                put_text(out, value);
            }
            Field::Texts(values) => {
                code(out, 9);
                code(out, 8);
                out.extend((values.len() as u64).to_le_bytes());
                for value in *values {
                    put_text(out, value);
                }
            }
            Field::I32s(values) => {
                code(out, 9);
                code(out, 5);
                out.extend((values.len() as u64).to_le_bytes());
                for value in *values {
                    out.extend(value.to_le_bytes());
                }
            }
            Field::F32s(values) => {
                code(out, 9);
                code(out, 6);
                out.extend((values.len() as u64).to_le_bytes());
                for value in *values {
                    out.extend(value.to_le_bytes());
                }
            }
        }
        self.field_count += 1;
        self
    }

    /// Adds a matrix `[rows, columns]` (or a vector, with one row), encoding it as `kind`.
    ///
    /// Fails if `columns` is no whole number of blocks of `kind`.
    pub fn tensor(
        &mut self,
        name: &str,
        kind: TensorType,
        columns: usize,
        weights: &[f32],
    ) -> Result<&mut Self, GgufError> {
        let bad = |reason: String| GgufError::Tensor { name: name.to_owned(), reason };
        if columns == 0
            || !columns.is_multiple_of(kind.block_weights())
            || !weights.len().is_multiple_of(columns)
        {
            return Err(bad(format!("{columns} columns do not fit {kind} blocks")));
        }
        let data = encode(kind, weights);
        Ok(self.encoded_tensor(name, kind, columns, weights.len() / columns, data))
    }

    /// Adds a tensor that is already encoded.
    pub fn encoded_tensor(
        &mut self,
        name: &str,
        kind: TensorType,
        columns: usize,
        rows: usize,
        data: Vec<u8>,
    ) -> &mut Self {
        self.push(name, kind, columns, rows, data.len(), Some(data))
    }

    /// Adds a matrix `[rows, columns]` whose bytes [`GgufWriter::stream`] asks for when their turn comes, so that
    /// a file may be larger than the memory.
    pub fn promised_tensor(
        &mut self,
        name: &str,
        kind: TensorType,
        columns: usize,
        rows: usize,
    ) -> &mut Self {
        let bytes = columns / kind.block_weights() * kind.block_bytes() * rows;
        self.push(name, kind, columns, rows, bytes, None)
    }

    /// Makes the last tensor a stack of so many matrices of equal height: three dimensions.
    pub fn stacked(&mut self, matrices: usize) -> &mut Self {
        if let Some([_, rows]) = self.tensors.last_mut().map(|t| t.dimensions.as_mut_slice()) {
            *rows /= matrices.max(1) as u64;
        }
        if let Some(tensor) = self.tensors.last_mut() {
            tensor.dimensions.push(matrices as u64);
        }
        self
    }

    fn push(
        &mut self,
        name: &str,
        kind: TensorType,
        columns: usize,
        rows: usize,
        bytes: usize,
        data: Option<Vec<u8>>,
    ) -> &mut Self {
        let mut dimensions = vec![columns as u64];
        if rows > 1 {
            dimensions.push(rows as u64);
        }
        self.tensors.push(Tensor { name: name.to_owned(), kind, dimensions, bytes, data });
        self
    }

    /// The whole file; a promised tensor is all zeros.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let mut out = self.head();
        for tensor in &self.tensors {
            let start = out.len().next_multiple_of(ALIGNMENT);
            out.resize(start, 0);
            out.extend(tensor.data.iter().flatten());
            out.resize(start + tensor.bytes, 0);
        }
        out
    }

    /// Writes the file piece by piece. `fill` is called for each promised tensor, in order, and must write exactly
    /// the bytes of its matrix; the second argument is its place among the tensors.
    ///
    /// # Errors
    /// What `out` or `fill` could not write, or a `fill` that wrote another number of bytes.
    pub fn stream(
        &self,
        out: &mut dyn Write,
        fill: &mut dyn FnMut(&mut dyn Write, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let head = self.head();
        out.write_all(&head)?;
        let mut written = Counted { out, bytes: head.len() };
        for (index, tensor) in self.tensors.iter().enumerate() {
            let start = written.bytes.next_multiple_of(ALIGNMENT);
            let padding = start - written.bytes;
            written.write_all(&[0; ALIGNMENT][..padding])?;
            match &tensor.data {
                Some(data) => written.write_all(data)?,
                None => fill(&mut written, index)?,
            }
            if written.bytes - start != tensor.bytes {
                return Err(io::Error::other(format!(
                    "tensor {} was given {} bytes; expected {}",
                    tensor.name,
                    written.bytes - start,
                    tensor.bytes
                )));
            }
        }
        Ok(())
    }

    /// Magic, counts, metadata and tensor directory.
    fn head(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(b"GGUF");
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(self.field_count.to_le_bytes());
        out.extend(&self.fields);
        let mut offset = 0;
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            for size in &tensor.dimensions {
                out.extend(size.to_le_bytes());
            }
            out.extend(tensor.kind.code().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.next_multiple_of(ALIGNMENT);
        }
        out
    }
}

struct Counted<'w> {
    out: &'w mut dyn Write,
    bytes: usize,
}

impl Write for Counted<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.out.write(data)?;
        self.bytes += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
