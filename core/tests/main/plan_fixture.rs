//! Small farms to plan for.

use farm_core::forecast::{PriceQuality, Slot};
use farm_core::plan::{
    Availability, Commitment, Feeder, IncomeSource, PlanInput, RigInput, RigSpec, WorkOption,
};
use farm_core::policy::PolicyRules;
use roadbed_protocol::{
    FeederId, MicrosPerHour, MicrosPerMwh, Millis, Money, RigId, RigKind, UnixMillis, Watts,
    Workload,
};

pub const HOUR: Millis = Millis::from_hours(1);

pub fn feeder_id(name: &str) -> FeederId {
    FeederId::new(name).unwrap()
}

pub fn rig_id(name: &str) -> RigId {
    RigId::new(name).unwrap()
}

/// Hourly slots with these prices in whole units per megawatt-hour.
pub fn slots(prices: &[i64]) -> Vec<Slot> {
    prices
        .iter()
        .enumerate()
        .map(|(index, price)| Slot {
            start: UnixMillis(0) + Millis(HOUR.0 * index as u64),
            length: HOUR,
            price: MicrosPerMwh(price * 1_000_000),
            quality: PriceQuality::Known,
        })
        .collect()
}

pub fn option(workload: Workload, watts: u64, income: i64) -> WorkOption {
    WorkOption {
        workload,
        power: Watts(watts),
        income: vec![MicrosPerHour(income)],
        source: IncomeSource::Assumption,
        hashrate: None,
    }
}

/// A rig at rest under feeder `hall`.
pub fn rig(name: &str, options: Vec<WorkOption>) -> RigInput {
    RigInput {
        spec: RigSpec {
            id: rig_id(name),
            kind: RigKind::Gpu,
            feeder: feeder_id("hall"),
            floor: Watts(50),
            nameplate: Watts(4_000),
            options,
            switch_cost: Money(10_000),
            hand_over_cost: Money(1_000),
            switch_time: Millis::from_mins(3),
            min_dwell: Millis::ZERO,
        },
        availability: Availability::Ready,
        current: None,
        since: UnixMillis(-1_000_000_000),
    }
}

pub fn commitment(rig: &str, workload: Workload, from_hour: u64, until_hour: u64) -> Commitment {
    Commitment {
        id: "epoch-7".into(),
        rig: rig_id(rig),
        workload,
        from: UnixMillis(0) + Millis::from_hours(from_hour),
        until: UnixMillis(0) + Millis::from_hours(until_hour),
        load_lead: Millis::from_mins(10),
        penalty: Money(5_000_000),
        income: Money(2_000_000),
        source: IncomeSource::Assumption,
    }
}

/// A farm with a site connection and one hall of this limit.
pub fn farm(limit: u64, prices: &[i64], rigs: Vec<RigInput>) -> PlanInput {
    PlanInput {
        now: UnixMillis(0),
        slots: slots(prices),
        rigs,
        feeders: vec![
            Feeder { id: feeder_id("site"), parent: None, limit: Watts(1_000_000) },
            Feeder { id: feeder_id("hall"), parent: Some(feeder_id("site")), limit: Watts(limit) },
        ],
        rules: PolicyRules {
            hysteresis_percent: 0,
            min_dwell: Millis::ZERO,
            ..PolicyRules::default()
        },
        commitments: Vec::new(),
        holds: Vec::new(),
        orders: Vec::new(),
    }
}
