//! What each rig could do and earn, slot by slot, from its profile and the site's income figures.
//!
//! A figure that the site file does not give is no option: nothing is invented. Proving earns nothing by the hour; it is
//! paid by its commitment, and stands here so that the planner knows its power.

use farm_core::plan::{IncomeSource, WorkOption};
use roadbed_protocol::{
    HashesPerSecond, MicrosPerHour, Millis, RigKind, UnixMillis, Watts, Workload,
};

use crate::config::{DayTime, Site, SiteRig, local_minute};

/// Hashes per second in one PH/s.
const PETA: i128 = 1_000_000_000_000_000;

/// Options of a rig from the slot that holds `now` on.
#[must_use]
pub fn options(site: &Site, rig: &SiteRig, now: UnixMillis) -> Vec<WorkOption> {
    match rig.profile.kind {
        RigKind::Asic => asic(site, rig),
        RigKind::Gpu => gpu(site, rig, now),
    }
}

fn asic(site: &Site, rig: &SiteRig) -> Vec<WorkOption> {
    let Some((hashprice_per_ph_hour, source)) = site.income.hashprice_per_ph_hour else {
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
            income: vec![hash_income(hashprice_per_ph_hour, step.hashes_per_second)],
            source,
            hashrate: Some(step.hashes_per_second),
        })
        .collect()
}

fn gpu(site: &Site, rig: &SiteRig, now: UnixMillis) -> Vec<WorkOption> {
    let mut options = Vec::new();
    if let (Some((rate, source)), Some(step)) = (site.income.gpu_mine, rig.profile.normal_mining())
    {
        options.push(WorkOption {
            workload: Workload::Mine { power_target: None },
            power: step.watts,
            income: vec![rate],
            source,
            // The figure is by the hour, whatever the rate of hashing.
            hashrate: None,
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
    options.push(prove(model, power));
    options
}

fn prove(model: &str, power: Watts) -> WorkOption {
    WorkOption {
        workload: Workload::Prove { model: model.to_owned() },
        power,
        income: Vec::new(),
        source: IncomeSource::Assumption,
        hashrate: None,
    }
}

fn hash_income(per_ph_hour: MicrosPerHour, rate: HashesPerSecond) -> MicrosPerHour {
    let micros = i128::from(per_ph_hour.0) * i128::from(rate.0) / PETA;
    MicrosPerHour(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// The rate of each slot of the longest horizon, from the slot that holds `now` on.
fn by_slot(site: &Site, rates: &[(DayTime, MicrosPerHour)], now: UnixMillis) -> Vec<MicrosPerHour> {
    let timing = &site.policy.timing;
    let first = now.floor_to(timing.slot);
    (0..timing.horizon_slots as u64)
        .map(|index| {
            let at = first + Millis(timing.slot.0 * index);
            let minute = local_minute(at, site.utc_offset_minutes);
            let rate = rates.iter().rev().find(|(from, _)| from.0 <= minute);
            rate.map_or(MicrosPerHour::ZERO, |(_, rate)| *rate)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashprice_becomes_income() {
        // 45 per PH/s and day are 1.875 per hour; 121.8 TH/s earn 0.228375.
        let income = hash_income(MicrosPerHour(1_875_000), HashesPerSecond(121_800_000_000_000));
        assert_eq!(income, MicrosPerHour(228_375));
    }
}
