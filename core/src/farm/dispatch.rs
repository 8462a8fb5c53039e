//! Assignments: issued when the target changes, renewed while the rig reports, sent again while nobody confirms them.
//!
//! Less power is ordered at once. More power waits until every circuit above the rig has room for it by what is counted
//! now, and until the stagger lets the next rig start.

use roadbed_protocol::{Assignment, Cause, Millis, UnixMillis, Watts, Workload};

use super::view::power_of;
use super::{Farm, FarmEffect, RigView, usable};
use crate::plan::Choice;

impl Farm {
    pub(super) fn dispatch(&mut self, effects: &mut Vec<FarmEffect>) {
        let now = self.now;
        let Some(plan) = &self.plan else { return };
        let Some(slot) = plan.slot_at(now) else { return };
        let choices: Vec<Option<Choice>> =
            plan.rows.iter().map(|row| row.choices.get(slot).cloned()).collect();
        // First everything that frees power, so that the same event can use none of it yet but the next one can.
        let mut rises = Vec::new();
        for (rig, choice) in choices.into_iter().enumerate() {
            let Some(choice) = choice else { continue };
            if self.views[rig].is_silent(now, self.settings.timing.report_stale) {
                continue;
            }
            self.views[rig].waiting = None;
            if self.views[rig].is_told(&choice.workload) {
                self.keep(rig, effects);
            } else if self.needs_more(rig, &choice.workload) {
                rises.push((rig, choice));
            } else {
                self.issue(rig, &choice, effects);
            }
        }
        for (rig, choice) in rises {
            match self.may_rise(rig, &choice) {
                Ok(()) => {
                    if !self.views[rig].is_working() {
                        self.note_start();
                    }
                    self.issue(rig, &choice, effects);
                }
                Err(why) => {
                    self.views[rig].waiting = Some(why);
                    self.keep(rig, effects);
                }
            }
        }
    }

    /// When a lease must be renewed, an order sent again, or a start may follow.
    pub(super) fn next_dispatch(&self) -> Option<UnixMillis> {
        let timing = &self.settings.timing;
        let rigs = self.views.iter().filter(|view| !view.is_silent(self.now, timing.report_stale));
        let staggered = self.views.iter().any(|view| view.waiting.is_some());
        let next_start = self.starts.front().map(|first| *first + timing.stagger);
        rigs.filter_map(|view| view.next_send(timing.lease, timing.resend))
            .chain(next_start.filter(|at| staggered && *at > self.now))
            .min()
    }

    /// Renews the lease at half time; sends again what no report confirms.
    fn keep(&mut self, rig: usize, effects: &mut Vec<FarmEffect>) {
        let timing = self.settings.timing;
        let (now, view) = (self.now, &mut self.views[rig]);
        let due = view.next_send(timing.lease, timing.resend).is_some_and(|at| at <= now);
        let Some(assigned) = view.assigned.as_mut().filter(|_| due) else { return };
        assigned.lease_until = now + timing.lease;
        view.sent_at = now;
        effects.push(FarmEffect::Assign(assigned.clone()));
    }

    fn needs_more(&self, rig: usize, workload: &Workload) -> bool {
        let view = &self.views[rig];
        let told = view
            .assigned
            .as_ref()
            .map_or(view.member.spec.floor, |told| power_of(&view.member.spec, &told.workload));
        // A change of work is a stop and a start, so it is staggered and must find room like any other start.
        let restarts = workload.is_active()
            && !view.current().is_some_and(|current| current.hands_over_to(workload));
        restarts || power_of(&view.member.spec, workload) > told
    }

    /// Whether the circuits and the stagger allow it.
    fn may_rise(&self, rig: usize, choice: &Choice) -> Result<(), String> {
        let view = &self.views[rig];
        let timing = &self.settings.timing;
        let power = power_of(&view.member.spec, &choice.workload).max(choice.power);
        let counted = view.count(self.now, timing.report_stale);
        let rise = power.max(counted).saturating_sub(counted);
        for feeder in &self.chains[rig] {
            let load = self.load(*feeder);
            let limit = match choice.cause {
                Cause::Plan | Cause::Curtailment => self
                    .limit_at(*feeder, self.now)
                    .min(self.limit_at(*feeder, self.now + timing.shed_lead())),
                // Orders do not reach these; wires do.
                Cause::PocWindow | Cause::OperatorHold => self.settings.feeders[*feeder].limit,
            };
            let limit = usable(limit);
            if rise > Watts::ZERO && load + rise > limit {
                return Err(format!(
                    "{} needs {rise} more, but {} counts {load} of {limit}",
                    choice.workload, self.settings.feeders[*feeder].id
                ));
            }
        }
        if self.chains[rig].is_empty() {
            return Err("hangs on no known feeder".into());
        }
        let recent = self.starts.iter().filter(|at| **at + timing.stagger > self.now).count();
        if !view.is_working() && recent >= timing.starts_per_stagger.max(1) as usize {
            return Err("waits for its turn to start".into());
        }
        Ok(())
    }

    fn load(&self, feeder: usize) -> Watts {
        let stale = self.settings.timing.report_stale;
        let rigs = self.views.iter().zip(&self.chains).filter(|(_, chain)| chain.contains(&feeder));
        rigs.map(|(view, _)| view.count(self.now, stale)).sum()
    }

    fn note_start(&mut self) {
        let most = self.settings.timing.starts_per_stagger.max(1) as usize;
        while self.starts.len() >= most {
            self.starts.pop_front();
        }
        self.starts.push_back(self.now);
    }

    fn issue(&mut self, rig: usize, choice: &Choice, effects: &mut Vec<FarmEffect>) {
        let timing = self.settings.timing;
        let (now, farm) = (self.now, self.settings.farm.clone());
        let view = &mut self.views[rig];
        let before = view.current().map_or("rest".to_owned(), |workload| workload.to_string());
        let counted = view.count(now, timing.report_stale);
        view.generation = view.generation.saturating_add(1);
        let assignment = Assignment {
            farm,
            rig: view.member.spec.id.clone(),
            generation: view.generation,
            workload: choice.workload.clone(),
            lease_until: now + timing.lease,
            fallback: view.fallback_for(&choice.workload),
            drain: match choice.cause {
                Cause::Plan | Cause::PocWindow | Cause::OperatorHold => view.member.drain,
                Cause::Curtailment => Millis::ZERO,
            },
            cause: choice.cause,
            reason: choice.reason.clone(),
        };
        // Until this generation is confirmed the rig may be doing anything it was ever told.
        view.unconfirmed = counted.max(power_of(&view.member.spec, &choice.workload));
        view.assigned = Some(assignment.clone());
        view.assigned_at = now;
        view.sent_at = now;
        let (id, text) = (
            view.member.spec.id.clone(),
            format!("{before} -> {}: {}", choice.workload, choice.reason),
        );
        effects.push(FarmEffect::Assign(assignment));
        self.log(Some(&id), text, effects);
    }
}

impl RigView {
    fn is_told(&self, workload: &Workload) -> bool {
        self.assigned.as_ref().is_some_and(|assigned| assigned.workload == *workload)
    }

    /// True when it is told to work.
    fn is_working(&self) -> bool {
        self.assigned.as_ref().is_some_and(|assigned| assigned.workload.is_active())
    }

    fn next_send(&self, lease: Millis, resend: Millis) -> Option<UnixMillis> {
        let assigned = self.assigned.as_ref()?;
        let renewal = assigned.lease_until - Millis(lease.0 / 2);
        let again = (!self.is_confirmed()).then_some(self.sent_at + resend);
        Some(again.map_or(renewal, |again| again.min(renewal)))
    }

    /// The member's fallback, or sleep where that might need more than the target.
    fn fallback_for(&self, target: &Workload) -> Workload {
        let (spec, fallback) = (&self.member.spec, &self.member.fallback);
        let fits = !fallback.is_active()
            || (target.hands_over_to(fallback)
                && power_of(spec, fallback) <= power_of(spec, target)
                && is_stepped_no_higher(target, fallback));
        if fits { fallback.clone() } else { Workload::Curtailed }
    }
}

/// A rig without a power target mines at full power, whatever an option says it takes.
fn is_stepped_no_higher(target: &Workload, fallback: &Workload) -> bool {
    let step = |workload: &Workload| match workload {
        Workload::Mine { power_target } => power_target.unwrap_or(Watts(u64::MAX)),
        Workload::Idle | Workload::Curtailed | Workload::Serve { .. } | Workload::Prove { .. } => {
            Watts::ZERO
        }
    };
    step(fallback) <= step(target)
}
