//! One rig's way through the horizon: what it could do in each slot, what that is worth, what it may.

use roadbed_protocol::{
    Cause, MicrosPerHour, Millis, Money, UnixMillis, Watts, Workload, WorkloadKind,
};

use super::limits::Reach;
use super::{Availability, PlanInput, RigInput};
use crate::forecast::PriceQuality;
use crate::policy::WithoutPrice;

/// Something a rig could do. The first of a lane is always the floor.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub workload: Workload,
    pub power: Watts,
    pub assumed: bool,
}

/// What a slot leaves open.
#[derive(Debug, Clone)]
pub(super) enum Gate {
    /// The margin decides.
    Free,
    /// One item, by someone's will.
    Only { item: usize, cause: Cause, why: String },
    /// Nothing new: stay or sleep, because nobody knows the price.
    Stay,
}

/// One rig through the horizon.
pub(super) struct Lane<'a> {
    pub rig: &'a RigInput,
    pub items: Vec<Item>,
    /// Index of what it does now; `None` when that is none of its items.
    pub start: Option<usize>,
    /// By slot.
    pub gates: Vec<Gate>,
    /// By slot: most power it may count as, with the reason of the limit.
    pub ceilings: Vec<Option<(Watts, String)>>,
    /// By slot and item.
    pub margins: Vec<Vec<MicrosPerHour>>,
    pub incomes: Vec<Vec<MicrosPerHour>>,
    /// By slot and item: kept from running by a price limit of the policy.
    pub barred: Vec<Vec<bool>>,
    /// By slot and item: margin over the slot, and cost of a start in it, reluctance included.
    worths: Vec<Vec<i128>>,
    start_costs: Vec<Vec<i128>>,
    hand_over_cost: i128,
    /// From item to item: passed on without a stop.
    hands_over: Vec<Vec<bool>>,
    starts: Vec<UnixMillis>,
    pub min_dwell: Millis,
}

impl<'a> Lane<'a> {
    pub(super) fn new(input: &PlanInput, rig: &'a RigInput) -> Self {
        let floor = Item { workload: Workload::Curtailed, power: rig.spec.floor, assumed: false };
        let options = rig.spec.options.iter().filter(|option| option.workload.is_active());
        let items: Vec<Item> = std::iter::once(floor)
            .chain(options.clone().map(|option| Item {
                workload: option.workload.clone(),
                power: option.power,
                assumed: option.source == super::IncomeSource::Assumption,
            }))
            .collect();
        let start = match &rig.current {
            None => Some(0),
            Some(workload) if !workload.is_active() => Some(0),
            Some(workload) => items.iter().position(|item| item.workload == *workload),
        };
        let (mut margins, mut incomes, mut barred, mut gates) = (vec![], vec![], vec![], vec![]);
        for (index, slot) in input.slots.iter().enumerate() {
            let income: Vec<_> = std::iter::once(MicrosPerHour::ZERO)
                .chain(options.clone().map(|option| option.income_at(index)))
                .collect();
            let margin = income.iter().zip(&items);
            margins
                .push(margin.map(|(income, item)| *income - slot.price.rate(item.power)).collect());
            incomes.push(income);
            let priced = slot.quality != PriceQuality::Missing;
            let is_barred = |kind: WorkloadKind| {
                priced && input.rules.price_limit(kind).is_some_and(|limit| slot.price > limit)
            };
            barred.push(
                items
                    .iter()
                    .map(|item| item.workload.is_active() && is_barred(item.workload.kind()))
                    .collect(),
            );
            gates.push(match (slot.quality, input.rules.without_price) {
                (PriceQuality::Known | PriceQuality::Held, _) => Gate::Free,
                (PriceQuality::Missing, WithoutPrice::Keep) => Gate::Stay,
                (PriceQuality::Missing, WithoutPrice::Curtail) => Gate::Only {
                    item: 0,
                    cause: Cause::Plan,
                    why: "no price is known: sleep, as the policy says".into(),
                },
            });
        }
        let reluctant = |cost: Money| {
            i128::from(cost.0.max(0)) * (100 + i128::from(input.rules.hysteresis_percent)) / 100
        };
        let by_item = |rates: &[Vec<MicrosPerHour>],
                       worth: &dyn Fn(MicrosPerHour, Millis) -> i128| {
            let slots = rates.iter().zip(&input.slots);
            let one = |rates: &Vec<MicrosPerHour>, length| {
                rates.iter().map(|rate| worth(*rate, length)).collect()
            };
            slots.map(|(rates, slot)| one(rates, slot.length)).collect::<Vec<Vec<i128>>>()
        };
        let worths = by_item(&margins, &|rate, length| i128::from(rate.over(length).0));
        let start_costs = by_item(&incomes, &|rate, _| {
            reluctant(rig.spec.switch_cost + rate.over(rig.spec.switch_time))
        });
        let hands_over = items
            .iter()
            .map(|from| items.iter().map(|to| from.workload.hands_over_to(&to.workload)).collect())
            .collect();
        Self {
            rig,
            worths,
            start_costs,
            hand_over_cost: reluctant(rig.spec.hand_over_cost),
            hands_over,
            items,
            start,
            gates,
            ceilings: vec![None; input.slots.len()],
            margins,
            incomes,
            barred,
            starts: input.slots.iter().map(|slot| slot.start).collect(),
            min_dwell: rig.spec.min_dwell.max(input.rules.min_dwell),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match self.rig.availability {
            Availability::Ready => true,
            Availability::Out { .. } | Availability::Silent { .. } => false,
        }
    }

    pub(super) fn slots(&self) -> usize {
        self.gates.len()
    }

    /// Index of a workload; every inactive one is the floor.
    pub(super) fn item(&self, workload: &Workload) -> Option<usize> {
        if workload.is_active() {
            self.items.iter().position(|item| item.workload == *workload)
        } else {
            Some(0)
        }
    }

    /// Margin of an item over a whole slot.
    pub(super) fn money(&self, slot: usize, item: usize) -> i128 {
        self.worths[slot][item]
    }

    /// True when the item may run in the slot; the floor always may, unless someone's will says otherwise.
    pub(super) fn is_allowed(&self, slot: usize, item: usize) -> bool {
        let willed = match &self.gates[slot] {
            Gate::Free => !self.barred[slot][item],
            Gate::Stay => true,
            Gate::Only { item: only, .. } => *only == item || (item == 0 && self.is_cut(slot)),
        };
        willed && self.fits(slot, self.items[item].power, item)
    }

    /// True when the lane may change from one item to another at the start of the slot.
    pub(super) fn may_switch(&self, slot: usize, from: Option<usize>, to: usize) -> bool {
        let will = match &self.gates[slot] {
            Gate::Free | Gate::Only { .. } => true,
            Gate::Stay => to == 0,
        };
        will && self.is_allowed(slot, to) && self.fits(slot, self.counted(from, to), to)
    }

    fn fits(&self, slot: usize, power: Watts, item: usize) -> bool {
        item == 0 || self.ceilings[slot].as_ref().is_none_or(|(most, _)| power <= *most)
    }

    /// True when what someone wills does not fit under the ceiling.
    fn is_cut(&self, slot: usize) -> bool {
        match &self.gates[slot] {
            Gate::Only { item, .. } => !self.fits(slot, self.items[*item].power, *item),
            Gate::Free | Gate::Stay => false,
        }
    }

    /// Whom a cap must reach to shed this lane in the slot.
    pub(super) fn shield(&self, slot: usize) -> Reach {
        match &self.gates[slot] {
            Gate::Free | Gate::Stay => Reach::Flexible,
            Gate::Only { cause, .. } => match cause {
                Cause::Plan | Cause::Curtailment => Reach::Flexible,
                Cause::PocWindow => Reach::Commitments,
                Cause::OperatorHold => Reach::Everything,
            },
        }
    }

    /// Power a slot counts with when the rig comes from `from`: while one workload stops and another starts, the
    /// greater of the two; a rig that goes to sleep or steps down counts as where it goes, because the farm waits for
    /// the shed before it uses the power.
    pub(super) fn counted(&self, from: Option<usize>, to: usize) -> Watts {
        let next = &self.items[to];
        let Some(before) = from.map(|from| &self.items[from]) else {
            return if to == 0 { next.power } else { self.rig.spec.nameplate };
        };
        let restarts = from != Some(to)
            && from != Some(0)
            && to != 0
            && !from.is_some_and(|from| self.hands_over[from][to]);
        if restarts { before.power.max(next.power) } else { next.power }
    }

    /// What it costs to change from one item to another in the slot, with the policy's reluctance.
    pub(super) fn switch_cost(&self, slot: usize, from: Option<usize>, to: usize) -> i128 {
        match from {
            _ if to == 0 => 0,
            Some(from) if from == to => 0,
            Some(from) if self.hands_over[from][to] => self.hand_over_cost,
            Some(_) | None => self.start_costs[slot][to],
        }
    }

    /// Slots the lane must stay in what it does now.
    pub(super) fn locked_slots(&self) -> usize {
        let until = self.rig.since + self.min_dwell;
        self.starts.iter().take_while(|start| **start < until).count()
    }

    /// First slot in which a switch made in `slot` may be followed by another.
    pub(super) fn dwell_end(&self, slot: usize) -> usize {
        let until = self.starts[slot] + self.min_dwell;
        (slot + 1..self.slots()).find(|next| self.starts[*next] >= until).unwrap_or(self.slots())
    }
}
