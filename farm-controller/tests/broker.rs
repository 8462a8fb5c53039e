//! Black-box checks of the embedded broker with a client nobody here wrote: what the farm relies on, and the traps of
//! ADR 6. Every check waits for an answer with a deadline; none waits for time to pass.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use farm_controller::broker::{
    BrokerEngine, BrokerEvent, BrokerSettings, EVENTS_WAITING_MAX, EmbeddedBroker, Message, Roster,
    access,
};
use roadbed_protocol::topics::{self, RigLeaf};
use roadbed_protocol::{AgentId, FarmId, Millis, RigId, UnixMillis, login};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(10);

fn farm() -> FarmId {
    FarmId::new("west").unwrap()
}

fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

fn topic(rig: &str, leaf: RigLeaf) -> String {
    topics::rig(&farm(), &RigId::new(rig).unwrap(), leaf)
}

fn roster() -> Roster {
    let mut roster = Roster::default();
    for (name, rig, secret) in [("box-a", "asic-1", 1_u8), ("box-b", "asic-2", 2)] {
        let rig = RigId::new(rig).unwrap();
        roster.insert(agent(name), access(login::public_key(&[secret; 32]), [rig]));
    }
    roster
}

struct Site {
    broker: Box<dyn BrokerEngine>,
    events: mpsc::Receiver<BrokerEvent>,
}

async fn site(folder: &Path, roster: Roster) -> Site {
    let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
    let settings = BrokerSettings {
        farm: farm(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        folder: folder.to_owned(),
        roster,
    };
    let broker = EmbeddedBroker::start(settings, sender).await.unwrap();
    Site { broker: Box::new(broker), events }
}

fn wall_clock() -> UnixMillis {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(i64::try_from(now.as_millis()).unwrap())
}

fn options(address: SocketAddr, name: &str, secret: u8) -> MqttOptions {
    let token =
        login::sign(&[secret; 32], &agent(name), &farm(), wall_clock(), Millis::from_mins(2))
            .unwrap();
    let mut options = MqttOptions::new(name, address.ip().to_string(), address.port());
    options.set_credentials(name, token).set_clean_start(true);
    options
}

/// Polls until a packet of interest arrives.
async fn until<T>(events: &mut EventLoop, wanted: impl Fn(&Packet) -> Option<T>) -> T {
    tokio::time::timeout(DEADLINE, async {
        loop {
            if let Event::Incoming(packet) = events.poll().await.unwrap()
                && let Some(found) = wanted(&packet)
            {
                return found;
            }
        }
    })
    .await
    .expect("the broker answered in time")
}

async fn connected(options: MqttOptions) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options, 16);
    until(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    (client, events)
}

async fn is_refused(options: MqttOptions) -> bool {
    let (_client, mut events) = AsyncClient::new(options, 16);
    tokio::time::timeout(DEADLINE, events.poll()).await.expect("an answer in time").is_err()
}

async fn publish_reason(
    client: &AsyncClient,
    events: &mut EventLoop,
    topic: String,
) -> PubAckReason {
    client.publish(topic, QoS::AtLeastOnce, false, "{}").await.unwrap();
    until(events, |packet| match packet {
        Packet::PubAck(ack) => Some(ack.reason),
        _ => None,
    })
    .await
}

async fn is_granted(client: &AsyncClient, events: &mut EventLoop, filter: &str) -> bool {
    client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    let codes = until(events, |packet| match packet {
        Packet::SubAck(ack) => Some(ack.return_codes.clone()),
        _ => None,
    })
    .await;
    codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)))
}

async fn next(site: &mut Site) -> BrokerEvent {
    tokio::time::timeout(DEADLINE, site.events.recv()).await.expect("an event in time").unwrap()
}

#[tokio::test]
async fn strangers_stay_outside() {
    let folder = tempfile::tempdir().unwrap();
    let site = site(folder.path(), roster()).await;
    let address = site.broker.address();
    let mut anonymous = options(address, "box-a", 1);
    anonymous = MqttOptions::new("box-a", anonymous.broker_address().0, address.port());
    assert!(is_refused(anonymous).await, "no password");
    assert!(is_refused(options(address, "box-a", 2)).await, "another agent's key");
    assert!(is_refused(options(address, "box-c", 1)).await, "unknown agent");
    let mut borrowed = options(address, "box-a", 1);
    borrowed.set_credentials("box-b", "x");
    assert!(is_refused(borrowed).await, "client id and user differ");
    let mut foreign_will = options(address, "box-a", 1);
    let will = topic("asic-2", RigLeaf::Command);
    foreign_will.set_last_will(LastWill::new(will, "{}", QoS::AtLeastOnce, true, None));
    assert!(is_refused(foreign_will).await, "a will on another rig's commands");
    site.broker.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_speaks_and_hears_only_for_its_own_rigs() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = site(folder.path(), roster()).await;
    let (client, mut events) = connected(options(site.broker.address(), "box-a", 1)).await;
    assert_eq!(next(&mut site).await, BrokerEvent::Connected(agent("box-a")));

    let own = topic("asic-1", RigLeaf::State);
    assert_eq!(publish_reason(&client, &mut events, own.clone()).await, PubAckReason::Success);
    assert_eq!(
        next(&mut site).await,
        BrokerEvent::Published { agent: agent("box-a"), topic: own, payload: b"{}".to_vec() }
    );
    for foreign in [
        topic("asic-2", RigLeaf::State),
        topic("asic-1", RigLeaf::Assignment),
        topic("asic-1", RigLeaf::Command),
        topics::agent_will(&farm(), &agent("box-b")),
        "anything".to_owned(),
    ] {
        let reason = publish_reason(&client, &mut events, foreign.clone()).await;
        assert_eq!(reason, PubAckReason::NotAuthorized, "{foreign}");
    }
    for own in [
        topic("asic-1", RigLeaf::Assignment),
        topic("asic-1", RigLeaf::Command),
        topics::agent_command(&farm(), &agent("box-a")),
    ] {
        assert!(is_granted(&client, &mut events, &own).await, "{own}");
    }
    for foreign in [
        "#".to_owned(),
        "roadbed/1/west/rig/+/assignment".to_owned(),
        format!("$share/g/{}", topic("asic-1", RigLeaf::Command)),
        topic("asic-2", RigLeaf::Command),
    ] {
        assert!(!is_granted(&client, &mut events, &foreign).await, "{foreign}");
    }
    site.broker.stop().await.unwrap();
}

#[tokio::test]
async fn retained_assignments_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = site(folder.path(), roster()).await;
    let assignment = topic("asic-1", RigLeaf::Assignment);
    let message = Message { topic: assignment.clone(), payload: b"signed".to_vec(), retain: true };
    first.broker.publish(message).await;
    first.broker.stop().await.unwrap();

    let second = site(folder.path(), roster()).await;
    let (client, mut events) = connected(options(second.broker.address(), "box-a", 1)).await;
    client.subscribe(assignment, QoS::AtLeastOnce).await.unwrap();
    let payload = until(&mut events, |packet| match packet {
        Packet::Publish(publish) => Some(publish.payload.to_vec()),
        _ => None,
    })
    .await;
    assert_eq!(payload, b"signed");
    second.broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_agent_is_noticed_and_a_kicked_one_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = site(folder.path(), roster()).await;
    let (_client, mut events) = connected(options(site.broker.address(), "box-a", 1)).await;
    assert_eq!(next(&mut site).await, BrokerEvent::Connected(agent("box-a")));
    site.broker.kick(agent("box-a")).await;
    let lost = tokio::time::timeout(DEADLINE, async { while events.poll().await.is_ok() {} });
    lost.await.expect("the socket was closed in time");
    assert_eq!(next(&mut site).await, BrokerEvent::Disconnected(agent("box-a")));
    let again = connected(options(site.broker.address(), "box-a", 1)).await;
    assert_eq!(next(&mut site).await, BrokerEvent::Connected(agent("box-a")));
    drop(again);
    site.broker.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_gets_in_when_the_roster_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let site = site(folder.path(), Roster::default()).await;
    assert!(is_refused(options(site.broker.address(), "box-a", 1)).await);
    site.broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    site(folder.path(), roster()).await.broker.stop().await.unwrap();
    std::fs::write(folder.path().join("store/.storage_version"), b"\xff nonsense").unwrap();
    let second = site(folder.path(), roster()).await;
    assert!(folder.path().join("store.unreadable-1").exists());
    second.broker.stop().await.unwrap();
}
