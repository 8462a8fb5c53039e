//! The guard: holds a plan against every limit once more, by its own arithmetic, and may only shed.
//!
//! It trusts nothing of the plan but its names: power is looked up in the input by workload, what is not found counts
//! at nameplate, a silent rig counts at nameplate whatever it was told, and a rig that changes its work counts as the
//! greater of before and after. What is too much goes to sleep, never to anything else. It shares no code with the
//! planner, so that one mistake cannot be made twice.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use roadbed_protocol::{
    Cause, FeederId, MicrosPerHour, RigId, UnixMillis, Watts, Workload, WorkloadKind,
};

use crate::forecast::Slot;
use crate::plan::{Availability, Choice, Note, NoteKind, Plan, PlanInput, RigInput};

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

/// A limit that holds in a slot.
struct Bound<'a> {
    feeder: &'a FeederId,
    limit: Watts,
    /// Which causes it may overrule.
    overrules: fn(Cause, bool) -> bool,
    breaks_poc: bool,
    name: String,
}

/// Checks every feeder in every slot.
#[must_use]
pub fn check(input: &PlanInput, plan: &Plan) -> Guarded {
    let mut guarded = Guarded { plan: plan.clone(), sheds: Vec::new(), notes: Vec::new() };
    let under = ancestry(input);
    let places: BTreeMap<&RigId, usize> =
        plan.rows.iter().enumerate().map(|(place, row)| (&row.rig, place)).collect();
    let rows: Vec<Option<usize>> =
        input.rigs.iter().map(|rig| places.get(&rig.spec.id).copied()).collect();
    for (index, slot) in plan.slots.iter().enumerate() {
        for ((rig, row), above) in input.rigs.iter().zip(&rows).zip(&under) {
            if let (true, Some(row)) = (above.is_empty(), row) {
                shed_orphan(&mut guarded, rig, *row, index, slot);
            }
        }
        for bound in bounds(input, slot) {
            enforce(input, &mut guarded, &under, &rows, index, &bound);
        }
    }
    guarded
}

/// Sheds under one bound until it holds or nothing is left to shed.
fn enforce(
    input: &PlanInput,
    guarded: &mut Guarded,
    under: &[Vec<FeederId>],
    rows: &[Option<usize>],
    index: usize,
    bound: &Bound<'_>,
) {
    let members: Vec<usize> =
        (0..input.rigs.len()).filter(|rig| under[*rig].contains(bound.feeder)).collect();
    let draws = |guarded: &Guarded, rig: usize| {
        draw(&input.rigs[rig], rows[rig].map(|row| &guarded.plan.rows[row].choices[..]), index)
    };
    let mut load: u128 = members.iter().map(|rig| u128::from(draws(guarded, *rig).0)).sum();
    if load <= u128::from(bound.limit.0) {
        return;
    }
    // Lowest cause first, then the largest, so that few rigs are disturbed.
    let mut victims: Vec<(Cause, Reverse<Watts>, usize)> = members
        .iter()
        .filter(|rig| matches!(input.rigs[**rig].availability, Availability::Ready))
        .filter_map(|rig| {
            let choice = guarded.plan.rows[rows[*rig]?].choices.get(index)?;
            let shedable =
                choice.workload.is_active() && (bound.overrules)(choice.cause, bound.breaks_poc);
            shedable.then(|| (choice.cause, Reverse(draws(guarded, *rig)), *rig))
        })
        .collect();
    victims.sort_by_key(|(cause, power, rig)| (rank(*cause), *power, *rig));
    for (_, Reverse(power), rig) in victims {
        if load <= u128::from(bound.limit.0) {
            return;
        }
        let Some(row) = rows[rig] else { continue };
        let spec = &input.rigs[rig].spec;
        let freed = power.saturating_sub(spec.floor);
        load = load.saturating_sub(u128::from(freed.0));
        let planned = &mut guarded.plan.rows[row].choices[index];
        guarded.sheds.push(Shed {
            rig: spec.id.clone(),
            slot: guarded.plan.slots[index].start,
            workload: planned.workload.clone(),
            freed,
            feeder: bound.feeder.clone(),
            reason: bound.name.clone(),
        });
        *planned = asleep(planned, spec.floor, &guarded.plan.slots[index], &bound.name);
    }
    if load > u128::from(bound.limit.0) {
        let start = guarded.plan.slots[index].start;
        guarded.notes.push(Note {
            kind: NoteKind::Limit,
            rig: None,
            text: format!("{}: {load} W remain at {start} UTC that cannot be shed", bound.name),
        });
    }
}

/// Who is shed first. A choice the planner already curtailed is as flexible as one it made freely.
fn rank(cause: Cause) -> u8 {
    match cause {
        Cause::Plan | Cause::Curtailment => 0,
        Cause::PocWindow => 1,
        Cause::OperatorHold => 2,
    }
}

/// What a rig may draw in a slot, as the guard sees it.
fn draw(rig: &RigInput, choices: Option<&[Choice]>, index: usize) -> Watts {
    match &rig.availability {
        Availability::Silent { .. } => return rig.spec.nameplate,
        Availability::Out { power, .. } => return (*power).max(rig.spec.floor),
        Availability::Ready => {}
    }
    let Some(choice) = choices.and_then(|choices| choices.get(index)) else {
        return rig.spec.nameplate;
    };
    let to = power_of(rig, &choice.workload);
    let before = match index.checked_sub(1) {
        None => rig.current.as_ref(),
        Some(earlier) => choices.and_then(|choices| choices.get(earlier)).map(|c| &c.workload),
    };
    match before {
        Some(before) if is_restart(before, &choice.workload) => power_of(rig, before).max(to),
        Some(_) | None => to,
    }
}

/// True when one running workload must stop for another to start.
fn is_restart(before: &Workload, after: &Workload) -> bool {
    if before == after {
        return false;
    }
    match (before.kind(), after.kind()) {
        (WorkloadKind::Idle | WorkloadKind::Curtailed, _)
        | (_, WorkloadKind::Idle | WorkloadKind::Curtailed)
        | (WorkloadKind::Mine, WorkloadKind::Mine) => false,
        (WorkloadKind::Mine, WorkloadKind::Serve | WorkloadKind::Prove)
        | (WorkloadKind::Serve | WorkloadKind::Prove, WorkloadKind::Mine) => true,
        (WorkloadKind::Serve | WorkloadKind::Prove, WorkloadKind::Serve | WorkloadKind::Prove) => {
            before.model() != after.model()
        }
    }
}

fn power_of(rig: &RigInput, workload: &Workload) -> Watts {
    if !workload.is_active() {
        return rig.spec.floor;
    }
    let known = rig.spec.options.iter().find(|option| option.workload == *workload);
    known.map_or(rig.spec.nameplate, |option| option.power)
}

fn asleep(planned: &Choice, floor: Watts, slot: &Slot, name: &str) -> Choice {
    let cost = slot.price.rate(floor);
    Choice {
        workload: Workload::Curtailed,
        power: floor,
        cause: Cause::Curtailment,
        margin: MicrosPerHour::ZERO - cost,
        income: MicrosPerHour::ZERO,
        assumed: false,
        next_best: None,
        break_even: planned.break_even,
        reason: format!("guard: {name}: {} shed", planned.workload),
    }
}

/// A rig on no known circuit gets no power.
fn shed_orphan(guarded: &mut Guarded, rig: &RigInput, row: usize, index: usize, slot: &Slot) {
    let Some(choice) = guarded.plan.rows[row].choices.get(index).cloned() else { return };
    if !choice.workload.is_active() || !matches!(rig.availability, Availability::Ready) {
        return;
    }
    let name = format!("feeder {} is not known to the site", rig.spec.feeder);
    guarded.plan.rows[row].choices[index] = asleep(&choice, rig.spec.floor, slot, &name);
    guarded.sheds.push(Shed {
        rig: rig.spec.id.clone(),
        slot: slot.start,
        workload: choice.workload,
        freed: choice.power.saturating_sub(rig.spec.floor),
        feeder: rig.spec.feeder.clone(),
        reason: name,
    });
}

/// Every bound of a slot.
fn bounds<'a>(input: &'a PlanInput, slot: &Slot) -> Vec<Bound<'a>> {
    let wire = |_: Cause, _: bool| true;
    let order = |cause: Cause, breaks_poc: bool| match cause {
        Cause::Plan | Cause::Curtailment => true,
        Cause::PocWindow => breaks_poc,
        Cause::OperatorHold => false,
    };
    let mut bounds = Vec::new();
    for feeder in &input.feeders {
        bounds.push(Bound {
            feeder: &feeder.id,
            limit: feeder.limit,
            overrules: wire,
            breaks_poc: true,
            name: format!("feeder {} carries {}", feeder.id, feeder.limit),
        });
    }
    for cap in &input.orders {
        if cap.from < slot.end() && cap.until > slot.start {
            bounds.push(Bound {
                feeder: &cap.feeder,
                limit: cap.limit,
                overrules: order,
                breaks_poc: cap.breaks_commitments,
                name: format!("order {} allows {}", cap.id, cap.limit),
            });
        }
    }
    for window in &input.rules.curtail_windows {
        if window.overlaps(slot.start, slot.length) {
            bounds.push(Bound {
                feeder: &window.feeder,
                limit: window.limit,
                overrules: order,
                breaks_poc: input.rules.curtailment_breaks_poc,
                name: format!("window {} allows {}", window.name, window.limit),
            });
        }
    }
    bounds
}

/// For every rig the feeders above it; empty when they do not end at the site's connection.
fn ancestry(input: &PlanInput) -> Vec<Vec<FeederId>> {
    input
        .rigs
        .iter()
        .map(|rig| {
            let (mut above, mut at) = (Vec::new(), rig.spec.feeder.clone());
            loop {
                let Some(feeder) = input.feeders.iter().find(|feeder| feeder.id == at) else {
                    return Vec::new();
                };
                if above.len() > input.feeders.len() {
                    return Vec::new();
                }
                above.push(at);
                match &feeder.parent {
                    None => return above,
                    Some(parent) => at = parent.clone(),
                }
            }
        })
        .collect()
}
