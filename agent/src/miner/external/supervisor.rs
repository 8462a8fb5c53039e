//! What is to be done about a miner, without a clock, a process or a socket.
//!
//! ```text
//!          run                answers              silent, slow, no shares
//! Off ------------> Starting ---------> Hashing ------------------+
//!  ^                 |   ^                 | ended                |
//!  |                 |   |                 v                      v
//!  |                 |   +-- back-off -- Waiting <- Confirming <- Stopping (API, TERM, KILL)
//!  |                 v                                |              |
//!  +---- stop ----- Alarm <--- too often in a row ----+--------------+  stop, cut: from everywhere
//! ```
//! Stopping ends when nobody of the process group is left, Confirming when the GPUs' memory is free. Where nobody tells of
//! memory it ends after a fixed time and says so. Time is milliseconds since the runner's start.

use roadbed_protocol::Millis;

use super::reply::Figures;
pub use super::states::{
    Effect, Ended, Event, Health, Limits, MemoryLook, State, Step, Terms, Then,
};

/// Shares after which the miner's own pace is known well enough to judge it by.
const SHARES_KNOWN: u64 = 8;

/// See the module head.
#[derive(Debug, Clone)]
pub struct Supervisor {
    terms: Terms,
    limits: Limits,
    state: State,
    failures: u32,
    asked: Option<Millis>,
}

impl Supervisor {
    /// Of a miner that does not run.
    #[must_use]
    pub const fn new(terms: Terms, limits: Limits) -> Self {
        Self { terms, limits, state: State::Off(Ended::NeverRan), failures: 0, asked: None }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes an event in and says what is to be done, in this order.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        match event {
            Event::Tick => self.tick(now),
            Event::Run => self.run(now),
            Event::Stop => self.stop(now, false),
            Event::Cut => self.stop(now, true),
            Event::SpawnFailed(reason) => match self.state {
                State::Starting { .. } => self.alarm(reason, false),
                State::Off(_)
                | State::Hashing(_)
                | State::Stopping { .. }
                | State::Confirming { .. }
                | State::Waiting { .. }
                | State::Alarm { .. } => vec![],
            },
            Event::Answered(figures) => self.answered(now, &figures),
            Event::Unanswered(reason) => {
                if let State::Hashing(health) = &mut self.state {
                    health.silence = reason;
                }
                vec![]
            }
            Event::Exited(how) => self.exited(now, how),
            Event::Group { left } => self.group(now, left),
            Event::Memory(look) => self.memory(now, look),
        }
    }

    fn run(&mut self, now: Millis) -> Vec<Effect> {
        match self.state {
            State::Off(_) | State::Alarm { left_over: false, .. } => {
                self.failures = 0;
                self.spawn(now)
            }
            State::Starting { .. }
            | State::Hashing(_)
            | State::Stopping { .. }
            | State::Confirming { .. }
            | State::Waiting { .. }
            | State::Alarm { .. } => vec![],
        }
    }

    fn spawn(&mut self, now: Millis) -> Vec<Effect> {
        self.state = State::Starting { since: now };
        self.asked = None;
        vec![Effect::Spawn]
    }

    fn tick(&mut self, now: Millis) -> Vec<Effect> {
        let passed = |since: Millis| Millis(now.0.saturating_sub(since.0));
        match self.state.clone() {
            State::Off(_) | State::Alarm { .. } => vec![],
            State::Starting { since } => {
                if passed(since) >= self.terms.first_answer {
                    let waited = self.terms.first_answer.0 / 1_000;
                    return self.fail(now, format!("its API did not answer within {waited} s of its start"));
                }
                self.ask(now)
            }
            State::Hashing(health) => {
                if let Some(reason) = self.stall(now, &health) {
                    return self.fail(now, reason);
                }
                if passed(health.since) >= self.limits.good_run {
                    self.failures = 0;
                }
                self.ask(now)
            }
            State::Stopping { step, since, then } => match step {
                Step::Api if passed(since) >= self.limits.api_stop => {
                    self.step(now, Step::Term { wait: self.limits.term }, then)
                }
                Step::Term { wait } if passed(since) >= wait => self.step(now, Step::Kill, then),
                Step::Kill if passed(since) >= self.limits.kill => self.alarm(
                    "processes of it are still there after SIGKILL: the GPU driver does not let go of them, which a restart of the machine ends".into(),
                    true,
                ),
                Step::Api | Step::Term { .. } | Step::Kill => vec![Effect::LookAtGroup],
            },
            State::Confirming { .. } => vec![Effect::LookAtMemory],
            State::Waiting { until, .. } if now >= until => self.spawn(now),
            State::Waiting { .. } => vec![],
        }
    }

    fn ask(&mut self, now: Millis) -> Vec<Effect> {
        let due =
            self.asked.is_none_or(|asked| now.0.saturating_sub(asked.0) >= self.limits.ask_every.0);
        if !due {
            return vec![];
        }
        self.asked = Some(now);
        vec![Effect::Ask]
    }

    fn answered(&mut self, now: Millis, figures: &Figures) -> Vec<Effect> {
        let accepted = figures.accepted.unwrap_or(0);
        if let State::Starting { .. } = self.state {
            self.state = State::Hashing(Health {
                since: now,
                answered: now,
                below_since: None,
                counter: accepted,
                shares: 0,
                share_at: now,
                silence: String::new(),
            });
        }
        let least = self.terms.floor.0.max(1);
        if let State::Hashing(health) = &mut self.state {
            health.answered = now;
            let below = figures.hashrate.is_none_or(|rate| rate.0 < least);
            health.below_since = below.then(|| health.below_since.unwrap_or(now));
            if figures.accepted.is_some() {
                // A counter that fell began anew.
                let new = accepted.checked_sub(health.counter).unwrap_or(accepted);
                health.counter = accepted;
                if new > 0 {
                    health.shares += new;
                    health.share_at = now;
                }
            }
        }
        vec![]
    }

    /// Why it is as good as dead.
    fn stall(&self, now: Millis, health: &Health) -> Option<String> {
        let passed = |since: Millis| now.0.saturating_sub(since.0);
        if passed(health.answered) >= self.limits.api_silent.0 {
            let seconds = passed(health.answered) / 1_000;
            return Some(format!("its API is silent for {seconds} s ({})", health.silence));
        }
        if let Some(since) = health.below_since
            && passed(since) >= self.limits.below_floor.0
        {
            let seconds = passed(since) / 1_000;
            return Some(match self.terms.floor.0 {
                0 | 1 => format!("it hashes nothing for {seconds} s"),
                _ => format!("it hashes below {} for {seconds} s", self.terms.floor),
            });
        }
        let known = (health.shares >= SHARES_KNOWN).then(|| {
            Millis((health.share_at.0.saturating_sub(health.since.0) / health.shares).max(1))
        });
        let wait = match self.terms.share_every.or(known) {
            Some(every) => {
                every.0.saturating_mul(self.limits.share_factor).max(self.limits.share_wait_min.0)
            }
            None => self.limits.share_wait_unknown.0,
        };
        (passed(health.share_at) >= wait)
            .then(|| format!("no share was accepted for {} s", passed(health.share_at) / 1_000))
    }

    fn exited(&mut self, now: Millis, how: String) -> Vec<Effect> {
        match &self.state {
            State::Starting { .. } | State::Hashing(_) => {
                let then = self.failed(how);
                // What it started may live on.
                self.step(now, Step::Kill, then)
            }
            State::Stopping { .. } => vec![Effect::LookAtGroup],
            State::Off(_)
            | State::Confirming { .. }
            | State::Waiting { .. }
            | State::Alarm { .. } => vec![],
        }
    }

    fn fail(&mut self, now: Millis, reason: String) -> Vec<Effect> {
        let then = self.failed(reason);
        self.end(now, then)
    }

    fn failed(&mut self, reason: String) -> Then {
        self.failures = self.failures.saturating_add(1);
        if self.failures > self.limits.failures_max {
            Then::Alarm(format!("{} failures in a row; the last: {reason}", self.failures))
        } else {
            Then::Restart(reason)
        }
    }

    /// Begins to end it gently.
    fn end(&mut self, now: Millis, then: Then) -> Vec<Effect> {
        let step = match self.terms.stops_by_api {
            true => Step::Api,
            false => Step::Term { wait: self.limits.term },
        };
        self.step(now, step, then)
    }

    fn step(&mut self, now: Millis, step: Step, then: Then) -> Vec<Effect> {
        self.state = State::Stopping { step, since: now, then };
        let act = match step {
            Step::Api => Effect::AskToStop,
            Step::Term { .. } => Effect::Terminate,
            Step::Kill => Effect::Kill,
        };
        vec![act, Effect::LookAtGroup]
    }

    fn stop(&mut self, now: Millis, hurry: bool) -> Vec<Effect> {
        let at_once = Step::Term { wait: self.limits.term_in_a_hurry };
        match self.state.clone() {
            State::Off(_) => vec![],
            State::Starting { .. } | State::Hashing(_) if hurry => {
                self.step(now, at_once, Then::Off)
            }
            State::Starting { .. } | State::Hashing(_) => self.end(now, Then::Off),
            State::Stopping { step: Step::Api, .. } if hurry => self.step(now, at_once, Then::Off),
            State::Stopping { step: Step::Term { .. }, since, .. } if hurry => {
                self.state = State::Stopping { step: at_once, since, then: Then::Off };
                vec![]
            }
            State::Stopping { step, since, .. } => {
                self.state = State::Stopping { step, since, then: Then::Off };
                vec![]
            }
            State::Confirming { since, .. } => {
                self.state = State::Confirming { since, then: Then::Off };
                vec![]
            }
            // Nobody is left; it was looked at before the wait, but it is not said twice.
            State::Waiting { .. } => {
                self.state = State::Confirming { since: now, then: Then::Off };
                vec![Effect::LookAtMemory]
            }
            State::Alarm { left_over: true, .. } => self.step(now, Step::Kill, Then::Off),
            State::Alarm { left_over: false, .. } => {
                self.state = State::Confirming { since: now, then: Then::Off };
                vec![Effect::LookAtMemory]
            }
        }
    }

    fn group(&mut self, now: Millis, left: bool) -> Vec<Effect> {
        match &self.state {
            State::Stopping { then, .. } if !left => {
                self.state = State::Confirming { since: now, then: then.clone() };
                vec![Effect::LookAtMemory]
            }
            State::Stopping { .. }
            | State::Off(_)
            | State::Starting { .. }
            | State::Hashing(_)
            | State::Confirming { .. }
            | State::Waiting { .. }
            | State::Alarm { .. } => vec![],
        }
    }

    fn memory(&mut self, now: Millis, look: MemoryLook) -> Vec<Effect> {
        let State::Confirming { since, then } = self.state.clone() else { return vec![] };
        let passed = now.0.saturating_sub(since.0);
        let ended = match look {
            MemoryLook::Free => Ended::Confirmed,
            MemoryLook::Unknown if passed >= self.limits.settle.0 => Ended::NotConfirmed,
            MemoryLook::Taken { bytes } if passed >= self.limits.memory.0 => match then {
                Then::Off => {
                    let mib = bytes >> 20;
                    let seconds = passed / 1_000;
                    return self.alarm(
                        format!("{mib} MiB of GPU memory are still taken {seconds} s after its last process ended"),
                        true,
                    );
                }
                Then::Restart(_) | Then::Alarm(_) => Ended::NotConfirmed,
            },
            MemoryLook::Unknown | MemoryLook::Taken { .. } => return vec![],
        };
        match then {
            Then::Off => {
                self.state = State::Off(ended);
                vec![]
            }
            Then::Restart(reason) => {
                let doublings = self.failures.saturating_sub(1).min(32);
                let wait = self.limits.backoff_first.0.saturating_mul(1 << doublings);
                let until = Millis(now.0 + wait.min(self.limits.backoff_max.0));
                self.state = State::Waiting { until, reason };
                vec![]
            }
            Then::Alarm(reason) => self.alarm(reason, false),
        }
    }

    fn alarm(&mut self, reason: String, left_over: bool) -> Vec<Effect> {
        self.state = State::Alarm { reason: reason.clone(), left_over };
        vec![Effect::Alarm(reason)]
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
