//! Holds and commitments: what somebody wants, before any margin is looked at.

use roadbed_protocol::{Cause, Money};

use super::lane::{Gate, Lane};
use super::{Commitment, Note, NoteKind, PlanInput, route};

/// A rig that cannot be planned with sleeps in every slot.
pub(super) fn rest(lane: &mut Lane<'_>) {
    for gate in &mut lane.gates {
        *gate = Gate::Only { item: 0, cause: Cause::Plan, why: "cannot be used".into() };
    }
}

/// Closes the gates that holds and commitments decide. A hold outranks a commitment.
pub(super) fn keep(input: &PlanInput, lane: &mut Lane<'_>, notes: &mut Vec<Note>) {
    if !lane.is_ready() {
        return;
    }
    let id = &lane.rig.spec.id;
    for commitment in input.commitments.iter().filter(|commitment| commitment.rig == *id) {
        commit(input, lane, commitment, notes);
    }
    let Some(hold) = input.holds.iter().find(|hold| hold.rig == *id) else { return };
    let Some(item) = lane.item(&hold.workload) else {
        let text = format!("{} holds it at {}, which it cannot do", hold.operator, hold.workload);
        notes.push(Note { kind: NoteKind::Input, rig: Some(id.clone()), text });
        return;
    };
    let why = format!("held at {} by {}", hold.workload, hold.operator);
    for gate in &mut lane.gates {
        *gate = Gate::Only { item, cause: Cause::OperatorHold, why: why.clone() };
    }
}

fn commit(input: &PlanInput, lane: &mut Lane<'_>, commitment: &Commitment, notes: &mut Vec<Note>) {
    let ready_by = commitment.from - commitment.load_lead;
    let mut note = |kind, text| {
        notes.push(Note { kind, rig: Some(lane.rig.spec.id.clone()), text });
    };
    let Some(item) = lane.items.iter().position(|item| item.workload == commitment.workload) else {
        let text = format!(
            "commitment {} wants {}, which it cannot do",
            commitment.id, commitment.workload
        );
        note(NoteKind::Input, text);
        return;
    };
    let inside: Vec<usize> = input
        .slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| ready_by < slot.end() && slot.start < commitment.until)
        .map(|(index, _)| index)
        .collect();
    if inside.is_empty() {
        return;
    }
    let free = route::best(lane).value;
    let former = lane.gates.clone();
    let why = format!("commitment {} {}-{} UTC", commitment.id, commitment.from, commitment.until);
    for slot in inside {
        lane.gates[slot] = Gate::Only { item, cause: Cause::PocWindow, why: why.clone() };
    }
    let price = free - route::best(lane).value;
    let stake = i128::from((commitment.penalty + commitment.income).0);
    if price <= stake {
        return;
    }
    let price = Money(i64::try_from(price).unwrap_or(i64::MAX));
    let stake = commitment.penalty + commitment.income;
    let id = &commitment.id;
    if input.rules.keep_losing_commitments {
        let text = format!("keeping {id} costs {price}, breaking it would cost {stake}: kept");
        note(NoteKind::Commitment, text);
    } else {
        let text = format!("keeping {id} would cost {price}, breaking it costs {stake}: broken");
        note(NoteKind::Commitment, text);
        lane.gates = former;
    }
}
