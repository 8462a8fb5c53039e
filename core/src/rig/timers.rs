//! Deadlines: what happens when nothing happens.

use roadbed_protocol::{EventKind, Millis, RigState, UnixMillis};

use super::{Rig, RigEffect};

impl Rig {
    pub(super) fn next_timer(&self) -> Option<UnixMillis> {
        let must_ask =
            self.state == RigState::Booting && (self.latch.is_some() || !self.progress.probing);
        [
            must_ask.then_some(self.since),
            self.progress.deadline,
            self.progress.hand_over.as_ref().map(|(_, overdue)| *overdue),
            self.doubt_until(),
            self.forgive_at(),
            self.lease_until().filter(|_| !self.lapsed),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Deals with everything that is over by now.
    pub(super) fn expire(&mut self, effects: &mut Vec<RigEffect>) {
        self.lapse_if_over(effects);
        if self.forgive_at().is_some_and(|at| at <= self.now) {
            self.attempts = 0;
        }
        if self.doubt_until().is_some_and(|at| at <= self.now) {
            let reason = match self.state {
                RigState::Running => "said to mine, but neither watts nor hashrate show it",
                RigState::Booting
                | RigState::Idle
                | RigState::Starting
                | RigState::Draining
                | RigState::Stopping
                | RigState::Curtailed
                | RigState::Faulted
                | RigState::Tripped => "said to rest, but the watts do not show it",
            };
            self.fault(EventKind::Unconfirmed, reason, effects);
        }
        let overdue = self.progress.hand_over.as_ref().is_some_and(|(_, at)| *at <= self.now);
        if overdue {
            self.fault(EventKind::Fault, "hand-over took too long", effects);
        }
        if self.progress.deadline.is_some_and(|at| at <= self.now) {
            self.deadline_over(effects);
        }
    }

    fn deadline_over(&mut self, effects: &mut Vec<RigEffect>) {
        self.progress.deadline = None;
        match self.state {
            RigState::Booting => self.fault(EventKind::Fault, "hardware does not answer", effects),
            RigState::Starting => self.fault(EventKind::Fault, "start took too long", effects),
            RigState::Draining => self.begin_stop(true, "drain took too long".into(), effects),
            RigState::Stopping if !self.progress.forced => {
                self.progress.forced = true;
                self.progress.deadline = Some(self.now + self.settings.stop_deadline);
                effects.push(RigEffect::Stop { force: true });
            }
            RigState::Stopping if self.progress.stop_claimed => self.fault(
                EventKind::Unconfirmed,
                "said to have stopped, but the watts do not show it",
                effects,
            ),
            RigState::Stopping => self.fault(EventKind::Fault, "stop took too long", effects),
            RigState::Faulted if self.progress.probing => {
                self.fault(EventKind::Fault, "hardware does not answer", effects);
            }
            RigState::Faulted => self.ask(effects),
            // No deadline is set in these.
            RigState::Idle | RigState::Running | RigState::Curtailed | RigState::Tripped => {}
        }
    }

    /// When doubt becomes a fault: as long as a start, or a stop, may take to show.
    fn doubt_until(&self) -> Option<UnixMillis> {
        let patience: Millis = match self.state {
            RigState::Running => self.settings.start_deadline,
            RigState::Booting
            | RigState::Idle
            | RigState::Starting
            | RigState::Draining
            | RigState::Stopping
            | RigState::Curtailed
            | RigState::Faulted
            | RigState::Tripped => self.settings.stop_deadline,
        };
        self.progress.doubt_since.map(|since| since + patience)
    }

    /// When earlier faults are forgiven.
    fn forgive_at(&self) -> Option<UnixMillis> {
        (self.state == RigState::Running && self.attempts > 0)
            .then_some(self.since + self.settings.attempts_clear_after)
    }
}
