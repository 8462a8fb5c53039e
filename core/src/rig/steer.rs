//! Towards the target: what follows from the state, the target and the driver's answers.

use roadbed_protocol::{EventKind, Millis, RigState, Watts, Workload};

use super::{Rig, RigEffect};

impl Rig {
    /// Takes every step towards the target that needs no answer from outside. Ends, because each step of the loop
    /// either stops or moves on along Running, Draining, Stopping or Curtailed, Idle, Starting.
    pub(super) fn settle(&mut self, effects: &mut Vec<RigEffect>) {
        while self.step(effects) {}
    }

    /// One step; false when nothing more can be done now.
    fn step(&mut self, effects: &mut Vec<RigEffect>) -> bool {
        let goal = self.goal();
        match self.state {
            RigState::Booting => self.ask_once(effects),
            RigState::Idle => self.leave_idle(&goal, effects),
            RigState::Starting => self.steer_start(&goal, effects),
            RigState::Running => self.steer_running(&goal, effects),
            RigState::Draining => self.steer_draining(&goal, effects),
            RigState::Stopping => self.finish_stop(effects),
            RigState::Curtailed => {
                if goal == Workload::Curtailed {
                    return false;
                }
                self.go(RigState::Idle, self.goal_reason(), effects);
                true
            }
            RigState::Faulted | RigState::Tripped => false,
        }
    }

    /// The workload to reach; a rig that was never told anything stays idle.
    fn goal(&self) -> Workload {
        self.target().cloned().unwrap_or(Workload::Idle)
    }

    pub(super) fn goal_reason(&self) -> String {
        match &self.assignment {
            None => "no assignment yet".into(),
            Some(assignment) if self.lapsed => {
                format!("lease lapsed at {} UTC: fallback", assignment.lease_until)
            }
            Some(assignment) => assignment.reason.clone(),
        }
    }

    /// How long open jobs may still take.
    fn drain_span(&self) -> Millis {
        // Hashing has no open jobs, and a rig without a controller must not stay at full power for the sake of one.
        let mining = matches!(self.workload, Some(Workload::Mine { .. }));
        let must_shed = self.lapsed && self.goal() == Workload::Curtailed;
        if mining || must_shed {
            return Millis::ZERO;
        }
        let granted = self.assignment.as_ref().map_or(Millis::ZERO, |assignment| assignment.drain);
        granted.min(self.settings.drain_deadline)
    }

    fn ask_once(&mut self, effects: &mut Vec<RigEffect>) -> bool {
        if !self.progress.probing {
            self.ask(effects);
        }
        false
    }

    /// Asks the hardware whether it is there.
    pub(super) fn ask(&mut self, effects: &mut Vec<RigEffect>) {
        self.progress.probing = true;
        self.progress.deadline = Some(self.now + self.settings.start_deadline);
        effects.push(RigEffect::Probe);
    }

    fn leave_idle(&mut self, goal: &Workload, effects: &mut Vec<RigEffect>) -> bool {
        match goal {
            Workload::Idle => return false,
            Workload::Curtailed => {
                self.go(RigState::Curtailed, self.goal_reason(), effects);
                effects.push(RigEffect::HoldFloor);
            }
            Workload::Mine { .. } | Workload::Serve { .. } | Workload::Prove { .. } => {
                self.go(RigState::Starting, self.goal_reason(), effects);
                self.workload = Some(goal.clone());
                self.progress.deadline = Some(self.now + self.settings.start_deadline);
                effects.push(RigEffect::Start(goal.clone()));
            }
        }
        true
    }

    fn steer_start(&mut self, goal: &Workload, effects: &mut Vec<RigEffect>) -> bool {
        // A hand-over waits until the start is done, but never to the cost of a power limit.
        let wait = self.workload.as_ref().is_some_and(|starting| {
            starting == goal || (starting.hands_over_to(goal) && !takes_less(starting, goal))
        });
        if wait {
            return false;
        }
        self.begin_stop(false, self.goal_reason(), effects);
        true
    }

    fn steer_running(&mut self, goal: &Workload, effects: &mut Vec<RigEffect>) -> bool {
        let Some(running) = self.workload.clone() else { return false };
        let heading =
            self.progress.hand_over.as_ref().map_or(&running, |(workload, _)| workload).clone();
        if heading == *goal {
            return false;
        }
        if running == *goal || running.hands_over_to(goal) {
            let overdue = self.now + self.settings.start_deadline;
            self.progress.hand_over = Some((goal.clone(), overdue));
            effects.push(RigEffect::HandOver { from: heading, to: goal.clone() });
            return false;
        }
        let span = self.drain_span();
        self.go(RigState::Draining, self.goal_reason(), effects);
        if span == Millis::ZERO {
            self.begin_stop(false, self.goal_reason(), effects);
        } else {
            self.progress.deadline = Some(self.now + span);
            effects.push(RigEffect::BeginDrain);
        }
        true
    }

    fn steer_draining(&mut self, goal: &Workload, effects: &mut Vec<RigEffect>) -> bool {
        let came_back = self
            .workload
            .as_ref()
            .is_some_and(|draining| draining == goal || draining.hands_over_to(goal));
        if came_back {
            self.go(RigState::Running, self.goal_reason(), effects);
            effects.push(RigEffect::CancelDrain);
            return true;
        }
        // A newer target may be in more of a hurry than the one the drain began for.
        let latest = self.now + self.drain_span();
        self.progress.deadline = Some(self.progress.deadline.map_or(latest, |at| at.min(latest)));
        if self.progress.deadline.is_some_and(|at| at <= self.now) {
            self.begin_stop(false, self.goal_reason(), effects);
            return true;
        }
        false
    }

    pub(super) fn begin_stop(&mut self, force: bool, why: String, effects: &mut Vec<RigEffect>) {
        self.go(RigState::Stopping, why, effects);
        self.progress.forced = force;
        self.progress.deadline = Some(self.now + self.settings.stop_deadline);
        effects.push(RigEffect::Stop { force });
    }

    /// Leaves Stopping when the driver says so and no fresh reading contradicts it.
    fn finish_stop(&mut self, effects: &mut Vec<RigEffect>) -> bool {
        if !self.progress.stop_claimed || self.is_power_above_floor() {
            return false;
        }
        self.go(RigState::Idle, self.goal_reason(), effects);
        true
    }

    pub(super) fn probed(&mut self, effects: &mut Vec<RigEffect>) -> bool {
        match self.state {
            RigState::Booting => self.wake_idle("hardware answers", effects),
            RigState::Faulted if self.progress.probing => {
                if self.is_power_above_floor() {
                    self.fault(EventKind::Unconfirmed, "still draws power after a stop", effects);
                } else if self.goal() == Workload::Curtailed {
                    self.go(RigState::Curtailed, self.goal_reason(), effects);
                    effects.push(RigEffect::HoldFloor);
                } else {
                    self.wake_idle("hardware answers again", effects);
                }
            }
            RigState::Faulted
            | RigState::Idle
            | RigState::Starting
            | RigState::Running
            | RigState::Draining
            | RigState::Stopping
            | RigState::Curtailed
            | RigState::Tripped => return false,
        }
        true
    }

    /// Goes to Idle from a state in which nobody knows what the hardware does, so it is told to rest unless it is to
    /// work at once: a miner that reboots hashes without being asked.
    pub(super) fn wake_idle(&mut self, reason: &str, effects: &mut Vec<RigEffect>) {
        self.go(RigState::Idle, reason, effects);
        if self.goal() == Workload::Idle {
            effects.push(RigEffect::HoldFloor);
        }
    }

    pub(super) fn probe_failed(&mut self, reason: &str, effects: &mut Vec<RigEffect>) -> bool {
        let asked = self.state == RigState::Booting
            || (self.state == RigState::Faulted && self.progress.probing);
        if asked {
            self.fault(EventKind::Fault, reason, effects);
        }
        asked
    }

    pub(super) fn started(&mut self, workload: &Workload, effects: &mut Vec<RigEffect>) -> bool {
        let expected = self.state == RigState::Starting && self.workload.as_ref() == Some(workload);
        if expected {
            self.go(RigState::Running, self.goal_reason(), effects);
        }
        expected
    }

    pub(super) fn handed_over(&mut self, workload: Workload) -> bool {
        let expected =
            self.progress.hand_over.as_ref().is_some_and(|(awaited, _)| *awaited == workload);
        if expected {
            self.progress.hand_over = None;
            self.reason = self.goal_reason();
            self.workload = Some(workload);
        }
        expected
    }

    pub(super) fn failed(&mut self, reason: &str, effects: &mut Vec<RigEffect>) -> bool {
        match self.state {
            RigState::Booting
            | RigState::Idle
            | RigState::Starting
            | RigState::Running
            | RigState::Draining
            | RigState::Stopping
            | RigState::Curtailed => {
                self.fault(EventKind::Fault, reason, effects);
                true
            }
            RigState::Faulted | RigState::Tripped => false,
        }
    }

    pub(super) fn drained(&mut self, effects: &mut Vec<RigEffect>) -> bool {
        let expected = self.state == RigState::Draining;
        if expected {
            self.begin_stop(false, "drained".into(), effects);
        }
        expected
    }

    pub(super) fn stopped(&mut self, effects: &mut Vec<RigEffect>) -> bool {
        match self.state {
            RigState::Draining => {
                // It ended by itself while it drained; the order to stop makes sure.
                self.begin_stop(false, "ended while draining".into(), effects);
                self.progress.stop_claimed = true;
                true
            }
            RigState::Stopping => {
                self.progress.stop_claimed = true;
                true
            }
            // The answer to the stop a fault or a trip ordered.
            RigState::Faulted | RigState::Tripped => true,
            RigState::Booting
            | RigState::Idle
            | RigState::Starting
            | RigState::Running
            | RigState::Curtailed => false,
        }
    }

    /// Goes to Faulted, or counts one more fault there, and waits longer each time.
    pub(super) fn fault(&mut self, kind: EventKind, reason: &str, effects: &mut Vec<RigEffect>) {
        self.attempts = self.attempts.saturating_add(1);
        effects.push(RigEffect::Record { kind, reason: reason.into() });
        if self.state == RigState::Faulted {
            self.reason = reason.into();
            self.progress = super::Progress::default();
        } else {
            self.go(RigState::Faulted, reason, effects);
        }
        self.progress.deadline = Some(self.now + self.settings.backoff(self.attempts));
        effects.push(RigEffect::Stop { force: true });
    }
}

/// True when `next` is the same mining with less power.
fn takes_less(now: &Workload, next: &Workload) -> bool {
    match (now, next) {
        (Workload::Mine { power_target: before }, Workload::Mine { power_target: after }) => {
            after.unwrap_or(Watts(u64::MAX)) < before.unwrap_or(Watts(u64::MAX))
        }
        (
            Workload::Idle
            | Workload::Curtailed
            | Workload::Mine { .. }
            | Workload::Serve { .. }
            | Workload::Prove { .. },
            Workload::Idle
            | Workload::Curtailed
            | Workload::Mine { .. }
            | Workload::Serve { .. }
            | Workload::Prove { .. },
        ) => false,
    }
}
