//! No sequence of events breaks the rig machine.

use farm_core::rig::{Reading, RigEffect, RigEvent, TripCause, is_legal};
use proptest::prelude::*;
use roadbed_protocol::{
    EventKind, HashesPerSecond, MilliCelsius, Millis, RigKind, RigState, UnixMillis, Watts,
    Workload,
};

use crate::rig_fixture::{Bench, assignment, mine, prove, serve};

fn workloads() -> impl Strategy<Value = Workload> {
    prop_oneof![
        Just(Workload::Idle),
        Just(Workload::Curtailed),
        Just(mine(None)),
        Just(mine(Some(1_500))),
        Just(serve()),
        Just(prove()),
    ]
}

fn events() -> impl Strategy<Value = RigEvent> {
    let reason = || String::from("r");
    let order = (0_u64..12, workloads(), workloads(), -10_i64..4_000_000, 0_u64..400_000).prop_map(
        |(generation, workload, fallback, lease, drain)| {
            let mut order = assignment(generation, workload);
            (order.fallback, order.lease_until) = (fallback, UnixMillis(lease));
            order.drain = Millis(drain);
            RigEvent::Assigned(order)
        },
    );
    let reading = (
        proptest::option::of(0_u64..4_100),
        proptest::option::of(0_i32..92_000),
        proptest::option::of(0_u64..2),
    )
        .prop_map(|(power, temperature, hashrate)| {
            RigEvent::Measured(Reading {
                power: power.map(Watts),
                temperature: temperature.map(MilliCelsius),
                hashrate: hashrate.map(HashesPerSecond),
            })
        });
    prop_oneof![
        3 => Just(RigEvent::Probed),
        1 => Just(RigEvent::ProbeFailed { reason: reason() }),
        4 => order,
        4 => workloads().prop_map(|workload| RigEvent::Started { workload }),
        3 => workloads().prop_map(|workload| RigEvent::HandedOver { workload }),
        1 => Just(RigEvent::Failed { reason: reason() }),
        2 => Just(RigEvent::Drained),
        2 => Just(RigEvent::Stopped),
        3 => reading,
        1 => Just(RigEvent::LinkUp),
        1 => Just(RigEvent::LinkDown),
        1 => Just(RigEvent::TripSignal(TripCause::Interlock)),
        2 => Just(RigEvent::OperatorReset { operator: reason() }),
        3 => Just(RigEvent::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_the_machine(
        steps in prop::collection::vec((events(), -5_000_i64..400_000), 1..60),
        is_asic in any::<bool>(),
    ) {
        let kind = if is_asic { RigKind::Asic } else { RigKind::Gpu };
        let mut bench = Bench::new(kind);
        let (mut state, mut generation) = (RigState::Booting, 0);
        let mut latest = UnixMillis(0);
        for (event, span) in steps {
            // A clock that is set back now and then must do no harm.
            bench.now = UnixMillis(bench.now.0 + span);
            let was_tripped = bench.state() == RigState::Tripped;
            let reset = matches!(event, RigEvent::OperatorReset { .. });
            let effects = bench.say(event);
            for effect in &effects {
                if let RigEffect::Record { kind: EventKind::StateChanged { from, to }, .. } = effect {
                    prop_assert_eq!(*from, state);
                    prop_assert!(is_legal(*from, *to));
                    state = *to;
                }
            }
            prop_assert_eq!(state, bench.state());
            prop_assert!(bench.rig.generation() >= generation, "generations never fall");
            generation = bench.rig.generation();
            if was_tripped && !reset {
                prop_assert_eq!(bench.state(), RigState::Tripped);
                let started = effects.iter().any(|effect| matches!(effect, RigEffect::Start(_)));
                prop_assert!(!started, "nothing starts while tripped");
            }
            if let (RigKind::Asic, Some(running)) = (kind, bench.rig.workload()) {
                let mining = matches!(running, Workload::Mine { .. });
                prop_assert!(mining);
            }
            // A timer that is due again at once would spin its shell.
            latest = latest.max(bench.now);
            let now = latest;
            bench.rig.handle(now, RigEvent::Tick);
            if let Some(wake) = bench.rig.wake_at() {
                let asks = bench.state() == RigState::Booting;
                prop_assert!(wake > now || asks, "{:?} wakes at {:?} now {:?}", bench.state(), wake, now);
            }
            state = bench.state();
        }
    }
}
