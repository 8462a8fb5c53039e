//! What a rig does over time: leases, hand-overs, deadlines, lying firmwares, the latch.

use farm_core::rig::{Reading, Rig, RigEffect, RigEvent, RigMemory, TripCause};
use roadbed_protocol::{
    EventKind, HashesPerSecond, MilliCelsius, Millis, RigId, RigKind, RigState, UnixMillis, Watts,
    Workload,
};

use crate::rig_fixture::{Bench, HOT, SAFE, assignment, mine, prove, serve, settings};

fn has_record(effects: &[RigEffect], wanted: &EventKind) -> bool {
    effects.iter().any(|effect| matches!(effect, RigEffect::Record { kind, .. } if kind == wanted))
}

fn reading(watts: u64, hashrate: Option<u64>) -> RigEvent {
    RigEvent::Measured(Reading {
        power: Some(Watts(watts)),
        temperature: Some(MilliCelsius(50_000)),
        hashrate: hashrate.map(HashesPerSecond),
    })
}

#[test]
fn an_accepted_assignment_is_stored_before_it_is_acted_on() {
    let mut bench = Bench::in_state(RigState::Idle);
    let effects = bench.assign(1, serve());
    let place = |wanted: &RigEffect| effects.iter().position(|effect| effect == wanted).unwrap();
    let stored = effects.iter().position(|e| matches!(e, RigEffect::Persist(_))).unwrap();
    assert!(stored < place(&RigEffect::Accept { generation: 1 }));
    assert!(stored < place(&RigEffect::Start(serve())));
    assert_eq!(effects.last(), Some(&RigEffect::Report));
}

#[test]
fn an_equal_generation_renews_and_nothing_else() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    let mut renewal = assignment(1, serve());
    renewal.lease_until = UnixMillis(9_000_000);
    bench.say(RigEvent::Assigned(renewal));
    assert_eq!(bench.rig.lease_until(), Some(UnixMillis(9_000_000)));
    bench.assign(1, serve());
    assert_eq!(
        bench.rig.lease_until(),
        Some(UnixMillis(9_000_000)),
        "a late copy shortens nothing"
    );
    let effects = bench.assign(1, prove());
    assert!(matches!(effects[1], RigEffect::Refuse { generation: 1, .. }), "{effects:?}");
    assert_eq!(bench.rig.target(), Some(&serve()));
}

#[test]
fn a_lapsed_lease_sheds_at_once_and_a_renewal_brings_the_work_back() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    assert_eq!(bench.rig.wake_at(), Some(UnixMillis(3_600_000)));
    let effects = bench.wait(Millis(3_600_000));
    assert!(has_record(&effects, &EventKind::LeaseLapsed));
    assert!(effects.contains(&RigEffect::Stop { force: false }), "no drain for a curtailment");
    assert!(!effects.contains(&RigEffect::BeginDrain));
    bench.say(RigEvent::Stopped);
    assert_eq!(bench.state(), RigState::Curtailed);
    let mut renewal = assignment(1, serve());
    renewal.lease_until = UnixMillis(7_200_000);
    let effects = bench.say(RigEvent::Assigned(renewal));
    assert!(effects.contains(&RigEffect::Start(serve())));
}

#[test]
fn a_lapsed_lease_drains_when_the_fallback_is_no_curtailment() {
    let mut bench = Bench::in_state(RigState::Idle);
    let mut order = assignment(1, serve());
    order.fallback = Workload::Idle;
    bench.say(RigEvent::Assigned(order));
    bench.say(RigEvent::Started { workload: serve() });
    assert!(bench.wait(Millis(3_600_000)).contains(&RigEffect::BeginDrain));
}

#[test]
fn an_order_that_comes_after_its_lease_only_lowers_power() {
    let mut bench = Bench::in_state(RigState::Idle);
    bench.now = UnixMillis(4_000_000);
    let effects = bench.assign(5, serve());
    assert!(!effects.contains(&RigEffect::Start(serve())));
    assert_eq!((bench.rig.generation(), bench.state()), (5, RigState::Curtailed));
}

#[test]
fn a_fallback_may_not_need_more_than_the_target() {
    let cases = [
        (mine(Some(2_000)), mine(None), false),
        (mine(Some(2_000)), mine(Some(3_000)), false),
        (mine(Some(2_000)), mine(Some(1_500)), true),
        (Workload::Curtailed, mine(Some(500)), false),
        (serve(), prove(), true),
        (serve(), mine(None), false),
    ];
    for (target, fallback, fine) in cases {
        let mut bench = Bench::in_state(RigState::Idle);
        let mut order = assignment(1, target.clone());
        order.fallback = fallback.clone();
        bench.say(RigEvent::Assigned(order));
        assert_eq!(bench.rig.generation() == 1, fine, "{target} / {fallback}");
    }
}

#[test]
fn an_asic_is_never_asked_to_think() {
    let mut bench = Bench::new(RigKind::Asic);
    bench.say(RigEvent::Probed);
    bench.assign(1, serve());
    assert_eq!((bench.rig.generation(), bench.state()), (0, RigState::Idle));
}

#[test]
fn another_rigs_assignment_is_refused() {
    let mut bench = Bench::in_state(RigState::Idle);
    let mut order = assignment(1, serve());
    order.rig = RigId::new("other").unwrap();
    bench.say(RigEvent::Assigned(order));
    assert_eq!(bench.rig.generation(), 0);
}

#[test]
fn serve_and_prove_hand_over_without_a_stop() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    let effects = bench.assign(2, prove());
    assert!(effects.contains(&RigEffect::HandOver { from: serve(), to: prove() }));
    assert_eq!(bench.rig.workload(), Some(&serve()), "until it is confirmed");
    let effects = bench.say(RigEvent::HandedOver { workload: prove() });
    let switch = EventKind::Switched { from: Some(serve()), to: Some(prove()) };
    assert!(has_record(&effects, &switch));
    assert_eq!(bench.state(), RigState::Running);
    // The target turns round before the answer: the answer to the first order is then void.
    bench.assign(3, serve());
    let effects = bench.assign(4, prove());
    assert!(effects.contains(&RigEffect::HandOver { from: serve(), to: prove() }));
    bench.say(RigEvent::HandedOver { workload: serve() });
    assert_eq!((bench.rig.ignored(), bench.rig.workload()), (1, Some(&prove())));
}

#[test]
fn a_hand_over_without_an_answer_is_a_fault() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    bench.assign(2, prove());
    bench.wait(Millis::from_secs(60));
    assert_eq!(bench.state(), RigState::Faulted);
}

#[test]
fn less_mining_power_does_not_wait_for_the_start() {
    let mut bench = Bench::new(RigKind::Asic);
    bench.say(RigEvent::Probed);
    bench.assign(1, mine(Some(3_000)));
    bench.assign(2, mine(Some(3_200)));
    assert_eq!(bench.state(), RigState::Starting, "more waits");
    let effects = bench.assign(3, mine(Some(2_000)));
    assert!(effects.contains(&RigEffect::Stop { force: false }), "less does not");
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    assert!(bench.assign(2, mine(None)).contains(&RigEffect::BeginDrain));
    assert!(bench.wait(Millis::from_secs(120)).contains(&RigEffect::Stop { force: true }));
    let effects = bench.say(RigEvent::Stopped);
    assert!(effects.contains(&RigEffect::Start(mine(None))));
    let effects = bench.say(RigEvent::Started { workload: mine(None) });
    let switch = EventKind::Switched { from: Some(serve()), to: Some(mine(None)) };
    assert!(has_record(&effects, &switch), "the stop on the way is part of one switch");
}

#[test]
fn a_more_urgent_target_shortens_a_drain() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    bench.assign(2, mine(None));
    let mut order = assignment(3, Workload::Curtailed);
    order.drain = Millis::ZERO;
    let effects = bench.say(RigEvent::Assigned(order));
    assert!(effects.contains(&RigEffect::Stop { force: false }));
}

#[test]
fn a_target_that_comes_back_ends_the_drain() {
    let mut bench = Bench::in_state(RigState::Draining);
    assert!(bench.assign(3, serve()).contains(&RigEffect::CancelDrain));
    assert_eq!(bench.state(), RigState::Running);
}

#[test]
fn a_firmware_that_only_says_it_stopped_is_not_believed() {
    let mut bench = Bench::running(RigKind::Asic, mine(None));
    bench.assign(2, Workload::Curtailed);
    bench.say(reading(3_000, Some(100)));
    bench.say(RigEvent::Stopped);
    assert_eq!(bench.state(), RigState::Stopping);
    bench.say(reading(50, Some(0)));
    assert_eq!(bench.state(), RigState::Curtailed, "the watts are believed");
}

#[test]
fn a_stop_that_never_shows_is_forced_then_a_fault() {
    let mut bench = Bench::running(RigKind::Asic, mine(None));
    bench.assign(2, Workload::Curtailed);
    bench.say(reading(3_000, Some(100)));
    bench.say(RigEvent::Stopped);
    assert!(bench.wait(Millis::from_secs(30)).contains(&RigEffect::Stop { force: true }));
    bench.say(reading(3_000, Some(100)));
    let effects = bench.wait(Millis::from_secs(30));
    assert!(has_record(&effects, &EventKind::Unconfirmed));
    assert_eq!(bench.state(), RigState::Faulted);
    // As long as it draws power it does not count as idle.
    bench.wait(Millis::from_secs(10));
    bench.say(reading(3_000, Some(100)));
    bench.say(RigEvent::Probed);
    assert_eq!((bench.state(), bench.rig.attempts()), (RigState::Faulted, 2));
    bench.wait(Millis::from_secs(20));
    bench.say(reading(40, Some(0)));
    bench.say(RigEvent::Probed);
    assert_eq!(bench.state(), RigState::Curtailed);
}

#[test]
fn a_miner_that_only_says_it_mines_is_found_out() {
    let mut bench = Bench::running(RigKind::Asic, mine(None));
    bench.say(reading(20, Some(0)));
    bench.wait(Millis::from_secs(30));
    bench.say(reading(3_000, Some(100)));
    bench.wait(Millis::from_secs(60));
    assert_eq!(bench.state(), RigState::Running, "one good reading ends the doubt");
    bench.say(reading(20, Some(0)));
    let effects = bench.wait(Millis::from_secs(60));
    assert!(has_record(&effects, &EventKind::Unconfirmed));
    assert_eq!(bench.state(), RigState::Faulted);
}

#[test]
fn a_rig_that_wakes_by_itself_is_found_out() {
    let mut bench = Bench::in_state(RigState::Curtailed);
    bench.say(reading(2_000, None));
    bench.wait(Millis::from_secs(30));
    assert_eq!(bench.state(), RigState::Faulted);
}

#[test]
fn waits_double_and_work_forgives() {
    let mut bench = Bench::in_state(RigState::Starting);
    let waits = [10, 20, 40, 80, 80];
    for (index, seconds) in waits.into_iter().enumerate() {
        bench.say(RigEvent::Failed { reason: "no".into() });
        assert_eq!(bench.rig.attempts() as usize, index + 1);
        assert_eq!(bench.rig.wake_at(), Some(bench.now + Millis::from_secs(seconds)));
        bench.wait(Millis::from_secs(seconds));
        bench.say(RigEvent::Probed);
        assert_eq!(bench.state(), RigState::Starting);
    }
    bench.say(RigEvent::Started { workload: serve() });
    bench.wait(Millis::from_mins(15));
    assert_eq!(bench.rig.attempts(), 0);
}

#[test]
fn a_silent_driver_is_a_fault_everywhere() {
    for state in [RigState::Booting, RigState::Starting, RigState::Faulted] {
        let mut bench = Bench::in_state(state);
        let attempts = bench.rig.attempts();
        bench.wait(Millis::ZERO);
        bench.wait(Millis::from_secs(60));
        assert_eq!(
            (bench.state(), bench.rig.attempts()),
            (RigState::Faulted, attempts + 1),
            "{state}"
        );
    }
}

#[test]
fn the_latch_opens_only_for_a_person_and_safe_readings() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    let effects = bench.say(RigEvent::Measured(HOT));
    assert_eq!(effects[0], RigEffect::CutPower);
    let reset = || RigEvent::OperatorReset { operator: "ann".into() };
    bench.assign(2, prove());
    assert_eq!(bench.state(), RigState::Tripped, "an order does not open it");
    bench.say(reset());
    assert_eq!(bench.state(), RigState::Tripped, "too hot");
    bench.say(reading(3_000, None));
    bench.say(reset());
    assert_eq!(bench.state(), RigState::Tripped, "still draws power");
    bench.say(RigEvent::Measured(Reading { temperature: None, ..SAFE }));
    bench.say(reset());
    assert_eq!(bench.state(), RigState::Tripped, "not measured is not safe");
    bench.say(RigEvent::Measured(SAFE));
    bench.wait(Millis::from_secs(61));
    bench.say(reset());
    assert_eq!(bench.state(), RigState::Tripped, "readings too old");
    bench.say(RigEvent::Measured(SAFE));
    let effects = bench.say(reset());
    assert!(effects.contains(&RigEffect::ResetDone));
    assert!(effects.contains(&RigEffect::Start(prove())), "on to the newest target");
}

#[test]
fn too_much_power_trips() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    bench.say(reading(4_001, None));
    assert_eq!(bench.state(), RigState::Tripped);
    assert_eq!(bench.rig.reason(), "power: 4001 W");
}

#[test]
fn latch_and_generation_survive_a_crash_of_the_agent() {
    let mut bench = Bench::running(RigKind::Gpu, serve());
    bench.say(RigEvent::TripSignal(TripCause::Breaker));
    let stored = bench.rig.memory();
    let id = RigId::new("rig").unwrap();
    let mut rig = Rig::restore(id.clone(), settings(RigKind::Gpu), stored, UnixMillis(5));
    assert_eq!(rig.wake_at(), Some(UnixMillis(5)));
    let effects = rig.handle(UnixMillis(5), RigEvent::Probed);
    assert_eq!(effects[0], RigEffect::CutPower);
    assert_eq!((rig.state(), rig.generation()), (RigState::Tripped, 1));

    let memory = RigMemory { assignment: Some(assignment(7, serve())), tripped: None };
    let mut rig = Rig::restore(id, settings(RigKind::Gpu), memory, UnixMillis(0));
    assert_eq!(rig.handle(UnixMillis(0), RigEvent::Tick), vec![RigEffect::Probe]);
    let effects = rig.handle(UnixMillis(1), RigEvent::Probed);
    assert!(effects.contains(&RigEffect::Start(serve())), "the work goes on without a controller");
    let effects = rig.handle(UnixMillis(2), RigEvent::Assigned(assignment(6, prove())));
    assert!(effects.iter().any(|effect| matches!(effect, RigEffect::Refuse { .. })));
}

#[test]
fn a_miner_found_hashing_at_boot_is_put_to_rest() {
    let mut bench = Bench::new(RigKind::Asic);
    assert_eq!(bench.say(RigEvent::Tick), vec![RigEffect::Probe]);
    assert!(bench.say(RigEvent::Probed).contains(&RigEffect::HoldFloor));
}
