//! The chain: a height, and what follows from it: epochs, stages, confirmation PoCs, block hashes.
//!
//! Pure: nobody but the driver moves the height, and everything else is computed from it, so a test that steps to a height
//! finds the same chain in every run. Formulas: `x/inference/types/epoch_context.go` of the original.

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Lengths in blocks, as the chain's `epoch_params` name them; by default so small that a test steps through an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EpochParams {
    /// From one PoC start to the next.
    pub epoch_length: i64,
    /// Generation, the wind-down (its last fifth) included.
    pub poc_stage_duration: i64,
    /// Blocks after the generation in which artifacts are still taken.
    pub poc_exchange_duration: i64,
    /// Blocks from the end of generation to the start of validation; not below the exchange.
    pub poc_validation_delay: i64,
    /// Validation, the wind-down (its last fifth) included.
    pub poc_validation_duration: i64,
    /// Blocks from the end of validation until the new weights stand.
    pub set_new_validators_delay: i64,
    /// Confirmation PoCs of an epoch.
    pub confirmations: u32,
    /// Blocks from the trigger of a confirmation PoC to its generation.
    pub confirmation_grace: i64,
    /// Generation of a confirmation PoC.
    pub confirmation_generation: i64,
    /// Validation of a confirmation PoC.
    pub confirmation_validation: i64,
    /// Last blocks of an epoch in which no confirmation PoC is raised.
    pub confirmation_quiet: i64,
}

impl Default for EpochParams {
    fn default() -> Self {
        Self {
            epoch_length: 80,
            poc_stage_duration: 10,
            poc_exchange_duration: 2,
            poc_validation_delay: 3,
            poc_validation_duration: 10,
            set_new_validators_delay: 2,
            confirmations: 2,
            confirmation_grace: 1,
            confirmation_generation: 5,
            confirmation_validation: 5,
            confirmation_quiet: 5,
        }
    }
}

impl EpochParams {
    /// The first length that makes no sense: its field, and what was expected there.
    #[must_use]
    pub fn first_fault(&self) -> Option<(&'static str, &'static str)> {
        let lengths = [
            ("poc_stage_duration", self.poc_stage_duration, 2),
            ("poc_exchange_duration", self.poc_exchange_duration, 1),
            ("poc_validation_delay", self.poc_validation_delay, self.poc_exchange_duration),
            ("poc_validation_duration", self.poc_validation_duration, 2),
            ("set_new_validators_delay", self.set_new_validators_delay, 1),
            ("confirmation_grace", self.confirmation_grace, 1),
            ("confirmation_generation", self.confirmation_generation, 1),
            ("confirmation_validation", self.confirmation_validation, 1),
            ("confirmation_quiet", self.confirmation_quiet, 0),
        ];
        for (field, length, least) in lengths {
            if length < least {
                return Some((field, "more blocks expected"));
            }
        }
        let stages = self.stages(0, 0);
        let room = self.epoch_length - self.confirmation_quiet - stages.claim_money - 1;
        if room < i64::from(self.confirmations) * self.confirmation_blocks() {
            return Some(("epoch_length", "room for all stages and confirmation PoCs expected"));
        }
        None
    }

    /// The heights at which an epoch's stages begin.
    #[must_use]
    pub const fn stages(&self, epoch_index: u64, poc_start: i64) -> Stages {
        let end = poc_start + self.poc_stage_duration;
        let validation = end + self.poc_validation_delay;
        let set_new_validators =
            validation + self.poc_validation_duration + self.set_new_validators_delay;
        Stages {
            epoch_index,
            poc_start,
            poc_generation_wind_down: poc_start + self.poc_stage_duration * 4 / 5,
            poc_generation_end: end,
            poc_exchange_end: end + self.poc_exchange_duration,
            poc_validation_start: validation,
            poc_validation_wind_down: validation + self.poc_validation_duration * 4 / 5,
            poc_validation_end: validation + self.poc_validation_duration,
            set_new_validators,
            claim_money: set_new_validators + 1,
            next_poc_start: poc_start + self.epoch_length,
        }
    }

    const fn confirmation_blocks(&self) -> i64 {
        self.confirmation_grace
            + self.confirmation_generation
            + self.poc_exchange_duration
            + 1
            + self.confirmation_validation
            + 1
    }
}

/// The heights at which an epoch's stages begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the chain's own names, explained in EpochParams")]
pub struct Stages {
    pub epoch_index: u64,
    pub poc_start: i64,
    pub poc_generation_wind_down: i64,
    pub poc_generation_end: i64,
    /// Last block at which artifacts are taken.
    pub poc_exchange_end: i64,
    pub poc_validation_start: i64,
    pub poc_validation_wind_down: i64,
    pub poc_validation_end: i64,
    pub set_new_validators: i64,
    pub claim_money: i64,
    pub next_poc_start: i64,
}

impl Stages {
    /// As `/v1/epochs/latest` writes them.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "epoch_index": self.epoch_index,
            "poc_start": self.poc_start,
            "poc_generation_wind_down": self.poc_generation_wind_down,
            "poc_generation_end": self.poc_generation_end,
            "poc_validation_start": self.poc_validation_start,
            "poc_validation_wind_down": self.poc_validation_wind_down,
            "poc_validation_end": self.poc_validation_end,
            "set_new_validators": self.set_new_validators,
            "claim_money": self.claim_money,
            "next_poc_start": self.next_poc_start,
            "poc_exchange_window": { "start": self.poc_start + 1, "end": self.poc_exchange_end },
            "poc_validation_exchange_window":
                { "start": self.poc_validation_start + 1, "end": self.set_new_validators },
        })
    }
}

/// Where in its epoch the chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Artifacts are made.
    Generate,
    /// The last fifth of that, and the blocks until validation.
    GenerateWindDown,
    /// Others are checked.
    Validate,
    /// The last fifth of that.
    ValidateWindDown,
    /// All the rest.
    Inference,
}

impl Phase {
    /// The chain's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Generate => "PoCGenerate",
            Self::GenerateWindDown => "PoCGenerateWindDown",
            Self::Validate => "PoCValidate",
            Self::ValidateWindDown => "PoCValidateWindDown",
            Self::Inference => "Inference",
        }
    }
}

/// A confirmation PoC. Its stage is named by the height that triggered it, its seeds by the block before its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the chain's own names")]
pub struct Confirmation {
    pub epoch_index: u64,
    pub event_sequence: u64,
    pub trigger_height: i64,
    pub generation_start_height: i64,
    pub generation_end_height: i64,
    /// Last block at which artifacts are taken.
    pub exchange_end: i64,
    pub validation_start_height: i64,
    pub validation_end_height: i64,
}

/// How far a confirmation PoC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmationPhase {
    /// Announced; requests run out.
    Grace,
    /// Artifacts are made.
    Generation,
    /// Others are checked.
    Validation,
    /// Over.
    Completed,
}

impl ConfirmationPhase {
    /// The number in the chain's enumeration.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Grace => 1,
            Self::Generation => 2,
            Self::Validation => 3,
            Self::Completed => 4,
        }
    }

    /// The name in the chain's enumeration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Grace => "CONFIRMATION_POC_GRACE_PERIOD",
            Self::Generation => "CONFIRMATION_POC_GENERATION",
            Self::Validation => "CONFIRMATION_POC_VALIDATION",
            Self::Completed => "CONFIRMATION_POC_COMPLETED",
        }
    }
}

impl Confirmation {
    /// How far it is at a height from its trigger on.
    #[must_use]
    pub const fn phase_at(&self, height: i64) -> ConfirmationPhase {
        if height < self.generation_start_height {
            ConfirmationPhase::Grace
        } else if height < self.validation_start_height {
            ConfirmationPhase::Generation
        } else if height <= self.validation_end_height {
            ConfirmationPhase::Validation
        } else {
            ConfirmationPhase::Completed
        }
    }
}

/// The chain at a height.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Lengths.
    pub params: EpochParams,
    /// What hashes and heights of confirmation PoCs are drawn from.
    pub seed: u64,
    /// Start of the epoch `first_epoch`.
    pub first_poc_start: i64,
    /// Number of the epoch that begins there.
    pub first_epoch: u64,
    /// Newest block.
    pub height: i64,
}

impl Chain {
    /// Stages of the epoch that the newest PoC start belongs to (`latest_epoch`).
    #[must_use]
    pub const fn stages(&self) -> Stages {
        self.stages_at(self.height)
    }

    /// Stages of the epoch of a height.
    #[must_use]
    pub const fn stages_at(&self, height: i64) -> Stages {
        let past = (height - self.first_poc_start).div_euclid(self.params.epoch_length);
        let start = self.first_poc_start + past * self.params.epoch_length;
        self.params.stages(self.first_epoch.saturating_add_signed(past), start)
    }

    /// Stages of an epoch by its number.
    #[must_use]
    pub const fn stages_of(&self, epoch: u64) -> Stages {
        let past = epoch as i64 - self.first_epoch as i64;
        self.params.stages(epoch, self.first_poc_start + past * self.params.epoch_length)
    }

    /// The epoch whose weights stand: the latest one only from `set_new_validators` on.
    #[must_use]
    pub const fn effective_epoch(&self) -> u64 {
        let stages = self.stages();
        if self.height < stages.set_new_validators {
            stages.epoch_index - 1
        } else {
            stages.epoch_index
        }
    }

    /// Where in its epoch the chain is. The epoch before the first had no PoC.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        let (at, stages) = (self.height, self.stages());
        if at < self.first_poc_start || at >= stages.poc_validation_end {
            Phase::Inference
        } else if at < stages.poc_generation_wind_down {
            Phase::Generate
        } else if at < stages.poc_validation_start {
            Phase::GenerateWindDown
        } else if at < stages.poc_validation_wind_down {
            Phase::Validate
        } else {
            Phase::ValidateWindDown
        }
    }

    /// The confirmation PoC that is announced or under way.
    #[must_use]
    pub fn confirmation(&self) -> Option<Confirmation> {
        self.confirmations(&self.stages()).into_iter().find(|event| {
            event.trigger_height <= self.height && self.height <= event.validation_end_height
        })
    }

    /// The confirmation PoCs of an epoch: one in each equal part of the time for them, where the seed says.
    #[must_use]
    pub fn confirmations(&self, stages: &Stages) -> Vec<Confirmation> {
        if stages.poc_start < self.first_poc_start || self.params.confirmations == 0 {
            return Vec::new();
        }
        let from = stages.claim_money + 1;
        let until = stages.next_poc_start - self.params.confirmation_quiet;
        let part = (until - from) / i64::from(self.params.confirmations);
        let spare = part - self.params.confirmation_blocks();
        (0..u64::from(self.params.confirmations))
            .zip(0_i64..)
            .map(|(event_sequence, place)| {
                let draw = self.draw(&format!("cpoc:{}:{event_sequence}", stages.epoch_index));
                let trigger_height = from + place * part + draw.rem_euclid(spare + 1);
                let start = trigger_height + self.params.confirmation_grace;
                let end = start + self.params.confirmation_generation;
                let validation = end + self.params.poc_exchange_duration + 1;
                Confirmation {
                    epoch_index: stages.epoch_index,
                    event_sequence,
                    trigger_height,
                    generation_start_height: start,
                    generation_end_height: end,
                    exchange_end: end + self.params.poc_exchange_duration,
                    validation_start_height: validation,
                    validation_end_height: validation + self.params.confirmation_validation,
                }
            })
            .collect()
    }

    /// Hash of a block, upper case.
    #[must_use]
    pub fn hash(&self, height: i64) -> String {
        let digest = Sha256::digest(format!("{}:block:{height}", self.seed));
        digest.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The seed's number for a purpose, from 0.
    #[must_use]
    pub fn draw(&self, purpose: &str) -> i64 {
        let digest = Sha256::digest(format!("{}:{purpose}", self.seed));
        let first = digest.iter().take(7).fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
        first.max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(height: i64) -> Chain {
        let params = EpochParams::default();
        Chain { params, seed: 7, first_poc_start: 1_000, first_epoch: 410, height }
    }

    #[test]
    fn mainnet_heights_are_those_of_the_documents() {
        let params = EpochParams {
            epoch_length: 15_391,
            poc_stage_duration: 60,
            poc_exchange_duration: 5,
            poc_validation_delay: 5,
            poc_validation_duration: 480,
            set_new_validators_delay: 120,
            ..EpochParams::default()
        };
        let stages = params.stages(410, 0);
        assert_eq!((stages.poc_generation_wind_down, stages.poc_generation_end), (48, 60));
        assert_eq!((stages.poc_exchange_end, stages.poc_validation_start), (65, 65));
        assert_eq!((stages.poc_validation_wind_down, stages.poc_validation_end), (449, 545));
        assert_eq!((stages.set_new_validators, stages.claim_money), (665, 666));
        assert_eq!(stages.next_poc_start, 15_391);
    }

    #[test]
    fn phases_follow_the_height() {
        let at = |height| (chain(height).phase(), chain(height).effective_epoch());
        assert_eq!(at(999), (Phase::Inference, 409));
        assert_eq!(at(1_000), (Phase::Generate, 409));
        assert_eq!(at(1_008), (Phase::GenerateWindDown, 409));
        assert_eq!(at(1_013), (Phase::Validate, 409));
        assert_eq!(at(1_021), (Phase::ValidateWindDown, 409));
        assert_eq!(at(1_023), (Phase::Inference, 409));
        assert_eq!(at(1_025), (Phase::Inference, 410));
        assert_eq!(at(1_080), (Phase::Generate, 410));
        assert_eq!(chain(1_080).stages(), chain(0).stages_of(411));
    }

    #[test]
    fn confirmation_pocs_lie_between_claim_and_the_quiet_end() {
        for seed in 0..200 {
            let chain = Chain { seed, ..chain(1_030) };
            let stages = chain.stages();
            let events = chain.confirmations(&stages);
            assert_eq!(events.len(), 2);
            let mut free_from = stages.claim_money + 1;
            for event in events {
                assert!(event.trigger_height >= free_from, "{event:?}");
                free_from = event.validation_end_height + 1;
            }
            assert!(free_from <= stages.next_poc_start - chain.params.confirmation_quiet);
        }
        assert!(chain(0).confirmations(&chain(0).stages()).is_empty(), "no PoC before the first");
        assert_eq!(EpochParams::default().first_fault(), None);
        let cramped = EpochParams { epoch_length: 30, ..EpochParams::default() };
        assert!(cramped.first_fault().is_some());
    }
}
