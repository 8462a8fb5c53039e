//! No sequence of events, however wild, breaks the farm machine.

use std::collections::BTreeMap;

use farm_core::farm::{Alert, Farm, FarmEffect, FarmEvent, FarmSettings, FarmTiming, RigMember};
use farm_core::forecast::{PricePoint, PriceSeries};
use farm_core::ledger::Ledger;
use farm_core::plan::CurtailOrder;
use proptest::prelude::*;
use roadbed_protocol::{
    AgentId, FarmId, HashesPerSecond, JobCounters, MicrosPerMwh, Millis, PowerReading, PowerSource,
    RigState, StateReport, TelemetryBatch, TelemetrySample, UnixMillis, Watts, Workload,
};

use crate::plan_fixture::{commitment, farm, feeder_id, option, rig, rig_id};
use crate::rig_fixture::{mine, prove, serve};

fn settings() -> FarmSettings {
    let options = vec![option(mine(None), 3_000, 300_000), option(prove(), 1_300, 90_000)];
    let rigs = vec![rig("rig-0", options.clone()), rig("rig-1", options)];
    let input = farm(4_000, &[], Vec::new());
    FarmSettings {
        farm: FarmId::new("farm").unwrap(),
        rigs: rigs
            .into_iter()
            .map(|rig| RigMember {
                spec: rig.spec,
                agent: AgentId::new("agent").unwrap(),
                drain: Millis(1_000),
                fallback: mine(None),
            })
            .collect(),
        feeders: input.feeders,
        rules: input.rules,
        timing: FarmTiming { horizon_slots: 3, ..FarmTiming::default() },
    }
}

/// Small numbers, and now and then an absurd one.
fn wild() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..20, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn workloads() -> impl Strategy<Value = Option<Workload>> {
    let some = [mine(None), serve(), prove(), Workload::Idle, Workload::Curtailed];
    proptest::option::of(prop::sample::select(some.to_vec()))
}

fn reports() -> impl Strategy<Value = FarmEvent> {
    let numbers = (wild(), wild(), wild(), any::<u32>(), -1_000_000_i64..4_000_000);
    (0_usize..3, 0_usize..9, workloads(), workloads(), numbers, 0_u8..3).prop_map(
        |(who, state, workload, target, (seq, generation, watts, attempts, at), boot)| {
            FarmEvent::Report(Box::new(StateReport {
                rig: rig_id(&format!("rig-{who}")),
                agent: AgentId::new("agent").unwrap(),
                boot: format!("boot-{boot}"),
                seq,
                at: UnixMillis(at),
                state: RigState::ALL[state],
                since: UnixMillis(at),
                workload,
                target,
                generation,
                lease_until: None,
                power: Some(PowerReading { watts: Watts(watts), source: PowerSource::Firmware }),
                hashrate: None,
                temperature: None,
                jobs: JobCounters::default(),
                attempts,
                reason: "r".into(),
                engine: "e".into(),
                proof_rate: None,
                proof_rates: vec![],
                proof: None,
                pools: Vec::new(),
                hash_rates: Vec::new(),
            }))
        },
    )
}

fn batches() -> impl Strategy<Value = FarmEvent> {
    (wild(), wild(), wild(), workloads(), any::<i64>()).prop_map(
        |(seq, watts, span, workload, at)| {
            FarmEvent::Telemetry(TelemetryBatch {
                rig: rig_id("rig-0"),
                agent: AgentId::new("agent").unwrap(),
                journal: "j".into(),
                seq,
                samples: vec![TelemetrySample {
                    at: UnixMillis(at),
                    span: Millis(span),
                    power: PowerReading { watts: Watts(watts), source: PowerSource::Meter },
                    workload,
                    state: RigState::Running,
                    hashrate: Some(HashesPerSecond(watts)),
                    temperature: None,
                    jobs: JobCounters::default(),
                }],
            })
        },
    )
}

fn events() -> impl Strategy<Value = FarmEvent> {
    let prices = prop::collection::vec((-5_000_000_i64..5_000_000, any::<i64>()), 0..6);
    let whom = || (0_usize..3).prop_map(|who| rig_id(&format!("rig-{who}")));
    prop_oneof![
        6 => reports(),
        3 => batches(),
        2 => prices.prop_map(|points| {
            let points = points.into_iter().map(|(at, price)| PricePoint {
                at: UnixMillis(at),
                price: MicrosPerMwh(price),
            });
            FarmEvent::Prices(PriceSeries::new(points.collect(), Millis::from_mins(15)))
        }),
        1 => (whom(), workloads()).prop_map(|(rig, workload)| FarmEvent::Hold {
            rig,
            workload: workload.unwrap_or(Workload::Idle),
            operator: "ann".into(),
        }),
        1 => whom().prop_map(|rig| FarmEvent::Release { rig }),
        1 => (wild(), any::<i64>(), wild()).prop_map(|(limit, from, span)| {
            FarmEvent::CurtailOrder(CurtailOrder {
                id: "grid".into(),
                feeder: feeder_id("hall"),
                limit: Watts(limit),
                from: UnixMillis(from),
                until: UnixMillis(from) + Millis(span),
                breaks_commitments: false,
            })
        }),
        1 => Just(FarmEvent::Commitments(vec![commitment("rig-0", prove(), 0, 1)])),
        1 => any::<bool>().prop_map(|online| FarmEvent::Presence {
            agent: AgentId::new("agent").unwrap(),
            online,
        }),
        1 => any::<bool>().prop_map(|active| {
            let (key, text) = ("gonka-halt".to_owned(), "no block".to_owned());
            FarmEvent::Noticed(Alert { key, rig: None, active, text })
        }),
        3 => Just(FarmEvent::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_the_farm(
        steps in prop::collection::vec((events(), -20_000_i64..400_000), 1..50),
    ) {
        let mut farm = Farm::new(settings(), UnixMillis(0));
        let (mut now, mut latest) = (UnixMillis(0), UnixMillis(0));
        let mut issued = BTreeMap::new();
        let mut ledger = Ledger::default();
        for (event, span) in steps {
            now = UnixMillis(now.0 + span);
            latest = latest.max(now);
            for effect in farm.handle(now, event) {
                match effect {
                    FarmEffect::Assign(assignment) => {
                        let known = issued.insert(assignment.rig.clone(), assignment.generation);
                        prop_assert!(known.is_none_or(|known| known <= assignment.generation));
                        prop_assert!(assignment.lease_until > latest);
                    }
                    FarmEffect::Book(entry) => drop(ledger.apply(&entry)),
                    FarmEffect::CommitPlan { .. }
                    | FarmEffect::Sync { .. }
                    | FarmEffect::JournalStored { .. }
                    | FarmEffect::Alert(_)
                    | FarmEffect::Log { .. } => {}
                }
            }
            // A wake that is due again at once would spin its shell.
            farm.handle(latest, FarmEvent::Tick);
            if let Some(wake) = farm.wake_at() {
                prop_assert!(wake > latest, "wakes at {wake:?}, now {latest:?}");
            }
        }
    }
}
