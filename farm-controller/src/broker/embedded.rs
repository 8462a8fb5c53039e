//! The embedded broker: `mqtt5`, pinned, with every setting given explicitly because its defaults are too open.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mqtt5::QoS;
use mqtt5::broker::config::StorageBackend;
use mqtt5::broker::config::{AuthConfig, BrokerConfig, StorageConfig};
use mqtt5::broker::events::{
    BrokerEventHandler, ClientConnectEvent, ClientDisconnectEvent, ClientPublishEvent,
    PublishAction,
};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};
use mqtt5::packet::publish::PublishPacket;
use roadbed_protocol::AgentId;
use tokio::task::JoinHandle;

use super::door::Door;
use super::{BrokerEngine, BrokerError, BrokerEvent, BrokerSettings, Events, Message, Waiting};

/// Largest packet: a batch of 60 samples is about 30 KiB.
const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Sessions of agents that stay away longer are forgotten.
const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Messages waiting per client and lane in memory.
const CLIENT_LANE_MAX: usize = 512;
/// Messages and bytes queued for a client that is away: assignments replace each other, so few matter.
const OFFLINE_MESSAGES_MAX: usize = 500;
const OFFLINE_BYTES_MAX: usize = 1024 * 1024;
/// Unacknowledged messages from one client.
const RECEIVE_MAX: u16 = 64;
/// Two subscriptions a rig and one an agent; a site box may host a hall.
const SUBSCRIPTIONS_MAX: usize = 1_024;
/// Largest retained message: a state report is about 1 KiB.
const RETAINED_BYTES_MAX: usize = 64 * 1024;
/// How long a publisher waits for a full control loop before its message is dropped here; its journal sends it again.
const EVENT_DEADLINE: Duration = Duration::from_secs(5);
/// How long the broker may take to listen, and to end.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running embedded broker.
pub struct EmbeddedBroker {
    address: SocketAddr,
    router: Arc<MessageRouter>,
    shutdown: BrokerShutdownHandle,
    task: JoinHandle<mqtt5::error::Result<()>>,
}

impl EmbeddedBroker {
    /// Starts the broker and waits until it listens. A store it cannot read is set aside and it starts empty: agents
    /// report everything anew.
    ///
    /// # Errors
    /// [`BrokerError::Folder`] or [`BrokerError::Start`].
    pub async fn start(settings: BrokerSettings, events: Events) -> Result<Self, BrokerError> {
        create_private(&settings.folder)?;
        let failed = |reason: String| BrokerError::Start { listen: settings.listen, reason };
        let store = settings.folder.join("store");
        let mut broker = match MqttBroker::with_config(config(&settings, &store, &events)?).await {
            Ok(broker) => broker,
            Err(first) if store.exists() => {
                let aside = set_aside(&store)?;
                tracing::error!(
                    error = %first, aside = %aside.display(),
                    "the broker could not use its store; it is set aside and the broker starts empty"
                );
                MqttBroker::with_config(config(&settings, &store, &events)?).await.map_err(
                    |second| failed(format!("{first}; and with an empty store: {second}")),
                )?
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let door = Door::new(settings.farm.clone(), settings.roster.clone());
        broker = broker.with_auth_provider(Arc::new(door));
        Self::run(broker, settings.listen).await
    }

    async fn run(mut broker: MqttBroker, listen: SocketAddr) -> Result<Self, BrokerError> {
        let failed = |reason: &str| BrokerError::Start { listen, reason: reason.to_owned() };
        let address = broker.local_addr().ok_or_else(|| failed("it bound no address"))?;
        let (router, shutdown) = (broker.router(), broker.shutdown_handle());
        let mut ready = broker.ready_receiver();
        let task = tokio::spawn(async move { broker.run().await });
        let listening = tokio::time::timeout(START_DEADLINE, ready.wait_for(|ready| *ready)).await;
        match listening {
            Ok(Ok(_)) => Ok(Self { address, router, shutdown, task }),
            Ok(Err(_)) => Err(failed("it ended while starting")),
            Err(_) => Err(failed("it was not ready in time")),
        }
    }
}

impl BrokerEngine for EmbeddedBroker {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn publish(&self, message: Message) -> Waiting<'_, ()> {
        Box::pin(async move {
            let packet = PublishPacket::new(message.topic, message.payload, QoS::AtLeastOnce)
                .with_retain(message.retain);
            self.router.route_message(&packet, None).await;
        })
    }

    fn kick(&self, agent: AgentId) -> Waiting<'_, ()> {
        Box::pin(async move { self.router.disconnect_client(agent.as_str()).await })
    }

    fn stop(self: Box<Self>) -> Waiting<'static, Result<(), BrokerError>> {
        Box::pin(async move {
            self.shutdown.shutdown();
            // The store is flushed and the port freed only once the task has ended.
            match tokio::time::timeout(START_DEADLINE, self.task).await {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(error))) => Err(BrokerError::Ended(error.to_string())),
                Ok(Err(error)) => Err(BrokerError::Ended(error.to_string())),
                Err(_) => Err(BrokerError::Ended("it did not stop in time".to_owned())),
            }
        })
    }
}

fn config(
    settings: &BrokerSettings,
    store: &Path,
    events: &Events,
) -> Result<BrokerConfig, BrokerError> {
    // Trap: the library's default admits everybody, and "no anonymous" alone does not start. An empty password file
    // admits nobody, so a forgotten door is a closed one.
    let nobody = settings.folder.join("nobody");
    std::fs::write(&nobody, b"")
        .map_err(|source| BrokerError::Folder { folder: settings.folder.clone(), source })?;
    let auth = AuthConfig::default().with_password_file(nobody).with_allow_anonymous(false);
    let storage = StorageConfig::new()
        .with_backend(StorageBackend::File)
        .with_base_dir(store.to_owned())
        .with_persistence(true)
        .with_max_queued_messages_per_client(OFFLINE_MESSAGES_MAX)
        .with_max_queued_bytes_per_client(OFFLINE_BYTES_MAX);
    let agents = settings.roster.len();
    let handler = Handler { events: events.clone() };
    Ok(BrokerConfig::new()
        .with_bind_addresses(vec![settings.listen])
        .with_max_clients(agents + agents / 5 + 2)
        .with_session_expiry(SESSION_EXPIRY_MAX)
        .with_max_packet_size(PACKET_BYTES_MAX)
        .with_max_subscriptions_per_client(SUBSCRIPTIONS_MAX)
        .with_max_retained_messages((settings.roster.rigs() + agents).max(1) * 8)
        .with_max_retained_message_size(RETAINED_BYTES_MAX)
        .with_client_channel_capacity(CLIENT_LANE_MAX)
        .with_server_receive_maximum(RECEIVE_MAX)
        .with_sys_topics_enabled(false)
        .with_auth(auth)
        .with_storage(storage)
        .with_event_handler(Arc::new(handler)))
}

fn create_private(folder: &Path) -> Result<(), BrokerError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| BrokerError::Folder { folder: folder.to_owned(), source })
}

/// Renames the store so that nothing is lost and a fresh one can be made.
fn set_aside(store: &Path) -> Result<PathBuf, BrokerError> {
    let failed = |source| BrokerError::Folder { folder: store.to_owned(), source };
    for number in 1..1_000 {
        let aside = store.with_extension(format!("unreadable-{number}"));
        if !aside.exists() {
            std::fs::rename(store, &aside).map_err(failed)?;
            return Ok(aside);
        }
    }
    Err(failed(std::io::Error::other("a thousand unreadable stores lie here; remove some")))
}

/// Hands what agents do to the control loop. Called after the access check and before the acknowledgement, so waiting
/// here slows down just the agent that spoke.
struct Handler {
    events: Events,
}

impl Handler {
    async fn tell(&self, event: BrokerEvent) {
        if self.events.send_timeout(event, EVENT_DEADLINE).await.is_err() {
            tracing::warn!("the control loop is too slow or gone; a message was dropped here");
        }
    }
}

impl BrokerEventHandler for Handler {
    fn on_client_connect<'a>(&'a self, event: ClientConnectEvent) -> Waiting<'a, ()> {
        Box::pin(async move {
            if let Some(agent) = agent(event.user_id.as_deref()) {
                self.tell(BrokerEvent::Connected(agent)).await;
            }
        })
    }

    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Waiting<'a, PublishAction> {
        Box::pin(async move {
            if let Some(agent) = agent(event.user_id.as_deref()) {
                let topic = event.topic.to_string();
                let payload = event.payload.to_vec();
                self.tell(BrokerEvent::Published { agent, topic, payload }).await;
            }
            PublishAction::Continue
        })
    }

    fn on_client_disconnect<'a>(&'a self, event: ClientDisconnectEvent) -> Waiting<'a, ()> {
        Box::pin(async move {
            if let Some(agent) = agent(event.user_id.as_deref()) {
                self.tell(BrokerEvent::Disconnected(agent)).await;
            }
        })
    }
}

fn agent(user: Option<&str>) -> Option<AgentId> {
    user.and_then(|user| AgentId::new(user).ok())
}
