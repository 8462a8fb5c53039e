//! Weights, coefficients, money, models, prices and versions.

use farm_core::gonka::{
    ApprovedModel, DeclaredHardware, Delegations, EpochGroup, EpochResult, GroupMember, Height,
    ModelCoefficient, Ngonka, Settlement, TokenPrice, Versions,
};
use serde_json::Value;

use super::super::fields::{Place, ShapeError};
use super::epoch::nodes;

/// `.../current_epoch_group_data` and `.../epoch_group_data/{epoch}?model_id=`.
///
/// # Errors
/// [`ShapeError`] when a weight is no number.
pub fn epoch_group(answer: &Value) -> Result<EpochGroup, ShapeError> {
    let top = Place::top(answer).unwrapped("epoch_group_data");
    let weights = top.field("validation_weights");
    let members = weights
        .list()
        .map(|place| {
            Ok(GroupMember {
                address: place.field("member_address").needed_text()?.to_owned(),
                weight: place.field("weight").count_or_zero()?,
                confirmation_weight: place.field("confirmation_weight").count(),
                nodes: nodes(&place.field("ml_nodes")),
            })
        })
        .collect::<Result<Vec<_>, ShapeError>>()?;
    let sum = || members.iter().map(|member| u128::from(member.weight)).sum();
    Ok(EpochGroup {
        epoch_index: top.field("epoch_index").needed_count()?,
        model: top.field("model_id").text().map(str::to_owned),
        total_weight: top.field("total_weight").count().map_or_else(sum, u128::from),
        models: top.field("sub_group_models").texts(),
        coefficients: coefficients_of(&top.field("confirmation_weight_scales")),
        members,
    })
}

/// `.../dynamic_coefficients/{epoch}`; the list's own name is not documented.
///
/// # Errors
/// [`ShapeError`] when there is no list.
pub fn coefficients(answer: &Value) -> Result<Vec<ModelCoefficient>, ShapeError> {
    let list = Place::top(answer).any_list();
    let found = coefficients_of(&list);
    if found.is_empty() && list.list().next().is_some() {
        return Err(list.error("coefficients with a model and an effective coefficient"));
    }
    Ok(found)
}

fn coefficients_of(list: &Place<'_>) -> Vec<ModelCoefficient> {
    let one = |place: Place<'_>| {
        let config = place.field("config");
        let config = if config.is_there() { config } else { place.clone() };
        let bound = |names: &[&str]| config.either(names).decimal();
        Some(ModelCoefficient {
            model: place.field("model_id").text()?.to_owned(),
            // Before v0.2.16 the same list held the old factor.
            effective: place.either(&["effective_coefficient", "weight_scale_factor"]).decimal()?,
            base: place.field("base_coefficient").decimal(),
            bounds: bound(&["coeff_min", "min_coefficient"])
                .zip(bound(&["coeff_max", "max_coefficient"])),
        })
    };
    list.list().filter_map(one).collect()
}

/// `.../epoch_performance_summary/{epoch}/{address}`.
///
/// # Errors
/// [`ShapeError`].
pub fn epoch_result(answer: &Value) -> Result<EpochResult, ShapeError> {
    let top = Place::top(answer);
    let top = top.either(&["epochPerformanceSummary", "epoch_performance_summary"]);
    let top = if top.is_there() { top } else { Place::top(answer) };
    let coins = |name: &str| top.field(name).ngonka().unwrap_or_default();
    let count = |name: &str| top.field(name).count_or_zero();
    Ok(EpochResult {
        epoch_index: top.field("epoch_index").needed_count()?,
        inferences: count("inference_count")?,
        missed: count("missed_requests")?,
        invalidated: count("invalidated_inferences")?,
        earned: coins("earned_coins"),
        rewarded: coins("rewarded_coins"),
        burned: coins("burned_coins"),
        claimed: top.field("claimed").is_true(),
        reward_weight: top.field("participant_reward_weight").count(),
    })
}

/// `.../settle_amount/{address}`.
///
/// # Errors
/// [`ShapeError`].
pub fn settlement(answer: &Value) -> Result<Settlement, ShapeError> {
    let top = Place::top(answer).unwrapped("settle_amount");
    Ok(Settlement {
        epoch_index: top.field("epoch_index").count_or_zero()?,
        reward: top.field("reward_coins").ngonka().unwrap_or_default(),
        work: top.field("work_coins").ngonka().unwrap_or_default(),
    })
}

/// `.../poc_delegation/{address}`.
#[must_use]
pub fn delegations(answer: &Value) -> Delegations {
    let top = Place::top(answer);
    let text = |place: &Place<'_>, name: &str| place.field(name).text().map(str::to_owned);
    let models =
        |name: &str| top.field(name).list().filter_map(|it| text(&it, "model_id")).collect();
    Delegations {
        delegated: top
            .field("delegations")
            .list()
            .filter_map(|it| text(&it, "model_id").zip(text(&it, "delegate_to")))
            .collect(),
        refused: models("refusals"),
        intended: models("intents"),
    }
}

/// `.../collateral/collateral/{address}`: `{"amount": {"denom", "amount"}}`.
///
/// # Errors
/// [`ShapeError`].
pub fn collateral(answer: &Value) -> Result<Ngonka, ShapeError> {
    let amount = Place::top(answer).field("amount");
    let amount = amount.unwrapped("amount");
    amount.ngonka().ok_or_else(|| amount.error("an amount of ngonka"))
}

/// `.../streamvesting/total_vesting/{address}`: a list of coins, of which the first in ngonka counts.
///
/// # Errors
/// [`ShapeError`].
pub fn vesting(answer: &Value) -> Result<Ngonka, ShapeError> {
    let top = Place::top(answer);
    let list = top.either(&["total_amount", "total_vesting", "amount", "vesting"]);
    if let Some(whole) = list.ngonka() {
        return Ok(whole);
    }
    let mut coins = list.list();
    match coins.next() {
        None if list.is_there() => Ok(Ngonka(0)),
        None => Err(list.error("a list of coins")),
        Some(coin) => {
            let amount = coin.field("amount");
            amount.ngonka().ok_or_else(|| amount.error("an amount of ngonka"))
        }
    }
}

/// `/v1/models` and `/v1/governance/models`; OpenAI's list is taken as well.
///
/// # Errors
/// [`ShapeError`] when there is no list.
pub fn models(answer: &Value) -> Result<Vec<ApprovedModel>, ShapeError> {
    let list = Place::top(answer).either(&["models", "model", "data"]);
    if !list.is_there() {
        return Err(list.error("a list of models"));
    }
    let one = |place: Place<'_>| {
        Some(ApprovedModel {
            id: place.field("id").text()?.to_owned(),
            vram_gb: place.either(&["v_ram", "vram"]).count().filter(|gb| *gb > 0),
            args: place.field("model_args").texts(),
        })
    };
    Ok(list.list().filter_map(one).collect())
}

/// `/v1/pricing`.
///
/// # Errors
/// [`ShapeError`] when there is no list.
pub fn prices(answer: &Value) -> Result<Vec<TokenPrice>, ShapeError> {
    let list = Place::top(answer).field("models");
    if !list.is_there() {
        return Err(list.error("a list of models with prices"));
    }
    let one = |place: Place<'_>| {
        let price = place.field("price_per_token").ngonka();
        Some(TokenPrice { model: place.field("id").text()?.to_owned(), price })
    };
    Ok(list.list().filter_map(one).collect())
}

/// `/v1/versions`.
#[must_use]
pub fn versions(answer: &Value) -> Versions {
    let top = Place::top(answer);
    let version = |name: &str| {
        let part = top.field(name);
        part.field("version").text().or(part.text()).unwrap_or_default().to_owned()
    };
    Versions { api: version("api_version"), node: version("node_version") }
}

/// `.../hardware_nodes/{address}`.
#[must_use]
pub fn hardware(answer: &Value) -> Vec<DeclaredHardware> {
    let nodes = Place::top(answer).field("nodes");
    let list = nodes.either(&["hardware_nodes", "hardwareNodes"]);
    let cards = |place: &Place<'_>| {
        let one = |card: Place<'_>| {
            Some((card.field("type").text()?.to_owned(), card.field("count").count().unwrap_or(0)))
        };
        place.field("hardware").list().filter_map(one).collect()
    };
    let one = |place: Place<'_>| {
        let node_id = place.either(&["local_id", "localId"]).text()?.to_owned();
        Some(DeclaredHardware { node_id, cards: cards(&place) })
    };
    list.list().filter_map(one).collect()
}

/// `/chain-rpc/status` of CometBFT: the newest block, and whether the node still catches up.
///
/// # Errors
/// [`ShapeError`] without a height.
pub fn comet_status(answer: &Value) -> Result<(Height, bool), ShapeError> {
    let sync = Place::top(answer).unwrapped("result").field("sync_info");
    Ok((sync.field("latest_block_height").needed_height()?, sync.field("catching_up").is_true()))
}
