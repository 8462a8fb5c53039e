//! The machine of one rig.

mod event;
mod settings;

use roadbed_protocol::{Assignment, RigId, RigState, UnixMillis, Workload};

pub use event::{Reading, RigEffect, RigEvent, RigMemory, TripCause};
pub use settings::RigSettings;

/// The machine of one rig: events in, effects out.
#[derive(Debug, Clone)]
pub struct Rig {
    id: RigId,
    settings: RigSettings,
    state: RigState,
    since: UnixMillis,
    reason: String,
    workload: Option<Workload>,
    assignment: Option<Assignment>,
    lapsed: bool,
    link_up: bool,
    attempts: u32,
    ignored: u64,
    reading: Option<(UnixMillis, Reading)>,
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
            state: RigState::Booting,
            since: now,
            reason: "starting up".into(),
            workload: None,
            assignment: memory.assignment,
            lapsed: false,
            link_up: false,
            attempts: 0,
            ignored: 0,
            reading: None,
        }
    }

    /// Takes one event and says what to do. Never fails; what makes no sense is ignored and counted.
    pub fn handle(&mut self, _now: UnixMillis, _event: RigEvent) -> Vec<RigEffect> {
        Vec::new()
    }

    /// When [`RigEvent::Tick`] is next needed, if ever; other events may come at any time.
    #[must_use]
    pub fn wake_at(&self) -> Option<UnixMillis> {
        None
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
}
