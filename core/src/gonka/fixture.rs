//! A mainnet-like chain for the tests of this module.

use roadbed_protocol::{Millis, UnixMillis};

use super::{BlockMoment, ChainEpoch, ConfirmationParams, Decimal, EpochStages, Height, Phase};

/// Stages as mainnet has them: 60 blocks of generation, 480 of validation.
pub fn stages(poc_start: i64, length: i64) -> EpochStages {
    let at = |blocks| Height(poc_start + blocks);
    EpochStages {
        epoch_index: 410,
        poc_start: at(0),
        poc_generation_wind_down: at(48),
        poc_generation_end: at(60),
        poc_validation_start: at(65),
        poc_validation_wind_down: at(449),
        poc_validation_end: at(545),
        set_new_validators: at(665),
        claim_money: at(666),
        next_poc_start: at(length),
    }
}

/// A block seen at time zero.
pub const fn moment(height: i64) -> BlockMoment {
    BlockMoment { height: Height(height), at: UnixMillis(0), block_time: Millis(5_350) }
}

/// Mainnet's confirmation params.
pub fn confirmation() -> ConfirmationParams {
    ConfirmationParams {
        expected_per_epoch: 4,
        alpha_threshold: Decimal::new(5, -1).unwrap(),
        cutoff: Some(2),
        exchange: Some(5),
        safety_window: Some(500),
    }
}

/// The epoch that began at 100 000, at `height`.
pub fn epoch(height: i64) -> ChainEpoch {
    ChainEpoch {
        height: Height(height),
        phase: Phase::Inference,
        stages: stages(100_000, 15_391),
        next_stages: None,
        confirmation: None,
    }
}
