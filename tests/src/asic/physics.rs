//! The body of an emulated miner: wall power, hashrate and heat over farm time, whatever its firmware claims.
//!
//! An order changes where the power is *going*; the power itself ramps, hashing follows only when the chips have been
//! brought up, and the temperature follows the power. So a driver that believes an answer is found out by the watts.
//! All of it is a pure function of the orders and the times given.

use roadbed_protocol::{Millis, UnixMillis, Watts};

/// Farm seconds from full power to the floor when put to sleep. LuxOS's vendor claims under 5 s.
const FALL_SECONDS: f64 = 5.0;
/// Farm seconds a restart of the control board takes, during which nothing answers and nothing hashes.
const REBOOT_SECONDS: u64 = 90;
/// Share of a step's power above the floor that flows before the first chip hashes: boards, PSU and fans come first.
const POWER_BEFORE_HASHING: f64 = 0.25;
/// Time constants, farm seconds: of the temperature, and of the long averages a firmware shows beside the live value.
const HEAT_SECONDS: f64 = 90.0;
const AVERAGE_SECONDS: f64 = 300.0;
/// Air of the hall, and how far above it the boards sit at the highest step.
const AMBIENT_CELSIUS: f64 = 24.0;
const RISE_CELSIUS: f64 = 30.0;

/// One power step a miner can run at.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerStep {
    /// What the firmware calls it.
    pub name: String,
    /// Wall power when settled.
    pub power: Watts,
    /// Hashrate when settled, TH/s.
    pub terahash: f64,
    /// Whether the firmware has tuned it before; an untuned one starts a tuning run.
    pub tuned: bool,
}

/// What the miner is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Ramping towards its step.
    Starting,
    /// Settled at its step.
    Hashing,
    /// Ramping down towards the floor.
    Stopping,
    /// At the floor on purpose.
    Asleep,
    /// Control board restarting.
    Rebooting,
}

impl Activity {
    /// The word for it in the status document.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Hashing => "hashing",
            Self::Stopping => "stopping",
            Self::Asleep => "asleep",
            Self::Rebooting => "rebooting",
        }
    }
}

/// What instruments on the bench would show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// What the miner is doing.
    pub activity: Activity,
    /// Power at the wall.
    pub power: Watts,
    /// Live hashrate, TH/s.
    pub terahash: f64,
    /// Hashrate averaged over about five minutes, TH/s: it lies after every change.
    pub average_terahash: f64,
    /// Board temperature, °C.
    pub celsius: f64,
    /// Time since the control board started.
    pub uptime: Millis,
}

/// One miner's body.
#[derive(Debug, Clone)]
pub struct Physics {
    steps: Vec<PowerStep>,
    step: usize,
    floor: f64,
    wake_seconds: f64,
    awake: bool,
    down_until: Option<UnixMillis>,
    started: UnixMillis,
    updated: UnixMillis,
    watts: f64,
    average_terahash: f64,
    celsius: f64,
}

impl Physics {
    /// A miner that has been hashing at its highest step for long, or sleeping for long.
    ///
    /// `steps` must not be empty: the config edge sees to that.
    #[must_use]
    pub fn new(
        mut steps: Vec<PowerStep>,
        floor: Watts,
        wake: Millis,
        awake: bool,
        now: UnixMillis,
    ) -> Self {
        steps.sort_by_key(|step| step.power);
        let step = steps.len().saturating_sub(1);
        let mut body = Self {
            steps,
            step,
            floor: real(floor.0),
            wake_seconds: (real(wake.0) / 1_000.0).max(1.0),
            awake,
            down_until: None,
            started: now,
            updated: now,
            watts: real(floor.0),
            average_terahash: 0.0,
            celsius: AMBIENT_CELSIUS,
        };
        body.watts = body.goal();
        body.celsius = body.settled_celsius();
        body.average_terahash = body.terahash();
        body
    }

    /// Every step, by rising power.
    #[must_use]
    pub fn steps(&self) -> &[PowerStep] {
        &self.steps
    }

    /// The step chosen, which a sleeping miner will wake to.
    #[must_use]
    pub fn step(&self) -> &PowerStep {
        &self.steps[self.step]
    }

    /// Whether the miner is meant to hash.
    #[must_use]
    pub const fn is_awake(&self) -> bool {
        self.awake
    }

    /// Cuts the boards' power.
    pub fn sleep(&mut self, now: UnixMillis) {
        self.advance(now);
        self.awake = false;
    }

    /// Powers the boards and ramps to the chosen step.
    pub fn wake(&mut self, now: UnixMillis) {
        self.advance(now);
        self.awake = true;
    }

    /// Chooses a step by its place in [`Self::steps`]; an unknown place is ignored.
    pub fn choose_step(&mut self, index: usize, now: UnixMillis) {
        self.advance(now);
        if index < self.steps.len() {
            self.step = index;
        }
    }

    /// Restarts the control board. It keeps its step and whether it sleeps: LuxOS documents that curtailment persists,
    /// the recorded VNish settings say `remain_stopped_on_reboot`.
    pub fn reboot(&mut self, now: UnixMillis) {
        self.advance(now);
        self.down_until = Some(now + Millis::from_secs(REBOOT_SECONDS));
        self.watts = self.floor;
    }

    /// Whether the control board is up.
    pub fn is_up(&mut self, now: UnixMillis) -> bool {
        self.advance(now);
        self.down_until.is_none()
    }

    /// What instruments would show at `now`.
    pub fn read(&mut self, now: UnixMillis) -> Reading {
        self.advance(now);
        let settled = (self.watts - self.goal()).abs() < 1.0;
        let activity = match (self.down_until.is_some(), self.awake, settled) {
            (true, _, _) => Activity::Rebooting,
            (false, true, true) => Activity::Hashing,
            (false, true, false) => Activity::Starting,
            (false, false, true) => Activity::Asleep,
            (false, false, false) => Activity::Stopping,
        };
        Reading {
            activity,
            power: Watts(whole(self.watts * (1.0 - 0.004 * flicker(now)))),
            terahash: self.terahash() * (0.99 + 0.02 * flicker(now)),
            average_terahash: self.average_terahash,
            celsius: self.celsius,
            uptime: now.since(self.started),
        }
    }

    /// Brings the body to `now`. Times that do not move forward change nothing.
    fn advance(&mut self, now: UnixMillis) {
        if let Some(up) = self.down_until
            && now >= up
        {
            self.step_to(up);
            self.down_until = None;
            self.started = up;
        }
        self.step_to(now);
    }

    fn step_to(&mut self, now: UnixMillis) {
        let seconds = real(now.since(self.updated).0) / 1_000.0;
        if seconds <= 0.0 {
            return;
        }
        self.updated = now;
        let top = self.steps.last().map_or(0.0, |step| real(step.power.0));
        let goal = self.goal();
        let span = (top - self.floor).max(1.0);
        let pace = if goal < self.watts && !self.awake {
            span / FALL_SECONDS
        } else {
            span / self.wake_seconds
        };
        self.watts += (goal - self.watts).clamp(-pace * seconds, pace * seconds);
        let heat = 1.0 - (-seconds / HEAT_SECONDS).exp();
        self.celsius += (self.settled_celsius() - self.celsius) * heat;
        let memory = 1.0 - (-seconds / AVERAGE_SECONDS).exp();
        self.average_terahash += (self.terahash() - self.average_terahash) * memory;
    }

    /// Where the power is going.
    fn goal(&self) -> f64 {
        if self.awake && self.down_until.is_none() { real(self.step().power.0) } else { self.floor }
    }

    fn terahash(&self) -> f64 {
        if !self.awake || self.down_until.is_some() {
            return 0.0;
        }
        let step = self.step();
        let share = (self.watts - self.floor) / (real(step.power.0) - self.floor).max(1.0);
        let hashing = (share - POWER_BEFORE_HASHING) / (1.0 - POWER_BEFORE_HASHING);
        step.terahash * hashing.clamp(0.0, 1.0)
    }

    fn settled_celsius(&self) -> f64 {
        let top = self.steps.last().map_or(1.0, |step| real(step.power.0).max(1.0));
        AMBIENT_CELSIUS + RISE_CELSIUS * self.watts / top
    }
}

/// A number between 0 and 1 that changes every farm second and repeats for the same time, so that readings flicker as real
/// ones do and a run can be repeated.
fn flicker(now: UnixMillis) -> f64 {
    let second = u64::try_from(now.0.div_euclid(1_000)).unwrap_or(0);
    let mixed = second.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    real(mixed) / 65_535.0
}

#[expect(
    clippy::cast_precision_loss,
    reason = "watts and milliseconds of a run stay far below 2^52"
)]
const fn real(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and power is never negative"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miner(awake: bool) -> Physics {
        let step = |name: &str, watts, terahash| PowerStep {
            name: name.to_owned(),
            power: Watts(watts),
            terahash,
            tuned: true,
        };
        Physics::new(
            vec![step("high", 2_794, 121.8), step("low", 1_384, 65.0)],
            Watts(18),
            Millis::from_secs(60),
            awake,
            UnixMillis(0),
        )
    }

    #[test]
    fn power_falls_within_seconds_and_climbs_over_the_wake_time() {
        let mut body = miner(true);
        assert_eq!(body.read(UnixMillis(0)).activity, Activity::Hashing);
        body.sleep(UnixMillis(1_000));
        let falling = body.read(UnixMillis(3_000));
        assert_eq!(falling.activity, Activity::Stopping);
        assert!(falling.power > Watts(1_000) && falling.terahash < 0.001);
        let asleep = body.read(UnixMillis(7_000));
        assert_eq!((asleep.activity, asleep.power), (Activity::Asleep, Watts(18)));
        body.wake(UnixMillis(10_000));
        let halfway = body.read(UnixMillis(40_000));
        assert_eq!(halfway.activity, Activity::Starting);
        assert!(halfway.power > Watts(1_300) && halfway.power < Watts(1_500));
        assert!(halfway.terahash > 20.0 && halfway.terahash < 60.0);
        let up = body.read(UnixMillis(71_000));
        assert_eq!(up.activity, Activity::Hashing);
        assert!(up.power > Watts(2_770) && up.power <= Watts(2_794));
        assert!(up.average_terahash < up.terahash, "averages lag");
    }

    #[test]
    fn no_hash_before_the_boards_are_up() {
        let mut body = miner(false);
        body.wake(UnixMillis(0));
        let early = body.read(UnixMillis(12_000));
        assert!(early.power > Watts(400) && early.terahash == 0.0);
    }

    #[test]
    fn a_restart_keeps_sleep_and_step() {
        let mut body = miner(true);
        body.choose_step(0, UnixMillis(0));
        body.sleep(UnixMillis(0));
        body.reboot(UnixMillis(20_000));
        assert!(!body.is_up(UnixMillis(50_000)));
        assert_eq!(body.read(UnixMillis(50_000)).activity, Activity::Rebooting);
        assert!(body.is_up(UnixMillis(120_000)));
        assert_eq!(body.read(UnixMillis(130_000)).power, Watts(18));
        assert_eq!(body.step().name, "low");
        body.reboot(UnixMillis(200_000));
        body.wake(UnixMillis(300_000));
        let up = body.read(UnixMillis(400_000));
        assert!(up.power > Watts(1_370) && up.power <= Watts(1_384));
    }

    #[test]
    fn time_that_stands_or_runs_back_changes_nothing() {
        let mut body = miner(true);
        body.sleep(UnixMillis(10_000));
        let before = body.read(UnixMillis(11_000)).power;
        body.read(UnixMillis(5_000));
        assert_eq!(body.read(UnixMillis(11_000)).power, before);
    }

    #[test]
    fn steps_in_any_time_slices_end_alike() {
        let (mut fine, mut coarse) = (miner(false), miner(false));
        fine.wake(UnixMillis(0));
        coarse.wake(UnixMillis(0));
        for second in 0..=30 {
            fine.read(UnixMillis(second * 1_000));
        }
        assert_eq!(fine.read(UnixMillis(30_000)).power, coarse.read(UnixMillis(30_000)).power);
    }
}
