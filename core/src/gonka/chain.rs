//! The chain's own words: heights, stages, participants and their weights.
//!
//! Field names and units are those of the Network Node's answers (`/v1/epochs/latest`, `/v1/epochs/current/participants`,
//! the `inference` module's params). Heights are the only clock the chain has; a time is always an estimate made from them.

use std::fmt;

use roadbed_protocol::{Millis, UnixMillis};

use super::Decimal;

/// Height of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Height(pub i64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Billionths of a GNK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ngonka(pub u128);

/// Where a chain is in its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nonces are computed.
    PocGenerate,
    /// The last fifth of it.
    PocGenerateWindDown,
    /// Others' nonces are recomputed.
    PocValidate,
    /// The last fifth of it.
    PocValidateWindDown,
    /// Everything else.
    Inference,
}

/// A stretch of blocks, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StageWindow {
    /// First block.
    pub start: Height,
    /// First block after it.
    pub end: Height,
}

/// The heights at which one epoch's stages begin (`epoch_stages`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EpochStages {
    /// Which epoch.
    pub epoch_index: u64,
    /// Proof of Compute begins.
    pub poc_start: Height,
    /// No new work is begun.
    pub poc_generation_wind_down: Height,
    /// Generation is over.
    pub poc_generation_end: Height,
    /// Validation begins.
    pub poc_validation_start: Height,
    /// No new validation is begun.
    pub poc_validation_wind_down: Height,
    /// Validation is over.
    pub poc_validation_end: Height,
    /// The new weights stand.
    pub set_new_validators: Height,
    /// Rewards of the epoch before can be claimed.
    pub claim_money: Height,
    /// The next epoch begins.
    pub next_poc_start: Height,
}

impl EpochStages {
    /// The stages of the epoch after this one, as long as this one: for when the chain does not tell them.
    #[must_use]
    pub fn following(&self) -> Self {
        let length = self.next_poc_start.0.saturating_sub(self.poc_start.0);
        let later = |height: Height| Height(height.0.saturating_add(length));
        Self {
            epoch_index: self.epoch_index.saturating_add(1),
            poc_start: later(self.poc_start),
            poc_generation_wind_down: later(self.poc_generation_wind_down),
            poc_generation_end: later(self.poc_generation_end),
            poc_validation_start: later(self.poc_validation_start),
            poc_validation_wind_down: later(self.poc_validation_wind_down),
            poc_validation_end: later(self.poc_validation_end),
            set_new_validators: later(self.set_new_validators),
            claim_money: later(self.claim_money),
            next_poc_start: later(self.next_poc_start),
        }
    }
}

/// Where a confirmation PoC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfirmationPhase {
    /// None is under way.
    Inactive,
    /// It is announced; open answers finish.
    Grace,
    /// Nonces are computed.
    Generation,
    /// Nonces are recomputed.
    Validation,
    /// Its weights are recorded.
    Completed,
}

/// A confirmation PoC (`active_confirmation_poc_event`, `confirmation_poc_events`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConfirmationEvent {
    /// Which one of the epoch, from 0.
    pub sequence: u64,
    /// Height that starts it.
    pub trigger: Height,
    /// Generation.
    pub generation: StageWindow,
    /// Validation.
    pub validation: StageWindow,
    /// Where it is, by the chain's own word.
    pub phase: ConfirmationPhase,
}

/// Where the chain stands (`/v1/epochs/latest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEpoch {
    /// Newest block.
    pub height: Height,
    /// Where it is in its epoch.
    pub phase: Phase,
    /// This epoch.
    pub stages: EpochStages,
    /// The next one.
    pub next_stages: Option<EpochStages>,
    /// A confirmation PoC under way.
    pub confirmation: Option<ConfirmationEvent>,
}

/// A block with the time it was seen at, and the pace of the blocks before it: what turns heights into times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockMoment {
    /// The block.
    pub height: Height,
    /// When it was seen.
    pub at: UnixMillis,
    /// Time from block to block, measured; 5.1 to 5.6 s on mainnet in 2026.
    pub block_time: Millis,
}

impl BlockMoment {
    /// When `height` is expected, or was.
    #[must_use]
    pub fn time_of(&self, height: Height) -> UnixMillis {
        let blocks = height.0.saturating_sub(self.height.0);
        let span = Millis(self.block_time.0.saturating_mul(blocks.unsigned_abs()));
        if blocks < 0 { self.at - span } else { self.at + span }
    }
}

/// One MLNode of a participant with the weight it proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlNodeWeight {
    /// The operator's name of it.
    pub node_id: String,
    /// Weight by its last PoC.
    pub poc_weight: u64,
    /// `[PRE_POC_SLOT, POC_SLOT]`; with the second one it serves on during PoC and keeps its weight.
    pub timeslots: [bool; 2],
}

/// One host of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// `gonka1..`.
    pub address: String,
    /// Weight in the epoch.
    pub weight: u64,
    /// Models it serves.
    pub models: Vec<String>,
    /// Its MLNodes.
    pub nodes: Vec<MlNodeWeight>,
}

/// The hosts of an epoch (`/v1/epochs/current/participants`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participants {
    /// Which epoch.
    pub epoch_index: u64,
    /// Its start.
    pub poc_start: Height,
    /// All hosts.
    pub hosts: Vec<Participant>,
}

impl Participants {
    /// Weight of all hosts together.
    #[must_use]
    pub fn total_weight(&self) -> u128 {
        self.hosts.iter().map(|host| u128::from(host.weight)).sum()
    }
}

/// What the chain says about proving one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelParams {
    /// Its id, exactly as governance wrote it.
    pub model: String,
    /// Tokens of a nonce.
    pub seq_len: u32,
    /// Weight of one accepted nonce, where the rules have it: from v0.2.16 on they do not, and
    /// [`GonkaFacts::coefficient`](super::GonkaFacts::coefficient) knows it.
    pub coefficient: Option<Decimal>,
    /// VRAM an instance needs, in GB, if the chain says so.
    pub vram_gb: Option<u64>,
    /// Distance above which a nonce mismatches.
    pub dist_threshold: Option<Decimal>,
    /// From this epoch on a host that neither serves, delegates nor refuses it loses weight.
    pub penalty_start_epoch: Option<u64>,
}
