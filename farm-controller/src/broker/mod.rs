//! The MQTT broker of the farm behind one trait; no type of the embedded library leaves this folder.
//!
//! Whatever the broker, retained messages are a cache and QoS 1 is not the durability layer: agents keep journal rows
//! until the controller's own acknowledgement, and every order carries a generation. So a broker may be lost whole.
//! Which one is embedded, its settings and its traps: ADR 2 and `docs/decisions/0006-embedded-broker.md`.

mod access;
mod door;
mod embedded;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;

use roadbed_protocol::{AgentId, FarmId, RigId};
use tokio::sync::mpsc;

pub use access::{AgentAccess, Roster};
pub use embedded::EmbeddedBroker;

/// Events of the broker waiting for the control loop: a site-wide power return makes every rig speak at once, and one
/// rig says about four things then. Beyond it, agents are slowed down through their acknowledgements.
pub const EVENTS_WAITING_MAX: usize = 4_096;

/// What a controller needs of a broker.
pub trait BrokerEngine: Send + Sync {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// Publishes as the controller, QoS 1, past the access rules. Nobody says whether somebody got it.
    fn publish(&self, message: Message) -> Waiting<'_, ()>;

    /// Throws an agent off; its session is kept.
    fn kick(&self, agent: AgentId) -> Waiting<'_, ()>;

    /// Flushes its store, frees its port and ends.
    fn stop(self: Box<Self>) -> Waiting<'static, Result<(), BrokerError>>;
}

/// Something to wait for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A message from the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether a later subscriber gets it too.
    pub retain: bool,
}

/// What agents did. The agent is the authenticated one, not the claimed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerEvent {
    /// It connected.
    Connected(AgentId),
    /// It went, or was lost.
    Disconnected(AgentId),
    /// It published on a topic it may publish on.
    Published {
        /// Who.
        agent: AgentId,
        /// Where.
        topic: String,
        /// What, not yet read.
        payload: Vec<u8>,
    },
}

/// Settings of the embedded broker.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// The farm, part of every topic.
    pub farm: FarmId,
    /// Where it listens. Plain MQTT: loopback, or a network nobody else is on.
    pub listen: SocketAddr,
    /// Folder of its store; belongs to it alone.
    pub folder: PathBuf,
    /// Who may log in, and which rigs are whose.
    pub roster: Roster,
}

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its folder cannot be used.
    #[error("broker folder {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It did not start.
    #[error("the embedded broker does not start on {listen}: {reason}")]
    Start {
        /// Where it should listen.
        listen: SocketAddr,
        /// What it says.
        reason: String,
    },
    /// It ended while it ran.
    #[error("the embedded broker ended: {0}")]
    Ended(String),
}

/// Where the broker's events go.
pub type Events = mpsc::Sender<BrokerEvent>;

/// Names the rigs of an agent, for [`Roster`].
#[must_use]
pub fn access(key: [u8; 32], rigs: impl IntoIterator<Item = RigId>) -> AgentAccess {
    AgentAccess { key, rigs: rigs.into_iter().collect() }
}
