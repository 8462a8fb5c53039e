//! Giving back: whether the rigs under a circuit that is too small could share it better.
//!
//! One move does it all: take a few rigs off the circuits, then re-plan them one after the other under the headroom the
//! others leave, and keep the result only if together they earn more. With all of them, in order of what they earn, it
//! undoes greed's classic mistake (many small gains for one large one); with pairs it swaps; with one it fills up.

use std::collections::BTreeSet;

use roadbed_protocol::Watts;

use super::limits::Reach;
use super::route::{self, Route};
use super::shed::{Fleet, value};

/// Above this many rivals none is held low for the sake of the others: the effort is the square of their number, and what
/// rounding one rig loses matters less the more rigs there are.
const SWAPS_MAX: usize = 16;
/// Up to this many also pairs among them and a second order of the others: the effort grows with their cube.
const PAIRS_MAX: usize = 4;
/// Passes over all moves; the second rarely finds anything.
const PASSES: usize = 2;

/// Power under every feeder, by slot.
type Loads = Vec<Vec<Watts>>;

impl Fleet<'_> {
    /// Tries moves among the rigs under the circuits that were too small until none gains.
    pub(super) fn refit(&mut self, rivals: &[usize]) {
        if rivals.is_empty() {
            return;
        }
        let mut loads: Loads = (0..self.limits.caps.len()).map(|slot| self.loads(slot)).collect();
        let orders = self.orders(rivals);
        for order in &orders {
            self.replan(order, None, &mut loads);
        }
        for _ in 0..PASSES {
            let mut gained = false;
            for rig in rivals {
                gained |= self.replan(&[*rig], None, &mut loads);
            }
            if rivals.len() <= SWAPS_MAX {
                gained |= self.swap(rivals, &orders, &mut loads);
            }
            if !gained {
                return;
            }
        }
    }

    /// All of them, the greatest earner first; and the one that earns most per watt first.
    fn orders(&self, rivals: &[usize]) -> [Vec<usize>; 2] {
        let alone = |rig: usize| {
            let lane = &self.lanes[rig];
            let asleep = vec![0; lane.slots()];
            let gain = self.free[rig].value - value(lane, &asleep);
            let watts =
                self.free[rig].items.iter().map(|item| i128::from(lane.items[*item].power.0));
            (gain, watts.sum::<i128>().max(1))
        };
        let figures: Vec<(usize, i128, i128)> = rivals
            .iter()
            .map(|rig| {
                let (gain, watts) = alone(*rig);
                (*rig, gain, watts)
            })
            .collect();
        let (mut by_gain, mut by_density) = (figures.clone(), figures);
        by_gain.sort_by_key(|(rig, gain, _)| (std::cmp::Reverse(*gain), *rig));
        by_density.sort_by(|one, other| (other.1 * one.2).cmp(&(one.1 * other.2)));
        [by_gain, by_density].map(|order| order.into_iter().map(|(rig, ..)| rig).collect())
    }

    /// Re-plans all the others after one that takes at most so much, for every one and every power it knows.
    fn swap(&mut self, rivals: &[usize], orders: &[Vec<usize>; 2], loads: &mut Loads) -> bool {
        let mut gained = false;
        for first in rivals {
            let powers: BTreeSet<Watts> =
                self.lanes[*first].items.iter().map(|item| item.power).collect();
            for power in powers {
                let pairs = rivals.iter().filter(|_| rivals.len() <= PAIRS_MAX);
                for second in pairs.filter(|second| *second != first) {
                    gained |= self.replan(&[*first, *second], Some(power), loads);
                }
                let tried = if rivals.len() <= PAIRS_MAX { 2 } else { 1 };
                for order in orders.iter().take(tried) {
                    let others = order.iter().filter(|other| *other != first);
                    let all: Vec<usize> = std::iter::once(first).chain(others).copied().collect();
                    gained |= self.replan(&all, Some(power), loads);
                }
            }
        }
        gained
    }

    /// Re-plans these rigs in this order, the first with at most `most`; true, and kept, when together they gain.
    fn replan(&mut self, rigs: &[usize], most: Option<Watts>, loads: &mut Loads) -> bool {
        let before: i128 = rigs.iter().map(|rig| self.worth(*rig)).sum();
        let kept: Vec<Route> = rigs.iter().map(|rig| self.routes[*rig].clone()).collect();
        let ceilings: Vec<_> = rigs.iter().map(|rig| self.lanes[*rig].ceilings.clone()).collect();
        let former_loads = loads.clone();
        let mut ordered: Vec<usize> = rigs.to_vec();
        // What cannot be shed must be placed first, or it would find its room taken.
        ordered.sort_by_key(|rig| std::cmp::Reverse(self.firmest(*rig)));
        for rig in &ordered {
            self.add(*rig, loads, false);
        }
        let mut fits = true;
        for rig in &ordered {
            let most = most.filter(|_| *rig == rigs[0]);
            fits = fits && self.place(*rig, most, loads);
        }
        let after: i128 = rigs.iter().map(|rig| self.worth(*rig)).sum();
        if fits && after > before && self.is_no_worse(&former_loads, loads) {
            return true;
        }
        for ((rig, route), ceilings) in rigs.iter().zip(kept).zip(ceilings) {
            self.routes[*rig] = route;
            self.lanes[*rig].ceilings = ceilings;
        }
        *loads = former_loads;
        false
    }

    /// True when no cap is exceeded that was kept before, and none by more. A rig that a cap does not reach could do so
    /// at the cost of one that it does.
    fn is_no_worse(&self, before: &Loads, after: &Loads) -> bool {
        self.limits.caps.iter().enumerate().all(|(slot, caps)| {
            caps.iter().all(|cap| {
                let load = |loads: &Loads| loads[slot].get(cap.feeder).copied().unwrap_or_default();
                load(after) <= cap.limit.max(load(before))
            })
        })
    }

    /// Plans one rig, at the floor in `loads` so far, under the headroom there is.
    fn place(&mut self, rig: usize, most: Option<Watts>, loads: &mut Loads) -> bool {
        for (slot, loads) in loads.iter().enumerate() {
            let room = self.headroom(rig, slot, loads);
            // What somebody wills is not held low for the sake of a better sum.
            let most = most.filter(|_| self.lanes[rig].shield(slot) == Reach::Flexible);
            self.lanes[rig].ceilings[slot] =
                room.map(|(room, why)| (most.map_or(room, |most| room.min(most)), why));
        }
        self.routes[rig] = route::best(&self.lanes[rig]);
        self.add(rig, loads, true);
        self.obeys(rig)
    }

    /// Counts a rig with its route, or takes it back to the floor.
    fn add(&self, rig: usize, loads: &mut Loads, counts: bool) {
        let floor = self.lanes[rig].items[0].power;
        for (slot, loads) in loads.iter_mut().enumerate() {
            let power = self.counted(rig, slot);
            let (minus, plus) = if counts { (floor, power) } else { (power, floor) };
            for feeder in self.limits.chains[rig].iter().flatten() {
                loads[*feeder] = loads[*feeder].saturating_sub(minus) + plus;
            }
        }
    }

    fn worth(&self, rig: usize) -> i128 {
        value(&self.lanes[rig], &self.routes[rig].items)
    }

    fn firmest(&self, rig: usize) -> Reach {
        let lane = &self.lanes[rig];
        (0..lane.slots()).map(|slot| lane.shield(slot)).max().unwrap_or(Reach::Flexible)
    }

    /// What the tightest cap that reaches the rig leaves it in a slot, when it counts at the floor in `loads`.
    fn headroom(&self, rig: usize, slot: usize, loads: &[Watts]) -> Option<(Watts, String)> {
        let lane = &self.lanes[rig];
        let (shield, floor) = (lane.shield(slot), lane.items[0].power);
        self.limits.caps[slot]
            .iter()
            .filter(|cap| shield <= cap.reach && self.limits.is_under(rig, cap.feeder))
            .map(|cap| {
                let others = loads[cap.feeder].saturating_sub(floor);
                (cap.limit.saturating_sub(others), cap.why.clone())
            })
            .min()
    }

    fn obeys(&self, rig: usize) -> bool {
        let (lane, items) = (&self.lanes[rig], &self.routes[rig].items);
        items.iter().enumerate().all(|(slot, item)| {
            let before = if slot == 0 { lane.start } else { Some(items[slot - 1]) };
            let allowed = *item == 0 && lane.shield(slot) == Reach::Flexible;
            allowed
                || lane.ceilings[slot]
                    .as_ref()
                    .is_none_or(|(most, _)| lane.counted(before, *item) <= *most)
        })
    }
}
