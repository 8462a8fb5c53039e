//! The ASIC drivers against scripted miners: what they do, what they lie about, how they fail.
//!
//! The miners here are bodies of three numbers behind the recorded answers, with a script of
//! misbehaviour. A driver passes when it tells the truth about the body, whatever the answers were.

mod luxos;
mod scripted;
mod vnish;

use std::time::Duration;

use roadbed_agent::asic::AsicDriver;
use roadbed_agent::clock::{FarmClock, wall_now};
use roadbed_agent::config::{AsicConfig, AsicDriverKind};
use roadbed_agent::driver::{DRIVER_EVENTS_MAX, DriverEvent, RigDriver as _};
use roadbed_protocol::{
    HashesPerSecond, MilliCelsius, MiningStep, RigId, RigKind, RigProfile, UnixMillis, Watts,
    Workload,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use scripted::{Body, Script};

/// Longest wait for an event: far beyond all patience of the driver.
const DEADLINE: Duration = Duration::from_secs(60);
const TERA: u64 = 1_000_000_000_000;

/// A driver and what it has said.
struct Bench {
    driver: AsicDriver,
    events: mpsc::Receiver<DriverEvent>,
    body: Body,
}

fn profile() -> RigProfile {
    let step = |watts, tera: u64| MiningStep {
        watts: Watts(watts),
        hashes_per_second: HashesPerSecond(tera * TERA),
    };
    RigProfile {
        model: "scripted".into(),
        kind: RigKind::Asic,
        firmware: "scripted".into(),
        source: "test".into(),
        status: "test".into(),
        floor_watts: Watts(20),
        nameplate_watts: Watts(3_000),
        mining: vec![step(1_299, 65), step(2_794, 121)],
        ai_watts: None,
        start_seconds: 60,
        stop_seconds: 10,
        temperature_trip: MilliCelsius(85_000),
        temperature_safe: MilliCelsius(60_000),
    }
}

impl Bench {
    async fn new(kind: AsicDriverKind, script: Script, awake: bool) -> Self {
        let body = Body::new(script, awake);
        let address = match kind {
            AsicDriverKind::Luxos => luxos::listen(body.clone()).await,
            AsicDriverKind::Vnish => vnish::listen(body.clone()).await,
        };
        let (sender, events) = mpsc::channel(DRIVER_EVENTS_MAX);
        // A hundred farm seconds a second: a wake of a minute is over before anyone gets bored.
        let clock = FarmClock::accelerated(100.0, UnixMillis(0), wall_now()).unwrap();
        let driver = AsicDriver::spawn(
            &RigId::new("asic-1").unwrap(),
            &AsicConfig { driver: kind, address, password: Some(scripted::PASSWORD.into()) },
            &profile(),
            clock,
            sender,
        )
        .unwrap();
        Self { driver, events, body }
    }

    async fn next(&mut self) -> DriverEvent {
        timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("a driver")
    }

    /// The events up to and with the first that is neither of the kind of "not yet".
    async fn outcome(&mut self) -> (usize, DriverEvent) {
        let mut doubts = 0;
        loop {
            match self.next().await {
                DriverEvent::Unconfirmed { .. } => doubts += 1,
                other => return (doubts, other),
            }
        }
    }
}

fn mine(cap: Option<u64>) -> Workload {
    Workload::Mine { power_target: cap.map(Watts) }
}

const FAMILIES: [AsicDriverKind; 2] = [AsicDriverKind::Luxos, AsicDriverKind::Vnish];

/// What must come of an order.
enum Outcome {
    Done,
    Fails(&'static str),
}

/// One row: a script, an order given to a miner in the other state, what must come of it.
async fn check(kind: AsicDriverKind, script: Script, sleep: bool, outcome: Outcome) {
    let name = format!("{} {script:?} sleep={sleep}", kind.word());
    let mut bench = Bench::new(kind, script, sleep).await;
    if sleep {
        bench.driver.stop(false);
    } else {
        bench.driver.start(mine(None));
    }
    let (_, event) = bench.outcome().await;
    let (reason, awake) = match &event {
        DriverEvent::Failed { reason } => (Some(reason), sleep),
        _ => (None, !sleep),
    };
    let right = match (&outcome, &event) {
        (Outcome::Done, DriverEvent::Stopped) => sleep,
        (Outcome::Done, DriverEvent::Started { .. }) => !sleep,
        (Outcome::Fails(words), DriverEvent::Failed { reason }) => reason.contains(words),
        (Outcome::Done | Outcome::Fails(_), _) => false,
    };
    assert!(right, "{name}: {event:?}");
    assert_eq!(bench.body.is_awake(), awake, "{name}: what the body did");
    assert!(reason.is_none_or(|reason| !reason.contains(scripted::PASSWORD)), "{name}: {reason:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_script_ends_in_the_truth() {
    let mut rows = tokio::task::JoinSet::new();
    for kind in FAMILIES {
        for sleep in [true, false] {
            rows.spawn(check(kind, Script::Obeys, sleep, Outcome::Done));
            rows.spawn(check(kind, Script::Slow, sleep, Outcome::Done));
            rows.spawn(check(kind, Script::CutsReplies(4), sleep, Outcome::Done));
            rows.spawn(check(kind, Script::SaysGarbage(4), sleep, Outcome::Done));
            rows.spawn(check(kind, Script::SaysTooMuch(2), sleep, Outcome::Done));
            rows.spawn(check(kind, Script::LosesFirstOrder, sleep, Outcome::Done));
            rows.spawn(check(kind, Script::RebootsOnce, sleep, Outcome::Done));
            rows.spawn(check(kind, Script::ForgetsLogin, sleep, Outcome::Done));
            rows.spawn(check(kind, Script::Lies, sleep, Outcome::Fails("sent 3 times")));
            rows.spawn(check(kind, Script::Refuses, sleep, Outcome::Fails("not today")));
        }
    }
    let luxos = AsicDriverKind::Luxos;
    rows.spawn(check(luxos, Script::SessionHeld(3), true, Outcome::Done));
    rows.spawn(check(luxos, Script::SessionHeld(1_000_000), true, Outcome::Fails("session")));
    let vnish = AsicDriverKind::Vnish;
    rows.spawn(check(vnish, Script::WrongPassword, true, Outcome::Fails("check the password")));
    let mut broken = Vec::new();
    while let Some(row) = rows.join_next().await {
        broken.extend(row.err());
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test]
async fn a_driver_without_orders_only_reads() {
    for kind in FAMILIES {
        for awake in [true, false] {
            let mut bench = Bench::new(kind, Script::Obeys, awake).await;
            bench.driver.probe();
            assert_eq!(bench.next().await, DriverEvent::Probed);
            let seen = bench.driver.observe();
            let watts = if awake { 2_794 } else { 18 };
            assert_eq!(seen.power.map(|power| power.watts), Some(Watts(watts)));
            assert!(seen.engine.contains("Antminer"), "{}", seen.engine);
            assert!(seen.temperature.is_some());
            assert_eq!(bench.body.writes(), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn a_sleeping_miner_wakes_at_the_step_it_may_have() {
    for kind in FAMILIES {
        let mut bench = Bench::new(kind, Script::Obeys, false).await;
        bench.driver.start(mine(Some(1_400)));
        let (_, event) = bench.outcome().await;
        assert_eq!(event, DriverEvent::Started { workload: mine(Some(1_400)) });
        assert_eq!(bench.body.watts_most(), 1_299, "never above the cap, not even at first");
        bench.driver.hand_over(mine(None));
        let (_, event) = bench.outcome().await;
        assert_eq!(event, DriverEvent::HandedOver { workload: mine(None) });
        assert_eq!(bench.driver.observe().power.map(|power| power.watts), Some(Watts(2_794)));
        let before = bench.body.writes().len();
        bench.driver.start(mine(None));
        let (_, event) = bench.outcome().await;
        assert_eq!(event, DriverEvent::Started { workload: mine(None) });
        assert_eq!(bench.body.writes().len(), before, "what holds is not written again");
    }
}

#[tokio::test]
async fn a_cap_below_every_step_is_refused_and_nobody_is_woken() {
    for kind in FAMILIES {
        let mut bench = Bench::new(kind, Script::Obeys, false).await;
        bench.driver.start(mine(Some(100)));
        let (_, event) = bench.outcome().await;
        assert!(matches!(&event, DriverEvent::Failed { reason } if reason.contains("lowest")));
        assert!(!bench.body.is_awake());
    }
}

#[tokio::test]
async fn the_latest_order_wins() {
    for kind in FAMILIES {
        let mut bench = Bench::new(kind, Script::Obeys, true).await;
        for _ in 0..50 {
            bench.driver.start(mine(None));
            bench.driver.stop(false);
        }
        bench.driver.hold_floor();
        loop {
            if bench.next().await == DriverEvent::Stopped {
                break;
            }
        }
        assert!(!bench.body.is_awake());
    }
}

#[tokio::test]
async fn a_miner_that_wakes_by_itself_is_put_back_to_sleep() {
    for kind in FAMILIES {
        let mut bench = Bench::new(kind, Script::Obeys, true).await;
        bench.driver.stop(false);
        assert_eq!(bench.outcome().await.1, DriverEvent::Stopped);
        bench.body.set_awake(true);
        assert!(matches!(bench.next().await, DriverEvent::Unconfirmed { .. }));
        bench.body.until(|body| !body.is_awake()).await;
    }
}

#[tokio::test]
async fn a_miner_put_to_sleep_by_somebody_else_is_told_not_woken() {
    for kind in FAMILIES {
        let mut bench = Bench::new(kind, Script::Obeys, true).await;
        bench.driver.start(mine(None));
        assert!(matches!(bench.outcome().await.1, DriverEvent::Started { .. }));
        bench.body.set_awake(false);
        assert!(matches!(bench.outcome().await.1, DriverEvent::Failed { .. }));
        assert!(!bench.body.is_awake());
    }
}

#[tokio::test]
async fn an_absent_miner_fails_its_probe_and_shows_no_power() {
    for kind in FAMILIES {
        let (sender, mut events) = mpsc::channel(DRIVER_EVENTS_MAX);
        // A port that was free a moment ago.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let config = AsicConfig { driver: kind, address, password: None };
        let rig = RigId::new("asic-1").unwrap();
        let clock = FarmClock::real();
        let mut driver = AsicDriver::spawn(&rig, &config, &profile(), clock, sender).unwrap();
        driver.probe();
        let event = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
        assert!(matches!(event, DriverEvent::ProbeFailed { .. }), "{event:?}");
        assert_eq!(driver.observe().power, None);
        driver.start(Workload::Serve { model: "m".into() });
        let event = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
        assert!(matches!(event, DriverEvent::Failed { .. }), "{event:?}");
    }
}
