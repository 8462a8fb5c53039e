//! The agent against a real broker: orders, refusals, restarts of either side, and rows that are not lost.

mod host;
mod site;

use roadbed_agent::driver::DriverEvent;
use roadbed_protocol::envelope::{Address, TYP_ASSIGNMENT, TYP_COMMAND};
use roadbed_protocol::topics::{self, RigLeaf};
use roadbed_protocol::{
    AckStatus, Command, EventKind, FarmId, Millis, RigEventReport, RigState, Signer,
    TelemetryBatch, Workload,
};

use host::Host;
use site::{Site, farm, rig};

const MINE: Workload = Workload::Mine { power_target: None };

async fn running(site: &mut Site) -> Host {
    let host = Host::start(site);
    site.until_online().await;
    let order = site.assignment(1, MINE);
    let envelope = site.assign(&order).await;
    site.until_ack(&envelope, AckStatus::Done).await;
    host
}

#[tokio::test]
async fn an_assignment_is_obeyed_and_told() {
    let mut site = Site::start(60.0).await;
    let host = Host::start(&site);
    site.until_online().await;
    site.until_state("idle", |report| report.state == RigState::Idle).await;
    assert_eq!(host.calls(), ["probe", "hold floor"]);

    let order = site.assignment(1, MINE);
    let envelope = site.assign(&order).await;
    let accepted = site.until_ack(&envelope, AckStatus::Accepted).await;
    assert_eq!(accepted.generation, Some(1));
    site.until_ack(&envelope, AckStatus::Done).await;
    let report = site.until_state("running", |report| report.state == RigState::Running).await;
    assert_eq!((report.workload, report.generation), (Some(MINE), 1));

    // Telemetry adds up: each sample follows the one before, and mining is metered as mining.
    let samples = site
        .until("samples of mining", |site| {
            let batches = site.heard::<TelemetryBatch>(RigLeaf::Telemetry);
            let samples: Vec<_> = batches.into_iter().flat_map(|batch| batch.samples).collect();
            let mining = samples.iter().filter(|sample| sample.workload == Some(MINE)).count();
            (mining >= 3).then_some(samples)
        })
        .await;
    for pair in samples.windows(2) {
        assert_eq!(pair[1].at - pair[1].span, pair[0].at, "no gap, no overlap");
    }
    host.stop().await;
}

#[tokio::test]
async fn bad_orders_change_nothing() {
    let mut site = Site::start(60.0).await;
    let host = Host::start(&site);
    site.until_online().await;
    site.until_state("idle", |report| report.state == RigState::Idle).await;
    let before = host.calls();
    let topic = topics::rig(&farm(), &rig(), RigLeaf::Assignment);
    let order = site.assignment(1, MINE);
    let seal = |signer: &mut Signer, farm: &FarmId, now, to: &str| {
        let valid = Millis::from_mins(1);
        let address = Address { typ: TYP_ASSIGNMENT, farm, to, now, valid };
        let (envelope, wire) = signer.seal(address, &order).unwrap();
        (envelope.id, wire)
    };
    let now = site.clock.now();
    let forged = seal(&mut Signer::new("controller", &[9; 32], 500), &farm(), now, "rig-1");
    let other_farm = FarmId::new("east").unwrap();
    let foreign = seal(&mut site.signer, &other_farm, now, "rig-1");
    let misdirected = seal(&mut site.signer, &farm(), now, "rig-2");
    let expired = seal(&mut site.signer, &farm(), now - Millis::from_hours(1), "rig-1");
    for (name, (envelope, wire), reason) in [
        ("forged", forged, "signature"),
        ("of another farm", foreign, "farm east"),
        ("for another rig", misdirected, "rig-2"),
        ("expired", expired, "expired"),
    ] {
        site.publish(topic.clone(), wire, false).await;
        let ack = site.until_ack(&envelope, AckStatus::Refused).await;
        assert!(ack.reason.contains(reason), "{name}: {}", ack.reason);
    }
    site.publish(topic.clone(), b"{\"v\":1".to_vec(), false).await;
    site.publish(topic.clone(), vec![0xff; 70_000], false).await;

    // An older order is replayed after a newer one was obeyed.
    let sleep = site.assignment(1, Workload::Curtailed);
    let older = site.seal(TYP_ASSIGNMENT, "rig-1", &order);
    let envelope = site.assign(&sleep).await;
    site.until_ack(&envelope, AckStatus::Done).await;
    site.publish(topic.clone(), older.1, false).await;
    let ack = site.until_ack(&older.0, AckStatus::Refused).await;
    assert!(ack.reason.contains("replayed"), "{}", ack.reason);
    // Signed and new, but of a generation that is over.
    let stale = site.assignment(0, MINE);
    let envelope = site.assign(&stale).await;
    site.until_ack(&envelope, AckStatus::Refused).await;
    assert_eq!(host.calls()[before.len()..], ["hold floor"], "nothing but the one good order");
    host.stop().await;
}

#[tokio::test]
async fn a_broker_that_restarts_is_found_again_and_nothing_is_lost() {
    let mut site = Site::start(60.0).await;
    let host = running(&mut site).await;
    site.stop_broker().await;
    site.forget();
    host.say(DriverEvent::Unconfirmed { reason: "while nobody listened".into() });
    site.start_broker().await;
    site.until("the event", |site| {
        site.heard::<RigEventReport>(RigLeaf::Event)
            .into_iter()
            .find(|event| event.reason == "while nobody listened")
    })
    .await;
    site.until_state("its state again", |report| report.state == RigState::Running).await;
    let order = site.assignment(2, Workload::Curtailed);
    let envelope = site.assign(&order).await;
    site.until_ack(&envelope, AckStatus::Done).await;
    assert_eq!(host.bench.lock().unwrap().running, None);
    host.stop().await;
}

#[tokio::test]
async fn rows_come_again_until_they_are_acknowledged() {
    let mut site = Site::start(60.0).await;
    let host = running(&mut site).await;
    let events = |site: &Site| site.heard::<RigEventReport>(RigLeaf::Event);
    let switched = |event: &RigEventReport| matches!(event.kind, EventKind::Switched { .. });
    let first = site.until("the switch", |site| events(site).into_iter().find(switched)).await;
    host.stop().await;
    site.forget();

    // Never acknowledged: a new life sends the same row under the same number.
    let host = Host::start(&site);
    let again = site
        .until("the same row", |site| events(site).into_iter().find(|event| event.seq == first.seq))
        .await;
    assert_eq!(again, first);
    let newest = site.until("a newer row", |site| {
        let rows = events(site).into_iter().map(|event| event.seq);
        rows.max().filter(|seq| *seq > first.seq)
    });
    let newest = newest.await;
    site.acknowledge("another journal", newest).await;
    site.acknowledge(&first.journal, newest).await;
    // The order of two commands to one agent is kept, so this answer proves that the acknowledgement was read.
    let (envelope, wire) = site.seal(TYP_COMMAND, "rig-1", &Command::Sync { rig: rig() });
    site.publish(topics::rig(&farm(), &rig(), RigLeaf::Command), wire, false).await;
    site.until_ack(&envelope, AckStatus::Done).await;
    host.stop().await;
    site.forget();

    let host = Host::start(&site);
    let next = site.until("the next row", |site| events(site).into_iter().next()).await;
    assert!(next.seq > newest, "acknowledged rows are gone: {} after {newest}", next.seq);
    host.stop().await;
}

#[tokio::test]
async fn a_crash_forgets_neither_target_nor_counter() {
    let mut site = Site::start(60.0).await;
    let host = running(&mut site).await;
    host.kill().await;
    site.forget();

    // The retained order comes again and is known; the rig goes on by what it stored.
    let host = Host::start(&site);
    let report =
        site.until_state("running again", |report| report.state == RigState::Running).await;
    assert_eq!((report.workload, report.generation), (Some(MINE), 1));
    assert_eq!(host.calls(), ["probe".to_owned(), format!("start {MINE}")]);
    assert!(site.heard::<roadbed_protocol::Ack>(RigLeaf::Ack).is_empty(), "nothing to answer");
    host.stop().await;
}

#[tokio::test]
async fn without_a_controller_the_lease_ends_and_the_fallback_applies() {
    let mut site = Site::start(600.0).await;
    let host = Host::start(&site);
    site.until_online().await;
    let mut order = site.assignment(1, MINE);
    order.lease_until = site.clock.now() + Millis::from_mins(30);
    let envelope = site.assign(&order).await;
    site.until_ack(&envelope, AckStatus::Done).await;
    site.stop_broker().await;
    site.until("the fallback", |_| host.calls().iter().any(|call| call == "stop").then_some(()))
        .await;
    assert!(site.clock.now() >= order.lease_until, "not before its time");
    site.start_broker().await;
    let report = site.until_state("curtailed", |report| report.state == RigState::Curtailed).await;
    assert_eq!(report.target, Some(Workload::Curtailed));
    host.stop().await;
}

#[tokio::test]
async fn an_agent_that_ends_leaves_its_rig_safe_and_says_goodbye() {
    let mut site = Site::start(60.0).await;
    let host = running(&mut site).await;
    let bench = std::sync::Arc::clone(&host.bench);
    host.stop().await;
    assert_eq!(bench.lock().unwrap().running, None);
    site.until("goodbye", |site| (site.presence().last()? == r#"{"online":false}"#).then_some(()))
        .await;
}
