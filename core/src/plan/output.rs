//! A plan: what every rig does in every slot, and why.

use std::fmt;

use roadbed_protocol::{Cause, MicrosPerHour, MicrosPerMwh, RigId, UnixMillis, Watts, Workload};

use crate::forecast::Slot;

/// What every rig does in every slot. Never changed once made; a new one replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Rises with every plan the farm commits; 0 as the planner returns it.
    pub id: u64,
    /// When it was made.
    pub made_at: UnixMillis,
    /// The horizon.
    pub slots: Vec<Slot>,
    /// One row a rig, in the order of the input.
    pub rows: Vec<PlanRow>,
}

/// One rig through the horizon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// The rig.
    pub rig: RigId,
    /// One choice a slot.
    pub choices: Vec<Choice>,
}

/// One rig in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What it does.
    pub workload: Workload,
    /// Power it counts as.
    pub power: Watts,
    /// Who wants it.
    pub cause: Cause,
    /// Income less energy.
    pub margin: MicrosPerHour,
    /// Income.
    pub income: MicrosPerHour,
    /// True when the income is the operator's assumption, not data.
    pub assumed: bool,
    /// The best it could do instead.
    pub next_best: Option<Alternative>,
    /// Price at which the best active workload of this slot earns nothing beyond sleeping.
    pub break_even: Option<MicrosPerMwh>,
    /// Why, in one line for people.
    pub reason: String,
}

/// What a rig could do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The workload.
    pub workload: Workload,
    /// Its margin.
    pub margin: MicrosPerHour,
}

impl Plan {
    /// Index of the slot that holds `at`.
    #[must_use]
    pub fn slot_at(&self, at: UnixMillis) -> Option<usize> {
        self.slots.iter().position(|slot| slot.start <= at && at < slot.end())
    }

    /// What `rig` does at `at`.
    #[must_use]
    pub fn choice_at(&self, rig: &RigId, at: UnixMillis) -> Option<&Choice> {
        let slot = self.slot_at(at)?;
        self.rows.iter().find(|row| row.rig == *rig)?.choices.get(slot)
    }

    /// Power planned in the slot at `index`.
    #[must_use]
    pub fn power_at(&self, index: usize) -> Watts {
        self.rows.iter().filter_map(|row| row.choices.get(index)).map(|choice| choice.power).sum()
    }
}

/// What kind of thing a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// A price is held or missing.
    Price,
    /// The input contradicts itself; the note says what was assumed.
    Input,
    /// A limit cannot be kept by the rigs that obey.
    Limit,
    /// A commitment is broken, or kept at a loss.
    Commitment,
    /// A hold stands against an order.
    Hold,
}

/// Something a person should know about a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What kind of thing it is.
    pub kind: NoteKind,
    /// The rig concerned, if one is.
    pub rig: Option<RigId>,
    /// One line for people.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rig {
            Some(rig) => write!(f, "{rig}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}
