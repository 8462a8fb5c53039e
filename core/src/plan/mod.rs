//! The planner: prices, rigs and promises in, a plan with reasons out.
//!
//! Each rig first gets its own best way through the horizon, switching costs and minimum dwell included; then the
//! circuits are looked at, and where they carry too much the cheapest watts go (see [`shed`]). A rolling-horizon
//! optimiser may replace the inside; the signature stays.

mod input;
mod lane;
mod limits;
mod output;
mod promise;
mod reason;
mod refit;
mod route;
mod shed;

pub use input::{
    Availability, Commitment, CurtailOrder, Feeder, Hold, IncomeSource, PlanInput, RigInput,
    RigSpec, WorkOption,
};
pub use output::{Alternative, Choice, Note, NoteKind, Plan, PlanRow};

use roadbed_protocol::Money;

use lane::Lane;
use limits::Limits;
use route::Route;
use shed::Fleet;

/// Chooses what every rig does in every slot. Deterministic and total: equal inputs give equal plans, and what the
/// input lacks or contradicts becomes a note.
#[must_use]
pub fn plan(input: &PlanInput) -> (Plan, Vec<Note>) {
    let mut notes = Vec::new();
    let limits = Limits::new(input, &mut notes);
    let mut lanes: Vec<Lane<'_>> = input.rigs.iter().map(|rig| Lane::new(input, rig)).collect();
    for (lane, chain) in lanes.iter_mut().zip(&limits.chains) {
        if chain.is_none() || !lane.is_ready() {
            promise::rest(lane);
        }
        promise::keep(input, lane, &mut notes);
    }
    let free: Vec<Route> = lanes.iter().map(route::best).collect();
    let mut fleet = Fleet { lanes, routes: free.clone(), free, limits };
    fleet.fit();
    let rows = (0..fleet.lanes.len()).map(|rig| reason::row(&fleet, rig, input));
    let plan = Plan { id: 0, made_at: input.now, slots: input.slots.clone(), rows: rows.collect() };
    reason::unmet(&fleet, input, &mut notes);
    (plan, notes)
}

/// What a plan earns over its horizon: margins less switching costs, without the policy's reluctance. Commitments' own
/// income and penalties are not in it.
#[must_use]
pub fn worth(input: &PlanInput, plan: &Plan) -> Money {
    let mut sum = 0_i128;
    for (rig, row) in input.rigs.iter().zip(&plan.rows) {
        let mut input = input.clone();
        input.rules.hysteresis_percent = 0;
        let lane = Lane::new(&input, rig);
        let items: Vec<usize> = row
            .choices
            .iter()
            .map(|choice| lane.item(&choice.workload).unwrap_or_default())
            .collect();
        sum += shed::value(&lane, &items);
    }
    Money(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }))
}
