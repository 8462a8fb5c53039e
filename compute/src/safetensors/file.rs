//! One safetensors file: eight bytes of length, then JSON, then the tensors without gaps.
//!
//! Format: huggingface/safetensors, README. Its rules are checked in full: the header fits, no tensor
//! has two entries, and the tensors cover the data exactly, so none overlaps another.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::error::SafetensorsError;
use crate::gguf::TensorType;
use crate::mapped::Bytes;

/// Longest header; those of the largest published files are about a megabyte.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// Most tensors of a file; the largest published models have a few thousand in all.
const TENSORS_MAX: usize = 65_536;
/// Weights have one or two dimensions, convolutions up to five.
const DIMENSIONS_MAX: usize = 8;

/// An open file, mapped.
pub struct SafetensorsFile {
    bytes: Bytes,
    tensors: Vec<RawTensor>,
}

impl SafetensorsFile {
    /// Maps a file and reads its directory. It must not be truncated while it is open.
    pub fn open(path: &Path) -> Result<Self, SafetensorsError> {
        let bytes = Bytes::open(path)
            .map_err(|source| SafetensorsError::Io { path: path.display().to_string(), source })?;
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let tensors = read(&name, bytes.as_slice())?;
        Ok(Self { bytes, tensors })
    }

    /// Its tensors, in the order of their bytes.
    #[must_use]
    pub fn tensors(&self) -> &[RawTensor] {
        &self.tensors
    }

    /// The bytes of a tensor of this file.
    #[must_use]
    pub fn data(&self, tensor: &RawTensor) -> &[u8] {
        &self.bytes.as_slice()[tensor.start..][..tensor.bytes]
    }

    pub(super) fn into_parts(self) -> (Bytes, Vec<RawTensor>) {
        (self.bytes, self.tensors)
    }
}

/// One tensor of a file, as stored.
#[derive(Debug)]
pub struct RawTensor {
    pub name: String,
    /// The file's word for the type.
    pub dtype: String,
    /// Outermost dimension first; none for a single number.
    pub shape: Vec<usize>,
    /// Offset from the start of the file and length, both checked against it.
    pub(super) start: usize,
    pub(super) bytes: usize,
}

impl RawTensor {
    /// The type of its weights, if it is one that holds weights.
    #[must_use]
    pub fn weight_type(&self) -> Option<TensorType> {
        match self.dtype.as_str() {
            "F32" => Some(TensorType::F32),
            "F16" => Some(TensorType::F16),
            "BF16" => Some(TensorType::Bf16),
            _ => None,
        }
    }
}

/// Bits of an element, for every type of the format.
fn bits(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ"
        | "F8_E5M2FNUZ" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The JSON object, in the order of the file.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if entries.len() == TENSORS_MAX {
                        return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors")));
                    }
                    entries.push((name, map.next_value()?));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Reads the tensor directory of `data`, the whole file called `file`.
fn read(file: &str, data: &[u8]) -> Result<Vec<RawTensor>, SafetensorsError> {
    let bad = |reason: String| SafetensorsError::Malformed { file: file.to_owned(), reason };
    let Some((length, rest)) = data.split_first_chunk::<8>() else {
        return Err(bad("it is too short for a safetensors file".to_owned()));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .filter(|_| length <= HEADER_BYTES_MAX)
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| {
            bad(format!(
                "a header of {length} bytes; the limit is {HEADER_BYTES_MAX} and the file has {} left",
                rest.len()
            ))
        })?;
    let Entries(entries) =
        serde_json::from_slice(header).map_err(|error| bad(format!("the header: {error}")))?;
    let data_start = 8 + header.len();
    let mut tensors = entries
        .into_iter()
        .map(|(name, entry)| place(file, name, entry, data_start))
        .collect::<Result<Vec<_>, _>>()?;
    cover(file, &mut tensors, data_start, data.len())?;
    Ok(tensors)
}

fn place(
    file: &str,
    name: String,
    entry: Entry,
    data_start: usize,
) -> Result<RawTensor, SafetensorsError> {
    let bad = |reason: String| SafetensorsError::Tensor {
        file: file.to_owned(),
        name: name.clone(),
        reason,
    };
    if entry.shape.len() > DIMENSIONS_MAX {
        return Err(bad(format!("{} dimensions", entry.shape.len())));
    }
    let bits = bits(&entry.dtype).ok_or_else(|| bad(format!("unknown dtype {}", entry.dtype)))?;
    let shape = entry
        .shape
        .iter()
        .map(|size| usize::try_from(*size).ok())
        .collect::<Option<Vec<usize>>>()
        .ok_or_else(|| bad("its size overflows".to_owned()))?;
    let bytes = shape
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(*size))
        .and_then(|elements| elements.checked_mul(bits))
        .filter(|bits| bits.is_multiple_of(8))
        .map(|bits| bits / 8)
        .ok_or_else(|| bad("its size overflows or is no whole number of bytes".to_owned()))?;
    let [begin, end] = entry.data_offsets;
    if end.checked_sub(begin) != Some(bytes as u64) {
        return Err(bad(format!(
            "offsets {begin} to {end} are not the {bytes} bytes of {} {shape:?}",
            entry.dtype
        )));
    }
    let start = usize::try_from(begin)
        .ok()
        .and_then(|begin| begin.checked_add(data_start))
        .ok_or_else(|| bad("its offset overflows".to_owned()))?;
    Ok(RawTensor { dtype: entry.dtype, shape, start, bytes, name })
}

/// Checks that the tensors lie end to end from `first` to `end`, and that no name comes twice.
fn cover(
    file: &str,
    tensors: &mut [RawTensor],
    first: usize,
    end: usize,
) -> Result<(), SafetensorsError> {
    let bad = |name: &str, reason: String| SafetensorsError::Tensor {
        file: file.to_owned(),
        name: name.to_owned(),
        reason,
    };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(bad(&pair[0].name, "appears twice".to_owned()));
    }
    tensors.sort_by_key(|tensor| (tensor.start, tensor.bytes));
    let mut expected = first;
    for tensor in tensors.iter() {
        if tensor.start != expected {
            let what = if tensor.start < expected { "overlaps" } else { "leaves a gap after" };
            return Err(bad(
                &tensor.name,
                format!("{what} the tensor before it, at byte {}", tensor.start),
            ));
        }
        // It cannot overflow: the length came from an offset of the same size.
        expected = expected.saturating_add(tensor.bytes);
        if expected > end {
            return Err(bad(
                &tensor.name,
                format!("reaches to byte {expected}; the file has {end} bytes"),
            ));
        }
    }
    if expected != end {
        return Err(SafetensorsError::Malformed {
            file: file.to_owned(),
            reason: format!("{} bytes behind the last tensor belong to none", end - expected),
        });
    }
    Ok(())
}
