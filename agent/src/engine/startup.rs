//! From `--model` and `--adapter` to a loaded engine.

use std::sync::Arc;

use anyhow::Context as _;
use roadbed_compute::AdapterChoice;
use roadbed_compute::llm::KvFormat;

use super::catalogue::{FoundModel, ModelStore};
use super::{EngineService, LoadRequest, ModelInfo, WgpuLoader};

/// What to load for `--model` and `--adapter`.
///
/// # Errors
/// The model is not on this machine; the message says what to run.
pub fn load_request(model: &str, adapter: Option<&str>) -> anyhow::Result<LoadRequest> {
    let found = ModelStore::from_environment()?.find(model)?;
    let adapter: AdapterChoice = match adapter.unwrap_or_default().parse() {
        Ok(choice) => choice,
        Err(never) => match never {},
    };
    let FoundModel { path, served_as } = found;
    Ok(LoadRequest {
        path,
        served_as,
        adapter,
        context_tokens: None,
        memory_bytes: None,
        kv: KvFormat::F32,
    })
}

/// An engine with its model loaded.
///
/// # Errors
/// The model cannot be loaded.
pub async fn loaded(request: LoadRequest) -> anyhow::Result<(EngineService, Arc<ModelInfo>)> {
    let engine = EngineService::start(WgpuLoader::of_this_machine())
        .context("cannot start the engine thread")?;
    let info = engine.load(request).await?;
    tracing::info!(model = info.served_as, adapter = %info.adapter, "loaded");
    Ok((engine, info))
}
