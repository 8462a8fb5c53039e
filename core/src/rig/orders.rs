//! Assignments: which are taken, which are refused, and what a lease is worth.

use roadbed_protocol::{Assignment, EventKind, RigKind, Watts, Workload};

use super::{Rig, RigEffect};

impl Rig {
    pub(super) fn assigned(&mut self, assignment: Assignment, effects: &mut Vec<RigEffect>) {
        let generation = assignment.generation;
        match self.judge(&assignment) {
            Err(reason) => {
                effects
                    .push(RigEffect::Record { kind: EventKind::Refused, reason: reason.clone() });
                effects.push(RigEffect::Refuse { generation, reason });
            }
            Ok(()) => {
                self.adopt(assignment);
                effects.push(RigEffect::Persist(self.memory()));
                effects.push(RigEffect::Accept { generation });
                // An order that comes too late still raises the generation and still may only lower the power.
                self.lapse_if_over(effects);
            }
        }
    }

    fn judge(&self, next: &Assignment) -> Result<(), String> {
        if next.rig != self.id {
            return Err(format!("addressed to {}, this is {}", next.rig, self.id));
        }
        if next.generation == 0 {
            return Err("generation 0; the first is 1".into());
        }
        for workload in [&next.workload, &next.fallback] {
            if self.settings.kind == RigKind::Asic && !is_for_asic(workload) {
                return Err(format!("an ASIC cannot {workload}; it mines or sleeps"));
            }
        }
        if !is_fallback_safe(&next.workload, &next.fallback) {
            return Err(format!(
                "fallback {} may need more power than target {}",
                next.fallback, next.workload
            ));
        }
        match &self.assignment {
            Some(held) if next.generation < held.generation => {
                Err(format!("generation {} is older than {}", next.generation, held.generation))
            }
            Some(held) if next.generation == held.generation && next.workload != held.workload => {
                Err(format!(
                    "generation {} already means {}, not {}",
                    held.generation, held.workload, next.workload
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn adopt(&mut self, next: Assignment) {
        match &mut self.assignment {
            // A renewal moves the end of the lease and nothing else, and a late one never shortens it.
            Some(held) if held.generation == next.generation => {
                held.lease_until = held.lease_until.max(next.lease_until);
            }
            held => *held = Some(next),
        }
        self.lapsed =
            self.lapsed && self.lease_until().is_some_and(|lease_until| lease_until <= self.now);
    }

    /// Turns to the fallback once the lease is over.
    pub(super) fn lapse_if_over(&mut self, effects: &mut Vec<RigEffect>) {
        let over = self.lease_until().is_some_and(|lease_until| lease_until <= self.now);
        if over && !self.lapsed {
            self.lapsed = true;
            effects.push(RigEffect::Record {
                kind: EventKind::LeaseLapsed,
                reason: self.goal_reason(),
            });
        }
    }
}

fn is_for_asic(workload: &Workload) -> bool {
    match workload {
        Workload::Idle | Workload::Curtailed | Workload::Mine { .. } => true,
        Workload::Serve { .. } | Workload::Prove { .. } => false,
    }
}

/// True when `fallback` surely needs no more power than `target`.
fn is_fallback_safe(target: &Workload, fallback: &Workload) -> bool {
    let full = Watts(u64::MAX);
    match (target, fallback) {
        (_, Workload::Idle | Workload::Curtailed) => true,
        (Workload::Mine { power_target: most }, Workload::Mine { power_target: least }) => {
            least.unwrap_or(full) <= most.unwrap_or(full)
        }
        (
            Workload::Serve { model: one } | Workload::Prove { model: one },
            Workload::Serve { model: other } | Workload::Prove { model: other },
        ) => one == other,
        (
            Workload::Idle | Workload::Curtailed | Workload::Serve { .. } | Workload::Prove { .. },
            Workload::Mine { .. },
        )
        | (
            Workload::Idle | Workload::Curtailed | Workload::Mine { .. },
            Workload::Serve { .. } | Workload::Prove { .. },
        ) => false,
    }
}
