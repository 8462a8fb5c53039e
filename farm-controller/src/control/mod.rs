//! The control loop: the one task that owns the farm machine.
//!
//! ```text
//! broker, feeds, operator -> [bounded channels] -> Farm::handle -> keep (durable) -> sign, publish, acknowledge
//!                                                       |
//!                                                       +-> Ledger -> FarmView -> console, socket
//! ```
//!
//! Events are taken in batches: everything a batch decides is kept in one transaction, and only then leaves the
//! process. When nothing can be kept, only orders that lower power still leave: safety before bookkeeping.

mod intake;
mod keep;
mod orders;
pub mod snapshot;
pub mod socket;

use std::sync::Arc;
use std::time::Duration;

use farm_core::farm::{Alert, FarmEffect, FarmEvent};
use farm_core::ledger::Ledger;
use farm_core::{Farm, FarmSettings};
use roadbed_protocol::{AgentId, Assignment, Command, Millis, RigId, Signer, UnixMillis};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use keep::{Answer, KeepError, Keeper, Kept, Record};
pub use orders::Orders;

use crate::broker::{BrokerEngine, BrokerEvent};
use crate::clock::FarmClock;
use crate::gonka::service::Told;
use crate::view::{Action, FarmView, LogLine, Severity};
use snapshot::{Memory, Nameplates, snapshot};

/// Events handled before their records are kept: bounds the transaction and the delay of the first of them.
const BATCH_MAX: usize = 256;
/// Feed events and operator's actions waiting: feeds speak every few minutes, operators by hand.
pub const INPUTS_WAITING_MAX: usize = 64;
/// Least time between two views: nobody reads faster.
const VIEW_PAUSE: Duration = Duration::from_millis(200);
/// Counters reserved at once, so that the signer's counter costs no write per message.
const COUNTERS_RESERVED: u64 = 10_000;

/// What the loop is made of.
pub struct ControlParts {
    /// The site.
    pub settings: FarmSettings,
    /// Names for people.
    pub names: Nameplates,
    /// Farm time.
    pub clock: FarmClock,
    /// The controller's key; its counter is raised above what was kept.
    pub signer: Signer,
    /// What was kept before.
    pub kept: Kept,
    /// What the farm must know before the first rig speaks: prices, options, commitments.
    pub first: Vec<FarmEvent>,
    /// Where to keep.
    pub keeper: Arc<dyn Keeper>,
    /// The broker.
    pub broker: Arc<dyn BrokerEngine>,
    /// What agents do.
    pub agents: mpsc::Receiver<BrokerEvent>,
    /// What feeds say, as events of the farm machine.
    pub feeds: mpsc::Receiver<FarmEvent>,
    /// What operators want.
    pub actions: mpsc::Receiver<Action>,
    /// What Gonka's side tells.
    pub told: Told,
    /// Where views go.
    pub views: watch::Sender<FarmView>,
}

/// Why the loop ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The broker is gone.
    #[error("the broker ended; without it no rig can be told anything")]
    BrokerGone,
    /// Not even the counter of the key can be kept, so nothing may be signed.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

struct Control {
    farm: Farm,
    ledger: Ledger,
    names: Nameplates,
    memory: Memory,
    clock: FarmClock,
    orders: Orders,
    counter_reserved: u64,
    keeper: Arc<dyn Keeper>,
    broker: Arc<dyn BrokerEngine>,
}

/// Something that leaves the process once the batch is kept. Signed only then: counters must rise in the order of
/// departure, or a rig would take the later of two orders for a replay.
enum Departure {
    Assign(Assignment),
    ToRig(RigId, Command),
    ToAgent(AgentId, Command),
}

/// Runs until `cancel` fires. Then what was decided is kept and the last view is out.
///
/// # Errors
/// [`ControlError`].
pub async fn run(parts: ControlParts, cancel: CancellationToken) -> Result<(), ControlError> {
    let ControlParts { mut agents, mut feeds, mut actions, mut told, views, .. } = parts;
    let now = parts.clock.now();
    let mut ledger = Ledger::default();
    for entry in &parts.kept.entries {
        ledger.apply(entry);
    }
    let mut control = Control {
        farm: Farm::new(parts.settings.clone(), now),
        ledger,
        names: parts.names,
        memory: Memory::default(),
        clock: parts.clock,
        counter_reserved: parts.signer.seq(),
        orders: Orders::new(parts.settings.farm, parts.signer),
        keeper: parts.keeper,
        broker: parts.broker,
    };
    control.reserve_counters().await?;
    let mut first = parts.first;
    first.insert(0, FarmEvent::Restored(parts.kept.memory));
    control.step(first, Vec::new()).await?;
    let mut view_due = Instant::now();
    let mut view_wanted = true;
    let mut feeds_open = true;
    let mut actions_open = true;
    let mut told_open = true;
    loop {
        if view_wanted && Instant::now() >= view_due {
            views.send_replace(control.view());
            (view_due, view_wanted) = (Instant::now() + VIEW_PAUSE, false);
        }
        control.memory.promises = Arc::clone(&told.commitments.borrow_and_update());
        control.memory.gonka = told.view.borrow_and_update().clone();
        let tick = control.tick_at();
        let mut events = Vec::new();
        let mut wanted = Vec::new();
        tokio::select! {
            () = cancel.cancelled() => break,
            event = agents.recv() => match event {
                Some(event) => control.take(event, &mut events),
                None => return Err(ControlError::BrokerGone),
            },
            event = feeds.recv(), if feeds_open => match event {
                Some(event) => events.push(event),
                None => feeds_open = false,
            },
            action = actions.recv(), if actions_open => match action {
                Some(action) => wanted.push(action),
                None => actions_open = false,
            },
            changed = told.view.changed(), if told_open => match changed {
                Ok(()) => {
                    view_wanted = true;
                    continue;
                }
                Err(_) => told_open = false,
            },
            () = tokio::time::sleep_until(tick) => events.push(FarmEvent::Tick),
            () = tokio::time::sleep_until(view_due), if view_wanted => continue,
        }
        while events.len() < BATCH_MAX
            && let Ok(event) = agents.try_recv()
        {
            control.take(event, &mut events);
        }
        control.step(events, wanted).await?;
        view_wanted = true;
    }
    views.send_replace(control.view());
    Ok(())
}

impl Control {
    /// Reads what an agent did; what cannot be believed is logged and dropped.
    fn take(&self, event: BrokerEvent, events: &mut Vec<FarmEvent>) {
        match intake::read(&self.farm.settings().farm, event) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => {}
            Err(dropped) => tracing::warn!(%dropped, "message dropped"),
        }
    }

    fn tick_at(&self) -> Instant {
        // Without a wish of the machine, look again in a minute of farm time: cheap, and heals a lost wish.
        let now = self.clock.now();
        let wake = self.farm.wake_at().unwrap_or(now + Millis::from_mins(1));
        Instant::now() + self.clock.wall_span(wake.since(now))
    }

    /// Handles a batch: decide, keep, then let it leave.
    async fn step(
        &mut self,
        events: Vec<FarmEvent>,
        wanted: Vec<Action>,
    ) -> Result<(), ControlError> {
        let now = self.clock.now();
        let mut records = Vec::new();
        let mut departures = Vec::new();
        for action in wanted {
            self.act(now, action, &mut records, &mut departures);
        }
        for event in events {
            self.feed(now, event, &mut records, &mut departures);
        }
        if self.orders.counter() + departures.len() as u64 + 1 > self.counter_reserved {
            self.reserve_counters().await?;
        }
        let kept = if records.is_empty() { Ok(()) } else { self.keeper.keep(records).await };
        if let Err(error) = &kept {
            tracing::error!(%error, "only orders that lower power leave until this is mended");
            self.write(now, Severity::Alert, None, error.to_string());
        }
        for departure in departures {
            self.depart(now, departure, kept.is_ok()).await;
        }
        Ok(())
    }

    fn act(
        &mut self,
        now: UnixMillis,
        action: Action,
        records: &mut Vec<Record>,
        departures: &mut Vec<Departure>,
    ) {
        match action {
            Action::Hold { rig, workload, operator, accept_loss } => {
                if let Some(text) = self.memory.risk(&rig, &workload, now) {
                    if !accept_loss {
                        let text =
                            format!("not held for {operator}: {text}; it needs a yes to that");
                        self.write(now, Severity::Warning, Some(rig), text);
                        return;
                    }
                    let text = format!("{operator} holds it and was told that it {text}");
                    self.write(now, Severity::Warning, Some(rig.clone()), text);
                }
                records.push(Record::Hold {
                    rig: rig.clone(),
                    workload: workload.clone(),
                    operator: operator.clone(),
                });
                self.feed(now, FarmEvent::Hold { rig, workload, operator }, records, departures);
            }
            Action::Release { rig } => {
                records.push(Record::Release { rig: rig.clone() });
                self.feed(now, FarmEvent::Release { rig }, records, departures);
            }
            Action::ResetTrip { rig, operator } => {
                let text = format!("{operator} asks to open the safety latch");
                self.write(now, Severity::Warning, Some(rig.clone()), text);
                let command = Command::ResetTrip { rig: rig.clone(), operator };
                departures.push(Departure::ToRig(rig, command));
            }
        }
    }

    fn feed(
        &mut self,
        now: UnixMillis,
        event: FarmEvent,
        records: &mut Vec<Record>,
        departures: &mut Vec<Departure>,
    ) {
        if matches!(event, FarmEvent::Prices(_)) {
            self.memory.prices_at = Some(now);
        }
        for effect in self.farm.handle(now, event) {
            self.effect(now, effect, records, departures);
        }
    }

    fn effect(
        &mut self,
        now: UnixMillis,
        effect: FarmEffect,
        records: &mut Vec<Record>,
        departures: &mut Vec<Departure>,
    ) {
        match effect {
            FarmEffect::CommitPlan { plan, notes, sheds } => {
                self.memory.notes = notes.iter().map(ToString::to_string).collect();
                self.memory.sheds =
                    sheds.iter().map(|shed| format!("{}: {}", shed.rig, shed.reason)).collect();
                records.push(Record::Plan { plan, notes, sheds });
            }
            FarmEffect::Assign(assignment) => {
                records.push(Record::Assignment(assignment.clone()));
                departures.push(Departure::Assign(assignment));
            }
            FarmEffect::Sync { rig } => {
                let command = Command::Sync { rig: rig.clone() };
                departures.push(Departure::ToRig(rig, command));
            }
            FarmEffect::JournalStored { agent, journal, seq } => {
                records.push(Record::Journal {
                    agent: agent.clone(),
                    journal: journal.clone(),
                    seq,
                });
                let command = Command::JournalAck { agent: agent.clone(), journal, seq };
                departures.push(Departure::ToAgent(agent, command));
            }
            FarmEffect::Book(entry) => {
                self.ledger.apply(&entry);
                records.push(Record::Entry(entry));
            }
            FarmEffect::Alert(alert) => {
                let severity = if alert.active { Severity::Alert } else { Severity::Info };
                self.write(now, severity, alert.rig.clone(), alert_text(&alert));
                records.push(Record::Alert { at: now, alert });
            }
            FarmEffect::Log { at, rig, text } => self.write(at, Severity::Info, rig, text),
        }
    }

    async fn depart(&mut self, now: UnixMillis, departure: Departure, kept: bool) {
        let message = match departure {
            Departure::Assign(assignment) => {
                if !kept && assignment.workload.is_active() {
                    return;
                }
                self.orders.assign(now, &assignment)
            }
            Departure::ToRig(..) | Departure::ToAgent(..) if !kept => return,
            Departure::ToRig(rig, command) => self.orders.command_rig(now, &rig, &command),
            Departure::ToAgent(agent, command) => self.orders.command_agent(now, &agent, &command),
        };
        match message {
            Ok(message) => self.broker.publish(message).await,
            Err(error) => tracing::error!(%error, "an order could not be written"),
        }
    }

    /// Keeps a counter above any the signer will use for a while: after a crash it starts there, so no counter is ever
    /// used twice.
    async fn reserve_counters(&mut self) -> Result<(), ControlError> {
        let reserved = self.orders.counter() + COUNTERS_RESERVED;
        self.keeper.keep(vec![Record::SignerCounter(reserved)]).await?;
        self.counter_reserved = reserved;
        Ok(())
    }

    fn write(&mut self, at: UnixMillis, severity: Severity, rig: Option<RigId>, text: String) {
        self.memory.write(LogLine { at, severity, rig, text });
    }

    fn view(&self) -> FarmView {
        snapshot(&self.names, &self.farm, &self.ledger, &self.memory, self.clock.now())
    }
}

fn alert_text(alert: &Alert) -> String {
    if alert.active { alert.text.clone() } else { format!("over: {}", alert.text) }
}
