//! The slice of a plan one rig receives.
//!
//! A rig obeys the newest `generation` it has seen and refuses older ones; when `lease_until` passes without a fresh
//! assignment it goes to `fallback` by itself, so a lost controller can never leave a rig at full power.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::{Millis, UnixMillis};
use crate::ids::{FarmId, RigId};
use crate::workload::Workload;

/// Why a rig is told what it is told. Ordered: a later cause outranks an earlier one (DESIGN section 4; a trip, which
/// outranks all of these, is the rig's own and never assigned).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The planner's choice by margin.
    Plan,
    /// A window of a Proof of Compute commitment.
    PocWindow,
    /// A curtailment order: grid event, feeder limit, guard.
    Curtailment,
    /// An operator holds the rig.
    OperatorHold,
}

impl Cause {
    /// The word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::PocWindow => "poc-window",
            Self::Curtailment => "curtailment",
            Self::OperatorHold => "operator-hold",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What one rig shall do, until when, and what it does if nobody speaks to it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The farm whose plan this is.
    pub farm: FarmId,
    /// The rig addressed.
    pub rig: RigId,
    /// Rises with every change of the target; a rig refuses a lower one and takes an equal one as a lease renewal.
    pub generation: u64,
    /// The target.
    pub workload: Workload,
    /// Farm time after which the target lapses and `fallback` applies.
    pub lease_until: UnixMillis,
    /// Where the rig goes without a fresh lease. Never a workload that needs more power than the target.
    pub fallback: Workload,
    /// How long open jobs may finish before the running workload is stopped.
    pub drain: Millis,
    /// Who wants it.
    pub cause: Cause,
    /// Why, in one line for people.
    pub reason: String,
}
