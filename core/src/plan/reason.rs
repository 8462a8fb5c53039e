//! Why: the sentence beside every choice.

use roadbed_protocol::{Cause, MicrosPerHour, MicrosPerMwh, Watts, Workload};

use super::lane::{Gate, Lane};
use super::limits::Reach;
use super::shed::Fleet;
use super::{Alternative, Availability, Choice, Note, NoteKind, PlanInput, PlanRow};
use crate::forecast::PriceQuality;

/// The row of one rig.
pub(super) fn row(fleet: &Fleet<'_>, rig: usize, input: &PlanInput) -> PlanRow {
    let lane = &fleet.lanes[rig];
    let choices = (0..lane.slots())
        .map(|slot| match &lane.rig.availability {
            Availability::Ready => ready(fleet, rig, slot, input),
            Availability::Out { reason, .. } => {
                let power = fleet.counted(rig, slot);
                unusable(Workload::Curtailed, power, format!("cannot be used: {reason}"))
            }
            Availability::Silent { since } => {
                let since = since.map_or("the start".into(), |since| since.to_string());
                let power = fleet.counted(rig, slot);
                let current = lane.rig.current.clone().unwrap_or(Workload::Curtailed);
                let reason = format!("silent since {since}: counted at nameplate {power}");
                unusable(current, power, reason)
            }
        })
        .collect();
    PlanRow { rig: lane.rig.spec.id.clone(), choices }
}

/// Caps that cannot be met by the rigs they reach.
pub(super) fn unmet(fleet: &Fleet<'_>, input: &PlanInput, notes: &mut Vec<Note>) {
    let mut told = std::collections::BTreeSet::new();
    for (slot, caps) in fleet.limits.caps.iter().enumerate() {
        let loads = fleet.loads(slot);
        for cap in caps {
            let load = loads.get(cap.feeder).copied().unwrap_or_default();
            if load <= cap.limit || !told.insert(cap.why.clone()) {
                continue;
            }
            let from = input.slots[slot].start;
            let kind = match cap.reach {
                Reach::Everything => NoteKind::Limit,
                Reach::Commitments | Reach::Flexible => NoteKind::Hold,
            };
            let text = format!("{}, but {load} cannot be shed from {from} UTC on", cap.why);
            notes.push(Note { kind, rig: None, text });
        }
    }
}

fn unusable(workload: Workload, power: Watts, reason: String) -> Choice {
    Choice {
        workload,
        power,
        cause: Cause::Plan,
        margin: MicrosPerHour::ZERO,
        income: MicrosPerHour::ZERO,
        assumed: false,
        next_best: None,
        break_even: None,
        reason,
    }
}

fn ready(fleet: &Fleet<'_>, rig: usize, slot: usize, input: &PlanInput) -> Choice {
    let lane = &fleet.lanes[rig];
    let items = &fleet.routes[rig].items;
    let (at, wanted) = (items[slot], fleet.free[rig].items[slot]);
    let before = if slot == 0 { lane.start } else { Some(items[slot - 1]) };
    let item = &lane.items[at];
    let shed = item.power < lane.items[wanted].power;
    let limit = lane.ceilings[slot].as_ref().filter(|_| shed);
    let (cause, reason) = match (&lane.gates[slot], limit) {
        (_, Some((_, why))) => (
            Cause::Curtailment,
            format!("{why}: {} instead of {}", item.workload, lane.items[wanted].workload),
        ),
        (Gate::Only { cause, why, .. }, None) => {
            (*cause, willed(lane, slot, at, *cause, why, input))
        }
        (Gate::Stay, None) => (Cause::Plan, format!("no price is known: stays {}", item.workload)),
        (Gate::Free, None) => (Cause::Plan, economic(lane, slot, at, before, input)),
    };
    Choice {
        workload: shown(lane, slot, item.workload.clone(), input),
        power: item.power,
        cause,
        margin: lane.margins[slot][at],
        income: lane.incomes[slot][at],
        assumed: item.assumed,
        next_best: next_best(lane, slot, at),
        break_even: break_even(lane, slot).map(|(_, price)| price),
        reason,
    }
}

/// A rig held at idle is idle, not curtailed, though both are the floor.
fn shown(lane: &Lane<'_>, slot: usize, workload: Workload, input: &PlanInput) -> Workload {
    let held = match &lane.gates[slot] {
        Gate::Only { cause: Cause::OperatorHold, item: 0, .. } => {
            input.holds.iter().find(|hold| hold.rig == lane.rig.spec.id)
        }
        Gate::Only { .. } | Gate::Free | Gate::Stay => None,
    };
    held.map_or(workload, |hold| hold.workload.clone())
}

fn willed(
    lane: &Lane<'_>,
    slot: usize,
    at: usize,
    cause: Cause,
    why: &str,
    input: &PlanInput,
) -> String {
    let priced = input.slots[slot].quality != PriceQuality::Missing;
    match cause {
        // Without a price a margin would be a guess.
        Cause::PocWindow if !priced => {
            format!("{why}: {}, no price is known", lane.items[at].workload)
        }
        Cause::PocWindow => {
            let margin = lane.margins[slot][at];
            let lost = next_best(lane, slot, at)
                .filter(|other| other.margin > margin)
                .map(|other| format!(", though {} would leave {}", other.workload, other.margin));
            format!("{why}: {} at {margin}{}", lane.items[at].workload, lost.unwrap_or_default())
        }
        Cause::Plan | Cause::Curtailment | Cause::OperatorHold => why.into(),
    }
}

fn economic(
    lane: &Lane<'_>,
    slot: usize,
    at: usize,
    before: Option<usize>,
    input: &PlanInput,
) -> String {
    let price = input.slots[slot].price;
    let held = match input.slots[slot].quality {
        PriceQuality::Held => "held price",
        PriceQuality::Known | PriceQuality::Missing => "price",
    };
    let margin = lane.margins[slot][at];
    let workload = &lane.items[at].workload;
    let best = (0..lane.items.len())
        .filter(|item| !lane.barred[slot][*item])
        .max_by_key(|item| (lane.margins[slot][*item], *item == at));
    if best != Some(at) {
        let better = best.map_or(&Workload::Curtailed, |best| &lane.items[best].workload);
        return if before == Some(at) && slot < lane.locked_slots() {
            let until = lane.rig.since + lane.min_dwell;
            format!(
                "{held} {price}: stays {workload} until {until} UTC (minimum dwell), then {better}"
            )
        } else if before == Some(at) {
            format!(
                "{held} {price}: stays {workload}; a switch to {better} costs more than it gains"
            )
        } else {
            format!("{held} {price}: {workload} now, because {better} would not last")
        };
    }
    if at == 0 {
        if let Some(item) = (1..lane.items.len()).find(|item| lane.barred[slot][*item]) {
            let kind = lane.items[item].workload.kind();
            let limit = input.rules.price_limit(kind).unwrap_or_default();
            return format!("{held} {price} is above the policy's limit {limit} for {kind}: sleep");
        }
        return match break_even(lane, slot) {
            Some((_, even)) => format!("{held} {price} is above break-even {even}: sleep"),
            None => "nothing earns here: sleep".into(),
        };
    }
    match break_even_of(lane, slot, at) {
        Some(even) => {
            format!("{held} {price} is below break-even {even}: {workload} leaves {margin}")
        }
        None => format!("{held} {price}: {workload} leaves {margin}"),
    }
}

fn next_best(lane: &Lane<'_>, slot: usize, at: usize) -> Option<Alternative> {
    (0..lane.items.len())
        .filter(|item| *item != at && !lane.barred[slot][*item])
        .max_by_key(|item| (lane.margins[slot][*item], std::cmp::Reverse(*item)))
        .map(|item| Alternative {
            workload: lane.items[item].workload.clone(),
            margin: lane.margins[slot][item],
        })
}

/// The active item whose break-even price is the highest, with it.
fn break_even(lane: &Lane<'_>, slot: usize) -> Option<(usize, MicrosPerMwh)> {
    (1..lane.items.len())
        .filter_map(|item| Some((item, break_even_of(lane, slot, item)?)))
        .max_by_key(|(item, price)| (*price, std::cmp::Reverse(*item)))
}

/// The price at which an item earns as much as sleeping does: income over the watts it takes beyond the floor.
fn break_even_of(lane: &Lane<'_>, slot: usize, item: usize) -> Option<MicrosPerMwh> {
    let extra = lane.items[item].power.saturating_sub(lane.items[0].power);
    let income = i128::from(lane.incomes[slot][item].0) * 1_000_000;
    (extra > Watts::ZERO)
        .then(|| MicrosPerMwh(i64::try_from(income / i128::from(extra.0)).unwrap_or(i64::MAX)))
}
