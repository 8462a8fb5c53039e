//! Which GPUs of this machine each replica of a model gets: what they are, what they hold, whether it fits.

use roadbed_compute::adapter::choose;
use roadbed_compute::llm::MemoryNeed;
use roadbed_compute::{AdapterChoice, AdapterKind, AdapterSummary, list_adapters, source};

use super::adapter_memory::usable_memory;
use super::backend::LoadRequest;
use super::placement::{Fit, share_out};

/// The GPUs of each replica.
///
/// # Errors
/// A GPU that is not there or named twice, a file that is no model, a model too large for all of them.
pub(super) fn place(request: &LoadRequest) -> Result<Vec<Vec<AdapterChoice>>, String> {
    if request.gpus.len() < 2 {
        return Ok(vec![request.gpus.clone()]);
    }
    let chosen = distinct(&list_adapters(), &request.gpus)?;
    let memory: Vec<Option<u64>> =
        chosen.iter().map(|a| request.memory_bytes.or_else(|| usable_memory(a))).collect();
    let software = chosen.iter().any(|adapter| adapter.kind == AdapterKind::Software);
    let file = source::open(&request.path).map_err(|error| error.to_string())?;
    let fit = |budgets: &[u64]| {
        let split =
            MemoryNeed::split(&*file, request.context_tokens, request.kv, software, budgets);
        let split = split.map_err(|error| error.to_string())?;
        Ok::<Fit, String>(split.map_or_else(|bytes| Fit::Missing { bytes }, |_layers| Fit::Fits))
    };
    let groups = share_out(&memory, request.split, fit)?.map_err(|missing| {
        format!(
            "the model does not fit the {} GPUs together, {missing} bytes are missing: choose a shorter context or a smaller model",
            chosen.len()
        )
    })?;
    let model = &request.served_as;
    for (replica, group) in groups.iter().enumerate() {
        let names: Vec<String> = group.iter().map(|gpu| chosen[*gpu].to_string()).collect();
        tracing::info!(model, replica, gpus = names.join(" + "), "placed");
    }
    let unused = chosen.len() - groups.iter().map(Vec::len).sum::<usize>();
    if unused > 0 {
        tracing::warn!(model, unused, "GPUs are left over, too small for another replica");
    }
    let gpus = |group: Vec<usize>| group.into_iter().map(|g| request.gpus[g].clone()).collect();
    Ok(groups.into_iter().map(gpus).collect())
}

/// The adapters chosen, each once: memory that is counted twice is not there. Only a software adapter, which has none of
/// its own, may stand for several.
fn distinct(
    adapters: &[AdapterSummary],
    choices: &[AdapterChoice],
) -> Result<Vec<AdapterSummary>, String> {
    let mut chosen: Vec<AdapterSummary> = Vec::new();
    for choice in choices {
        let adapter = choose(adapters, choice).map_err(|error| error.to_string())?;
        if adapter.kind != AdapterKind::Software && chosen.contains(adapter) {
            return Err(format!("GPU {choice} is {adapter}, which is named already"));
        }
        chosen.push(adapter.clone());
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, kind: AdapterKind) -> AdapterSummary {
        AdapterSummary {
            index,
            name: format!("adapter {index}"),
            backend: "vulkan".into(),
            kind,
            pci_bus_id: Some(format!("0000:0{index}:00.0")),
            driver: String::new(),
        }
    }

    #[test]
    fn a_card_is_named_once_by_whatever_name() {
        let rig = [
            adapter(0, AdapterKind::Discrete),
            adapter(1, AdapterKind::Discrete),
            adapter(2, AdapterKind::Software),
        ];
        let check = |words: &[&str]| {
            let choices: Vec<AdapterChoice> = words.iter().map(|w| w.parse().unwrap()).collect();
            distinct(&rig, &choices).map(|chosen| chosen.iter().map(|a| a.index).collect())
        };
        assert_eq!(check(&["1", "0"]), Ok(vec![1, 0]));
        assert_eq!(check(&["2", "software"]), Ok(vec![2, 2]));
        let twice = check(&["0", "00:00.0"]).unwrap_err();
        assert!(twice.contains("adapter 0") && twice.contains("named already"), "{twice}");
        assert!(check(&["0", "7"]).unwrap_err().contains("adapter 1"));
    }
}
