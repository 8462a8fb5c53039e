//! Promises that were made: they stay while the chain is silent, and move only when it is worth a new plan.
//!
//! Times made from heights shift by seconds with every block. A commitment that followed them would have the farm plan
//! anew all day, so a time moves only by more than a hundredth of how far off it is. What began does not move at all.

use std::collections::BTreeMap;

use farm_core::gonka::Promise;
use farm_core::plan::{Commitment, IncomeSource};
use roadbed_protocol::{Millis, Money, RigId, UnixMillis, Workload};
use serde::{Deserialize, Serialize};

/// A time may always be off by this much.
const SHIFT_MIN: Millis = Millis(10_000);
/// And by this part of its distance.
const SHIFT_PART: u64 = 100;
/// Figures move with every read; a change below this part of them makes no new plan.
const MONEY_PART: i64 = 50;

/// Made promises, by rig and epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promised {
    made: BTreeMap<(RigId, u64), Commitment>,
}

/// A commitment on disk. These names do not change.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    epoch: u64,
    id: String,
    rig: RigId,
    workload: Workload,
    from: UnixMillis,
    until: UnixMillis,
    load_lead: Millis,
    penalty: Money,
    income: Money,
    as_of: Option<UnixMillis>,
}

impl Promised {
    /// What stands, the earliest first.
    #[must_use]
    pub fn commitments(&self) -> Vec<Commitment> {
        let mut all: Vec<Commitment> = self.made.values().cloned().collect();
        all.sort_by(|a, b| (a.from, &a.rig).cmp(&(b.from, &b.rig)));
        all
    }

    /// What a rig promised.
    pub fn of<'a>(&'a self, rig: &'a RigId) -> impl Iterator<Item = &'a Commitment> {
        self.made.iter().filter(move |((of, _), _)| of == rig).map(|(_, made)| made)
    }

    /// Takes what follows from the chain now, if that is fresh: new promises are made, those that have not begun and no
    /// longer follow are taken back. Without fresh facts everything stays until it is over.
    pub fn take(&mut self, fresh: Option<Vec<Promise>>, now: UnixMillis) {
        self.made.retain(|_, made| made.until > now);
        let Some(fresh) = fresh else { return };
        let follows = |key: &(RigId, u64)| {
            fresh.iter().any(|it| it.commitment.rig == key.0 && it.epoch_index == key.1)
        };
        self.made.retain(|key, made| made.from <= now || follows(key));
        for promise in fresh {
            let key = (promise.commitment.rig.clone(), promise.epoch_index);
            match self.made.get_mut(&key) {
                Some(made) => renew(made, promise, now),
                None => {
                    self.made.insert(key, promise.commitment);
                }
            }
        }
    }

    /// As a document for the store.
    #[must_use]
    pub fn document(&self) -> String {
        let rows: Vec<Stored> = self
            .made
            .iter()
            .map(|((_, epoch), made)| Stored {
                epoch: *epoch,
                id: made.id.clone(),
                rig: made.rig.clone(),
                workload: made.workload.clone(),
                from: made.from,
                until: made.until,
                load_lead: made.load_lead,
                penalty: made.penalty,
                income: made.income,
                as_of: match made.source {
                    IncomeSource::Data { at } => Some(at),
                    IncomeSource::Assumption => None,
                },
            })
            .collect();
        serde_json::to_string(&rows).unwrap_or_default()
    }

    /// From such a document; what cannot be read was never promised by this version.
    #[must_use]
    pub fn from_document(text: &str) -> Self {
        let rows: Vec<Stored> = serde_json::from_str(text).unwrap_or_default();
        let made = rows.into_iter().map(|row| {
            let source = row.as_of.map_or(IncomeSource::Assumption, |at| IncomeSource::Data { at });
            let commitment = Commitment {
                id: row.id,
                rig: row.rig.clone(),
                workload: row.workload,
                from: row.from,
                until: row.until,
                load_lead: row.load_lead,
                penalty: row.penalty,
                income: row.income,
                source,
            };
            ((row.rig, row.epoch), commitment)
        });
        Self { made: made.collect() }
    }
}

fn renew(made: &mut Commitment, promise: Promise, now: UnixMillis) {
    let Promise { commitment: fresh, valued, .. } = promise;
    if made.from > now && is_far(made.from, fresh.from, now) {
        made.from = fresh.from;
    }
    if is_far(made.until, fresh.until, now) {
        made.until = fresh.until;
    }
    let differs =
        |a: Money, b: Money| a.0.abs_diff(b.0) > b.0.unsigned_abs() / MONEY_PART.unsigned_abs();
    let source = |of: &Commitment| of.source == IncomeSource::Assumption;
    // A rig that is silent for an hour is not worth less: its figures are not known now, and the last ones stay.
    if valued
        && (differs(made.income, fresh.income)
            || differs(made.penalty, fresh.penalty)
            || source(made) != source(&fresh))
    {
        (made.income, made.penalty, made.source) = (fresh.income, fresh.penalty, fresh.source);
    }
    made.load_lead = fresh.load_lead;
    made.workload = fresh.workload;
}

fn is_far(made: UnixMillis, fresh: UnixMillis, now: UnixMillis) -> bool {
    let shift = made.0.abs_diff(fresh.0);
    let distance = fresh.0.abs_diff(now.0);
    shift > SHIFT_MIN.0.max(distance / SHIFT_PART)
}

#[cfg(test)]
mod tests {
    use farm_core::gonka::Estimate;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn promise(epoch: u64, from: i64, until: i64, income: i64) -> Promise {
        let estimate = |at| Estimate { at: UnixMillis(at), error: Millis::ZERO };
        Promise {
            commitment: Commitment {
                id: format!("gonka-epoch-{epoch}"),
                rig: RigId::new("gpu-1").unwrap(),
                workload: Workload::Prove { model: "org/m".into() },
                from: UnixMillis(from),
                until: UnixMillis(until),
                load_lead: Millis::from_mins(10),
                penalty: Money(0),
                income: Money(income),
                source: IncomeSource::Data { at: UnixMillis(0) },
            },
            epoch_index: epoch,
            from: estimate(from),
            until: estimate(until),
            valued: true,
        }
    }

    #[test]
    fn a_promise_stays_while_the_chain_is_silent_and_is_kept() {
        let mut promised = Promised::default();
        let all = vec![promise(7, -HOUR, 20 * HOUR, 100), promise(8, 19 * HOUR, 40 * HOUR, 100)];
        promised.take(Some(all.clone()), UnixMillis(0));
        let made = promised.clone();
        promised.take(None, UnixMillis(HOUR));
        assert_eq!(promised, made);
        assert_eq!(Promised::from_document(&promised.document()), made);
        assert_eq!(Promised::from_document("garbage"), Promised::default());
        // The rig is no longer eligible: what began stays, what has not is taken back.
        promised.take(Some(Vec::new()), UnixMillis(HOUR));
        assert_eq!(promised.commitments(), [all[0].commitment.clone()]);
        promised.take(None, UnixMillis(21 * HOUR));
        assert_eq!(promised.commitments(), []);
    }

    #[test]
    fn it_moves_only_by_what_matters() {
        let mut promised = Promised::default();
        promised.take(Some(vec![promise(8, 10 * HOUR, 30 * HOUR, 10_000)]), UnixMillis(0));
        let first = promised.clone();
        promised.take(Some(vec![promise(8, 10 * HOUR + 60_000, 30 * HOUR, 10_100)]), UnixMillis(0));
        assert_eq!(promised, first);
        promised.take(Some(vec![promise(8, 11 * HOUR, 30 * HOUR, 20_000)]), UnixMillis(0));
        let moved = &promised.commitments()[0];
        assert_eq!((moved.from, moved.income), (UnixMillis(11 * HOUR), Money(20_000)));
        let unvalued = Promise { valued: false, ..promise(8, 11 * HOUR, 30 * HOUR, 0) };
        promised.take(Some(vec![unvalued]), UnixMillis(0));
        assert_eq!(promised.commitments()[0].income, Money(20_000), "not known is not nothing");
        // Near its beginning seconds matter; once begun it does not begin again.
        let near = UnixMillis(11 * HOUR - 60_000);
        promised.take(Some(vec![promise(8, 11 * HOUR + 15_000, 30 * HOUR, 20_000)]), near);
        assert_eq!(promised.commitments()[0].from, UnixMillis(11 * HOUR + 15_000));
        let begun = UnixMillis(12 * HOUR);
        promised.take(Some(vec![promise(8, 15 * HOUR, 30 * HOUR, 20_000)]), begun);
        assert_eq!(promised.commitments()[0].from, UnixMillis(11 * HOUR + 15_000));
    }
}
