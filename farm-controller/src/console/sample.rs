//! A small farm as a view, for the console's tests.

use roadbed_protocol::{
    Cause, HashesPerSecond, JobCounters, MicrosPerHour, MicrosPerMwh, MilliCelsius, Millis, Money,
    PoolReport, PoolShares, PoolStanding, PowerReading, PowerSource, RigId, RigKind, RigState,
    UnixMillis, WattHours, Watts, Workload,
};

use crate::gonka::view::{GonkaView, WindowView};
use crate::view::{
    ChoiceView, FarmView, FeederView, LogLine, PlanRowView, PlanView, RigView, Severity, SlotView,
    SwitchView, Totals,
};

fn rig_id(name: &str) -> RigId {
    RigId::new(name).unwrap()
}

fn asic(name: &str, online: bool) -> RigView {
    RigView {
        id: rig_id(name),
        kind: RigKind::Asic,
        model: "Antminer S19k Pro".into(),
        engine: "luxos 2024".into(),
        feeder: "hall-a".into(),
        agent: "hall-box".into(),
        online,
        state: Some(RigState::Running),
        since: Some(UnixMillis(3_000_000)),
        workload: Some(Workload::Mine { power_target: None }),
        target: Some(Workload::Mine { power_target: None }),
        cause: Some(Cause::Plan),
        held_by: None,
        reason: "price 18.30/MWh is below break-even 41.20/MWh: mine".into(),
        state_reason: "confirmed by 2790 W and 121.3 TH/s".into(),
        generation: 3,
        lease_until: Some(UnixMillis(5_400_000)),
        power: Some(PowerReading { watts: Watts(2_790), source: PowerSource::Firmware }),
        hashrate: Some(HashesPerSecond(121_300_000_000_000)),
        temperature: Some(MilliCelsius(68_000)),
        proof_rate: None,
        proof_rates: vec![],
        proof: None,
        hash_rates: Vec::new(),
        pools: Vec::new(),
        promises: Vec::new(),
        jobs: JobCounters::default(),
        reported_at: Some(UnixMillis(3_590_000)),
        margin: Some(MicrosPerHour(61_000)),
        assumed: true,
        totals: Totals {
            energy: WattHours(2_790),
            cost: Money(51_057),
            revenue: Money(115_000),
            assumed_revenue: Money(115_000),
            switches: 1,
        },
        switches: vec![SwitchView {
            at: UnixMillis(60_000),
            from: None,
            to: Some(Workload::Mine { power_target: None }),
            reason: "price 18.30/MWh is below break-even 41.20/MWh: mine".into(),
        }],
    }
}

/// Two pools of a rig: one hashed for, one that cannot be reached.
pub(crate) fn pools() -> Vec<PoolReport> {
    let first = PoolReport {
        url: "stratum+ssl://pool.example:443".into(),
        standing: PoolStanding::Hashing,
        hashes: 7_500,
        difficulty_millionths: 500_000,
        shares: PoolShares { accepted: 41, stale: 2, low_difficulty: 1, ..PoolShares::default() },
        answer_after: Some(Millis(35)),
        trouble: String::new(),
    };
    let second = PoolReport {
        url: "stratum2+tcp://other.example:3333/KEY".into(),
        standing: PoolStanding::Away,
        hashes: 2_500,
        difficulty_millionths: 0,
        shares: PoolShares { unanswered: 1, ..PoolShares::default() },
        answer_after: None,
        trouble: "it closed the connection".into(),
    };
    vec![first, second]
}

fn choice(workload: Workload, cause: Cause, reason: &str) -> ChoiceView {
    ChoiceView {
        workload,
        cause,
        power: Watts(2_794),
        margin: MicrosPerHour(61_000),
        assumed: true,
        next_best: None,
        reason: reason.into(),
    }
}

/// An epoch of mainnet with one MLNode of ours that cannot earn, and one alert.
pub(crate) fn gonka() -> GonkaView {
    let at = UnixMillis(3_600_000);
    let window = |name: &str, from: i64| WindowView {
        name: name.into(),
        block: 6_355_391,
        from: UnixMillis(from),
        error: Millis::from_mins(3),
        until: UnixMillis(from + 321_000),
    };
    GonkaView {
        at,
        address: "gonka1farm".into(),
        height: Some((6_355_191, UnixMillis(3_596_000))),
        epoch: Some(410),
        phase: Some("Inference".into()),
        windows: vec![
            window("confirmation PoC 1: validate", 3_500_000),
            window("epoch 411: PoC generate", 4_670_000),
        ],
        alerts: vec!["the Network Node does not know the rig".into()],
        ..GonkaView::default()
    }
}

/// Two ASICs, one of them behind a lost agent, at one o'clock.
pub(crate) fn view() -> FarmView {
    let mine = Workload::Mine { power_target: None };
    let slot = |index: i64, price: i64| SlotView {
        start: UnixMillis(index * 3_600_000),
        price: Some(MicrosPerMwh(price)),
        power: Watts(5_588),
    };
    let row = |name: &str| PlanRowView {
        rig: rig_id(name),
        choices: vec![
            choice(
                mine.clone(),
                Cause::Plan,
                "price 18.30/MWh is below break-even 41.20/MWh: mine",
            ),
            choice(Workload::Curtailed, Cause::Plan, "price 212.40/MWh is above break-even: sleep"),
        ],
    };
    FarmView {
        farm: "demo".into(),
        currency: "USD".into(),
        at: UnixMillis(3_600_000),
        price: Some(MicrosPerMwh(18_300_000)),
        price_age: Some(Millis::from_mins(12)),
        feeders: vec![FeederView { id: "site".into(), limit: Watts(20_000), power: Watts(5_580) }],
        rigs: vec![asic("asic-1", true), asic("asic-2", false)],
        plan: PlanView {
            id: 7,
            made_at: UnixMillis(3_600_000),
            slots: vec![slot(1, 18_300_000), slot(2, 212_400_000)],
            rows: vec![row("asic-1"), row("asic-2")],
            notes: vec!["asic-2 is silent: counted at nameplate".into()],
            sheds: Vec::new(),
        },
        totals: Totals {
            energy: WattHours(5_580),
            cost: Money(102_114),
            revenue: Money(230_000),
            assumed_revenue: Money(230_000),
            switches: 2,
        },
        gonka: None,
        log: vec![
            LogLine {
                at: UnixMillis(60_000),
                severity: Severity::Info,
                rig: Some(rig_id("asic-1")),
                text: "mine".into(),
            },
            LogLine {
                at: UnixMillis(120_000),
                severity: Severity::Alert,
                rig: Some(rig_id("asic-2")),
                text: "agent hall-box offline".into(),
            },
        ],
    }
}
