//! A model whose matrices are stored in another type than its file has them in: what a rig would run that saved memory.

use std::collections::BTreeMap;

use roadbed_compute::gguf::encode::encode;
use roadbed_compute::gguf::{GgufFile, Metadata, TensorEntry, TensorType};
use roadbed_compute::source::WeightSource;
use roadbed_compute::tokenizer::{Tokenizer, TokenizerError};

pub struct Requantised<'f> {
    file: &'f GgufFile,
    entries: BTreeMap<String, TensorEntry>,
    /// Of the matrices.
    data: BTreeMap<String, Vec<u8>>,
}

impl<'f> Requantised<'f> {
    pub fn of(file: &'f GgufFile, kind: TensorType) -> Self {
        let mut entries = WeightSource::entries(file).clone();
        let matrices = entries.values_mut().filter(|entry| entry.rows > 1);
        let data = matrices
            .map(|entry| {
                let data = encode(kind, &GgufFile::weights(file, entry));
                entry.kind = kind;
                assert_eq!(data.len(), entry.rows * entry.row_bytes());
                (entry.name.clone(), data)
            })
            .collect();
        Self { file, entries, data }
    }
}

impl WeightSource for Requantised<'_> {
    fn metadata(&self) -> &Metadata {
        WeightSource::metadata(self.file)
    }

    fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    fn row(&self, entry: &TensorEntry, row: usize) -> &[u8] {
        match self.data.get(&entry.name) {
            Some(data) => &data[row * entry.row_bytes()..][..entry.row_bytes()],
            None => self.file.row(entry, row),
        }
    }

    fn weights(&self, entry: &TensorEntry) -> Vec<f32> {
        assert!(!self.data.contains_key(&entry.name), "{} is read by rows", entry.name);
        GgufFile::weights(self.file, entry)
    }

    fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        self.file.tokenizer()
    }
}
