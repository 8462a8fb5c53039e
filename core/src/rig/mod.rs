//! The machine of one rig: it brings the actual state to the target, by legal moves only, and distrusts its hardware.
//!
//! The target (an assignment, or its fallback once the lease lapsed), the actual state, the link and the lease are four
//! separate things. An event changes one of them; afterwards [`Rig::settle`](steer) takes every step towards the target
//! that needs no answer from outside. A claim of the driver ("stopped", "started") counts only as far as the readings do
//! not contradict it, because ASIC firmwares answer before they act.
//!
//! ```text
//! Booting -> Idle -> Starting -> Running -> Draining -> Stopping -> Idle -> Curtailed -> Idle
//!            any state -> Faulted (comes back by itself)     any state -> Tripped (operator only)
//! ```

mod event;
mod moves;
mod orders;
mod safety;
mod settings;
mod steer;
mod timers;

use roadbed_protocol::{Assignment, EventKind, RigId, RigState, UnixMillis, Workload};

pub use event::{Reading, RigEffect, RigEvent, RigMemory, TripCause};
pub use moves::{is_legal, moves};
pub use settings::RigSettings;

/// The machine of one rig: events in, effects out.
#[derive(Debug, Clone)]
pub struct Rig {
    id: RigId,
    settings: RigSettings,
    /// Latest time seen; time given to [`Rig::handle`] never goes back behind it.
    now: UnixMillis,
    state: RigState,
    since: UnixMillis,
    reason: String,
    workload: Option<Workload>,
    /// What the last `Switched` record said runs.
    recorded: Option<Workload>,
    assignment: Option<Assignment>,
    lapsed: bool,
    latch: Option<String>,
    link_up: bool,
    attempts: u32,
    ignored: u64,
    illegal: u64,
    reading: Option<(UnixMillis, Reading)>,
    progress: Progress,
}

/// What is open in the present state; empty again in the next one.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// When the state has lasted too long.
    deadline: Option<UnixMillis>,
    /// Booting, Faulted: the hardware was asked.
    probing: bool,
    /// Stopping: the stop was forced.
    forced: bool,
    /// Stopping: the driver says nothing runs any more.
    stop_claimed: bool,
    /// Running: a hand-over asked for, and when it is overdue.
    hand_over: Option<(Workload, UnixMillis)>,
    /// Since when the readings contradict the state.
    doubt_since: Option<UnixMillis>,
}

/// What people see of a rig; a change of it is worth a report.
#[derive(PartialEq)]
struct Face {
    state: RigState,
    since: UnixMillis,
    workload: Option<Workload>,
    target: Option<Workload>,
    generation: u64,
    lease_until: Option<UnixMillis>,
    attempts: u32,
    link_up: bool,
}

impl Rig {
    /// A rig just powered on, that was never told anything.
    #[must_use]
    pub fn new(id: RigId, settings: RigSettings, now: UnixMillis) -> Self {
        Self::restore(id, settings, RigMemory::default(), now)
    }

    /// A rig whose agent starts again, with what it stored by [`RigEffect::Persist`].
    #[must_use]
    pub fn restore(id: RigId, settings: RigSettings, memory: RigMemory, now: UnixMillis) -> Self {
        Self {
            id,
            settings,
            now,
            state: RigState::Booting,
            since: now,
            reason: "starting up".into(),
            workload: None,
            recorded: None,
            assignment: memory.assignment,
            lapsed: false,
            latch: memory.tripped,
            link_up: false,
            attempts: 0,
            ignored: 0,
            illegal: 0,
            reading: None,
            progress: Progress::default(),
        }
    }

    /// Takes one event and says what to do. Never fails; what makes no sense is ignored and counted. Deadlines that
    /// have passed are dealt with before the event.
    pub fn handle(&mut self, now: UnixMillis, event: RigEvent) -> Vec<RigEffect> {
        self.now = self.now.max(now);
        let before = self.face();
        let mut effects = Vec::new();
        self.relatch(&mut effects);
        self.expire(&mut effects);
        self.take(event, &mut effects);
        self.settle(&mut effects);
        self.record_switch(&mut effects);
        if self.face() != before {
            effects.push(RigEffect::Report);
        }
        effects
    }

    /// When [`RigEvent::Tick`] is next needed, if ever; other events may come at any time.
    #[must_use]
    pub fn wake_at(&self) -> Option<UnixMillis> {
        self.next_timer()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &RigId {
        &self.id
    }

    /// Its limits and deadlines.
    #[must_use]
    pub fn settings(&self) -> &RigSettings {
        &self.settings
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> RigState {
        self.state
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> UnixMillis {
        self.since
    }

    /// Why, in one line for people.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What runs, starts or is being ended, if anything.
    #[must_use]
    pub fn workload(&self) -> Option<&Workload> {
        self.workload.as_ref()
    }

    /// What it should do: the assignment's workload, or its fallback once the lease has lapsed.
    #[must_use]
    pub fn target(&self) -> Option<&Workload> {
        let assignment = self.assignment.as_ref()?;
        Some(if self.lapsed { &assignment.fallback } else { &assignment.workload })
    }

    /// The newest assignment accepted.
    #[must_use]
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// Generation of that assignment; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.assignment.as_ref().map_or(0, |assignment| assignment.generation)
    }

    /// End of its lease.
    #[must_use]
    pub fn lease_until(&self) -> Option<UnixMillis> {
        self.assignment.as_ref().map(|assignment| assignment.lease_until)
    }

    /// True once the lease lapsed and the fallback applies.
    #[must_use]
    pub fn is_lapsed(&self) -> bool {
        self.lapsed
    }

    /// True while the controller can be reached.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.link_up
    }

    /// Faults in a row.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Events that meant nothing in the state they met, since the start.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The latest reading and when it was taken.
    #[must_use]
    pub fn reading(&self) -> Option<(UnixMillis, Reading)> {
        self.reading
    }

    /// What [`RigEffect::Persist`] last carried, or would.
    #[must_use]
    pub fn memory(&self) -> RigMemory {
        RigMemory { assignment: self.assignment.clone(), tripped: self.latch.clone() }
    }

    /// The first rule of the machine that does not hold, for tests and simulations.
    ///
    /// # Errors
    /// The rule, in words.
    pub fn invariants(&self) -> Result<(), String> {
        let active = matches!(
            self.state,
            RigState::Starting | RigState::Running | RigState::Draining | RigState::Stopping
        );
        let rules = [
            (self.illegal == 0, "an illegal move was tried"),
            (active == self.workload.is_some(), "a workload is known exactly in active states"),
            (
                (self.state == RigState::Tripped) == self.latch.is_some()
                    || self.state == RigState::Booting,
                "the latch is closed exactly when tripped",
            ),
            (
                self.progress.hand_over.is_none() || self.state == RigState::Running,
                "only a running rig hands over",
            ),
            (self.since <= self.now, "a state began in the future"),
            (
                self.state != RigState::Starting || self.progress.deadline.is_some(),
                "a start has a deadline",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(format!("{}: {rule} ({})", self.id, self.state)),
            None => Ok(()),
        }
    }

    fn take(&mut self, event: RigEvent, effects: &mut Vec<RigEffect>) {
        let word = event.word();
        let meant_something = match event {
            RigEvent::Probed => self.probed(effects),
            RigEvent::ProbeFailed { reason } => self.probe_failed(&reason, effects),
            RigEvent::Assigned(assignment) => {
                self.assigned(assignment, effects);
                true
            }
            RigEvent::Started { workload } => self.started(&workload, effects),
            RigEvent::HandedOver { workload } => self.handed_over(workload),
            RigEvent::Failed { reason } => self.failed(&reason, effects),
            RigEvent::Drained => self.drained(effects),
            RigEvent::Stopped => self.stopped(effects),
            RigEvent::Measured(reading) => {
                self.measured(reading, effects);
                true
            }
            RigEvent::LinkUp => {
                self.link_up = true;
                true
            }
            RigEvent::LinkDown => {
                self.link_up = false;
                true
            }
            RigEvent::TripSignal(cause) => {
                self.trip(&cause.to_string(), effects);
                true
            }
            RigEvent::OperatorReset { operator } => {
                self.reset(&operator, effects);
                true
            }
            RigEvent::Tick => true,
        };
        if !meant_something {
            self.ignored += 1;
            effects.push(RigEffect::Ignored { state: self.state, event: word });
        }
    }

    /// The only place where the state changes.
    fn go(&mut self, to: RigState, reason: impl Into<String>, effects: &mut Vec<RigEffect>) {
        let from = self.state;
        if !is_legal(from, to) {
            self.illegal += 1;
            effects.push(RigEffect::Ignored { state: from, event: "illegal-move" });
            return;
        }
        self.state = to;
        self.since = self.now;
        self.reason = reason.into();
        self.progress = Progress::default();
        match to {
            RigState::Starting | RigState::Running | RigState::Draining | RigState::Stopping => {}
            RigState::Booting
            | RigState::Idle
            | RigState::Curtailed
            | RigState::Faulted
            | RigState::Tripped => self.workload = None,
        }
        effects.push(RigEffect::Record {
            kind: EventKind::StateChanged { from, to },
            reason: self.reason.clone(),
        });
    }

    /// Records a switch when the rig has come to rest or to work; a stop on the way to the next start is part of it.
    fn record_switch(&mut self, effects: &mut Vec<RigEffect>) {
        let settled = match self.state {
            RigState::Running => self.workload.clone(),
            RigState::Idle | RigState::Curtailed | RigState::Faulted | RigState::Tripped => None,
            RigState::Booting | RigState::Starting | RigState::Draining | RigState::Stopping => {
                return;
            }
        };
        if settled != self.recorded {
            let from = std::mem::replace(&mut self.recorded, settled.clone());
            effects.push(RigEffect::Record {
                kind: EventKind::Switched { from, to: settled },
                reason: self.reason.clone(),
            });
        }
    }

    fn face(&self) -> Face {
        Face {
            state: self.state,
            since: self.since,
            workload: self.workload.clone(),
            target: self.target().cloned(),
            generation: self.generation(),
            lease_until: self.lease_until(),
            attempts: self.attempts,
            link_up: self.link_up,
        }
    }
}
