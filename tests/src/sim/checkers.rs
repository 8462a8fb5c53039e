//! What must never happen, and what must have happened in the end.

use std::collections::BTreeMap;

use farm_core::farm::FarmSettings;
use farm_core::rig::RigEffect;
use roadbed_protocol::{Millis, RigState, UnixMillis, Watts};

use super::agent::SimRig;
use super::site::GRACE;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub checker: &'static str,
    /// By what.
    pub what: String,
}

/// Ends of leases may be this late at the meter: a drain, a stop that must be forced, and its ramp.
const LEASE_SLACK: Millis = Millis::from_mins(4);

/// The safety rules with what they must remember.
#[derive(Debug, Default)]
pub struct Checkers {
    over_since: BTreeMap<usize, UnixMillis>,
    generations: BTreeMap<usize, u64>,
    /// Feeder-milliseconds above a limit, within the grace.
    pub over_millis: u64,
    last: Option<UnixMillis>,
}

impl Checkers {
    /// Looks at the whole farm.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn look(
        &mut self,
        now: UnixMillis,
        truth: &FarmSettings,
        rigs: &[SimRig],
        is_down: impl Fn(usize) -> bool,
    ) -> Result<(), Broken> {
        self.feeders(now, truth, rigs)?;
        for (index, rig) in rigs.iter().enumerate() {
            let machine = &rig.machine;
            machine.invariants().map_err(|what| Broken { checker: "invariants", what })?;
            let generation = self.generations.entry(index).or_default();
            if machine.generation() < *generation {
                let what = format!("{}: {} after {generation}", machine.id(), machine.generation());
                return Err(Broken { checker: "generations never fall", what });
            }
            *generation = machine.generation();
            if !is_down(rig.agent) {
                leases(now, rig, &truth.rigs[index].spec)?;
            }
        }
        self.last = Some(now);
        Ok(())
    }

    fn feeders(
        &mut self,
        now: UnixMillis,
        truth: &FarmSettings,
        rigs: &[SimRig],
    ) -> Result<(), Broken> {
        let mut loads = vec![Watts::ZERO; truth.feeders.len()];
        for (rig, member) in rigs.iter().zip(&truth.rigs) {
            let mut at = Some(&member.spec.feeder);
            while let Some(id) = at {
                let Some(index) = truth.feeders.iter().position(|feeder| feeder.id == *id) else {
                    break;
                };
                loads[index] += rig.hardware.power(now);
                at = truth.feeders[index].parent.as_ref();
            }
        }
        for (index, (feeder, load)) in truth.feeders.iter().zip(loads).enumerate() {
            if load <= feeder.limit {
                self.over_since.remove(&index);
                continue;
            }
            let since = *self.over_since.entry(index).or_insert(now);
            self.over_millis += self.last.map_or(0, |last| now.since(last).0);
            if now.since(since) > GRACE {
                let what =
                    format!("{} carries {load} of {} since {since}", feeder.id, feeder.limit);
                return Err(Broken { checker: "no feeder above its limit", what });
            }
        }
        Ok(())
    }

    /// Looks at what a rig machine ordered.
    ///
    /// # Errors
    /// A start while tripped.
    pub fn ordered(&self, rig: &SimRig, effects: &[RigEffect]) -> Result<(), Broken> {
        let starts = effects
            .iter()
            .any(|effect| matches!(effect, RigEffect::Start(_) | RigEffect::HandOver { .. }));
        if starts && rig.machine.state() == RigState::Tripped {
            let what = rig.machine.id().to_string();
            return Err(Broken { checker: "nothing starts while tripped", what });
        }
        Ok(())
    }
}

/// No rig works on without a lease, beyond what its fallback allows.
fn leases(now: UnixMillis, rig: &SimRig, spec: &farm_core::plan::RigSpec) -> Result<(), Broken> {
    let Some(assignment) = rig.machine.assignment() else { return Ok(()) };
    let settled = rig.machine.since() + LEASE_SLACK < now;
    if now < assignment.lease_until + LEASE_SLACK || !settled || rig.hardware.hung {
        return Ok(());
    }
    let fallback = &assignment.fallback;
    let option = spec.options.iter().find(|option| option.workload == *fallback);
    let allowed = option.map_or(spec.floor, |option| option.power).0 * 11 / 10 + 60;
    let power = rig.hardware.power(now);
    if power.0 > allowed {
        let what = format!(
            "{} draws {power} by a lease that ended at {}, fallback {fallback}",
            rig.machine.id(),
            assignment.lease_until
        );
        return Err(Broken { checker: "no work without a lease", what });
    }
    Ok(())
}
