//! What a person sees of the farm: one plain snapshot, made by the control loop after every step.
//!
//! The console, `roadbed rigs` and the demo's decision lines all read this and nothing else, so they cannot show what
//! the controller does not know. It goes through a `watch` channel in process and as one JSON line over the control
//! socket.

use roadbed_protocol::{
    Cause, HashRate, HashesPerSecond, JobCounters, MicrosPerHour, MicrosPerMwh, MilliCelsius,
    Millis, Money, PoolReport, PowerReading, ProofRate, ProofStatus, RigId, RigKind, RigState,
    UnixMillis, WattHours, Watts, Workload,
};
use serde::{Deserialize, Serialize};

use crate::gonka::view::{GonkaView, PromiseView};

/// Log lines kept in a view: a screen or two.
pub const LOG_LINES_MAX: usize = 200;
/// Switches kept per rig in a view.
pub const SWITCHES_MAX: usize = 50;

/// The farm at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FarmView {
    /// Name of the farm.
    pub farm: String,
    /// Currency of all money here.
    pub currency: String,
    /// Farm time of the snapshot.
    pub at: UnixMillis,
    /// Price of energy now.
    pub price: Option<MicrosPerMwh>,
    /// How old the price feed's last answer is.
    pub price_age: Option<Millis>,
    /// Every circuit with a limit, the site's own first.
    pub feeders: Vec<FeederView>,
    /// Every rig, by id.
    pub rigs: Vec<RigView>,
    /// The newest committed plan.
    pub plan: PlanView,
    /// Sum over all rigs.
    pub totals: Totals,
    /// Newest last, at most [`LOG_LINES_MAX`].
    pub log: Vec<LogLine>,
    /// The chain and our place in it, for a site that has one.
    #[serde(default)]
    pub gonka: Option<Box<GonkaView>>,
}

/// A circuit with its load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeederView {
    /// Its id.
    pub id: String,
    /// Continuous limit.
    pub limit: Watts,
    /// Load by the latest reports; silent rigs counted at nameplate.
    pub power: Watts,
}

/// One rig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RigView {
    /// Its id.
    pub id: RigId,
    /// ASIC or GPU.
    pub kind: RigKind,
    /// Model by its profile.
    pub model: String,
    /// Engine, driver or firmware that does the work, once it reported.
    pub engine: String,
    /// The circuit it hangs on.
    pub feeder: String,
    /// The agent that hosts it.
    pub agent: String,
    /// Whether that agent is connected.
    pub online: bool,
    /// Last reported state; `None` before the first report.
    pub state: Option<RigState>,
    /// Since when it is in that state.
    pub since: Option<UnixMillis>,
    /// What runs.
    pub workload: Option<Workload>,
    /// What it was told.
    pub target: Option<Workload>,
    /// Who wants that.
    pub cause: Option<Cause>,
    /// The operator who holds it, whether it has obeyed yet or not.
    #[serde(default)]
    pub held_by: Option<String>,
    /// Why it was told so, in one line.
    pub reason: String,
    /// Why it is in its state, in its own words.
    pub state_reason: String,
    /// Generation of its assignment.
    pub generation: u64,
    /// End of its lease.
    pub lease_until: Option<UnixMillis>,
    /// Latest power with its source.
    pub power: Option<PowerReading>,
    /// Latest hashrate.
    pub hashrate: Option<HashesPerSecond>,
    /// Hottest sensor.
    pub temperature: Option<MilliCelsius>,
    /// How fast it proves, once that was measured.
    #[serde(default)]
    pub proof_rate: Option<ProofRate>,
    /// The same at every length that was measured, the newest first.
    #[serde(default)]
    pub proof_rates: Vec<ProofRate>,
    /// What its engine does of proofs, as `pow/status` says it.
    #[serde(default)]
    pub proof: Option<ProofStatus>,
    /// The pools of its miner, while that runs, in the order of its list.
    #[serde(default)]
    pub pools: Vec<PoolReport>,
    /// How fast it hashes, one figure an algorithm, as its agent measured it.
    #[serde(default)]
    pub hash_rates: Vec<HashRate>,
    /// Running totals of work.
    pub jobs: JobCounters,
    /// When its last report was made.
    pub reported_at: Option<UnixMillis>,
    /// Planned margin now.
    pub margin: Option<MicrosPerHour>,
    /// True when that margin rests on an assumption.
    pub assumed: bool,
    /// Booked so far.
    pub totals: Totals,
    /// Oldest first, at most [`SWITCHES_MAX`].
    pub switches: Vec<SwitchView>,
    /// What it promised and is not over, the earliest first.
    #[serde(default)]
    pub promises: Vec<PromiseView>,
}

/// One switch of a rig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchView {
    /// When.
    pub at: UnixMillis,
    /// From this.
    pub from: Option<Workload>,
    /// To this.
    pub to: Option<Workload>,
    /// Why, in one line.
    pub reason: String,
}

/// Booked energy and money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Energy drawn.
    pub energy: WattHours,
    /// Its cost.
    pub cost: Money,
    /// Revenue.
    pub revenue: Money,
    /// Of the revenue, what rests on assumptions.
    pub assumed_revenue: Money,
    /// Switches of workload.
    pub switches: u32,
}

impl Totals {
    /// Revenue less cost.
    #[must_use]
    pub fn margin(&self) -> Money {
        self.revenue - self.cost
    }
}

/// A plan, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanView {
    /// Number of the plan.
    pub id: u64,
    /// When it was made.
    pub made_at: UnixMillis,
    /// The horizon.
    pub slots: Vec<SlotView>,
    /// One row a rig.
    pub rows: Vec<PlanRowView>,
    /// What a person should know about it.
    pub notes: Vec<String>,
    /// What the guard took away.
    pub sheds: Vec<String>,
}

/// One slot of the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// When it begins.
    pub start: UnixMillis,
    /// Price, if known.
    pub price: Option<MicrosPerMwh>,
    /// Power planned.
    pub power: Watts,
}

/// One rig through the horizon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRowView {
    /// The rig.
    pub rig: RigId,
    /// One choice a slot.
    pub choices: Vec<ChoiceView>,
}

/// One rig in one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoiceView {
    /// What it does.
    pub workload: Workload,
    /// Who wants it.
    pub cause: Cause,
    /// Power it counts as.
    pub power: Watts,
    /// Income less energy.
    pub margin: MicrosPerHour,
    /// True when the income is an assumption.
    pub assumed: bool,
    /// Best alternative and its margin, if there is one.
    pub next_best: Option<(Workload, MicrosPerHour)>,
    /// Why, in one line.
    pub reason: String,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something happened as it should.
    Info,
    /// Something a person may want to know.
    Warning,
    /// Somebody should act.
    Alert,
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, farm time.
    pub at: UnixMillis,
    /// How much it matters.
    pub severity: Severity,
    /// The rig concerned.
    pub rig: Option<RigId>,
    /// The line.
    pub text: String,
}

/// What a person asks the controller to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Hold a rig at a workload.
    Hold {
        /// The rig.
        rig: RigId,
        /// At what.
        workload: Workload,
        /// By whom.
        operator: String,
        /// The operator was told what it breaks and wants it nevertheless.
        #[serde(default)]
        accept_loss: bool,
    },
    /// Let go of it.
    Release {
        /// The rig.
        rig: RigId,
    },
    /// Open its safety latch, if its readings allow.
    ResetTrip {
        /// The rig.
        rig: RigId,
        /// By whom.
        operator: String,
    },
}
