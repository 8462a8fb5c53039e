//! A farm's other end: a real broker with the login check, and just enough of a controller to give orders and count.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mqtt5::QoS;
use mqtt5::broker::config::{AuthConfig, BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::events::{BrokerEventHandler, ClientPublishEvent, PublishAction};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{AuthProvider, AuthResult, BrokerShutdownHandle, MqttBroker};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::packet::publish::PublishPacket;
use mqtt5::types::ReasonCode;
use roadbed_agent::clock::{FarmClock, wall_now};
use roadbed_protocol::envelope::{Address, TYP_ASSIGNMENT, TYP_COMMAND};
use roadbed_protocol::topics::{self, RigLeaf};
use roadbed_protocol::{
    Ack, AckStatus, AgentId, Assignment, Cause, Command, FarmId, Millis, RigId, Signer,
    StateReport, Workload, login,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

/// Longest wait for anything; never reached when all is well, whatever the machine is busy with.
const PATIENCE: Duration = Duration::from_secs(60);

pub const AGENT_SECRET: [u8; 32] = [3; 32];

type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub fn farm() -> FarmId {
    FarmId::new("west").unwrap()
}

pub fn agent() -> AgentId {
    AgentId::new("box").unwrap()
}

pub fn rig() -> RigId {
    RigId::new("rig-1").unwrap()
}

/// What agents published, in order.
type Heard = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

struct Running {
    router: Arc<MessageRouter>,
    shutdown: BrokerShutdownHandle,
    task: JoinHandle<mqtt5::error::Result<()>>,
}

pub struct Site {
    folder: tempfile::TempDir,
    pub address: SocketAddr,
    pub clock: FarmClock,
    running: Option<Running>,
    heard: Heard,
    pub signer: Signer,
}

impl Site {
    /// A farm whose clock runs `rate` times as fast as the wall's.
    pub async fn start(rate: f64) -> Self {
        let now = wall_now();
        let mut site = Self {
            folder: tempfile::tempdir().unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            clock: FarmClock::accelerated(rate, now, now).unwrap(),
            running: None,
            heard: Heard::default(),
            signer: Signer::new("controller", &[1; 32], 0),
        };
        site.start_broker().await;
        site
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    pub async fn start_broker(&mut self) {
        let nobody = self.folder.path().join("nobody");
        std::fs::write(&nobody, b"").unwrap();
        let config = || {
            let storage = StorageConfig::new()
                .with_backend(StorageBackend::File)
                .with_base_dir(self.folder.path().join("store"))
                .with_persistence(true);
            let auth = AuthConfig::default()
                .with_password_file(nobody.clone())
                .with_allow_anonymous(false);
            BrokerConfig::new()
                .with_bind_addresses(vec![self.address])
                .with_sys_topics_enabled(false)
                .with_auth(auth)
                .with_storage(storage)
                .with_event_handler(Arc::new(Ear(Arc::clone(&self.heard))))
        };
        // Connections of a broker that was just stopped hold the store for a moment longer.
        let began = Instant::now();
        let mut broker = loop {
            match MqttBroker::with_config(config()).await {
                Ok(broker) => break broker,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        broker = broker.with_auth_provider(Arc::new(Door));
        self.address = broker.local_addr().unwrap();
        let (router, shutdown) = (broker.router(), broker.shutdown_handle());
        let mut ready = broker.ready_receiver();
        let task = tokio::spawn(async move { broker.run().await });
        ready.wait_for(|ready| *ready).await.unwrap();
        self.running = Some(Running { router, shutdown, task });
    }

    pub async fn stop_broker(&mut self) {
        let running = self.running.take().unwrap();
        running.shutdown.shutdown();
        running.task.await.unwrap().unwrap();
    }

    pub async fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) {
        let packet = PublishPacket::new(topic, payload, QoS::AtLeastOnce).with_retain(retain);
        self.running.as_ref().unwrap().router.route_message(&packet, None).await;
    }

    /// Signs for a recipient, valid for an hour of farm time.
    pub fn seal<T: Serialize>(&mut self, typ: &str, to: &str, body: &T) -> (String, Vec<u8>) {
        let farm = farm();
        let valid = Millis::from_hours(1);
        let address = Address { typ, farm: &farm, to, now: self.clock.now(), valid };
        let (envelope, wire) = self.signer.seal(address, body).unwrap();
        (envelope.id, wire)
    }

    /// Publishes an assignment as the controller does and gives the envelope's name.
    pub async fn assign(&mut self, assignment: &Assignment) -> String {
        let (id, wire) = self.seal(TYP_ASSIGNMENT, assignment.rig.as_str(), assignment);
        self.publish(topics::rig(&farm(), &rig(), RigLeaf::Assignment), wire, true).await;
        id
    }

    /// Acknowledges journal rows.
    pub async fn acknowledge(&mut self, journal: &str, seq: u64) {
        let command = Command::JournalAck { agent: agent(), journal: journal.into(), seq };
        let (_, wire) = self.seal(TYP_COMMAND, agent().as_str(), &command);
        self.publish(topics::agent_command(&farm(), &agent()), wire, false).await;
    }

    pub fn assignment(&self, generation: u64, workload: Workload) -> Assignment {
        Assignment {
            farm: farm(),
            rig: rig(),
            generation,
            workload,
            lease_until: self.clock.now() + Millis::from_hours(10),
            fallback: Workload::Curtailed,
            drain: Millis::ZERO,
            cause: Cause::Plan,
            reason: "test".into(),
        }
    }

    /// Forgets what was heard so far.
    pub fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// Everything heard on a topic of the rig.
    pub fn heard<T: DeserializeOwned>(&self, leaf: RigLeaf) -> Vec<T> {
        let topic = topics::rig(&farm(), &rig(), leaf);
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter(|(at, _)| *at == topic)
            .map(|(_, body)| serde_json::from_slice(body).unwrap())
            .collect()
    }

    /// Bodies of the agent's presence, newest last.
    pub fn presence(&self) -> Vec<String> {
        let topic = topics::agent_will(&farm(), &agent());
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter(|(at, _)| *at == topic)
            .map(|(_, body)| String::from_utf8(body.clone()).unwrap())
            .collect()
    }

    /// Waits until `look` sees what it wants.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            let heard = || -> Vec<_> {
                let heard = self.heard.lock().unwrap();
                let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
                heard.iter().map(|(topic, body)| format!("{topic} {}", text(body))).collect()
            };
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {:#?}", heard());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn until_state(
        &self,
        what: &str,
        wanted: impl Fn(&StateReport) -> bool,
    ) -> StateReport {
        self.until(what, |site| {
            site.heard::<StateReport>(RigLeaf::State).into_iter().rev().find(&wanted)
        })
        .await
    }

    pub async fn until_ack(&self, envelope: &str, status: AckStatus) -> Ack {
        let what = format!("{status:?} for {envelope}");
        self.until(&what, |site| {
            let acks = site.heard::<Ack>(RigLeaf::Ack);
            acks.into_iter().find(|ack| ack.envelope == envelope && ack.status == status)
        })
        .await
    }

    pub async fn until_online(&self) {
        self.until("presence", |site| {
            (site.presence().last()? == r#"{"online":true}"#).then_some(())
        })
        .await;
    }
}

struct Ear(Heard);

impl BrokerEventHandler for Ear {
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Waiting<'a, PublishAction> {
        self.0.lock().unwrap().push((event.topic.to_string(), event.payload.to_vec()));
        Box::pin(async { PublishAction::Continue })
    }
}

/// Admits the agent with a token of its own key, and to its own topics only.
struct Door;

impl AuthProvider for Door {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        _from: SocketAddr,
    ) -> Waiting<'a, mqtt5::error::Result<AuthResult>> {
        let token = connect.password.as_deref().unwrap_or_default();
        let key = login::public_key(&AGENT_SECRET);
        let known = connect.client_id == agent().as_str()
            && login::verify(token, &key, &agent(), &farm(), wall_now()).is_ok();
        let result = if known {
            AuthResult::success_with_user(connect.client_id.clone())
        } else {
            AuthResult::fail(ReasonCode::BadUsernameOrPassword)
        };
        Box::pin(async move { Ok(result) })
    }

    fn authorize_publish<'a>(
        &'a self,
        _client: &str,
        _user: Option<&'a str>,
        topic: &'a str,
    ) -> Waiting<'a, bool> {
        let own = match topics::parse(&farm(), topic) {
            Some(topics::Topic::Rig(id, leaf)) => id == rig() && leaf.is_from_rig(),
            Some(topics::Topic::AgentWill(id)) => id == agent(),
            Some(topics::Topic::AgentCommand(_) | topics::Topic::GroupCommand(_)) | None => false,
        };
        Box::pin(async move { own })
    }

    fn authorize_subscribe<'a>(
        &'a self,
        _client: &str,
        _user: Option<&'a str>,
        filter: &'a str,
    ) -> Waiting<'a, bool> {
        let own = match topics::parse(&farm(), filter) {
            Some(topics::Topic::Rig(id, leaf)) => id == rig() && !leaf.is_from_rig(),
            Some(topics::Topic::AgentCommand(id)) => id == agent(),
            Some(topics::Topic::AgentWill(_) | topics::Topic::GroupCommand(_)) | None => false,
        };
        Box::pin(async move { own })
    }
}
