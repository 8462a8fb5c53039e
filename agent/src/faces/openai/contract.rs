//! Whether an answer is drawn by the network's deterministic sampling contract, and from what.
//!
//! The contract says how a token is drawn, not how a request asks for it. Here a request says
//! `"deterministic_sampling": {"contract_version": "1.0.0", "inference_id": ".."}`; the id may come in the network's
//! header `X-Inference-Id` instead. A node may be set to draw so whenever there is such a header. What a request asks for
//! and cannot have is refused; what only the node wants is left.

use roadbed_compute::ContractDraw;
use roadbed_compute::infval::{ContractError, contract, seed};
use roadbed_compute::llm::TOP_LOGPROBS_MAX;
use serde_json::{Value, json};

use super::request::Completion;
use super::sampling::ContractWish;
use crate::engine::EngineFault;

const FIELD: &str = "deterministic_sampling";

/// A draw by contract, and what the answer says of it.
pub(super) struct Terms {
    pub(super) draw: ContractDraw,
    pub(super) view: Value,
}

/// The terms of a completion; `None` if it is drawn as usual.
pub(super) fn terms(
    completion: &Completion,
    header_id: Option<&str>,
    by_default: bool,
) -> Result<Option<Terms>, EngineFault> {
    let refuse = |reason: &str| Err(EngineFault::bad_request(FIELD, reason));
    let (version, id, asked) = match &completion.contract.wanted {
        Some(ContractWish::No) => return Ok(None),
        Some(ContractWish::Yes { version, inference_id }) => {
            (version.as_deref(), inference_id.as_deref().or(header_id), true)
        }
        None if by_default && header_id.is_some() => (None, header_id, false),
        None => return Ok(None),
    };
    if version.is_some_and(|version| version != contract::VERSION) {
        return refuse(&format!("drawn is by contract version {}", contract::VERSION));
    }
    let filters = match &completion.contract.filters {
        Ok(filters) => *filters,
        // At temperature 0 the contract draws nothing either.
        Err(ContractError::Greedy) => return Ok(None),
        Err(error) => return refuse(&error.to_string()),
    };
    // Nobody could repeat it, so the answer is not cut to a list.
    let Some(least) = filters.listed_least() else { return Ok(None) };
    let (Some(id), Some(user_seed), Some(top)) =
        (id, completion.contract.user_seed, completion.text.top_logprobs)
    else {
        if !asked {
            return Ok(None);
        }
        return refuse("needs an inference id, a `seed` and `logprobs`");
    };
    if completion.answers > 1 || completion.prompts.len() > 1 {
        if !asked {
            return Ok(None);
        }
        return refuse("is for one answer at a time");
    }
    let base_seed = match seed::derive(user_seed, id) {
        Ok(base_seed) => base_seed,
        Err(_) if !asked => return Ok(None),
        Err(error) => return refuse(&error.to_string()),
    };
    let listed = least.max(top).clamp(1, TOP_LOGPROBS_MAX);
    let view = json!({
        "contract_version": contract::VERSION, "seed_domain": seed::DOMAIN, "inference_id": id,
    });
    Ok(Some(Terms { draw: ContractDraw { base_seed, filters, listed }, view }))
}
