//! The chain's rules: each group on its own, because each may be absent.

use farm_core::gonka::{
    ChainParams, CollateralParams, ConfirmationParams, Decimal, DelegationParams, MintParams,
    ModelParams,
};
use serde_json::Value;

use super::super::fields::{Place, ShapeError};
use super::epoch::epoch_lengths;

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
