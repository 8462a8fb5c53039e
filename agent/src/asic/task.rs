//! The task of one rig: it alone talks to the miner, so that no two requests ever cross.
//!
//! Calls to the firmware are never cut short by a newer wish: a write whose answer was thrown away
//! has happened all the same, and on LuxOS its session would stay locked. Every call ends by its own
//! time-out, and then the newest wish is looked at.

use std::time::Duration;

use roadbed_protocol::{
    HashesPerSecond, JobCounters, Millis, PowerReading, PowerSource, RigId, RigProfile, UnixMillis,
    Watts,
};
use tokio::sync::watch;

use super::evidence::{Expectations, MiningBand};
use super::firmware::{Activity, Depth, Firmware, FirmwareError, Identity, Reading, ShareTotals};
use super::order::{Goal, Order, Patience, Verdict};
use super::{Answer, Wish, Wishes};
use crate::clock::FarmClock;
use crate::driver::{DriverEvent, DriverEvents, Observation};

/// Between two looks at a miner that does what it should: 10 to 15 s (specs, asic-control).
const POLL: Millis = Millis::from_secs(12);
/// Between two looks while an order is open.
const POLL_OPEN: Millis = Millis::from_secs(5);
/// Never faster than this on the wall, however fast the farm's clock runs: a miner's control board
/// is a small machine.
const POLL_WALL_MIN: Duration = Duration::from_millis(250);
const POLL_OPEN_WALL_MIN: Duration = Duration::from_millis(100);
/// Every so many looks is a full one.
const FULL_EVERY: u32 = 20;
/// Added to the model's times before a reading must show an order: two looks and some air.
const PATIENCE_SLACK: Millis = Millis::from_secs(30);
/// The same on the wall, for farm clocks so fast that a request takes minutes.
const PATIENCE_WALL_MIN: Duration = Duration::from_secs(2);
/// Between two tries at a miner that does not answer. A LuxOS session of another tool ends 60 s
/// after its last use.
const RETRY: Millis = Millis::from_secs(10);
/// Between two tries of an order to sleep that has failed already.
const SLOW_RETRY: Millis = Millis::from_mins(1);
/// A reading older than this is not shown any more.
const STALE: Millis = Millis::from_secs(60);
/// Allowance for a miner whose own figure for its normal step is a little above the model's.
const NORMAL_STEP_PERCENT: u64 = 103;

/// Which write this driver did last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Sleep,
    Wake,
}

pub struct Task<F> {
    rig: RigId,
    firmware: F,
    clock: FarmClock,
    expect: Expectations,
    patience: Patience,
    seen: watch::Sender<Observation>,
    events: DriverEvents,
    identity: Option<Identity>,
    order: Option<(Order, Answer)>,
    /// Number of the newest order taken.
    taken: u64,
    probes_answered: u64,
    must_answer_probe: bool,
    written: Option<Written>,
    activity: Activity,
    latest: Option<(UnixMillis, Reading)>,
    looks: u32,
    jobs: JobCounters,
    shares_before: Option<ShareTotals>,
    complaint: String,
}

impl<F: Firmware> Task<F> {
    pub fn new(
        rig: RigId,
        firmware: F,
        profile: &RigProfile,
        clock: FarmClock,
        seen: watch::Sender<Observation>,
        events: DriverEvents,
    ) -> Self {
        let at_least = |span: Millis, wall: Duration| span.max(clock.farm_span(wall));
        let patient = |seconds: u64| {
            let span = Millis(Millis::from_secs(seconds).0.saturating_add(PATIENCE_SLACK.0));
            at_least(span, PATIENCE_WALL_MIN)
        };
        let patience = Patience {
            sleep: patient(profile.stop_seconds),
            mine: patient(profile.start_seconds),
            retry: at_least(RETRY, POLL_OPEN_WALL_MIN),
            slow_retry: at_least(SLOW_RETRY, POLL_WALL_MIN),
        };
        Self {
            rig,
            firmware,
            clock,
            expect: Expectations::new(profile),
            patience,
            seen,
            events,
            identity: None,
            order: None,
            taken: 0,
            probes_answered: 0,
            must_answer_probe: false,
            written: None,
            activity: Activity::Unknown,
            latest: None,
            looks: 0,
            jobs: JobCounters::default(),
            shares_before: None,
            complaint: String::new(),
        }
    }

    /// Runs until the driver is dropped.
    pub async fn run(mut self, mut wishes: watch::Receiver<Wishes>) {
        loop {
            if wishes.has_changed().is_err() {
                return;
            }
            let wanted = wishes.borrow_and_update().clone();
            self.take(wanted);
            let verdicts = self.turn().await;
            for event in verdicts {
                // Waits when the runtime is behind: an event is never dropped.
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause()) => {}
                changed = wishes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Adopts an order that is new.
    fn take(&mut self, wanted: Wishes) {
        if self.probes_answered < wanted.probes {
            self.probes_answered = wanted.probes;
            self.must_answer_probe = true;
        }
        let Some(Wish { goal, answer, number }) = wanted.order else { return };
        if self.taken < number {
            self.taken = number;
            self.order = Some((Order::new(goal, self.patience, self.clock.now()), answer));
        }
    }

    fn pause(&self) -> Duration {
        let open = self.order.as_ref().is_some_and(|(order, _)| order.is_open());
        let (span, least) =
            if open { (POLL_OPEN, POLL_OPEN_WALL_MIN) } else { (POLL, POLL_WALL_MIN) };
        self.clock.wall_duration(span).max(least)
    }

    /// Sends what is due, looks, and says what came of it.
    async fn turn(&mut self) -> Vec<DriverEvent> {
        let mut events = Vec::new();
        if self.order.as_ref().is_some_and(|(order, _)| order.is_due(self.clock.now())) {
            let outcome = self.apply().await;
            let now = self.clock.now();
            self.hear(|order, _| order.sent(now, outcome), &mut events);
        }
        let depth = if self.looks.is_multiple_of(FULL_EVERY) { Depth::Full } else { Depth::Narrow };
        let reading = self.look(depth).await;
        let now = self.clock.now();
        self.publish(now, &reading);
        if std::mem::take(&mut self.must_answer_probe) {
            events.push(match &reading {
                Ok(_) => DriverEvent::Probed,
                Err(error) => DriverEvent::ProbeFailed { reason: error.to_string() },
            });
        }
        self.hear(|order, expect| order.seen(now, reading.as_ref(), expect), &mut events);
        events
    }

    /// Turns the verdict of an order into an event.
    fn hear(
        &mut self,
        judge: impl FnOnce(&mut Order, &Expectations) -> Option<Verdict>,
        events: &mut Vec<DriverEvent>,
    ) {
        let Some((order, answer)) = &mut self.order else { return };
        match judge(order, &self.expect) {
            None => {}
            Some(Verdict::Confirmed) => match answer {
                Answer::Started(workload) => {
                    events.push(DriverEvent::Started { workload: workload.clone() });
                }
                Answer::HandedOver(workload) => {
                    events.push(DriverEvent::HandedOver { workload: workload.clone() });
                }
                Answer::Stopped => events.push(DriverEvent::Stopped),
                Answer::Nothing => {}
            },
            Some(Verdict::Unconfirmed(reason)) => {
                tracing::warn!(rig = %self.rig, "{reason}");
                events.push(DriverEvent::Unconfirmed { reason });
            }
            Some(Verdict::Failed(reason)) => {
                tracing::warn!(rig = %self.rig, "{reason}");
                events.push(DriverEvent::Failed { reason });
            }
        }
    }

    /// Sends the order to the firmware.
    async fn apply(&mut self) -> Result<Option<MiningBand>, FirmwareError> {
        let Some((order, _)) = &self.order else { return Ok(None) };
        let (goal, again) = (order.goal(), order.attempts() > 0);
        match goal {
            Goal::Sleep => {
                self.identify().await?;
                // No look first: the write is what counts, and a slow miner answers slowly. One that
                // was seen asleep a moment ago is left alone, unless we woke it since: then it may
                // only look asleep.
                let ours = self.written == Some(Written::Wake) || again;
                if ours || !self.was_seen_asleep() {
                    self.written = Some(Written::Sleep);
                    self.firmware.sleep().await?;
                }
                Ok(None)
            }
            Goal::Mine { cap, normal } => {
                let reading = self.look(Depth::Full).await.map_err(not_ready)?;
                let asleep = self.expect.shows_sleep(&reading).is_ok();
                self.apply_mining(cap, normal, asleep, again).await.map(Some)
            }
        }
    }

    fn was_seen_asleep(&self) -> bool {
        let fresh = self.latest.as_ref().filter(|(at, _)| !self.is_stale(*at));
        self.activity == Activity::Sleeping
            && fresh.is_some_and(|(_, reading)| self.expect.shows_sleep(reading).is_ok())
    }

    fn is_stale(&self, at: UnixMillis) -> bool {
        self.clock.now().since(at) > STALE.max(self.clock.farm_span(PATIENCE_WALL_MIN))
    }

    /// Sets the step first, so that a sleeping miner never wakes to more power than it may draw.
    async fn apply_mining(
        &mut self,
        cap: Watts,
        normal: bool,
        asleep: bool,
        again: bool,
    ) -> Result<MiningBand, FirmwareError> {
        let limit =
            if normal { Watts(cap.0.saturating_mul(NORMAL_STEP_PERCENT) / 100) } else { cap };
        let mut step = self.firmware.set_step(limit, asleep).await;
        let wake = asleep || again || self.written == Some(Written::Sleep);
        if wake {
            if asleep && self.written.is_none() && self.activity == Activity::Sleeping {
                tracing::info!(rig = %self.rig, "wakes a miner that somebody else put to sleep: it is assigned");
            }
            match (&step, normal) {
                // Some versions take a step only while they run. Waking one on trust is right only for its normal
                // power: with a lower cap it would draw more than it may until it takes the step.
                (Ok(_), _)
                | (Err(FirmwareError::Refused { .. } | FirmwareError::Unsupported { .. }), true) => {
                    self.written = Some(Written::Wake);
                    self.wake_up(asleep).await?;
                }
                (Err(_), _) => {}
            }
            if normal && matches!(step, Err(FirmwareError::Refused { .. })) {
                step = self.firmware.set_step(limit, false).await;
            }
        }
        match step {
            Ok(step) => Ok(self.expect.mining(cap, Some(&step))),
            // Without usable steps a miner at its normal power is as it should be; the band tells.
            Err(FirmwareError::Unsupported { why, .. }) if normal => {
                tracing::debug!(rig = %self.rig, "keeps its own step: {why}");
                Ok(self.expect.mining(cap, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Wakes it; a miner that runs already may refuse that, and the readings will tell.
    async fn wake_up(&mut self, asleep: bool) -> Result<(), FirmwareError> {
        match self.firmware.wake().await {
            Err(FirmwareError::Refused { reason, .. }) if !asleep => {
                tracing::debug!(rig = %self.rig, "wake refused while awake: {reason}");
                Ok(())
            }
            other => other,
        }
    }

    async fn identify(&mut self) -> Result<(), FirmwareError> {
        if self.identity.is_none() {
            let identity = self.firmware.identify().await?;
            tracing::info!(rig = %self.rig, "answers as {identity}");
            self.identity = Some(identity);
        }
        Ok(())
    }

    async fn look(&mut self, depth: Depth) -> Result<Reading, FirmwareError> {
        self.identify().await?;
        let reading = self.expect.plausible(self.firmware.read(depth).await?);
        self.looks = self.looks.wrapping_add(1);
        if reading.activity != Activity::Unknown {
            self.activity = reading.activity;
        }
        Ok(reading)
    }

    fn publish(&mut self, now: UnixMillis, reading: &Result<Reading, FirmwareError>) {
        match reading {
            Ok(reading) => {
                self.latest = Some((now, reading.clone()));
                self.complaint.clear();
                self.count(reading.shares);
                let engine = self.identity.as_ref().map(ToString::to_string).unwrap_or_default();
                self.seen.send_replace(Observation {
                    power: reading
                        .watts
                        .map(|watts| PowerReading { watts, source: PowerSource::Firmware }),
                    hashrate: reading.hashrate,
                    temperature: reading.temperature,
                    jobs: self.jobs,
                    engine,
                    proof_rates: vec![],
                    proof: None,
                    pools: Vec::new(),
                    hash_rates: Vec::new(),
                });
            }
            Err(error) => {
                let complaint = error.to_string();
                if complaint != self.complaint {
                    tracing::warn!(rig = %self.rig, "{complaint}");
                    self.complaint = complaint;
                    // It may come back as another firmware.
                    self.looks = 0;
                }
                if self.latest.as_ref().is_none_or(|(at, _)| self.is_stale(*at)) {
                    self.seen.send_modify(|seen| {
                        seen.power = None;
                        seen.hashrate = None::<HashesPerSecond>;
                        seen.temperature = None;
                    });
                }
            }
        }
    }

    /// Adds what the firmware counted since the last look; its counters restart with it.
    fn count(&mut self, shares: Option<ShareTotals>) {
        let Some(now) = shares else { return };
        if let Some(before) = self.shares_before.replace(now) {
            let part = |now: u64, before: u64| if now >= before { now - before } else { now };
            let accepted = part(now.accepted, before.accepted);
            let rejected = part(now.rejected, before.rejected);
            let stale = part(now.stale, before.stale);
            self.jobs.shares_accepted += accepted;
            // Both firmwares count stale shares apart from rejected ones.
            self.jobs.shares_rejected += rejected + stale;
            self.jobs.shares_stale += stale;
            self.jobs.shares_submitted += accepted + rejected + stale;
        }
    }
}

/// A refused *read* is a miner that is not ready: nothing was ordered yet, so nothing was refused.
fn not_ready(error: FirmwareError) -> FirmwareError {
    match error {
        FirmwareError::Refused { what, reason } => {
            FirmwareError::Garbled { what, why: format!("refused: {reason}") }
        }
        other @ (FirmwareError::Unreachable { .. }
        | FirmwareError::AuthFailed { .. }
        | FirmwareError::SessionHeld { .. }
        | FirmwareError::Unsupported { .. }
        | FirmwareError::Garbled { .. }) => other,
    }
}
