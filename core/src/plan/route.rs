//! The best way of one rig through the horizon, by dynamic programming from the last slot to the first.
//!
//! `best[t][o]` is the most a rig can still earn from slot `t` on when it comes from item `o` and has stayed long
//! enough to change. A change must be kept for the minimum dwell, unless someone's will or a ceiling ends it earlier.

use super::lane::Lane;

/// A lane's items by slot, and what they earn less switching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub items: Vec<usize>,
    pub value: i128,
}

/// Worse than any sum of real money: a step of last resort, when a slot allows nothing at all.
const LAST_RESORT: i128 = -(1 << 100);

/// Finds the best route. Equal values go to staying, then to the earlier item.
pub(super) fn best(lane: &Lane<'_>) -> Route {
    let (slots, count) = (lane.slots(), lane.items.len());
    // Row `slots` is the end of the horizon, worth nothing from anywhere.
    let mut worth = vec![vec![0_i128; count]; slots + 1];
    let mut next = vec![vec![0_usize; count]; slots];
    for slot in (0..slots).rev() {
        let arrivals: Vec<i128> = (0..count).map(|to| arrival(lane, &worth, slot, to)).collect();
        for from in 0..count {
            let (value, to) = step(lane, &worth, &arrivals, slot, Some(from));
            worth[slot][from] = value;
            next[slot][from] = to;
        }
    }
    walk(lane, &worth, &next)
}

/// What it is worth to have just changed to `to`: the dwell, then the best from there.
fn arrival(lane: &Lane<'_>, worth: &[Vec<i128>], slot: usize, to: usize) -> i128 {
    let end = stay_end(lane, slot, to);
    let dwell: i128 = (slot..end).map(|at| lane.money(at, to)).sum();
    dwell + worth[end][to]
}

/// First slot in which a rig that changed to `to` in `slot` is free again.
fn stay_end(lane: &Lane<'_>, slot: usize, to: usize) -> usize {
    let free = lane.dwell_end(slot);
    (slot + 1..free).find(|at| !lane.is_allowed(*at, to)).unwrap_or(free)
}

/// The best thing to do in a slot for a rig free to change.
fn step(
    lane: &Lane<'_>,
    worth: &[Vec<i128>],
    arrivals: &[i128],
    slot: usize,
    from: Option<usize>,
) -> (i128, usize) {
    let stay = from
        .filter(|from| lane.is_allowed(slot, *from))
        .map(|from| (lane.money(slot, from) + worth[slot + 1][from], from));
    let change = (0..lane.items.len())
        .filter(|to| from != Some(*to) && lane.may_switch(slot, from, *to))
        .map(|to| (arrivals[to] - lane.switch_cost(slot, from, to), to));
    let mut chosen = stay;
    for candidate in change {
        if chosen.is_none_or(|(value, _)| candidate.0 > value) {
            chosen = Some(candidate);
        }
    }
    chosen.unwrap_or((LAST_RESORT, 0))
}

fn walk(lane: &Lane<'_>, worth: &[Vec<i128>], next: &[Vec<usize>]) -> Route {
    let slots = lane.slots();
    let (mut items, mut at, mut value) = (Vec::with_capacity(slots), lane.start, 0_i128);
    let mut locked = lane.locked_slots();
    while items.len() < slots {
        let slot = items.len();
        let stays = at.filter(|item| slot < locked && lane.is_allowed(slot, *item));
        if let Some(item) = stays {
            value += lane.money(slot, item);
            items.push(item);
            continue;
        }
        let to = match at {
            Some(from) => next[slot][from],
            None => {
                let arrivals: Vec<i128> =
                    (0..lane.items.len()).map(|to| arrival(lane, worth, slot, to)).collect();
                step(lane, worth, &arrivals, slot, None).1
            }
        };
        let until = if at == Some(to) { slot + 1 } else { stay_end(lane, slot, to) };
        value -= lane.switch_cost(slot, at, to);
        for at in slot..until {
            value += lane.money(at, to);
            items.push(to);
        }
        at = Some(to);
        locked = 0;
    }
    Route { items, value }
}
