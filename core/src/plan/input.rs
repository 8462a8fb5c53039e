//! Everything a plan is made of. Equal inputs give equal plans.

use roadbed_protocol::{
    FeederId, HashesPerSecond, MicrosPerHour, Millis, Money, RigId, RigKind, UnixMillis, Watts,
    Workload,
};

use crate::forecast::Slot;
use crate::policy::PolicyRules;

/// The question a plan answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanInput {
    /// When it is asked.
    pub now: UnixMillis,
    /// The horizon, gapless, the first slot holding `now`.
    pub slots: Vec<Slot>,
    /// Every rig of the farm, also those that cannot be used now.
    pub rigs: Vec<RigInput>,
    /// Every circuit with a limit.
    pub feeders: Vec<Feeder>,
    /// The operator's rules.
    pub rules: PolicyRules,
    /// What was promised.
    pub commitments: Vec<Commitment>,
    /// What operators hold.
    pub holds: Vec<Hold>,
    /// What must be shed.
    pub orders: Vec<CurtailOrder>,
}

/// What never changes about a rig while the farm runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigSpec {
    /// Its id.
    pub id: RigId,
    /// ASIC or GPU.
    pub kind: RigKind,
    /// The circuit it hangs on.
    pub feeder: FeederId,
    /// Power asleep or idle.
    pub floor: Watts,
    /// Most it can draw; a silent rig counts as this.
    pub nameplate: Watts,
    /// What it can do beside sleeping.
    pub options: Vec<WorkOption>,
    /// Cost of a start: wear, and what is lost but not counted in `switch_time`.
    pub switch_cost: Money,
    /// Cost of a hand-over (serve <-> prove, another mining power).
    pub hand_over_cost: Money,
    /// Time from the order until a started workload earns.
    pub switch_time: Millis,
    /// Stays with a workload at least this long; the policy may ask for more.
    pub min_dwell: Millis,
}

/// Something a rig can do, with what it takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkOption {
    /// The workload.
    pub workload: Workload,
    /// Wall power.
    pub power: Watts,
    /// Income by slot; the last value stands for all later slots, so one value is a constant, none is nothing.
    pub income: Vec<MicrosPerHour>,
    /// Where the income figure comes from.
    pub source: IncomeSource,
    /// Hashrate the income is for, so that a slower rig is booked with less.
    pub hashrate: Option<HashesPerSecond>,
}

impl WorkOption {
    /// Income in the slot at `index`.
    #[must_use]
    pub fn income_at(&self, index: usize) -> MicrosPerHour {
        self.income.get(index).or(self.income.last()).copied().unwrap_or_default()
    }
}

/// Where an income figure comes from: never invented, always with its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IncomeSource {
    /// Chain, pool or market data of this time.
    Data {
        /// When it was true.
        at: UnixMillis,
    },
    /// The operator wrote it down.
    Assumption,
}

/// One rig at the moment of planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigInput {
    /// What it is.
    pub spec: RigSpec,
    /// Whether it can be used.
    pub availability: Availability,
    /// What it is told to do now; `None` is nothing, at the floor.
    pub current: Option<Workload>,
    /// Since when.
    pub since: UnixMillis,
}

/// Whether a rig can be planned with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It reports and obeys.
    Ready,
    /// It reports, but cannot work (faulted, tripped, booting).
    Out {
        /// Why, for people.
        reason: String,
        /// Power it draws by its fresh report.
        power: Watts,
    },
    /// It does not report: counted at nameplate.
    Silent {
        /// Since when; `None` when it never reported.
        since: Option<UnixMillis>,
    },
}

/// A circuit with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feeder {
    /// Its id.
    pub id: FeederId,
    /// The circuit it hangs on; `None` for the site's own connection.
    pub parent: Option<FeederId>,
    /// Continuous limit: for a breaker, already 80 % of its rating.
    pub limit: Watts,
}

/// A promise to be ready in a window: a Proof of Compute epoch or a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Name, for reasons.
    pub id: String,
    /// The rig that promised.
    pub rig: RigId,
    /// What it must run.
    pub workload: Workload,
    /// Start of the window.
    pub from: UnixMillis,
    /// End of the window.
    pub until: UnixMillis,
    /// The workload must run this long before `from`: model load and warm-up.
    pub load_lead: Millis,
    /// What is forfeited when it is broken.
    pub penalty: Money,
    /// What keeping it pays in all.
    pub income: Money,
    /// Where those figures come from.
    pub source: IncomeSource,
}

/// An operator holds a rig at a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The rig held.
    pub rig: RigId,
    /// At what.
    pub workload: Workload,
    /// By whom.
    pub operator: String,
}

/// A cap for a time: a grid event, a utility's call, an operator's order for a hall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurtailOrder {
    /// Name, for reasons; a later order of the same id replaces an earlier one.
    pub id: String,
    /// The feeder capped.
    pub feeder: FeederId,
    /// Power allowed under it.
    pub limit: Watts,
    /// First moment.
    pub from: UnixMillis,
    /// First moment after it.
    pub until: UnixMillis,
    /// Whether commitments give way to it. The farm machine sets this from the policy.
    pub breaks_commitments: bool,
}
