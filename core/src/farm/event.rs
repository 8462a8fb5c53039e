//! What goes into the farm machine and what comes out.

use roadbed_protocol::{
    Ack, AgentId, Assignment, RigEventReport, RigId, StateReport, TelemetryBatch, UnixMillis,
    Workload,
};

use crate::forecast::PriceSeries;
use crate::guard::Shed;
use crate::ledger::Entry;
use crate::plan::{Commitment, CurtailOrder, Note, Plan, WorkOption};

/// What can happen to a farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FarmEvent {
    /// What the store knew when the controller started. The first event, if there is a store.
    Restored(FarmMemory),
    /// A price feed gave its series; it replaces the former one.
    Prices(PriceSeries),
    /// What a rig can do, or earn, has changed.
    Options {
        /// The rig.
        rig: RigId,
        /// Replaces all former options.
        options: Vec<WorkOption>,
    },
    /// A rig told its state.
    Report(Box<StateReport>),
    /// A journal row with samples.
    Telemetry(TelemetryBatch),
    /// A journal row with an event.
    Happened(RigEventReport),
    /// An answer to an assignment or command.
    Acked(Ack),
    /// An agent came or went.
    Presence {
        /// The agent.
        agent: AgentId,
        /// Connected or not.
        online: bool,
    },
    /// An operator holds a rig.
    Hold {
        /// The rig.
        rig: RigId,
        /// At what.
        workload: Workload,
        /// By whom.
        operator: String,
    },
    /// An operator lets go of a rig.
    Release {
        /// The rig.
        rig: RigId,
    },
    /// Power must be shed; an order of the same id is replaced.
    CurtailOrder(CurtailOrder),
    /// An order no longer stands.
    CurtailLifted {
        /// Its id.
        id: String,
    },
    /// All commitments there are; they replace the former ones.
    Commitments(Vec<Commitment>),
    /// Someone outside the machine sees a condition begin or end; told once each, like the machine's own.
    Noticed(Alert),
    /// Someone outside the machine has a line for people.
    Noted {
        /// The rig concerned, if one is.
        rig: Option<RigId>,
        /// The line.
        text: String,
    },
    /// Time passed: call at or after [`super::Farm::wake_at`].
    Tick,
}

/// What the store gives back after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FarmMemory {
    /// The newest assignment issued to each rig.
    pub assignments: Vec<Assignment>,
    /// Id of the newest plan.
    pub plan_id: u64,
    /// How far each journal is stored without gaps: agent, journal, row.
    pub journals: Vec<(AgentId, String, u64)>,
    /// Holds that stand: rig, workload, operator.
    pub holds: Vec<(RigId, Workload, String)>,
    /// Orders that stand.
    pub orders: Vec<CurtailOrder>,
}

/// What the shell must do now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FarmEffect {
    /// Store the plan; assignments that follow come from it.
    CommitPlan {
        /// The plan, after the guard.
        plan: Plan,
        /// What a person should know about it.
        notes: Vec<Note>,
        /// What the guard took away.
        sheds: Vec<Shed>,
    },
    /// Store the assignment, then sign and publish it. It may be the same generation with a longer lease.
    Assign(Assignment),
    /// Ask a rig for its full state.
    Sync {
        /// The rig.
        rig: RigId,
    },
    /// Store what was booked, then tell the agent that it may forget its rows up to `seq`.
    JournalStored {
        /// The agent.
        agent: AgentId,
        /// Its journal.
        journal: String,
        /// Every row up to this one is stored.
        seq: u64,
    },
    /// Store this and fold it into the ledger.
    Book(Entry),
    /// A person should look.
    Alert(Alert),
    /// A decision, for the log and the console.
    Log {
        /// When.
        at: UnixMillis,
        /// The rig concerned, if one is.
        rig: Option<RigId>,
        /// One line for people.
        text: String,
    },
}

/// Something a person should look at. Raised once, and once more when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Names the condition, so that its end can be matched: `silent`, `faulted`, `tripped`, `overload`, ...
    pub key: String,
    /// The rig concerned, if one is.
    pub rig: Option<RigId>,
    /// False when the condition is over.
    pub active: bool,
    /// One line for people.
    pub text: String,
}
