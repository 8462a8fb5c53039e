//! The MQTT link to the farm controller: it comes back by itself, and it is never what makes a message durable.
//!
//! What is known and what is due is decided by [`state::LinkState`], which knows no socket; which orders are believed by
//! [`gate::OrderGate`]. [`connection`] moves bytes: one task polls the client and never publishes, another publishes and
//! never polls, and between them stands a bounded channel, because a client that waits for its own queue deadlocks.
//!
//! ```text
//! broker <-> poll task -> (packets) -> link task -> gate -> rigs' inboxes
//!                ^------ try_publish ------+ <- states, acks (rigs), rows (journal)
//! ```

mod connection;
pub mod gate;
mod options;
pub mod state;

use std::collections::BTreeMap;

use roadbed_protocol::{Ack, AgentId, Assignment, FarmId, RigId, StateReport, TrustedKeys};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::FarmClock;
use crate::config::BrokerAddress;
use crate::journal::Journal;

pub use gate::GateCounts;

/// Messages of the rigs that may wait for the link task; each rig says a few a second at most. Beyond it a report is
/// dropped, and the next one repeats it.
const FROM_RIGS_MAX: usize = 1_024;
/// Orders that may wait for one rig. The controller repeats what is not acknowledged.
pub const INBOX_MAX: usize = 64;

/// Who connects to what, and whom it believes.
#[derive(Clone)]
pub struct LinkSettings {
    /// The agent.
    pub agent: AgentId,
    /// Its farm.
    pub farm: FarmId,
    /// Its secret key, for login tokens.
    pub secret: [u8; 32],
    /// The broker.
    pub broker: BrokerAddress,
    /// Keys whose orders are obeyed.
    pub trusted_keys: TrustedKeys,
    /// Farm time, for the expiry of orders.
    pub clock: FarmClock,
}

/// A verified order for one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RigOrder {
    /// A target.
    Assigned {
        /// Name of the envelope, for the acknowledgement.
        envelope: String,
        /// The assignment.
        assignment: Assignment,
    },
    /// Say the full state now.
    Sync {
        /// Name of the envelope, for the acknowledgement.
        envelope: String,
    },
    /// Open the safety latch, if the readings allow.
    ResetTrip {
        /// Name of the envelope, for the acknowledgement.
        envelope: String,
        /// Who asked.
        operator: String,
    },
}

/// What rigs say to the controller.
enum FromRig {
    State(Box<StateReport>),
    Ack(Ack),
}

/// A rig's way to the controller. Never blocks.
#[derive(Clone)]
pub struct LinkHandle {
    from_rigs: mpsc::Sender<FromRig>,
    up: watch::Receiver<bool>,
    counts: watch::Receiver<GateCounts>,
}

impl LinkHandle {
    /// Publishes a state; a newer one of the same rig replaces one that waits.
    pub fn state(&self, report: StateReport) {
        self.say(FromRig::State(Box::new(report)));
    }

    /// Publishes an answer to an order.
    pub fn ack(&self, ack: Ack) {
        self.say(FromRig::Ack(ack));
    }

    /// True while the controller's orders can arrive.
    #[must_use]
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.clone()
    }

    /// How many orders were refused, as it rises.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<GateCounts> {
        self.counts.clone()
    }

    fn say(&self, message: FromRig) {
        if let Err(error) = self.from_rigs.try_send(message) {
            tracing::warn!("a report is dropped, the next one repeats it: {error}");
        }
    }
}

/// Starts the link on the current tokio runtime. It ends when `closing` is cancelled, after saying goodbye, and at once
/// when the handle is dropped.
///
/// # Errors
/// [`crate::journal::JournalError`] when the replay counters cannot be read: without them an old order could be obeyed
/// again.
pub async fn start(
    settings: LinkSettings,
    journal: Journal,
    inboxes: BTreeMap<RigId, mpsc::Sender<RigOrder>>,
    closing: CancellationToken,
) -> Result<(LinkHandle, AbortOnDropHandle<()>), crate::journal::JournalError> {
    let guard = connection::load_guard(&journal).await?;
    let (from_rigs, reports) = mpsc::channel(FROM_RIGS_MAX);
    let up = watch::Sender::new(false);
    let counts = watch::Sender::new(GateCounts::default());
    let handle = LinkHandle { from_rigs, up: up.subscribe(), counts: counts.subscribe() };
    let link = connection::Link::new(settings, journal, guard, inboxes, up, counts);
    Ok((handle, AbortOnDropHandle::new(tokio::spawn(link.run(reports, closing)))))
}
