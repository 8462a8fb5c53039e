//! All the chain's rules that are read, and the lengths of its stages.
//!
//! Each group may be absent: a private network need not have it, and an older chain did not. A rule that was not read is no
//! rule that can be reckoned with.

use super::{
    CollateralParams, ConfirmationParams, Decimal, EpochStages, Height, MintParams, ModelParams,
};

/// What the chain lays down (`.../inference/inference/params`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainParams {
    /// Lengths of an epoch's stages.
    pub epoch: Option<EpochLengths>,
    /// What an epoch mints.
    pub mint: Option<MintParams>,
    /// Collateral behind weight.
    pub collateral: Option<CollateralParams>,
    /// Confirmation PoC.
    pub confirmation: Option<ConfirmationParams>,
    /// What not serving an approved model costs.
    pub delegation: Option<DelegationParams>,
    /// Models that can be proved.
    pub models: Vec<ModelParams>,
    /// Epochs until a reward is paid out in full (`reward_vesting_period`).
    pub reward_vesting_epochs: Option<u64>,
    /// Share of missed inferences that the binomial test takes for honest (`binom_test_p0`).
    pub missed_share_honest: Option<Decimal>,
}

impl ChainParams {
    /// The rules of one model.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<&ModelParams> {
        self.models.iter().find(|model| model.model == id)
    }
}

/// Lengths in blocks (`epoch_params`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochLengths {
    /// From one PoC start to the next.
    pub epoch: i64,
    /// Generation.
    pub poc_stage: i64,
    /// From the end of generation until artifacts are no longer taken.
    pub poc_exchange: i64,
    /// From the end of generation to validation.
    pub poc_validation_delay: i64,
    /// Validation.
    pub poc_validation: i64,
    /// From the end of validation until the new weights stand.
    pub set_new_validators_delay: i64,
    /// Blocks before a PoC start in which no confirmation PoC is raised, if the chain says (`confirmation_poc_safety_window`).
    pub confirmation_safety: Option<i64>,
    /// Share of nodes that serve on through PoC (`poc_slot_allocation`).
    pub slot_allocation: Option<Decimal>,
}

impl EpochLengths {
    /// The stages of an epoch that starts at `poc_start`; wind-downs begin at 0.8 of their stage.
    #[must_use]
    pub const fn stages(&self, epoch_index: u64, poc_start: Height) -> EpochStages {
        let start = poc_start.0;
        let generation_end = start.saturating_add(self.poc_stage);
        let validation_start = generation_end.saturating_add(self.poc_validation_delay);
        let validation_end = validation_start.saturating_add(self.poc_validation);
        let set = validation_end.saturating_add(self.set_new_validators_delay);
        EpochStages {
            epoch_index,
            poc_start,
            poc_generation_wind_down: Height(start.saturating_add(four_fifths(self.poc_stage))),
            poc_generation_end: Height(generation_end),
            poc_validation_start: Height(validation_start),
            poc_validation_wind_down: Height(
                validation_start.saturating_add(four_fifths(self.poc_validation)),
            ),
            poc_validation_end: Height(validation_end),
            set_new_validators: Height(set),
            claim_money: Height(set.saturating_add(1)),
            next_poc_start: Height(start.saturating_add(self.epoch)),
        }
    }
}

const fn four_fifths(blocks: i64) -> i64 {
    blocks / 5 * 4 + blocks % 5 * 4 / 5
}

/// What a host answers for each approved model: serve, delegate, refuse, or lose more (`delegation_params`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelegationParams {
    /// Blocks before a PoC start at which intents are counted.
    pub deploy_window: Option<i64>,
    /// Share of the weight given up by delegating.
    pub delegation_share: Option<Decimal>,
    /// Share lost by refusing.
    pub refusal_penalty: Option<Decimal>,
    /// Share lost by saying nothing.
    pub no_participation_penalty: Option<Decimal>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The params of mainnet in 2026-02.
    #[test]
    fn stages_follow_from_lengths() {
        let lengths = EpochLengths {
            epoch: 15_391,
            poc_stage: 60,
            poc_exchange: 5,
            poc_validation_delay: 5,
            poc_validation: 480,
            set_new_validators_delay: 120,
            confirmation_safety: None,
            slot_allocation: None,
        };
        let stages = lengths.stages(7, Height(1_000));
        assert_eq!(stages.poc_generation_wind_down, Height(1_048));
        assert_eq!(stages.poc_generation_end, Height(1_060));
        assert_eq!(stages.poc_validation_start, Height(1_065));
        assert_eq!(stages.poc_validation_wind_down, Height(1_449));
        assert_eq!(stages.poc_validation_end, Height(1_545));
        assert_eq!(stages.set_new_validators, Height(1_665));
        assert_eq!(stages.claim_money, Height(1_666));
        assert_eq!(stages.next_poc_start, Height(16_391));
    }
}
