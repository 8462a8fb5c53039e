//! From `--model` and `--adapter` to a loaded engine.

use std::sync::Arc;

use anyhow::Context as _;
use roadbed_compute::llm::KvFormat;
use roadbed_compute::{AdapterChoice, AdapterKind, AdapterSummary, list_adapters};

use super::catalogue::{FoundModel, ModelStore};
use super::{EngineService, LoadRequest, ModelInfo, WgpuLoader};
use crate::config::{Kv, Split};

/// What to load for `--model` and `--adapter`.
///
/// # Errors
/// The model is not on this machine; the message says what to run.
pub fn load_request(model: &str, adapter: Option<&str>) -> anyhow::Result<LoadRequest> {
    let found = ModelStore::from_environment()?.find(model)?;
    let gpus = adapter.into_iter().map(choice).collect();
    let FoundModel { path, served_as } = found;
    Ok(LoadRequest {
        path,
        served_as,
        gpus,
        split: Split::default(),
        context_tokens: None,
        memory_bytes: None,
        kv: KvFormat::F32,
    })
}

impl From<Kv> for KvFormat {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => Self::F32,
            Kv::F16 => Self::F16,
            Kv::Q8 => Self::Q8,
        }
    }
}

fn choice(word: &str) -> AdapterChoice {
    match word.parse() {
        Ok(choice) => choice,
        Err(never) => match never {},
    }
}

/// Most GPUs of a rig: twice what mining boards have slots for. Each may cost an engine thread.
pub const GPUS_MAX: usize = 32;

/// The GPUs that `--gpu` or the config file name: `all` is every card with memory of its own, and nothing named is the
/// best adapter, as is `all` where there is no such card.
///
/// # Errors
/// `all` beside other names, or too many.
pub fn named_gpus(words: &[String]) -> anyhow::Result<Vec<AdapterChoice>> {
    let gpus: Vec<AdapterChoice> = match words {
        [word] if word == "all" => all_gpus(&list_adapters()),
        _ if words.iter().any(|word| word == "all") => {
            anyhow::bail!("`all` GPUs and some of them by name: give one or the other")
        }
        _ => words.iter().map(|word| choice(word)).collect(),
    };
    let count = gpus.len();
    anyhow::ensure!(count <= GPUS_MAX, "{count} GPUs are named; at most {GPUS_MAX} are taken");
    Ok(gpus)
}

fn all_gpus(adapters: &[AdapterSummary]) -> Vec<AdapterChoice> {
    let cards = adapters.iter().filter(|adapter| adapter.kind == AdapterKind::Discrete);
    // Numbers change when a card does not come up.
    let lasting = |card: &AdapterSummary| {
        card.pci_bus_id.clone().map_or(AdapterChoice::Index(card.index), AdapterChoice::Pci)
    };
    cards.map(lasting).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_every_card_by_its_slot() {
        let adapter = |index: usize, kind, pci: Option<&str>| AdapterSummary {
            index,
            name: "a card".into(),
            backend: "vulkan".into(),
            kind,
            pci_bus_id: pci.map(str::to_owned),
            driver: String::new(),
        };
        let rig = [
            adapter(0, AdapterKind::Integrated, Some("0000:00:02.0")),
            adapter(1, AdapterKind::Discrete, Some("0000:01:00.0")),
            adapter(2, AdapterKind::Discrete, None),
            adapter(3, AdapterKind::Software, None),
        ];
        let expected = [AdapterChoice::Pci("0000:01:00.0".into()), AdapterChoice::Index(2)];
        assert_eq!(all_gpus(&rig), expected);
        assert_eq!(all_gpus(&rig[3..]), []);
    }

    #[test]
    fn names_are_taken_as_they_are() {
        let words =
            |words: &[&str]| named_gpus(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(words(&[]).unwrap(), []);
        let two = [AdapterChoice::Index(0), AdapterChoice::Name("radeon".into())];
        assert_eq!(words(&["0", "radeon"]).unwrap(), two);
        assert!(words(&["all", "0"]).unwrap_err().to_string().contains("one or the other"));
        assert!(words(&["0"; GPUS_MAX + 1]).unwrap_err().to_string().contains("33 GPUs"));
    }
}
