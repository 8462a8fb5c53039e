//! The site of a seed: two halls that are too small for what hangs in them.

use farm_core::farm::{FarmSettings, FarmTiming, RigMember};
use farm_core::plan::{Feeder, IncomeSource, RigSpec, WorkOption};
use farm_core::policy::{CurtailWindow, PolicyRules, WithoutPrice};
use farm_core::rig::RigSettings;
use roadbed_protocol::{
    AgentId, FarmId, FeederId, HashesPerSecond, MicrosPerHour, MilliCelsius, Millis, Money, RigId,
    RigKind, Watts, Workload,
};

use super::dice::Dice;

/// The model every GPU rig holds.
pub const MODEL: &str = "test-model";
/// Measured power may exceed the plan's by this much, in percent.
pub const NOISE_PERCENT: u64 = 2;

/// Builds the site of `seed`.
#[must_use]
pub fn site(seed: u64) -> FarmSettings {
    let mut dice = Dice::new(seed, "site", 0);
    let (asics, gpus) = (dice.between(2, 5), dice.between(1, 3));
    let mut rigs = Vec::new();
    for index in 0..asics {
        // Two agents share the ASIC hall, as site boxes do.
        let agent = format!("box-{}", index % 2);
        rigs.push(asic(&mut dice, &format!("asic-{index}"), &agent));
    }
    for index in 0..gpus {
        rigs.push(gpu(&mut dice, &format!("gpu-{index}"), &format!("gpu-{index}")));
    }
    let limit = |share: u64, kind: RigKind| {
        let members = rigs.iter().filter(|rig| rig.spec.kind == kind);
        let (floors, most): (u64, u64) = members.fold((0, 0), |(floors, most), rig| {
            let largest = rig.spec.options.iter().map(|option| option.power.0).max().unwrap_or(0);
            (floors + rig.spec.floor.0, most + largest)
        });
        // Room for the shares of all and at least one, with slack for what meters say beyond the plan.
        (floors + (most * share / 100).max(3_600) * (100 + NOISE_PERCENT) / 100) * 100 / 96
    };
    let hall_a = limit(dice.between(40, 110), RigKind::Asic);
    let hall_b = limit(dice.between(60, 110), RigKind::Gpu);
    let site = (hall_a + hall_b) * dice.between(70, 105) / 100;
    let feeder = |id: &str, parent: Option<&str>, limit| Feeder {
        id: feeder_id(id),
        parent: parent.map(feeder_id),
        limit: Watts(limit),
    };
    FarmSettings {
        farm: FarmId::new("sim").expect("a legal id"),
        rigs,
        feeders: vec![
            feeder("site", None, site),
            feeder("hall-a", Some("site"), hall_a),
            feeder("hall-b", Some("site"), hall_b),
        ],
        rules: PolicyRules {
            min_dwell: Millis::from_mins(dice.between(0, 20)),
            curtail_windows: vec![CurtailWindow {
                name: "evening".into(),
                from_minute: 120,
                until_minute: 135,
                feeder: feeder_id("hall-a"),
                limit: Watts(hall_a / 2),
            }],
            without_price: if dice.chance(500) {
                WithoutPrice::Curtail
            } else {
                WithoutPrice::Keep
            },
            curtailment_breaks_poc: dice.chance(300),
            overload_grace: GRACE,
            ..PolicyRules::default()
        },
        timing: FarmTiming {
            horizon_slots: 8,
            lease: Millis::from_mins(5),
            ..FarmTiming::default()
        },
    }
}

/// How long a feeder may be above its limit.
pub const GRACE: Millis = Millis::from_secs(60);

/// What the rig machine of a member knows of its hardware.
#[must_use]
pub fn rig_settings(spec: &RigSpec) -> RigSettings {
    RigSettings {
        kind: spec.kind,
        power_floor_max: Watts(spec.floor.0 + 60),
        power_trip: Watts(spec.nameplate.0 * 5 / 4),
        start_deadline: Millis::from_secs(120),
        drain_deadline: Millis::from_secs(60),
        stop_deadline: Millis::from_secs(45),
        backoff_first: Millis::from_secs(10),
        backoff_max: Millis::from_mins(3),
        attempts_clear_after: Millis::from_mins(10),
        temperature_trip: MilliCelsius(90_000),
        temperature_safe: MilliCelsius(60_000),
        sensor_stale: Millis::from_mins(1),
    }
}

fn feeder_id(id: &str) -> FeederId {
    FeederId::new(id).expect("a legal id")
}

fn asic(dice: &mut Dice, id: &str, agent: &str) -> RigMember {
    let full = dice.between(2_800, 3_600);
    let steps = [full * 55 / 100, full * 75 / 100];
    let rate = dice.between(60, 130) as i64;
    let option = |watts: u64, power_target: Option<u64>, percent: i64| WorkOption {
        workload: Workload::Mine { power_target: power_target.map(Watts) },
        power: Watts(watts),
        // Income in proportion to hashrate: the lower steps are the more efficient ones.
        income: vec![MicrosPerHour(watts as i64 * rate * percent / 100)],
        source: IncomeSource::Assumption,
        hashrate: Some(HashesPerSecond(watts * 1_000)),
    };
    let mut options = vec![option(full, None, 100)];
    for (step, percent) in steps.into_iter().zip([115, 108]) {
        options.push(option(step, Some(step), percent));
    }
    let fallback = if dice.chance(300) {
        Workload::Mine { power_target: Some(Watts(steps[0])) }
    } else {
        Workload::Curtailed
    };
    member(id, agent, RigKind::Asic, "hall-a", (20, full * 11 / 10), options, fallback)
}

fn gpu(dice: &mut Dice, id: &str, agent: &str) -> RigMember {
    let model = || MODEL.to_owned();
    let ai = dice.between(900, 1_500);
    let option = |workload, watts, rate: u64| WorkOption {
        workload,
        power: Watts(watts),
        income: vec![MicrosPerHour((watts * rate) as i64)],
        source: IncomeSource::Assumption,
        hashrate: None,
    };
    let options = vec![
        option(Workload::Mine { power_target: None }, ai * 9 / 10, dice.between(20, 60)),
        option(Workload::Serve { model: model() }, ai, dice.between(60, 300)),
        option(Workload::Prove { model: model() }, ai * 11 / 10, dice.between(30, 200)),
    ];
    member(id, agent, RigKind::Gpu, "hall-b", (110, ai * 13 / 10), options, Workload::Idle)
}

fn member(
    id: &str,
    agent: &str,
    kind: RigKind,
    feeder: &str,
    (floor, nameplate): (u64, u64),
    options: Vec<WorkOption>,
    fallback: Workload,
) -> RigMember {
    RigMember {
        spec: RigSpec {
            id: RigId::new(id).expect("a legal id"),
            kind,
            feeder: feeder_id(feeder),
            floor: Watts(floor),
            nameplate: Watts(nameplate),
            options,
            switch_cost: Money(2_000),
            hand_over_cost: Money(200),
            switch_time: Millis::from_secs(60),
            min_dwell: Millis::ZERO,
        },
        agent: AgentId::new(agent).expect("a legal id"),
        drain: Millis::from_secs(40),
        fallback,
    }
}
