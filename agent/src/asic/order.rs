//! One order and how far it has got. Pure: time, answers and readings go in, verdicts come out.
//!
//! ```text
//!            accepted            shown
//!  Apply ------------> Await ------------> Hold --(contradicted for long)--> Apply or GaveUp
//!   ^  ^ refused, lost   |  time is up
//!   |  +-----------------+  (Unconfirmed, at most ATTEMPTS_MAX times, then Failed)
//!   +-- an order to sleep is never given up: a miner that draws power must stop
//! ```

use roadbed_protocol::{Millis, UnixMillis, Watts};

use super::evidence::{Expectations, MiningBand};
use super::firmware::{FirmwareError, Reading};

/// Times an order is sent before it counts as failed. Three: once lost, once coming up, once more.
pub const ATTEMPTS_MAX: u32 = 3;

/// What a miner shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Be at the power floor.
    Sleep,
    /// Hash with at most this power.
    Mine {
        /// The cap.
        cap: Watts,
        /// Whether the cap is the model's normal power and not an order to step down; then a
        /// firmware without usable steps may mine as it is.
        normal: bool,
    },
}

/// How long things may take, farm time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From an accepted order to sleep until the reading must show it.
    pub sleep: Millis,
    /// From an accepted order to mine until the reading must show it.
    pub mine: Millis,
    /// Between two tries at a miner that does not answer or refuses.
    pub retry: Millis,
    /// Between two tries of an order to sleep that has failed already.
    pub slow_retry: Millis,
}

/// What to tell the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Watts and hashrate show it. Said once an order.
    Confirmed,
    /// It was accepted, or held already, and the readings say otherwise. It is sent again.
    Unconfirmed(String),
    /// It cannot be done, or is over. Said once an order.
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Apply { at: UnixMillis },
    Await { until: UnixMillis },
    Hold { doubt: Option<UnixMillis> },
    GaveUp,
}

/// An order being pursued.
#[derive(Debug, Clone)]
pub struct Order {
    goal: Goal,
    patience: Patience,
    phase: Phase,
    attempts: u32,
    band: Option<MiningBand>,
    /// When a miner that cannot be reached, or is held by another tool, has been waited for enough.
    lost_at: Option<UnixMillis>,
    confirmed: bool,
    failed: bool,
}

impl Order {
    /// An order given at `now`, to be sent at once.
    #[must_use]
    pub const fn new(goal: Goal, patience: Patience, now: UnixMillis) -> Self {
        Self {
            goal,
            patience,
            phase: Phase::Apply { at: now },
            attempts: 0,
            band: None,
            lost_at: None,
            confirmed: false,
            failed: false,
        }
    }

    /// What it wants.
    #[must_use]
    pub const fn goal(&self) -> Goal {
        self.goal
    }

    /// How often it was sent and accepted or refused.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether it is shown and holds.
    #[must_use]
    pub const fn holds(&self) -> bool {
        matches!(self.phase, Phase::Hold { .. })
    }

    /// Whether it must be sent now.
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        matches!(self.phase, Phase::Apply { at } if at <= now)
    }

    /// Whether readings are awaited eagerly.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Apply { .. } | Phase::Await { .. })
    }

    /// What sending it came to; for mining, the band that must show.
    pub fn sent(
        &mut self,
        now: UnixMillis,
        outcome: Result<Option<MiningBand>, FirmwareError>,
    ) -> Option<Verdict> {
        match outcome {
            Ok(band) => {
                self.attempts += 1;
                self.lost_at = None;
                self.band = band;
                self.phase = Phase::Await { until: now + self.patience_of_goal() };
                None
            }
            Err(error @ FirmwareError::Refused { .. }) => {
                self.attempts += 1;
                self.again_or_fail(now, error.to_string())
            }
            Err(error) if error.is_transient() => {
                let lost_at = *self.lost_at.get_or_insert(now + self.patience_of_goal());
                if lost_at <= now {
                    return self.fail(now, error.to_string());
                }
                self.phase = Phase::Apply { at: now + self.patience.retry };
                None
            }
            Err(error) => self.fail(now, error.to_string()),
        }
    }

    /// What a reading says of it.
    pub fn seen(
        &mut self,
        now: UnixMillis,
        reading: Result<&Reading, &FirmwareError>,
        expect: &Expectations,
    ) -> Option<Verdict> {
        match self.phase {
            // Sent before and waiting to be sent again: a miner that sleeps after all is asleep.
            Phase::Apply { .. } if self.goal == Goal::Sleep && self.attempts > 0 => {
                self.shown(reading, expect).ok().and_then(|()| self.confirm())
            }
            Phase::Apply { .. } | Phase::GaveUp => None,
            Phase::Await { until } => match self.shown(reading, expect) {
                Ok(()) => self.confirm(),
                Err(_) if now < until => None,
                Err(instead) => self.time_is_up(now, &instead),
            },
            Phase::Hold { doubt } => self.watch(now, doubt, reading, expect),
        }
    }

    fn confirm(&mut self) -> Option<Verdict> {
        self.phase = Phase::Hold { doubt: None };
        (!std::mem::replace(&mut self.confirmed, true)).then_some(Verdict::Confirmed)
    }

    fn patience_of_goal(&self) -> Millis {
        match self.goal {
            Goal::Sleep => self.patience.sleep,
            Goal::Mine { .. } => self.patience.mine,
        }
    }

    fn shown(
        &self,
        reading: Result<&Reading, &FirmwareError>,
        expect: &Expectations,
    ) -> Result<(), String> {
        let reading = reading.map_err(ToString::to_string)?;
        match (self.goal, &self.band) {
            (Goal::Sleep, _) => expect.shows_sleep(reading),
            (Goal::Mine { .. }, Some(band)) => expect.shows_mining(reading, band),
            (Goal::Mine { cap, .. }, None) => {
                expect.shows_mining(reading, &expect.mining(cap, None))
            }
        }
    }

    fn time_is_up(&mut self, now: UnixMillis, instead: &str) -> Option<Verdict> {
        let reason = format!("{} was accepted, the miner shows {instead}", self.name());
        if self.attempts >= ATTEMPTS_MAX {
            return self.fail(now, format!("{reason}; sent {} times", self.attempts));
        }
        self.phase = Phase::Apply { at: now };
        Some(Verdict::Unconfirmed(reason))
    }

    fn again_or_fail(&mut self, now: UnixMillis, reason: String) -> Option<Verdict> {
        if self.attempts >= ATTEMPTS_MAX {
            return self.fail(now, reason);
        }
        self.phase = Phase::Apply { at: now + self.patience.retry };
        None
    }

    fn fail(&mut self, now: UnixMillis, reason: String) -> Option<Verdict> {
        self.lost_at = None;
        self.phase = match self.goal {
            Goal::Sleep => Phase::Apply { at: now + self.patience.slow_retry },
            Goal::Mine { .. } => Phase::GaveUp,
        };
        (!std::mem::replace(&mut self.failed, true)).then_some(Verdict::Failed(reason))
    }

    /// Watches an order that was shown once.
    fn watch(
        &mut self,
        now: UnixMillis,
        doubt: Option<UnixMillis>,
        reading: Result<&Reading, &FirmwareError>,
        expect: &Expectations,
    ) -> Option<Verdict> {
        let Some(instead) = self.contradiction(reading, expect) else {
            self.phase = Phase::Hold { doubt: None };
            return None;
        };
        let since = doubt.unwrap_or(now);
        if now.since(since) < self.patience_of_goal() {
            self.phase = Phase::Hold { doubt: Some(since) };
            return None;
        }
        let reason = format!("{} was shown, and now {instead}", self.name());
        let over = match (&self.band, reading) {
            (Some(band), Ok(reading)) => Expectations::is_over(reading, band),
            (Some(_) | None, _) => false,
        };
        // Too much power must end, by the same order again. A miner that fell silent or was put to
        // sleep by somebody else is not ours to wake: the rig machine decides.
        if self.goal == Goal::Sleep || over {
            self.attempts = 0;
            self.failed = false;
            self.phase = Phase::Apply { at: now };
            return Some(Verdict::Unconfirmed(reason));
        }
        self.fail(now, reason)
    }

    /// What speaks against an order that was shown; a weak hashboard alone does not.
    fn contradiction(
        &self,
        reading: Result<&Reading, &FirmwareError>,
        expect: &Expectations,
    ) -> Option<String> {
        let reading = match reading {
            Ok(reading) => reading,
            // A sleeping miner may well drop off the network; nothing it draws is at stake.
            Err(error) => match self.goal {
                Goal::Sleep => return None,
                Goal::Mine { .. } => return Some(error.to_string()),
            },
        };
        match self.goal {
            Goal::Sleep => expect.shows_sleep(reading).err(),
            Goal::Mine { .. } if expect.is_idle(reading) => {
                Some("it neither hashes nor draws power: stopped by itself or by somebody".into())
            }
            Goal::Mine { .. } => {
                let band = self.band.as_ref()?;
                Expectations::is_over(reading, band)
                    .then(|| expect.shows_mining(reading, band).err())
                    .flatten()
            }
        }
    }

    fn name(&self) -> String {
        match self.goal {
            Goal::Sleep => "sleep".into(),
            Goal::Mine { cap, .. } => format!("mining at {cap} or less"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::evidence::tests::{profile, reading};
    use super::*;

    const PATIENCE: Patience = Patience {
        sleep: Millis(20_000),
        mine: Millis(90_000),
        retry: Millis(5_000),
        slow_retry: Millis(60_000),
    };
    const MINE: Goal = Goal::Mine { cap: Watts(2_794), normal: true };

    fn at(seconds: i64) -> UnixMillis {
        UnixMillis(seconds * 1_000)
    }

    fn lost() -> FirmwareError {
        FirmwareError::Unreachable { address: "a".into(), why: "gone".into() }
    }

    struct Bench {
        order: Order,
        expect: Expectations,
    }

    impl Bench {
        fn new(goal: Goal) -> Self {
            Self { order: Order::new(goal, PATIENCE, at(0)), expect: Expectations::new(&profile()) }
        }

        fn send(&mut self, seconds: i64) -> Option<Verdict> {
            assert!(self.order.is_due(at(seconds)), "due at {seconds}: {:?}", self.order);
            let band = match self.order.goal() {
                Goal::Sleep => None,
                Goal::Mine { cap, .. } => Some(self.expect.mining(cap, None)),
            };
            self.order.sent(at(seconds), Ok(band))
        }

        fn see(&mut self, seconds: i64, watts: u64, tera: u64) -> Option<Verdict> {
            self.order.seen(at(seconds), Ok(&reading(watts, tera)), &self.expect)
        }
    }

    #[test]
    fn an_order_is_done_when_the_reading_shows_it_and_only_then() {
        let mut bench = Bench::new(Goal::Sleep);
        assert_eq!(bench.send(0), None);
        assert_eq!(bench.see(5, 2_700, 120), None);
        assert_eq!(bench.see(10, 30, 0), Some(Verdict::Confirmed));
        assert_eq!(bench.see(15, 30, 0), None, "said once");
        assert!(bench.order.holds());
    }

    #[test]
    fn a_lie_is_sent_again_and_then_called_one() {
        let mut bench = Bench::new(MINE);
        for attempt in 1..=ATTEMPTS_MAX {
            let start = i64::from(attempt) * 100;
            assert_eq!(bench.send(start), None);
            assert_eq!(bench.see(start + 80, 20, 0), None);
            match (bench.see(start + 90, 20, 0), attempt < ATTEMPTS_MAX) {
                (Some(Verdict::Unconfirmed(_)), true) | (Some(Verdict::Failed(_)), false) => {}
                (other, _) => panic!("attempt {attempt}: {other:?}"),
            }
        }
        assert!(!bench.order.is_due(at(1_000_000)), "mining is given up");
    }

    #[test]
    fn sleep_is_never_given_up() {
        let mut bench = Bench::new(Goal::Sleep);
        let mut verdicts = Vec::new();
        for second in 0..1_000 {
            if bench.order.is_due(at(second)) {
                verdicts.extend(bench.send(second));
            }
            verdicts.extend(bench.see(second, 2_794, 121));
        }
        let failed = verdicts.iter().filter(|v| matches!(v, Verdict::Failed(_))).count();
        assert_eq!(failed, 1, "{verdicts:?}");
        assert!(bench.order.attempts() > ATTEMPTS_MAX);
        assert_eq!(bench.see(1_001, 20, 0), Some(Verdict::Confirmed));
    }

    #[test]
    fn a_miner_that_cannot_be_reached_is_tried_until_patience_ends() {
        let mut bench = Bench::new(MINE);
        assert_eq!(bench.order.sent(at(0), Err(lost())), None);
        assert!(!bench.order.is_due(at(4)));
        assert_eq!(bench.order.sent(at(50), Err(lost())), None);
        assert!(matches!(bench.order.sent(at(90), Err(lost())), Some(Verdict::Failed(_))));
    }

    #[test]
    fn a_wrong_password_fails_at_once() {
        let mut bench = Bench::new(MINE);
        let error = FirmwareError::AuthFailed { address: "a".into(), why: "401".into() };
        assert!(matches!(bench.order.sent(at(0), Err(error)), Some(Verdict::Failed(_))));
    }

    #[test]
    fn a_sleeper_that_wakes_by_itself_is_put_to_sleep_again() {
        let mut bench = Bench::new(Goal::Sleep);
        bench.send(0);
        bench.see(1, 20, 0);
        assert_eq!(bench.see(10, 900, 30), None);
        assert_eq!(bench.see(20, 30, 0), None, "a blip is forgiven");
        assert_eq!(bench.see(30, 900, 30), None);
        assert!(matches!(bench.see(50, 2_700, 120), Some(Verdict::Unconfirmed(_))));
        assert!(bench.order.is_due(at(50)));
    }

    #[test]
    fn a_miner_put_to_sleep_by_somebody_else_is_reported_not_woken() {
        let mut bench = Bench::new(MINE);
        bench.send(0);
        assert_eq!(bench.see(60, 2_700, 120), Some(Verdict::Confirmed));
        assert_eq!(bench.see(70, 1_800, 80), None, "a lost hashboard is no end");
        assert_eq!(bench.see(100, 20, 0), None);
        assert!(matches!(bench.see(190, 20, 0), Some(Verdict::Failed(_))));
        assert!(!bench.order.is_due(at(10_000)));
    }

    #[test]
    fn a_miner_that_creeps_above_its_cap_is_stepped_down_again() {
        let mut bench = Bench::new(Goal::Mine { cap: Watts(1_384), normal: false });
        bench.send(0);
        assert_eq!(bench.see(60, 1_384, 65), Some(Verdict::Confirmed));
        assert_eq!(bench.see(100, 2_794, 121), None);
        assert!(matches!(bench.see(190, 2_794, 121), Some(Verdict::Unconfirmed(_))));
        assert!(bench.order.is_due(at(190)));
    }

    proptest! {
        /// Whatever happens: one confirmation and no more failures than holds, and no panic.
        #[test]
        fn any_course_of_events_is_survived(
            mine in any::<bool>(),
            steps in prop::collection::vec((0i64..40, 0u8..6, 0u64..3_200, 0u64..130), 0..200),
        ) {
            let mut bench = Bench::new(if mine { MINE } else { Goal::Sleep });
            let (mut now, mut confirmed) = (0, 0);
            for (passed, what, watts, tera) in steps {
                now += passed;
                let verdict = match what {
                    0..=2 if bench.order.is_due(at(now)) => match what {
                        0 => bench.order.sent(at(now), Err(lost())),
                        1 => bench.order.sent(at(now), Err(FirmwareError::Refused {
                            what: "x".into(), reason: "busy".into(),
                        })),
                        _ => bench.send(now),
                    },
                    3 => bench.order.seen(at(now), Err(&lost()), &bench.expect),
                    _ => bench.see(now, watts, tera),
                };
                confirmed += i32::from(verdict == Some(Verdict::Confirmed));
                prop_assert!(confirmed <= 1);
            }
        }
    }
}
