//! What the farm machine must know of its site: rigs, circuits, rules and its own timing.

use roadbed_protocol::{AgentId, FarmId, Millis, UnixMillis, Watts, Workload};

use crate::plan::{Feeder, RigSpec};
use crate::policy::PolicyRules;

/// Share of every limit that is planned with, in percent. The rest is for what a profile, a meter and a firmware get wrong
/// before anything was measured: a rig that takes 2 % more than its model and then falls silent must not count on luck.
pub const LIMIT_PERCENT_USED: u64 = 97;

/// The part of a limit that may be planned with.
#[must_use]
pub fn usable(limit: Watts) -> Watts {
    Watts(limit.0 / 100 * LIMIT_PERCENT_USED + limit.0 % 100 * LIMIT_PERCENT_USED / 100)
}

/// The site and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmSettings {
    /// The farm.
    pub farm: FarmId,
    /// Its rigs.
    pub rigs: Vec<RigMember>,
    /// Its circuits.
    pub feeders: Vec<Feeder>,
    /// The operator's rules.
    pub rules: PolicyRules,
    /// Its timing.
    pub timing: FarmTiming,
}

/// A rig as a member of the farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigMember {
    /// What it is and can do.
    pub spec: RigSpec,
    /// The agent that hosts it.
    pub agent: AgentId,
    /// How long open jobs may finish.
    pub drain: Millis,
    /// Where it goes without a lease. A workload that needs more power than the target of the moment is replaced by
    /// [`Workload::Curtailed`].
    pub fallback: Workload,
}

/// Spans the farm machine works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarmTiming {
    /// Length of a slot.
    pub slot: Millis,
    /// Slots a plan looks ahead.
    pub horizon_slots: usize,
    /// How long an assignment holds without renewal; renewed at half of it.
    pub lease: Millis,
    /// A rig that has not reported for this long is silent and counts at nameplate.
    pub report_stale: Millis,
    /// An assignment that no report confirms is sent again after this.
    pub resend: Millis,
    /// At most `starts_per_stagger` rigs are started in this span, so that inrush never adds up.
    pub stagger: Millis,
    /// See `stagger`.
    pub starts_per_stagger: u32,
    /// A gap in a journal is given up after this.
    pub journal_gap: Millis,
    /// Faults in a row after which a person is told.
    pub fault_alert_attempts: u32,
}

impl Default for FarmTiming {
    /// Quarter-hours over a day and a half, the horizon of the reference back-test; a rig reports at least every
    /// minute, so three lost reports make it silent.
    fn default() -> Self {
        Self {
            slot: Millis::from_mins(15),
            horizon_slots: 144,
            lease: Millis::from_mins(10),
            report_stale: Millis::from_mins(3),
            resend: Millis::from_secs(30),
            stagger: Millis::from_secs(10),
            starts_per_stagger: 2,
            journal_gap: Millis::from_mins(10),
            fault_alert_attempts: 3,
        }
    }
}

impl FarmTiming {
    /// How long before an order or a window begins its power must be on the way down: a shed takes a drain, a stop and
    /// the report that shows it, and all reports that are not late come within this.
    #[must_use]
    pub fn shed_lead(&self) -> Millis {
        Millis(self.report_stale.0 / 2)
    }

    /// Start of the slot after the one that holds `now`.
    #[must_use]
    pub fn next_slot(&self, now: UnixMillis) -> UnixMillis {
        now.floor_to(self.slot) + self.slot
    }
}
