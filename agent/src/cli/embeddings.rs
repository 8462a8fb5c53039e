//! `serve --embeddings`: an encoder beside the chat model, or alone.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use crate::embedding::{EmbedderInfo, EmbeddingService, EncoderLoader};
use crate::engine::startup::load_request;

/// The encoder of a serving rig.
#[derive(Debug, Args)]
pub struct EmbeddingArgs {
    /// Encoder that answers /v1/embeddings: a Hugging Face folder, a GGUF file, or hf:org/repo. Alone or beside --model;
    /// it is loaded first and --memory is for both.
    #[arg(long, value_name = "MODEL", conflicts_with = "upstream")]
    pub embeddings: Option<String>,
    /// Name the encoder is served under.
    #[arg(long, value_name = "NAME", requires = "embeddings")]
    pub embeddings_served_as: Option<String>,
}

impl EmbeddingArgs {
    /// The encoder, loaded, if one is asked for.
    ///
    /// # Errors
    /// It is not on this machine, or cannot be loaded.
    pub async fn load(
        &self,
        adapter: Option<&str>,
        memory_bytes: Option<u64>,
    ) -> anyhow::Result<Option<(EmbeddingService, Arc<EmbedderInfo>)>> {
        let Some(model) = &self.embeddings else { return Ok(None) };
        let mut request = load_request(model, adapter)?;
        if let Some(name) = &self.embeddings_served_as {
            request.served_as.clone_from(name);
        }
        request.memory_bytes = memory_bytes;
        let service = EmbeddingService::start(EncoderLoader::of_this_machine())
            .context("cannot start the embedding thread")?;
        let info = service.load(request).await?;
        tracing::info!(model = info.served_as, adapter = %info.adapter, "embeddings ready");
        Ok(Some((service, info)))
    }
}
