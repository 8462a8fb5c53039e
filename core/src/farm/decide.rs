//! Planning: when something the plan was made of has changed, or its first slot is over.

use roadbed_protocol::{Millis, UnixMillis};

use super::{Farm, FarmEffect, usable};
use crate::guard;
use crate::plan::{self, Availability, CurtailOrder, Feeder, PlanInput};
use crate::policy::MINUTES_PER_DAY;

impl Farm {
    pub(super) fn decide(&mut self, effects: &mut Vec<FarmEffect>) {
        let is_over = self.plan.as_ref().is_none_or(|plan| plan.slot_at(self.now) != Some(0));
        let available = self.availabilities();
        if !(self.replan || is_over || is_other(&available, &self.planned_with)) {
            return;
        }
        self.replan = false;
        self.planned_with = available;
        let (input, mut notes) = self.plan_input();
        let (plan, planned) = plan::plan(&input);
        let guarded = guard::check(&input, &plan);
        notes.extend(planned);
        notes.extend(guarded.notes);
        let mut plan = guarded.plan;
        self.plan_id += 1;
        plan.id = self.plan_id;
        self.plan = Some(plan.clone());
        effects.push(FarmEffect::CommitPlan { plan, notes, sheds: guarded.sheds });
    }

    /// The question the planner is asked now, with what the forecast has to say. Its limits are the usable part of the
    /// true ones, and orders and windows begin early enough to be met.
    #[must_use]
    pub fn plan_input(&self) -> (PlanInput, Vec<plan::Note>) {
        let timing = &self.settings.timing;
        let rules = &self.settings.rules;
        let (slots, notes) =
            self.prices.slots(self.now, timing.slot, timing.horizon_slots, &self.cuts(), rules);
        let rigs = self
            .views
            .iter()
            .map(|view| view.input(self.now, timing.report_stale, timing.fault_alert_attempts))
            .collect();
        let mut rules = rules.clone();
        let lead = timing.shed_lead();
        for window in &mut rules.curtail_windows {
            window.limit = usable(window.limit);
            window.from_minute = earlier(window.from_minute, lead);
        }
        let feeders = self.settings.feeders.iter();
        let orders = self.orders.iter().filter(|order| order.until > self.now);
        let input = PlanInput {
            now: self.now,
            slots,
            rigs,
            feeders: feeders
                .map(|feeder| Feeder { limit: usable(feeder.limit), ..feeder.clone() })
                .collect(),
            rules,
            commitments: self
                .commitments
                .iter()
                .filter(|commitment| commitment.until > self.now)
                .cloned()
                .collect(),
            holds: self.holds.clone(),
            orders: orders
                .map(|order| CurtailOrder {
                    limit: usable(order.limit),
                    from: order.from - lead,
                    ..order.clone()
                })
                .collect(),
        };
        (input, notes)
    }

    /// Moments inside a slot at which a plan must be able to change.
    fn cuts(&self) -> Vec<UnixMillis> {
        let lead = self.settings.timing.shed_lead();
        let orders = self.orders.iter().flat_map(|order| [order.from - lead, order.until]);
        let promises = self
            .commitments
            .iter()
            .flat_map(|commitment| [commitment.from - commitment.load_lead, commitment.until]);
        let midnight = self.now.floor_to(DAY);
        let minute = |day: u64, minute: u16| {
            midnight + Millis(DAY.0 * day) + Millis::from_mins(u64::from(minute))
        };
        let windows = self.settings.rules.curtail_windows.iter().flat_map(|window| {
            let from = earlier(window.from_minute, lead);
            (0..2).flat_map(move |day| [minute(day, from), minute(day, window.until_minute)])
        });
        let mut cuts: Vec<_> =
            orders.chain(promises).chain(windows).filter(|cut| *cut > self.now).collect();
        cuts.sort_unstable();
        cuts
    }

    fn availabilities(&self) -> Vec<Availability> {
        let timing = &self.settings.timing;
        self.views
            .iter()
            .map(|view| {
                view.availability(self.now, timing.report_stale, timing.fault_alert_attempts)
            })
            .collect()
    }
}

const DAY: Millis = Millis::from_hours(24);

/// The minute of the day `lead` before another, in whole minutes.
fn earlier(minute: u16, lead: Millis) -> u16 {
    let lead = u16::try_from(lead.0.div_ceil(60_000) % u64::from(MINUTES_PER_DAY)).unwrap_or(0);
    (minute + MINUTES_PER_DAY - lead) % MINUTES_PER_DAY
}

/// True when a rig came or went; its power and words do not matter.
fn is_other(now: &[Availability], then: &[Availability]) -> bool {
    let kind = |availability: &Availability| match availability {
        Availability::Ready => 0,
        Availability::Out { .. } => 1,
        Availability::Silent { .. } => 2,
    };
    now.len() != then.len() || now.iter().zip(then).any(|(now, then)| kind(now) != kind(then))
}
