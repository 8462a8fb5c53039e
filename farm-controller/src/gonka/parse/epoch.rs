//! Where the chain stands, its stages, its confirmation PoCs and its hosts.

use farm_core::gonka::{
    ChainEpoch, ConfirmationEvent, ConfirmationPhase, EpochLengths, EpochStages, MlNodeWeight,
    Participant, Participants, Phase, StageWindow,
};
use serde_json::Value;

use super::super::fields::{Place, ShapeError};

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
    // Also written POC_GENERATE_WIND_DOWN and the like by some of the chain's tools.
    let plain = place.text().map(|word| word.replace('_', "").to_ascii_lowercase());
    let word = match (plain.as_deref(), place.whole()) {
        (Some("pocgenerate"), _) | (None, Some(0)) => Phase::PocGenerate,
        (Some("pocgeneratewinddown"), _) | (None, Some(1)) => Phase::PocGenerateWindDown,
        (Some("pocvalidate"), _) | (None, Some(2)) => Phase::PocValidate,
        (Some("pocvalidatewinddown"), _) | (None, Some(3)) => Phase::PocValidateWindDown,
        (Some("inference"), _) | (None, Some(4)) => Phase::Inference,
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

pub(super) fn epoch_lengths(place: &Place<'_>) -> Option<EpochLengths> {
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

pub(super) fn nodes(place: &Place<'_>) -> Vec<MlNodeWeight> {
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
