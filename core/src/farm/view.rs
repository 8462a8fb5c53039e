//! What the farm knows of one rig, and what it therefore counts it with.

use std::collections::BTreeMap;

use roadbed_protocol::{Assignment, Millis, RigState, StateReport, UnixMillis, Watts, Workload};

use super::RigMember;
use crate::plan::{Availability, RigInput, RigSpec};

/// What the farm knows of one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigView {
    /// What it is.
    pub member: RigMember,
    /// Whether its agent is connected.
    pub online: bool,
    /// The latest report, and the farm time it speaks of; samples that are newer have been written into it.
    pub report: Option<(UnixMillis, StateReport)>,
    /// The newest assignment issued.
    pub assigned: Option<Assignment>,
    /// When the target last changed.
    pub assigned_at: UnixMillis,
    /// Why the plan's choice has not been issued yet, if so.
    pub waiting: Option<String>,
    /// Power the farm counts it with at this moment.
    pub counted: Watts,
    /// Highest generation issued or reported.
    pub(super) generation: u64,
    /// When the assignment was last sent.
    pub(super) sent_at: UnixMillis,
    /// Most power any target may cause that was issued and not yet overtaken by a confirmed one.
    pub(super) unconfirmed: Watts,
    /// Measured power of workloads that take more than their option says.
    pub(super) observed: BTreeMap<String, Watts>,
}

impl RigView {
    pub(super) fn new(member: RigMember, now: UnixMillis) -> Self {
        let counted = member.spec.nameplate;
        Self {
            member,
            online: false,
            report: None,
            assigned: None,
            assigned_at: now,
            waiting: None,
            counted,
            generation: 0,
            sent_at: now,
            unconfirmed: Watts::ZERO,
            observed: BTreeMap::new(),
        }
    }

    /// When it was last heard of.
    #[must_use]
    pub fn heard_at(&self) -> Option<UnixMillis> {
        self.report.as_ref().map(|(at, _)| *at)
    }

    /// True when nothing was heard of it for longer than `stale`.
    #[must_use]
    pub fn is_silent(&self, now: UnixMillis, stale: Millis) -> bool {
        self.heard_at().is_none_or(|at| now.since(at) > stale)
    }

    /// True when its report confirms the newest assignment.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        match (&self.assigned, &self.report) {
            (Some(assigned), Some((_, report))) => report.generation == assigned.generation,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    pub(super) fn availability(
        &self,
        now: UnixMillis,
        stale: Millis,
        attempts_max: u32,
    ) -> Availability {
        let Some((_, report)) = self.report.as_ref().filter(|_| !self.is_silent(now, stale)) else {
            return Availability::Silent { since: self.heard_at() };
        };
        let out = match report.state {
            RigState::Tripped => true,
            // A rig that falls over and over would hold power that others can use.
            RigState::Faulted => report.attempts >= attempts_max,
            RigState::Booting
            | RigState::Idle
            | RigState::Starting
            | RigState::Running
            | RigState::Draining
            | RigState::Stopping
            | RigState::Curtailed => false,
        };
        if out {
            let reason = format!("{}: {}", report.state, report.reason);
            Availability::Out { reason, power: self.count(now, stale) }
        } else {
            Availability::Ready
        }
    }

    pub(super) fn input(&self, now: UnixMillis, stale: Millis, attempts_max: u32) -> RigInput {
        let mut spec = self.member.spec.clone();
        for option in &mut spec.options {
            let observed = self.observed.get(&key(&option.workload)).copied();
            option.power = option.power.max(observed.unwrap_or_default());
        }
        RigInput {
            availability: self.availability(now, stale, attempts_max),
            current: self.current(),
            // A rig that was never told anything has no dwell to keep.
            since: if self.assigned.is_some() { self.assigned_at } else { UnixMillis(i64::MIN) },
            spec,
        }
    }

    /// What it is told to do, or what it was found doing.
    pub(super) fn current(&self) -> Option<Workload> {
        match &self.assigned {
            Some(assigned) => Some(assigned.workload.clone()),
            None => self.report.as_ref().and_then(|(_, report)| report.workload.clone()),
        }
    }

    /// Power it must be counted with: what it says, what its work takes, and what it may still be told to take.
    pub(super) fn count(&self, now: UnixMillis, stale: Millis) -> Watts {
        let spec = &self.member.spec;
        let Some((_, report)) = self.report.as_ref().filter(|_| !self.is_silent(now, stale)) else {
            return spec.nameplate;
        };
        let measured = report.power.map_or(Watts::ZERO, |power| power.watts);
        let working =
            report.workload.as_ref().map_or(spec.floor, |workload| power_of(spec, workload));
        let told = self.assigned.as_ref().map_or(spec.floor, |told| power_of(spec, &told.workload));
        measured.max(working).max(told).max(self.unconfirmed)
    }

    /// Power by its own word, for what is metered.
    pub(super) fn reported(&self) -> Watts {
        let Some((_, report)) = &self.report else { return Watts::ZERO };
        report.power.map_or(self.member.spec.floor, |power| power.watts)
    }

    /// Remembers what a workload really takes, when that is more than planned; true when it is more than ever.
    pub(super) fn learn(&mut self) -> bool {
        let Some((_, report)) = &self.report else { return false };
        let (Some(workload), Some(power)) = (&report.workload, report.power) else { return false };
        let planned = power_of(&self.member.spec, workload);
        match report.state {
            RigState::Running if power.watts > planned => {
                let most = self.observed.entry(key(workload)).or_default();
                let is_more = power.watts > *most;
                *most = power.watts.max(*most);
                is_more
            }
            RigState::Booting
            | RigState::Idle
            | RigState::Starting
            | RigState::Running
            | RigState::Draining
            | RigState::Stopping
            | RigState::Curtailed
            | RigState::Faulted
            | RigState::Tripped => false,
        }
    }
}

/// A workload as a key; two with equal keys are equal.
fn key(workload: &Workload) -> String {
    format!("{workload:?}")
}

/// Planned power of a workload; nameplate when the rig has no such option.
pub(super) fn power_of(spec: &RigSpec, workload: &Workload) -> Watts {
    if !workload.is_active() {
        return spec.floor;
    }
    let known = spec.options.iter().find(|option| option.workload == *workload);
    known.map_or(spec.nameplate, |option| option.power)
}
