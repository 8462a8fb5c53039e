//! The compute crate's encoders behind the queue.

use std::path::PathBuf;

use roadbed_compute::{Encoder, EncoderOptions, Gpu, source};

use super::backend::{EmbedderInfo, EmbeddingBackend, EmbeddingLoader};
use crate::engine::{EngineFault, LoadRequest, kept_folder, telling};

/// Loads Hugging Face folders and GGUF files of encoders.
#[derive(Debug, Clone, Default)]
pub struct EncoderLoader {
    kept: Option<PathBuf>,
}

impl EncoderLoader {
    /// Keeps what makes the next start faster in this machine's folder for that.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self { kept: kept_folder() }
    }
}

impl EmbeddingLoader for EncoderLoader {
    fn load(&mut self, request: &LoadRequest) -> Result<Box<dyn EmbeddingBackend>, EngineFault> {
        let load = || {
            let file = source::open(&request.path)?;
            let options =
                EncoderOptions { memory_bytes: request.memory_bytes, ..EncoderOptions::default() };
            let choice = request.gpus.first().cloned().unwrap_or_default();
            let gpu = Gpu::open_keeping(&choice, self.kept.as_deref())?;
            Encoder::load_file(
                &*file,
                &request.served_as,
                gpu,
                &options,
                &telling(&request.served_as),
            )
        };
        match load() {
            Ok(encoder) => {
                Ok(Box::new(EncoderBackend { encoder, served_as: request.served_as.clone() }))
            }
            Err(error) => {
                Err(EngineFault::Load { reason: format!("{}: {error}", request.path.display()) })
            }
        }
    }
}

struct EncoderBackend {
    encoder: Encoder,
    served_as: String,
}

impl EmbeddingBackend for EncoderBackend {
    fn info(&self) -> EmbedderInfo {
        let info = self.encoder.info();
        EmbedderInfo {
            served_as: self.served_as.clone(),
            adapter: info.adapter.clone(),
            dimensions: info.config.hidden,
            tokens_max: info.config.tokens_max,
            vocabulary: info.config.vocabulary,
            memory_bytes: info.weight_bytes.saturating_add(info.working_bytes),
        }
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineFault> {
        Ok(self.encoder.tokenize(text)?)
    }

    fn truncate(&self, ids: &mut Vec<u32>, tokens: usize) {
        self.encoder.truncate(ids, tokens);
    }

    fn fitting(&self, lengths: &[usize]) -> usize {
        self.encoder.fitting(lengths.iter().copied())
    }

    fn pass(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineFault> {
        Ok(self.encoder.pass(texts)?)
    }
}
