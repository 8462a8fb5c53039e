//! Fitting the routes under the circuits: take away where it costs least.
//!
//! Taking away steps down the rig that loses the least margin per watt freed, to the next lower mining power before
//! sleep. What greed left on the table is looked for in `refit`.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap};

use roadbed_protocol::Watts;

use super::Availability;
use super::lane::Lane;
use super::limits::{Cap, Limits};
use super::route::{self, Route};

/// Rounds of cutting and re-planning; each lowers a ceiling, so a handful settles all but contrived cases, and what is
/// left then is cut without re-planning.
const ROUNDS_MAX: usize = 6;
/// The routes of a farm and the loads they make.
pub(super) struct Fleet<'a> {
    pub lanes: Vec<Lane<'a>>,
    /// The routes without circuits.
    pub free: Vec<Route>,
    pub routes: Vec<Route>,
    pub limits: Limits,
}

impl Fleet<'_> {
    /// Makes every route obey every cap that reaches it.
    pub(super) fn fit(&mut self) {
        let mut contended = BTreeSet::new();
        for round in 0..ROUNDS_MAX {
            let cut = self.cut_all(&mut contended);
            if cut.is_empty() {
                break;
            }
            for rig in cut {
                if round + 1 < ROUNDS_MAX {
                    self.routes[rig] = route::best(&self.lanes[rig]);
                } else {
                    self.clamp(rig);
                }
            }
        }
        let rivals: Vec<usize> = (0..self.lanes.len())
            .filter(|rig| self.lanes[*rig].is_ready())
            .filter(|rig| contended.iter().any(|feeder| self.limits.is_under(*rig, *feeder)))
            .collect();
        self.refit(&rivals);
    }

    /// Power a rig counts as in a slot.
    pub(super) fn counted(&self, rig: usize, slot: usize) -> Watts {
        let lane = &self.lanes[rig];
        match &lane.rig.availability {
            Availability::Silent { .. } => lane.rig.spec.nameplate,
            Availability::Out { power, .. } => (*power).max(lane.rig.spec.floor),
            Availability::Ready => {
                let items = &self.routes[rig].items;
                let before = if slot == 0 { lane.start } else { Some(items[slot - 1]) };
                lane.counted(before, items[slot])
            }
        }
    }

    /// Power under each feeder in a slot.
    pub(super) fn loads(&self, slot: usize) -> Vec<Watts> {
        let feeders =
            self.limits.chains.iter().flatten().flatten().max().map_or(0, |most| most + 1);
        let mut loads = vec![Watts::ZERO; feeders];
        for (rig, chain) in self.limits.chains.iter().enumerate() {
            let power = self.counted(rig, slot);
            for feeder in chain.iter().flatten() {
                loads[*feeder] += power;
            }
        }
        loads
    }

    /// Lowers ceilings until every cap holds in every slot; returns the rigs whose routes no longer fit, and adds the
    /// feeders that were too small.
    fn cut_all(&mut self, contended: &mut BTreeSet<usize>) -> Vec<usize> {
        let mut cut = BTreeSet::new();
        for slot in 0..self.limits.caps.len() {
            let mut loads = self.loads(slot);
            for cap in self.limits.caps[slot].clone() {
                if loads.get(cap.feeder).is_some_and(|load| *load > cap.limit) {
                    contended.insert(cap.feeder);
                    self.cut(slot, &cap, &mut loads, &mut cut);
                }
            }
        }
        cut.into_iter().collect()
    }

    /// Sheds under one cap in one slot, cheapest watts first.
    fn cut(&mut self, slot: usize, cap: &Cap, loads: &mut [Watts], cut: &mut BTreeSet<usize>) {
        let mut steps: BinaryHeap<Reverse<StepDown>> = (0..self.lanes.len())
            .filter(|rig| {
                let lane = &self.lanes[*rig];
                lane.is_ready()
                    && lane.shield(slot) <= cap.reach
                    && self.limits.is_under(*rig, cap.feeder)
            })
            .filter_map(|rig| self.step_down(rig, slot).map(Reverse))
            .collect();
        while loads[cap.feeder] > cap.limit {
            let Some(Reverse(step)) = steps.pop() else { return };
            let freed = Watts(u64::try_from(step.freed).unwrap_or(u64::MAX));
            let power = self.lanes[step.rig].items[step.to].power;
            self.lanes[step.rig].ceilings[slot] = Some((power, cap.why.clone()));
            self.routes[step.rig].items[slot] = step.to;
            cut.insert(step.rig);
            for feeder in self.limits.chains[step.rig].iter().flatten() {
                loads[*feeder] = loads[*feeder].saturating_sub(freed);
            }
            steps.extend(self.step_down(step.rig, slot).map(Reverse));
        }
    }

    /// The next lower power of what runs, else the floor; with the margin lost and the watts freed.
    fn step_down(&self, rig: usize, slot: usize) -> Option<StepDown> {
        let lane = &self.lanes[rig];
        let at = self.routes[rig].items[slot];
        let counted = self.counted(rig, slot);
        let now = &lane.items[at];
        let lower = lane
            .items
            .iter()
            .enumerate()
            .filter(|(_, item)| {
                now.workload.hands_over_to(&item.workload) && item.power < now.power.min(counted)
            })
            .max_by_key(|(_, item)| item.power)
            .map_or(0, |(index, _)| index);
        // A commitment is kept or broken, not stepped down.
        let to = if lane.shield(slot) == super::limits::Reach::Flexible { lower } else { 0 };
        let freed = counted.saturating_sub(lane.items[to].power);
        let lost = lane.money(slot, at) - lane.money(slot, to);
        let freed = i128::from(freed.0);
        (at != 0 && freed > 0).then_some(StepDown { lost, freed, rig, to })
    }

    /// Puts every slot of a route under its ceiling, whatever it costs.
    fn clamp(&mut self, rig: usize) {
        for slot in 0..self.lanes[rig].slots() {
            let before = if slot == 0 {
                self.lanes[rig].start
            } else {
                Some(self.routes[rig].items[slot - 1])
            };
            let lane = &self.lanes[rig];
            let at = self.routes[rig].items[slot];
            let over = lane.ceilings[slot]
                .as_ref()
                .is_some_and(|(most, _)| lane.counted(before, at) > *most);
            if over {
                self.routes[rig].items[slot] = 0;
            }
        }
    }
}

/// One rig, one step down, in one slot. Ordered by margin lost per watt freed, then by rig.
#[derive(Debug, PartialEq, Eq)]
struct StepDown {
    lost: i128,
    freed: i128,
    rig: usize,
    to: usize,
}

impl Ord for StepDown {
    fn cmp(&self, other: &Self) -> Ordering {
        // lost / freed against lost / freed, without dividing; watts freed are positive.
        (self.lost * other.freed, self.rig).cmp(&(other.lost * self.freed, other.rig))
    }
}

impl PartialOrd for StepDown {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a way through the horizon earns less switching.
pub(super) fn value(lane: &Lane<'_>, items: &[usize]) -> i128 {
    let mut before = lane.start;
    let mut sum = 0;
    for (slot, item) in items.iter().enumerate() {
        sum += lane.money(slot, *item) - lane.switch_cost(slot, before, *item);
        before = Some(*item);
    }
    sum
}
