//! Bounds-checked reading of little-endian fields; the only code that touches raw offsets.

use super::error::GgufError;
use super::value::Value;

/// Longest string in a header. Chat templates reach tens of kilobytes; a megabyte is ample.
pub const STRING_BYTES_MAX: u64 = 1 << 20;
/// Arrays of arrays exist in the format but in no known model; four levels is generous.
const ARRAY_DEPTH_MAX: usize = 4;

pub(super) struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    pub fn remaining(&self) -> usize {
        self.data.len() - self.position
    }

    pub fn malformed(&self, what: &str, reason: impl Into<String>) -> GgufError {
        GgufError::Malformed { offset: self.position, what: what.to_owned(), reason: reason.into() }
    }

    fn take(&mut self, bytes: usize, what: &str) -> Result<&'a [u8], GgufError> {
        if bytes > self.remaining() {
            return Err(self.malformed(
                what,
                format!("{bytes} bytes wanted but the file has only {} left", self.remaining()),
            ));
        }
        let taken = &self.data[self.position..self.position + bytes];
        self.position += bytes;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `bytes_each` in the file: it cannot exceed what is left.
    pub fn count(&mut self, bytes_each: usize, max: u64, what: &str) -> Result<usize, GgufError> {
        let count = self.u64(what)?;
        let room = (self.remaining() / bytes_each.max(1)) as u64;
        if count > max.min(room) {
            return Err(self.malformed(
                what,
                format!("count {count} is more than the limit {max} or the {room} that fit"),
            ));
        }
        // It fits: room came from a usize.
        Ok(count as usize)
    }

    pub fn string(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let length = self.count(1, STRING_BYTES_MAX, what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|e| self.malformed(what, format!("no UTF-8: {e}")))
    }

    pub fn value(&mut self, kind: u32, what: &str, depth: usize) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>(what)?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array(what)?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array(what)?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array(what)?))),
            4 => Value::Unsigned(u64::from(self.u32(what)?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array(what)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array(what)?))),
            7 => match self.array::<1>(what)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(self.malformed(what, format!("boolean of value {other}"))),
            },
            8 => Value::String(self.string(what)?.to_owned()),
            9 => Value::Array(self.array_value(what, depth)?),
            10 => Value::Unsigned(self.u64(what)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(what)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            other => return Err(self.malformed(what, format!("unknown value type {other}"))),
        })
    }

    fn array_value(&mut self, what: &str, depth: usize) -> Result<Vec<Value>, GgufError> {
        if depth >= ARRAY_DEPTH_MAX {
            return Err(self.malformed(what, "arrays nested too deep"));
        }
        let kind = self.u32(what)?;
        let bytes_each = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => return Err(self.malformed(what, format!("unknown element type {other}"))),
        };
        let count = self.count(bytes_each, u64::MAX, what)?;
        // Grown, not reserved: a value is larger in memory than in the file.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(kind, what, depth + 1)?);
        }
        Ok(values)
    }
}
