//! From the chain's stages to the planner's commitments: an epoch is promised whole or not at all.
//!
//! A rig that has shown nonces at a PoC start must stay for confirmation PoCs at blocks nobody knows before, and until the
//! rewards can be claimed in the next epoch. So there is one commitment an epoch, from the earliest time its first block
//! may come to the latest time at which the claim opens; what it pays and forfeits is the income's business.

use roadbed_protocol::{Millis, Money, RigId, UnixMillis, Workload};

use super::{BlockMoment, Calendar, ChainEpoch, ConfirmationParams, Estimate};
use crate::plan::{Commitment, IncomeSource};

/// What keeping a promise pays and breaking it forfeits besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stake {
    /// Reward of the epoch.
    pub income: Money,
    /// Collateral lost beside it.
    pub penalty: Money,
    /// Where the figures come from.
    pub source: IncomeSource,
}

/// One rig that proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigPart {
    /// The rig.
    pub rig: RigId,
    /// The governance model's id.
    pub model: String,
    /// Time from the order until it answers: load and warm-up.
    pub load_lead: Millis,
    /// It showed nonces at the start of the epoch under way.
    pub in_epoch: bool,
    /// It shall do so at the next one.
    pub joins_next: bool,
    /// What an epoch is worth; `None` when a part of the income is not known.
    pub stake: Option<Stake>,
}

/// A commitment with what the planner does not need of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// For the planner.
    pub commitment: Commitment,
    /// Which epoch.
    pub epoch_index: u64,
    /// First block.
    pub from: Estimate,
    /// The claim opens.
    pub until: Estimate,
    /// False when nobody knows what it is worth: the commitment then carries no money, and a policy that drops losing
    /// commitments would drop it.
    pub valued: bool,
}

/// The commitments of all rigs, in the order of the rigs, the epoch under way first. What is over is left out.
#[must_use]
pub fn promises(
    chain: &ChainEpoch,
    confirmation: Option<&ConfirmationParams>,
    moment: &BlockMoment,
    now: UnixMillis,
    parts: &[RigPart],
) -> Vec<Promise> {
    let next = chain.next_stages.filter(|next| next.poc_start == chain.stages.next_poc_start);
    let next = next.unwrap_or_else(|| chain.stages.following());
    let under_way = Calendar::new(&chain.stages, Some(&next), confirmation, moment);
    let coming = Calendar::new(&next, None, confirmation, moment);
    let mut promises = Vec::new();
    for part in parts {
        if part.in_epoch {
            promises.push(promise(part, &under_way));
        }
        if part.joins_next {
            promises.push(promise(part, &coming));
        }
    }
    promises.retain(|promise| promise.commitment.until > now);
    promises
}

/// Name of the promise of an epoch.
#[must_use]
pub fn promise_id(epoch_index: u64) -> String {
    format!("gonka-epoch-{epoch_index}")
}

fn promise(part: &RigPart, calendar: &Calendar) -> Promise {
    let (from, until) = calendar.dwell();
    let stake = part.stake;
    Promise {
        commitment: Commitment {
            id: promise_id(calendar.epoch_index),
            rig: part.rig.clone(),
            workload: Workload::Prove { model: part.model.clone() },
            from: from.earliest(),
            until: until.latest(),
            load_lead: part.load_lead,
            penalty: stake.map_or(Money::ZERO, |stake| stake.penalty),
            income: stake.map_or(Money::ZERO, |stake| stake.income),
            source: stake.map_or(IncomeSource::Assumption, |stake| stake.source),
        },
        epoch_index: calendar.epoch_index,
        from,
        until,
        valued: stake.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gonka::fixture::{confirmation, epoch, moment};

    fn part(stake: Option<Stake>) -> RigPart {
        RigPart {
            rig: RigId::new("gpu-1").unwrap(),
            model: "org/model".into(),
            load_lead: Millis::from_mins(12),
            in_epoch: true,
            joins_next: true,
            stake,
        }
    }

    #[test]
    fn an_epoch_is_promised_from_its_poc_to_its_claim() {
        let source = IncomeSource::Data { at: UnixMillis(-5) };
        let stake = Stake { income: Money(7_000_000), penalty: Money(1_000_000), source };
        let moment = moment(101_000);
        let parts = [part(Some(stake)), RigPart { joins_next: false, ..part(None) }];
        let all = promises(&epoch(101_000), Some(&confirmation()), &moment, UnixMillis(0), &parts);
        let [current, next, unvalued] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((current.epoch_index, next.epoch_index), (410, 411));
        assert_eq!(current.commitment.income, Money(7_000_000));
        assert!(
            current.commitment.from < UnixMillis(0)
                && current.commitment.until > next.commitment.from
        );
        assert!(next.commitment.from < next.from.at && next.from.at < next.until.at);
        assert!(next.commitment.until > next.until.at);
        assert!(current.valued && !unvalued.valued);
        assert_eq!(unvalued.commitment.source, IncomeSource::Assumption);
        // Once the claim is surely open, the epoch asks nothing more.
        let later = current.commitment.until;
        assert_eq!(promises(&epoch(101_000), None, &moment, later, &parts).len(), 1);
    }

    proptest! {
        #[test]
        fn whatever_the_chain_says_the_windows_are_in_order(
            height in any::<i64>(), start in any::<i64>(), length in any::<i64>(),
            block_time in any::<u64>(), now in any::<i64>(),
        ) {
            let mut chain = epoch(height);
            chain.stages.poc_start.0 = start;
            chain.stages.next_poc_start.0 = start.saturating_add(length);
            let block_time = Millis(block_time);
            let moment = BlockMoment { block_time, ..moment(height) };
            for promise in promises(&chain, Some(&confirmation()), &moment, UnixMillis(now), &[part(None)]) {
                let Promise { commitment, from, until, .. } = promise;
                prop_assert!(commitment.from <= from.at && until.at <= commitment.until);
                prop_assert!(commitment.until > UnixMillis(now));
            }
        }
    }
}
