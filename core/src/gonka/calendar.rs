//! One epoch as times: when its stages begin and end, how sure that is, and what an absence would miss.
//!
//! Heights are the chain's only clock, so every time here is an estimate: the further off the block, the wider its error,
//! because block times drift. Who must be ready takes the earliest time, who waits for an end takes the latest.

use roadbed_protocol::{Millis, UnixMillis};

use super::{BlockMoment, ConfirmationParams, EpochStages, Height, StageWindow};

/// How far the time between blocks may drift from the measured one, in thousandths: 5.1 to 5.6 s were seen on mainnet.
pub const BLOCK_TIME_DRIFT_PERMILLE: u64 = 50;

/// A time made from a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Most likely.
    pub at: UnixMillis,
    /// It may be this much earlier or later.
    pub error: Millis,
}

impl Estimate {
    /// When `height` is expected, with drift over the distance and one block for the moment it was seen at.
    #[must_use]
    pub fn of(moment: &BlockMoment, height: Height) -> Self {
        let blocks = height.0.abs_diff(moment.height.0);
        let distance = moment.block_time.0.saturating_mul(blocks);
        let drift = distance.saturating_mul(BLOCK_TIME_DRIFT_PERMILLE) / 1_000;
        let seen = if blocks == 0 { 0 } else { moment.block_time.0 };
        Self { at: moment.time_of(height), error: Millis(drift.saturating_add(seen)) }
    }

    /// The earliest it may be.
    #[must_use]
    pub fn earliest(self) -> UnixMillis {
        self.at - self.error
    }

    /// The latest it may be.
    #[must_use]
    pub fn latest(self) -> UnixMillis {
        self.at + self.error
    }
}

/// A stretch of blocks as times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The blocks.
    pub blocks: StageWindow,
    /// When the first one comes.
    pub from: Estimate,
    /// When the first one after it comes.
    pub until: Estimate,
}

impl Span {
    /// A stretch as times.
    #[must_use]
    pub fn of(moment: &BlockMoment, blocks: StageWindow) -> Self {
        let at = |height| Estimate::of(moment, height);
        Self { blocks, from: at(blocks.start), until: at(blocks.end) }
    }

    /// How long it lasts.
    #[must_use]
    pub fn length(&self) -> Millis {
        self.until.at.since(self.from.at)
    }

    /// True when it may share a moment with `from..until`.
    #[must_use]
    pub fn may_overlap(&self, from: UnixMillis, until: UnixMillis) -> bool {
        self.from.earliest() < until && from < self.until.latest()
    }

    /// Thousandths of it that `from..until` covers.
    fn covered_permille(&self, from: UnixMillis, until: UnixMillis) -> u64 {
        let shared = until.min(self.until.at).since(from.max(self.from.at));
        shared.0.saturating_mul(1_000) / self.length().0.max(1)
    }
}

/// What one epoch asks of a rig, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// Which epoch.
    pub epoch_index: u64,
    /// Nonces are computed: ready from the first block on.
    pub generate: Span,
    /// Others' nonces are recomputed.
    pub validate: Span,
    /// A confirmation PoC may start at any block of it.
    pub confirmations: Span,
    /// How many are expected; `None` when the chain's params were not read.
    pub confirmations_expected: Option<u32>,
    /// Blocks before the next PoC in which none runs; `None` when the chain does not say, or has none.
    pub quiet: Option<Span>,
    /// The Network Node claims the epoch's rewards; it happens in the next epoch, and what is unclaimed is burned.
    pub claim: Span,
}

impl Calendar {
    /// The epoch of `stages`; `next` are those of the one after it, else they are taken to be as long.
    #[must_use]
    pub fn new(
        stages: &EpochStages,
        next: Option<&EpochStages>,
        confirmation: Option<&ConfirmationParams>,
        moment: &BlockMoment,
    ) -> Self {
        let span = |start, end| Span::of(moment, StageWindow { start, end });
        let following = next
            .filter(|next| next.poc_start == stages.next_poc_start)
            .copied()
            .unwrap_or_else(|| stages.following());
        let anywhere = StageWindow { start: stages.set_new_validators, end: stages.next_poc_start };
        let triggers = confirmation.map_or(anywhere, |params| params.triggers(stages));
        Self {
            epoch_index: stages.epoch_index,
            generate: span(stages.poc_start, stages.poc_generation_end),
            validate: span(stages.poc_validation_start, stages.poc_validation_end),
            confirmations: Span::of(moment, triggers),
            confirmations_expected: confirmation.map(|params| params.expected_per_epoch),
            quiet: confirmation
                .and_then(|params| params.quiet(stages))
                .map(|blocks| Span::of(moment, blocks)),
            claim: span(following.claim_money, following.next_poc_start),
        }
    }

    /// The shortest stay that makes sense: from the first block of the PoC until the rewards can be claimed, an epoch and
    /// the stages of the next one. Until then missed requests and confirmations still cost the epoch.
    #[must_use]
    pub const fn dwell(&self) -> (Estimate, Estimate) {
        (self.generate.from, self.claim.from)
    }

    /// What a rig misses that is away from `from` to `until`.
    #[must_use]
    pub fn absence(&self, from: UnixMillis, until: UnixMillis) -> Absence {
        let covered = self.confirmations.covered_permille(from, until);
        Absence {
            epoch_index: self.epoch_index,
            generate: self.generate.may_overlap(from, until),
            validate: self.validate.may_overlap(from, until),
            confirmation_possible: self.confirmations.may_overlap(from, until),
            confirmations_millis: self
                .confirmations_expected
                .map(|expected| u64::from(expected).saturating_mul(covered)),
        }
    }
}

/// What an absence misses of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// Which epoch.
    pub epoch_index: u64,
    /// The PoC itself: no nonces, no weight.
    pub generate: bool,
    /// The validation of others.
    pub validate: bool,
    /// A confirmation PoC may fall into it.
    pub confirmation_possible: bool,
    /// Thousandths of a confirmation PoC expected in it; `None` when the chain's params were not read.
    pub confirmations_millis: Option<u64>,
}

impl Absence {
    /// True when nothing of the epoch is missed.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        !self.generate && !self.validate && !self.confirmation_possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gonka::fixture::{confirmation, moment, stages};

    #[test]
    fn an_epoch_of_mainnet_as_times() {
        let stages = stages(100_000, 15_391);
        let calendar = Calendar::new(&stages, None, Some(&confirmation()), &moment(100_000));
        assert_eq!(calendar.generate.from.error, Millis::ZERO);
        // 60 blocks of 5.35 s.
        assert_eq!(calendar.generate.length(), Millis(321_000));
        assert_eq!(calendar.claim.blocks.start, Height(100_000 + 15_391 + 666));
        // A day off, five per cent are more than an hour.
        let error = calendar.claim.from.error;
        assert!(Millis::from_mins(60) < error && error < Millis::from_mins(80), "{error:?}");
        let quiet = calendar.quiet.unwrap();
        assert_eq!(quiet.blocks.end.0 - quiet.blocks.start.0, 500);
    }

    #[test]
    fn an_absence_says_what_it_misses() {
        let stages = stages(100_000, 15_391);
        let here = moment(100_800);
        let calendar = Calendar::new(&stages, None, Some(&confirmation()), &here);
        let half_way = here.at + Millis::from_hours(11);
        let absence = calendar.absence(here.at, half_way);
        assert!(!absence.generate && !absence.validate && absence.confirmation_possible);
        let expected = absence.confirmations_millis.unwrap();
        assert!((2_000..2_300).contains(&expected), "{expected}");
        let all = calendar.absence(here.at - Millis::from_hours(3), half_way);
        assert!(all.generate && all.validate);
        let close = Calendar::new(&stages, None, Some(&confirmation()), &moment(114_900));
        assert!(close.absence(UnixMillis(0), UnixMillis(60_000)).is_harmless());
        let unknown = Calendar::new(&stages, None, None, &here);
        assert_eq!(unknown.absence(here.at, half_way).confirmations_millis, None);
        assert!(unknown.quiet.is_none());
    }
}
