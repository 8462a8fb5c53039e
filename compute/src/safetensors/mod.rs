//! Reading Hugging Face model folders: `config.json`, one or more `*.safetensors`, the tokenizer.
//!
//! A folder is shown as what GGUF would have made of it: metadata keys, tensor names, the order of
//! Llama's query and key rows, the 1 in Gemma's norms. Nothing is converted on the disk and nothing is
//! copied: rows come out of the mapped files one by one, already in their place. Folders come from
//! strangers: every length is bounded, and an index may name files of its own folder only.

mod config;
mod encoder;
mod error;
mod file;
mod names;
mod texts;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

pub use error::SafetensorsError;
pub use file::{RawTensor, SafetensorsFile};

use crate::embedding::ARCHITECTURE;
use crate::gguf::dequant::dequantise;
use crate::gguf::{Metadata, TensorEntry, TensorType, Value};
use crate::mapped::Bytes;
use crate::source::WeightSource;
use crate::tokenizer::{Tokenizer, TokenizerError};
use config::{Described, Graph};
use names::Fate;
use texts::{TEXT_BYTES_MAX, TokenizerTexts, chat_template, require_text, text};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longest index of shards; the largest published has eight megabytes.
const INDEX_BYTES_MAX: u64 = 16 << 20;
/// Most files a model may be cut into; the largest published have a few hundred.
const SHARDS_MAX: usize = 1024;
/// Name of the tensor made from a config's rope scaling, GGUF's own.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// An open model folder.
pub struct SafetensorsFolder {
    files: Vec<Bytes>,
    metadata: Metadata,
    entries: BTreeMap<String, TensorEntry>,
    tokenizer: Option<TokenizerTexts>,
}

/// The index of a model of several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl SafetensorsFolder {
    /// Maps the files of a folder. They must not be truncated while it is open.
    pub fn open(folder: &Path) -> Result<Self, SafetensorsError> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let config = require_text(folder, "config.json", TEXT_BYTES_MAX)?;
        let name = name.as_deref().unwrap_or("model");
        let described = match encoder::is_encoder(&config) {
            true => Described {
                graph: Graph::Encoder,
                metadata: encoder::read(folder, &config, name)?,
                rope_factors: None,
                tied: false,
                head: 0,
            },
            false => config::read(&config, name)?,
        };
        let mut model = Self {
            files: Vec::new(),
            metadata: described.metadata.clone(),
            entries: BTreeMap::new(),
            tokenizer: TokenizerTexts::read(folder)?,
        };
        if let Some(template) = chat_template(folder)? {
            model.metadata.insert("tokenizer.chat_template".to_owned(), Value::String(template));
        }
        match text(folder, INDEX, INDEX_BYTES_MAX)? {
            None => {
                model.add_file(folder, SINGLE, None, &described)?;
            }
            Some(index) => model.add_shards(folder, &index, &described)?,
        }
        if described.tied {
            model.entries.remove("output.weight");
        }
        if let Some(factors) = &described.rope_factors {
            model.add_factors(factors);
        }
        Ok(model)
    }

    fn add_shards(
        &mut self,
        folder: &Path,
        index: &str,
        described: &Described,
    ) -> Result<(), SafetensorsError> {
        let bad = |reason: String| SafetensorsError::Malformed { file: INDEX.to_owned(), reason };
        let Index { weight_map } =
            serde_json::from_str(index).map_err(|error| bad(error.to_string()))?;
        let mut shards: Vec<&str> = weight_map.values().map(String::as_str).collect();
        shards.sort_unstable();
        shards.dedup();
        if shards.len() > SHARDS_MAX {
            return Err(bad(format!("{} files; the limit is {SHARDS_MAX}", shards.len())));
        }
        // All names are looked at before any file is opened.
        for shard in &shards {
            let mut parts = Path::new(shard).components();
            let is_plain = matches!(parts.next(), Some(Component::Normal(_)))
                && parts.next().is_none()
                && shard.ends_with(".safetensors")
                && !shard.contains(['/', '\\', ':', '\0']);
            if !is_plain {
                return Err(bad(format!("'{shard}' is no safetensors file of this folder")));
            }
        }
        let mut found = 0;
        for shard in shards {
            found += self.add_file(folder, shard, Some(&weight_map), described)?;
        }
        // Every tensor of every shard is in the map, once; so equal counts mean equal sets.
        if found != weight_map.len() {
            return Err(bad(format!(
                "it names {} tensors but the files hold {found} of them",
                weight_map.len()
            )));
        }
        Ok(())
    }

    /// Maps one file and takes its tensors in; returns how many it holds.
    fn add_file(
        &mut self,
        folder: &Path,
        file: &str,
        weight_map: Option<&BTreeMap<String, String>>,
        described: &Described,
    ) -> Result<usize, SafetensorsError> {
        let (bytes, tensors) = SafetensorsFile::open(&folder.join(file))?.into_parts();
        let count = tensors.len();
        for tensor in tensors {
            if let Some(map) = weight_map
                && map.get(&tensor.name).map(String::as_str) != Some(file)
            {
                return Err(SafetensorsError::Tensor {
                    file: file.to_owned(),
                    name: tensor.name,
                    reason: "the index does not place it in this file".to_owned(),
                });
            }
            self.add_tensor(file, tensor, described)?;
        }
        self.files.push(bytes);
        Ok(count)
    }

    fn add_tensor(
        &mut self,
        file: &str,
        tensor: RawTensor,
        described: &Described,
    ) -> Result<(), SafetensorsError> {
        let bad = |reason: String| SafetensorsError::Tensor {
            file: file.to_owned(),
            name: tensor.name.clone(),
            reason,
        };
        let (fate, word) = match described.graph {
            Graph::Language(architecture) => {
                (names::fate(architecture, &tensor.name), architecture.word())
            }
            Graph::Encoder => (encoder::fate(&tensor.name), ARCHITECTURE),
        };
        let renamed = match fate {
            Fate::Weight(renamed) => renamed,
            Fate::Dropped => return Ok(()),
            Fate::Unknown => {
                return Err(bad(format!(
                    "no such tensor is known in a model of the '{word}' family"
                )));
            }
        };
        let kind = tensor
            .weight_type()
            .ok_or_else(|| bad(format!("dtype {}; F32, F16 and BF16 are known", tensor.dtype)))?;
        let (rows, columns) = match tensor.shape.as_slice() {
            [columns] => (1, *columns),
            [rows, columns] => (*rows, *columns),
            other => return Err(bad(format!("{} dimensions; 1 or 2 were expected", other.len()))),
        };
        if rows == 0 || columns == 0 {
            return Err(bad("it is empty".to_owned()));
        }
        let head = if renamed.interleaved { described.head } else { 0 };
        let heads_of = if rows == 1 { columns } else { rows };
        if head > 0 && (head % 2 != 0 || heads_of % head != 0) {
            return Err(bad(format!("{heads_of} rows are no whole number of heads of {head}")));
        }
        let entry = TensorEntry {
            name: renamed.name.clone(),
            kind,
            columns,
            rows,
            start: tensor.start,
            bytes: tensor.bytes,
            file: self.files.len(),
            interleaved_head: head,
            plus_one: renamed.plus_one,
        };
        match self.entries.insert(renamed.name, entry) {
            None => Ok(()),
            Some(twin) => Err(bad(format!("a second tensor is meant for {}", twin.name))),
        }
    }

    fn add_factors(&mut self, factors: &[f32]) {
        let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        let entry = TensorEntry {
            name: ROPE_FACTORS.to_owned(),
            kind: TensorType::F32,
            columns: factors.len(),
            rows: 1,
            start: 0,
            bytes: bytes.len(),
            file: self.files.len(),
            interleaved_head: 0,
            plus_one: false,
        };
        self.files.push(Bytes::Owned(bytes));
        self.entries.insert(ROPE_FACTORS.to_owned(), entry);
    }
}

impl WeightSource for SafetensorsFolder {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    fn row(&self, entry: &TensorEntry, row: usize) -> &[u8] {
        let stored = match entry.interleaved_head {
            0 => row,
            head => names::half_split_row(row, head),
        };
        let bytes = entry.row_bytes();
        &self.files[entry.file].as_slice()[entry.start + stored * bytes..][..bytes]
    }

    fn weights(&self, entry: &TensorEntry) -> Vec<f32> {
        let mut weights: Vec<f32> = match entry.rows {
            // A vector's elements take the places its matrix's rows take.
            1 => {
                let stored = dequantise(
                    entry.kind,
                    &self.files[entry.file].as_slice()[entry.start..][..entry.bytes],
                );
                match entry.interleaved_head {
                    0 => stored,
                    head => {
                        (0..entry.columns).map(|i| stored[names::half_split_row(i, head)]).collect()
                    }
                }
            }
            rows => {
                (0..rows).flat_map(|row| dequantise(entry.kind, self.row(entry, row))).collect()
            }
        };
        if entry.plus_one {
            weights.iter_mut().for_each(|weight| *weight += 1.0);
        }
        weights
    }

    fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        self.tokenizer.as_ref().ok_or(TokenizerError::Missing)?.tokenizer()
    }
}
