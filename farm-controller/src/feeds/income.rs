//! What each rig could do and earn, slot by slot, from its profile and the site's income figures.
//!
//! A figure that the site file does not give is no option: nothing is invented. Proving earns what its commitments pay,
//! spread over their windows, so that the ledger accrues it while the rig proves and only then; [`commitments`] gives the
//! machine the same promises without that income, which would otherwise count twice.

use farm_core::plan::{Commitment, IncomeSource, WorkOption};
use roadbed_protocol::{
    HashRate, HashesPerSecond, MicrosPerHour, Millis, Money, RigKind, UnixMillis, Workload,
};

use crate::coins::{CoinReading, choices, rig_rates};
use crate::config::{DayTime, Site, SiteRig, local_minute};
use crate::hashprice::Reading;

/// Hashes per second in one PH/s.
const PETA: i128 = 1_000_000_000_000_000;

/// What one PH/s earns in an hour after the pool's fee, and where that is known from.
pub type HashIncome = Option<(MicrosPerHour, IncomeSource)>;

/// What is known of hashing when a rig's options are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hashing<'h> {
    /// For ASICs.
    pub price: HashIncome,
    /// For GPU rigs.
    pub coins: Option<&'h CoinReading>,
    /// What the rig's agent measured.
    pub rates: &'h [HashRate],
}

/// The hashprice that stands in the site file, or was `read` and still stands.
#[must_use]
pub fn hash_income(site: &Site, read: Option<&Reading>, now: UnixMillis) -> HashIncome {
    let hashprice = site.income.hashprice.as_ref()?;
    let reading = || {
        let reading = read.filter(|reading| reading.stands(now, hashprice.hold))?;
        Some((hashprice.per_ph_hour(reading.per_ph_day), reading.origin()))
    };
    hashprice.written().or_else(reading)
}

/// Options of a rig from the slot that holds `now` on.
#[must_use]
pub fn options(
    site: &Site,
    rig: &SiteRig,
    promised: &[Commitment],
    hashing: Hashing<'_>,
    now: UnixMillis,
) -> Vec<WorkOption> {
    match rig.profile.kind {
        RigKind::Asic => asic(rig, hashing.price),
        RigKind::Gpu => gpu(site, rig, promised, hashing, now),
    }
}

fn asic(rig: &SiteRig, hashing: HashIncome) -> Vec<WorkOption> {
    let Some((per_ph_hour, source)) = hashing else {
        return Vec::new();
    };
    let steps = &rig.profile.mining;
    steps
        .iter()
        .enumerate()
        .map(|(index, step)| WorkOption {
            workload: Workload::Mine {
                power_target: (index + 1 < steps.len()).then_some(step.watts),
            },
            power: step.watts,
            income: vec![rate_income(per_ph_hour, step.hashes_per_second)],
            source,
            hashrate: Some(step.hashes_per_second),
        })
        .collect()
}

fn gpu(
    site: &Site,
    rig: &SiteRig,
    promised: &[Commitment],
    hashing: Hashing<'_>,
    now: UnixMillis,
) -> Vec<WorkOption> {
    let mut options = Vec::new();
    if let (Some((rate, source, hashrate)), Some(step)) =
        (gpu_mining(site, rig, hashing, now), rig.profile.normal_mining())
    {
        options.push(WorkOption {
            workload: Workload::Mine { power_target: None },
            power: step.watts,
            income: vec![rate],
            source,
            hashrate,
        });
    }
    let (Some(model), Some(power)) = (&rig.model, rig.profile.ai_watts) else {
        return options;
    };
    if let Some((rates, source)) = &site.income.serve {
        options.push(WorkOption {
            workload: Workload::Serve { model: model.clone() },
            power,
            income: by_slot(site, rates, now),
            source: *source,
            hashrate: None,
        });
    }
    options.push(WorkOption {
        workload: Workload::Prove { model: model.clone() },
        power,
        income: accrual(site, rig, promised, now),
        source: promised
            .iter()
            .find(|commitment| commitment.rig == rig.id)
            .map_or(IncomeSource::Assumption, |commitment| commitment.source),
        hashrate: None,
    });
    options
}

/// What a GPU rig earns by hashing: the best coin's figure, or the one of the site file, which is by the hour whatever the
/// rate.
fn gpu_mining(
    site: &Site,
    rig: &SiteRig,
    hashing: Hashing<'_>,
    now: UnixMillis,
) -> Option<(MicrosPerHour, IncomeSource, Option<HashesPerSecond>)> {
    let written = || site.income.gpu_mine.map(|(rate, source)| (rate, source, None));
    let Some(feed) = &site.income.coins else { return written() };
    let rates = rig_rates(&rig.profile, hashing.rates);
    let all = choices(feed, hashing.coins?, &rates, now);
    let best = all.first()?;
    let source = IncomeSource::Data { at: best.offer.as_of };
    Some((best.per_hour, source, Some(best.rate.rate)))
}

/// Commitments as the farm machine gets them: their income is in the options of the rigs that promised.
#[must_use]
pub fn commitments(promised: &[Commitment]) -> Vec<Commitment> {
    let paid_by_the_hour =
        |commitment: &Commitment| Commitment { income: Money::ZERO, ..commitment.clone() };
    promised.iter().map(paid_by_the_hour).collect()
}

/// What the commitments of a rig pay by the hour, slot by slot.
fn accrual(
    site: &Site,
    rig: &SiteRig,
    promised: &[Commitment],
    now: UnixMillis,
) -> Vec<MicrosPerHour> {
    slots(site, now)
        .map(|at| {
            let inside = |commitment: &&Commitment| commitment.from <= at && at < commitment.until;
            let mine = promised.iter().filter(|commitment| commitment.rig == rig.id);
            mine.filter(inside).map(rate).fold(MicrosPerHour::ZERO, |a, b| a + b)
        })
        .collect()
}

fn rate(commitment: &Commitment) -> MicrosPerHour {
    let span = i128::from(commitment.until.since(commitment.from).0.max(1));
    let micros = i128::from(commitment.income.0) * i128::from(Millis::from_hours(1).0) / span;
    MicrosPerHour(i64::try_from(micros).unwrap_or(i64::MAX))
}

fn rate_income(per_ph_hour: MicrosPerHour, rate: HashesPerSecond) -> MicrosPerHour {
    let micros = i128::from(per_ph_hour.0) * i128::from(rate.0) / PETA;
    MicrosPerHour(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// The rate of each slot of the longest horizon, from the slot that holds `now` on.
fn by_slot(site: &Site, rates: &[(DayTime, MicrosPerHour)], now: UnixMillis) -> Vec<MicrosPerHour> {
    slots(site, now)
        .map(|at| {
            let minute = local_minute(at, site.utc_offset_minutes);
            let rate = rates.iter().rev().find(|(from, _)| from.0 <= minute);
            rate.map_or(MicrosPerHour::ZERO, |(_, rate)| *rate)
        })
        .collect()
}

/// Starts of the slots of the longest horizon.
fn slots(site: &Site, now: UnixMillis) -> impl Iterator<Item = UnixMillis> {
    let timing = site.policy.timing;
    let first = now.floor_to(timing.slot);
    (0..timing.horizon_slots as u64).map(move |index| first + Millis(timing.slot.0 * index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashprice_becomes_income() {
        // 45 per PH/s and day are 1.875 per hour; 121.8 TH/s earn 0.228375.
        let income = rate_income(MicrosPerHour(1_875_000), HashesPerSecond(121_800_000_000_000));
        assert_eq!(income, MicrosPerHour(228_375));
    }
}
