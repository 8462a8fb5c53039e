//! Proof of Compute windows of a seeded day, as commitments.

use farm_core::plan::{Commitment, IncomeSource};
use roadbed_protocol::{Millis, Money, RigId, UnixMillis, Workload};

use super::dice::Dice;

/// Windows of `rig` between `from` and `until`: every hour or two one of half an hour or so.
#[must_use]
pub fn windows(
    seed: u64,
    index: usize,
    rig: &RigId,
    model: &str,
    (from, until): (UnixMillis, UnixMillis),
) -> Vec<Commitment> {
    let mut dice = Dice::new(seed, "gonka", index);
    let mut windows = Vec::new();
    let mut at = from + Millis::from_mins(dice.between(10, 90));
    while at < until {
        let end = at + Millis::from_mins(dice.between(10, 45));
        windows.push(Commitment {
            id: format!("{rig}-{}", windows.len()),
            rig: rig.clone(),
            workload: Workload::Prove { model: model.into() },
            from: at,
            until: end,
            load_lead: Millis::from_mins(5),
            penalty: Money(dice.between(100_000, 9_000_000) as i64),
            income: Money(1_000_000),
            source: IncomeSource::Assumption,
        });
        at = end + Millis::from_mins(dice.between(30, 120));
    }
    windows
}
