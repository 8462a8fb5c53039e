//! The runtime: one task owns each rig machine; events go in, effects come out and are carried out in their order.
//!
//! ```text
//! link (orders, up/down) ---+                    +--> driver (calls)
//! driver (events, looks) ---+--> rig machine ----+--> journal (events, telemetry, memory)
//! clock (wake_at) ----------+    (farm-core)     +--> link (states, answers)
//! ```
//! Nothing here decides: what a rig does in which state is the machine's, and it is tested without any of this.

mod error;
mod memory;
mod meter;
mod rig_task;
mod signals;
mod telemetry;
mod wind_down;

use std::collections::BTreeMap;

use roadbed_protocol::RigId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, RigConfig};
use crate::driver::{DRIVER_EVENTS_MAX, DriverEvents, RigDriver};
use crate::journal::Journal;
use crate::link::{self, INBOX_MAX, LinkHandle, LinkSettings};

pub use error::AgentError;
pub use signals::ended_from_outside;

use rig_task::RigTask;

/// What a driver is built from.
pub struct DriverContext<'a> {
    /// The rig.
    pub rig: &'a RigConfig,
    /// The whole config, for the clock.
    pub config: &'a AgentConfig,
    /// The journal, for artifacts.
    pub journal: &'a Journal,
    /// Where its events go.
    pub events: DriverEvents,
}

/// Builds the driver of a rig.
pub type DriverBuilder<'b> =
    dyn FnMut(DriverContext<'_>) -> Result<Box<dyn RigDriver>, AgentError> + Send + 'b;

/// Runs the rigs of a config until `shutdown` is cancelled, then brings them to a safe state and flushes the journal.
///
/// # Errors
/// [`AgentError`] when the agent cannot start, or when a task of it died.
pub async fn run(
    config: AgentConfig,
    build: &mut DriverBuilder<'_>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let journal = Journal::open(&config.data_dir, &config.agent)?;
    tracing::info!(agent = %config.agent, rigs = config.rigs.len(), journal = journal.id(), "agent starts");
    let outcome = run_with(&config, &journal, build, &shutdown).await;
    journal.shut_down().await;
    if outcome.is_ok() {
        tracing::info!(agent = %config.agent, "agent ends, journal flushed");
    }
    outcome
}

async fn run_with(
    config: &AgentConfig,
    journal: &Journal,
    build: &mut DriverBuilder<'_>,
    shutdown: &CancellationToken,
) -> Result<(), AgentError> {
    let mut inboxes = BTreeMap::new();
    let mut rigs = Vec::new();
    for rig in &config.rigs {
        let (inbox, orders) = mpsc::channel(INBOX_MAX);
        let (events, told) = mpsc::channel(DRIVER_EVENTS_MAX);
        let driver = build(DriverContext { rig, config, journal, events })?;
        inboxes.insert(rig.id.clone(), inbox);
        rigs.push((rig.clone(), driver, orders, told));
    }
    let closing = CancellationToken::new();
    let settings = LinkSettings {
        agent: config.agent.clone(),
        farm: config.farm.clone(),
        secret: config.secret,
        broker: config.broker.clone(),
        trusted_keys: config.trusted_keys.clone(),
        clock: config.clock,
    };
    let (link, link_task) =
        link::start(settings, journal.clone(), inboxes, closing.clone()).await?;
    let boot = boot_id();
    let mut tasks: JoinSet<RigId> = JoinSet::new();
    for (rig, driver, orders, told) in rigs {
        let id = rig.id.clone();
        let task = RigTask::new(rig, config, driver, journal.clone(), link.clone(), &boot).await?;
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            task.run(orders, told, shutdown).await;
            id
        });
    }
    let outcome = supervise(tasks, &link, shutdown).await;
    closing.cancel();
    let closed = link_task.await;
    outcome?;
    closed.map_err(|error| AgentError::Task { task: "link".into(), reason: error.to_string() })
}

/// Waits for the rig tasks. They end on shutdown only; one that dies takes the agent with it, so that its supervisor
/// starts a whole one, and its rigs are brought to safety on the way.
async fn supervise(
    mut tasks: JoinSet<RigId>,
    link: &LinkHandle,
    shutdown: &CancellationToken,
) -> Result<(), AgentError> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!("a rig task died: {error}");
            shutdown.cancel();
            outcome = Err(AgentError::Task { task: "rig".into(), reason: error.to_string() });
        }
    }
    let counts = *link.counts().borrow();
    if counts.refused > 0 {
        tracing::warn!(refused = counts.refused, accepted = counts.accepted, "orders were refused");
    }
    outcome
}

/// Names this start, so that a late report of the last one is known as such.
fn boot_id() -> String {
    crate::random::hex::<8>().unwrap_or_else(|_| format!("at-{}", crate::clock::wall_now().0))
}
