//! Answers of a Network Node into the chain's own words.
//!
//! Pure: a JSON value in, typed facts or the name of the field that cannot be read out. Shapes are those of the chain's
//! own messages (`inference-chain/proto` of gonka-ai/gonka, releases v0.2.10 to v0.2.16); where releases differ, all known
//! spellings are taken.

use farm_core::gonka::{
    ApprovedModel, ChainEpoch, ChainParams, CollateralParams, ConfirmationEvent,
    ConfirmationParams, ConfirmationPhase, Decimal, DeclaredHardware, DelegationParams,
    Delegations, EpochGroup, EpochLengths, EpochResult, EpochStages, GroupMember, Height,
    MintParams, MlNodeWeight, ModelCoefficient, ModelParams, Ngonka, NodeStatus, Participant,
    Participants, Phase, RegisteredNode, Settlement, StageWindow, TokenPrice, Versions,
};
use roadbed_protocol::UnixMillis;
use serde_json::Value;

use super::fields::{Place, ShapeError};
use crate::config::Moment;

/// `/v1/epochs/latest`.
///
/// # Errors
/// [`ShapeError`] without a height, a phase or the epoch's stages.
pub fn chain_epoch(answer: &Value) -> Result<ChainEpoch, ShapeError> {
    let top = Place::top(answer);
    let lengths = epoch_lengths(&top.field("epoch_params"));
    let latest = top.field("latest_epoch");
    let stages = if top.field("epoch_stages").is_there() {
        stages(&top.field("epoch_stages"))?
    } else {
        // An older answer has the anchor and the lengths only.
        let lengths = lengths.ok_or_else(|| top.field("epoch_stages").error("the stages"))?;
        let start = latest.field("poc_start_block_height").needed_height()?;
        lengths.stages(latest.field("index").count_or_zero()?, start)
    };
    let next = top.field("next_epoch_stages");
    let event = top.field("active_confirmation_poc_event");
    Ok(ChainEpoch {
        height: top.field("block_height").needed_height()?,
        phase: phase(&top.field("phase"))?,
        next_stages: self::stages(&next).ok(),
        confirmation: event.is_there().then(|| confirmation_event(&event, lengths)).flatten(),
        stages,
    })
}

fn phase(place: &Place<'_>) -> Result<Phase, ShapeError> {
    let word = match (place.text(), place.whole()) {
        (Some("PoCGenerate"), _) | (None, Some(0)) => Phase::PocGenerate,
        (Some("PoCGenerateWindDown"), _) | (None, Some(1)) => Phase::PocGenerateWindDown,
        (Some("PoCValidate"), _) | (None, Some(2)) => Phase::PocValidate,
        (Some("PoCValidateWindDown"), _) | (None, Some(3)) => Phase::PocValidateWindDown,
        (Some("Inference"), _) | (None, Some(4)) => Phase::Inference,
        (Some(_) | None, _) => return Err(place.error("a phase like \"PoCGenerate\"")),
    };
    Ok(word)
}

fn stages(place: &Place<'_>) -> Result<EpochStages, ShapeError> {
    let at = |name: &str| place.field(name).needed_height();
    Ok(EpochStages {
        epoch_index: place.field("epoch_index").count_or_zero()?,
        poc_start: at("poc_start")?,
        poc_generation_wind_down: place
            .either(&["poc_generation_wind_down", "poc_generation_winddown"])
            .needed_height()?,
        poc_generation_end: at("poc_generation_end")?,
        poc_validation_start: at("poc_validation_start")?,
        poc_validation_wind_down: place
            .either(&["poc_validation_wind_down", "poc_validation_winddown"])
            .needed_height()?,
        poc_validation_end: at("poc_validation_end")?,
        set_new_validators: at("set_new_validators")?,
        claim_money: at("claim_money")?,
        next_poc_start: at("next_poc_start")?,
    })
}

fn epoch_lengths(place: &Place<'_>) -> Option<EpochLengths> {
    let blocks = |name: &str| place.field(name).blocks();
    Some(EpochLengths {
        epoch: blocks("epoch_length")?,
        poc_stage: blocks("poc_stage_duration")?,
        poc_exchange: blocks("poc_exchange_duration").unwrap_or(0),
        poc_validation_delay: blocks("poc_validation_delay").unwrap_or(0),
        poc_validation: blocks("poc_validation_duration")?,
        set_new_validators_delay: blocks("set_new_validators_delay").unwrap_or(0),
        confirmation_safety: blocks("confirmation_poc_safety_window"),
        slot_allocation: place.field("poc_slot_allocation").decimal(),
    })
}

/// One event. All its heights follow from the height at which it generates, by the epoch's lengths; without those, or when
/// it is not under way any more, there is none.
fn confirmation_event(
    place: &Place<'_>,
    lengths: Option<EpochLengths>,
) -> Option<ConfirmationEvent> {
    let phase = confirmation_phase(&place.field("phase"));
    let trigger = place.field("trigger_height").height()?;
    let start = place.field("generation_start_height").height().unwrap_or(trigger);
    let at = |name: &str| place.field(name).height().filter(|height| height.0 > 0);
    let reckoned = lengths.map(|lengths| lengths.stages(0, start));
    let generation_end =
        at("generation_end_height").or(reckoned.map(|stages| stages.poc_generation_end))?;
    let validation_start =
        at("validation_start_height").or(reckoned.map(|stages| stages.poc_validation_start))?;
    let validation_end =
        at("validation_end_height").or(reckoned.map(|stages| stages.poc_validation_end))?;
    Some(ConfirmationEvent {
        sequence: place.field("event_sequence").count().unwrap_or(0),
        trigger,
        generation: StageWindow { start, end: generation_end },
        validation: StageWindow { start: validation_start, end: validation_end },
        phase,
    })
}

fn confirmation_phase(place: &Place<'_>) -> ConfirmationPhase {
    match (place.text(), place.whole()) {
        (Some("CONFIRMATION_POC_GRACE_PERIOD"), _) | (None, Some(1)) => ConfirmationPhase::Grace,
        (Some("CONFIRMATION_POC_GENERATION"), _) | (None, Some(2)) => ConfirmationPhase::Generation,
        (Some("CONFIRMATION_POC_VALIDATION"), _) | (None, Some(3)) => ConfirmationPhase::Validation,
        (Some("CONFIRMATION_POC_COMPLETED"), _) | (None, Some(4)) => ConfirmationPhase::Completed,
        // The encoder leaves zero out.
        (Some(_) | None, _) => ConfirmationPhase::Inactive,
    }
}

/// `.../active_confirmation_poc_event`: the event under way, if there is one.
#[must_use]
pub fn active_confirmation(
    answer: &Value,
    lengths: Option<EpochLengths>,
) -> Option<ConfirmationEvent> {
    let top = Place::top(answer);
    let event = top.either(&["event", "active_event", "active_confirmation_poc_event"]);
    let event = if event.is_there() { event } else { top };
    confirmation_event(&event, lengths)
}

/// `.../confirmation_poc_events`.
#[must_use]
pub fn confirmations(answer: &Value, lengths: Option<EpochLengths>) -> Vec<ConfirmationEvent> {
    let top = Place::top(answer);
    top.field("events").list().filter_map(|place| confirmation_event(&place, lengths)).collect()
}

/// `/v1/epochs/{current|id}/participants`.
///
/// # Errors
/// [`ShapeError`] without the list of participants.
pub fn participants(answer: &Value) -> Result<Participants, ShapeError> {
    let top = Place::top(answer).unwrapped("active_participants");
    let hosts = top.field("participants");
    if !hosts.is_there() {
        return Err(hosts.error("the list of participants"));
    }
    let epoch = top.either(&["epoch_id", "epoch_index", "epoch_group_id"]);
    let epoch = if epoch.is_there() { epoch } else { Place::top(answer).field("epoch_id") };
    Ok(Participants {
        epoch_index: epoch.count_or_zero()?,
        poc_start: top
            .either(&["poc_start_block_height", "poc_start_height"])
            .height()
            .unwrap_or_default(),
        hosts: hosts.list().map(|host| participant(&host)).collect::<Result<_, _>>()?,
    })
}

fn participant(place: &Place<'_>) -> Result<Participant, ShapeError> {
    let groups = place.field("ml_nodes");
    // One group of MLNodes for each model, in the order of `models`.
    let nodes = groups.list().flat_map(|group| nodes(&group.unwrapped("ml_nodes")));
    Ok(Participant {
        address: place.either(&["index", "address"]).needed_text()?.to_owned(),
        weight: place.field("weight").count_or_zero()?,
        models: place.field("models").texts(),
        nodes: nodes.collect(),
    })
}

fn nodes(place: &Place<'_>) -> Vec<MlNodeWeight> {
    let node = |place: Place<'_>| {
        let slots = place.field("timeslot_allocation");
        let mut slots = slots.list().map(|slot| slot.is_true());
        Some(MlNodeWeight {
            node_id: place.field("node_id").text()?.to_owned(),
            poc_weight: place.field("poc_weight").count().unwrap_or(0),
            timeslots: [slots.next().unwrap_or(false), slots.next().unwrap_or(false)],
        })
    };
    place.list().filter_map(node).collect()
}

/// `.../inference/inference/params`.
///
/// # Errors
/// [`ShapeError`] without any group of params.
pub fn chain_params(answer: &Value) -> Result<ChainParams, ShapeError> {
    let top = Place::top(answer).field("params");
    if !top.is_there() {
        return Err(top.error("the params"));
    }
    Ok(ChainParams {
        epoch: epoch_lengths(&top.field("epoch_params")),
        mint: mint(&top.field("bitcoin_reward_params")),
        collateral: collateral_params(&top.field("collateral_params")),
        confirmation: confirmation_params(&top),
        delegation: delegation_params(&top.field("delegation_params")),
        models: model_params(&top.field("poc_params")),
        reward_vesting_epochs: top
            .field("tokenomics_params")
            .field("reward_vesting_period")
            .count(),
        missed_share_honest: top.field("validation_params").field("binom_test_p0").decimal(),
    })
}

fn mint(place: &Place<'_>) -> Option<MintParams> {
    Some(MintParams {
        initial: place.field("initial_epoch_reward").ngonka()?,
        decay: place.field("decay_rate").decimal()?,
        genesis_epoch: place.field("genesis_epoch").count().unwrap_or(0),
    })
}

/// A decimal that the encoder left out is zero; so a group that is there has all of its shares.
fn share(place: &Place<'_>) -> Decimal {
    place.decimal().unwrap_or(Decimal { value: 0, exponent: 0 })
}

fn collateral_params(place: &Place<'_>) -> Option<CollateralParams> {
    Some(CollateralParams {
        grace_period_end_epoch: place.field("grace_period_end_epoch").count().unwrap_or(0),
        base_weight_ratio: place.field("base_weight_ratio").decimal()?,
        per_weight_unit: share(&place.field("collateral_per_weight_unit")),
        slash_fraction_invalid: share(&place.field("slash_fraction_invalid")),
        slash_fraction_downtime: share(&place.field("slash_fraction_downtime")),
    })
}

/// Confirmation PoC, with the three lengths of the epoch that bound when one may start.
fn confirmation_params(params: &Place<'_>) -> Option<ConfirmationParams> {
    let (own, epoch) = (params.field("confirmation_poc_params"), params.field("epoch_params"));
    let small = |place: Place<'_>| place.count().and_then(|count| u32::try_from(count).ok());
    Some(ConfirmationParams {
        expected_per_epoch: small(own.field("expected_confirmations_per_epoch"))?,
        alpha_threshold: share(&own.field("alpha_threshold")),
        cutoff: small(epoch.field("inference_validation_cutoff")),
        exchange: small(epoch.field("poc_exchange_duration")),
        safety_window: small(epoch.field("confirmation_poc_safety_window")),
    })
}

fn delegation_params(place: &Place<'_>) -> Option<DelegationParams> {
    place.is_there().then(|| DelegationParams {
        deploy_window: place.field("deploy_window").blocks(),
        delegation_share: place.either(&["delegation_share", "delegation_penalty"]).decimal(),
        refusal_penalty: place.field("refusal_penalty").decimal(),
        no_participation_penalty: place.field("no_participation_penalty").decimal(),
    })
}

/// The models with their own params; an older chain has one model and its params beside the list.
fn model_params(place: &Place<'_>) -> Vec<ModelParams> {
    let models: Vec<ModelParams> =
        place.field("models").list().filter_map(|model| one_model(&model)).collect();
    if models.is_empty() { one_model(place).into_iter().collect() } else { models }
}

fn one_model(place: &Place<'_>) -> Option<ModelParams> {
    Some(ModelParams {
        model: place.field("model_id").text()?.to_owned(),
        seq_len: place.field("seq_len").count().and_then(|len| u32::try_from(len).ok())?,
        coefficient: place.field("weight_scale_factor").decimal(),
        vram_gb: None,
        dist_threshold: place.field("stat_test").field("dist_threshold").decimal(),
        penalty_start_epoch: place.field("penalty_start_epoch").count(),
    })
}

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

/// `GET /admin/v1/nodes`: a list of `{"node", "state"}`.
///
/// # Errors
/// [`ShapeError`] when it is no list.
pub fn registered(answer: &Value) -> Result<Vec<RegisteredNode>, ShapeError> {
    let top = Place::top(answer);
    let list = if answer.is_array() { top } else { top.field("nodes") };
    if !list.is_there() {
        return Err(list.error("a list of nodes"));
    }
    Ok(list.list().filter_map(|place| registered_node(&place)).collect())
}

fn registered_node(place: &Place<'_>) -> Option<RegisteredNode> {
    let (node, state) = (place.unwrapped("node"), place.field("state"));
    let status = |name: &str| node_status(state.field(name).text().unwrap_or_default());
    let text = |place: Place<'_>| place.text().map(str::to_owned);
    let admin = state.field("admin_state");
    // An enabled node is written as a word, as true, or as an object with a field, depending on the release.
    let enabled = admin.truth().or_else(|| admin.field("enabled").truth());
    let disabled = enabled == Some(false)
        || admin.text().is_some_and(|word| word.eq_ignore_ascii_case("disabled"));
    Some(RegisteredNode {
        id: node.field("id").text()?.to_owned(),
        node_num: node.either(&["node_num", "nodeNum"]).count(),
        models: node.field("models").keys(),
        intended: status("intended_status"),
        current: status("current_status"),
        poc_intended: text(state.field("poc_intended_status")),
        poc_current: text(state.field("poc_current_status")),
        failure: text(state.field("failure_reason")),
        status_at: state.field("status_timestamp").text().and_then(moment),
        enabled: !disabled,
        epoch_models: state.field("epoch_models").keys(),
    })
}

/// Go's RFC 3339 with up to nine digits of a second, which say nothing here.
fn moment(text: &str) -> Option<UnixMillis> {
    let whole = match text.split_once('.') {
        Some((whole, rest)) => {
            let offset = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            format!("{whole}{offset}")
        }
        None => text.to_owned(),
    };
    // Go writes a time that was never set as the year 1.
    whole.parse::<Moment>().ok().map(|moment| moment.0)
}

fn node_status(word: &str) -> NodeStatus {
    match word {
        "" | "UNKNOWN" => NodeStatus::Unknown,
        "INFERENCE" => NodeStatus::Inference,
        "POC" => NodeStatus::Poc,
        "TRAINING" => NodeStatus::Training,
        "STOPPED" => NodeStatus::Stopped,
        "FAILED" => NodeStatus::Failed,
        _ => NodeStatus::Other,
    }
}
