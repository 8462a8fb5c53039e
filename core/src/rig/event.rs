//! What goes into a rig machine and what comes out.

use std::fmt;

use roadbed_protocol::{
    Assignment, EventKind, HashesPerSecond, MilliCelsius, RigState, Watts, Workload,
};

/// One look at the sensors. A value is `None` when nothing measured it: a profile's planning value is no measurement
/// and must not be passed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Wall power.
    pub power: Option<Watts>,
    /// Hottest sensor.
    pub temperature: Option<MilliCelsius>,
    /// Hashrate, of a rig that mines.
    pub hashrate: Option<HashesPerSecond>,
}

/// Why the safety latch closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TripCause {
    /// A sensor reached the trip temperature.
    Heat {
        /// What it measured.
        temperature: MilliCelsius,
    },
    /// The rig drew more than it may ever draw.
    Power {
        /// What was measured.
        power: Watts,
    },
    /// A breaker or its monitor says so.
    Breaker,
    /// Smoke, water, a door, a stop button.
    Interlock,
}

impl fmt::Display for TripCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heat { temperature } => write!(f, "heat: {temperature}"),
            Self::Power { power } => write!(f, "power: {power}"),
            Self::Breaker => f.write_str("breaker"),
            Self::Interlock => f.write_str("interlock"),
        }
    }
}

/// What can happen to a rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RigEvent {
    /// The hardware answered and is what it should be. Answers [`RigEffect::Probe`].
    Probed,
    /// It did not.
    ProbeFailed {
        /// Why, for people.
        reason: String,
    },
    /// A verified assignment arrived.
    Assigned(Assignment),
    /// The workload runs, confirmed by watts, hashrate or an answering engine. Answers [`RigEffect::Start`].
    Started {
        /// What runs.
        workload: Workload,
    },
    /// The running engine or miner took over. Answers [`RigEffect::HandOver`].
    HandedOver {
        /// What runs now.
        workload: Workload,
    },
    /// Something the driver was told to do, or something that ran, failed.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// No open job is left. Answers [`RigEffect::BeginDrain`].
    Drained,
    /// Nothing runs any more: process gone and VRAM free, or firmware asleep. Answers [`RigEffect::Stop`].
    Stopped,
    /// The sensors were read.
    Measured(Reading),
    /// The controller can be reached.
    LinkUp,
    /// It cannot.
    LinkDown,
    /// Something outside the sensors demands a trip.
    TripSignal(TripCause),
    /// An operator asks to open the safety latch.
    OperatorReset {
        /// Who, for the log.
        operator: String,
    },
    /// Time passed: call at or after [`super::Rig::wake_at`].
    Tick,
}

impl RigEvent {
    /// The event's name, for logs and for counting.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Probed => "probed",
            Self::ProbeFailed { .. } => "probe-failed",
            Self::Assigned(_) => "assigned",
            Self::Started { .. } => "started",
            Self::HandedOver { .. } => "handed-over",
            Self::Failed { .. } => "failed",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
            Self::Measured(_) => "measured",
            Self::LinkUp => "link-up",
            Self::LinkDown => "link-down",
            Self::TripSignal(_) => "trip-signal",
            Self::OperatorReset { .. } => "operator-reset",
            Self::Tick => "tick",
        }
    }
}

/// What must outlive a crash of the agent: store it before the next effect is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RigMemory {
    /// The newest assignment accepted; its generation is the one below which all are refused.
    pub assignment: Option<Assignment>,
    /// Why the safety latch is closed, if it is.
    pub tripped: Option<String>,
}

/// What the shell must do now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RigEffect {
    /// Look whether the hardware answers; say [`RigEvent::Probed`] or [`RigEvent::ProbeFailed`].
    Probe,
    /// Start this; say [`RigEvent::Started`] once it is confirmed, [`RigEvent::Failed`] otherwise.
    Start(Workload),
    /// Change what runs without stopping it: serve <-> prove of one model, or another mining power.
    HandOver {
        /// Running now.
        from: Workload,
        /// Shall run.
        to: Workload,
    },
    /// Take no new job, finish the open ones, say [`RigEvent::Drained`].
    BeginDrain,
    /// Take jobs again: the target came back before the drain ended.
    CancelDrain,
    /// End the workload, say [`RigEvent::Stopped`] once it is gone.
    Stop {
        /// Without asking the workload: kill the process, cut the hashboards.
        force: bool,
    },
    /// Go to the power floor and stay: an ASIC sleeps, on a GPU rig nothing runs. Nothing answers; the readings tell.
    HoldFloor,
    /// Safety: take the power away by the fastest means there is.
    CutPower,
    /// The assignment was taken, or its lease renewed.
    Accept {
        /// Its generation.
        generation: u64,
    },
    /// The assignment was refused.
    Refuse {
        /// Its generation.
        generation: u64,
        /// Why, for people.
        reason: String,
    },
    /// The operator's reset opened the latch.
    ResetDone,
    /// The operator's reset was refused.
    ResetRefused {
        /// Why, for people.
        reason: String,
    },
    /// Store this before going on.
    Persist(RigMemory),
    /// Something people see has changed: publish a state report.
    Report,
    /// Journal this.
    Record {
        /// What happened.
        kind: EventKind,
        /// Why, in one line for people.
        reason: String,
    },
    /// An event that means nothing in this state was dropped and counted; log it, do not journal it.
    Ignored {
        /// The state.
        state: RigState,
        /// [`RigEvent::word`] of the event.
        event: &'static str,
    },
}
