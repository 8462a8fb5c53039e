//! The task that owns one rig machine.

use std::time::{Duration, Instant};

use farm_core::rig::{Reading, RigEffect, RigEvent};
use farm_core::{Rig, RigSettings};
use roadbed_protocol::{
    Ack, AckStatus, AgentId, EventKind, JobCounters, Millis, PowerSource, RigId, RigState,
    StateReport, TelemetrySample, UnixMillis, Workload,
};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::meter::{Meter, MeteredSpan};
use super::telemetry::SampleBuffer;
use super::wind_down::wind_down;
use super::{AgentError, memory};
use crate::clock::FarmClock;
use crate::config::{AgentConfig, RigConfig};
use crate::driver::{DriverEvent, Observation, RigDriver};
use crate::journal::{Entry, Journal};
use crate::link::{LinkHandle, RigOrder};

/// A state report at least this often, in farm time, for a controller that lost its own memory.
const REPORT_EVERY: Millis = Millis::from_mins(5);
/// Looks at the driver in one telemetry interval, so that its mean is one.
const LOOKS_PER_SAMPLE: u32 = 4;
/// Looks are no further apart than this on the wall: heat does not wait for telemetry.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// And no closer than this: a look copies a few numbers, and an accelerated clock must not spin.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// On an accelerated clock no deadline is shorter than this on the wall: loading a model on a software adapter that
/// shares two cores with a farm takes that long.
const PATIENCE_MIN: Duration = Duration::from_secs(30);

/// The order whose fulfilment is still to be told.
struct OpenOrder {
    envelope: String,
    generation: u64,
}

/// The shell of one rig machine.
pub(super) struct RigTask {
    id: RigId,
    agent: AgentId,
    boot: String,
    clock: FarmClock,
    look_every: Duration,
    rig: Rig,
    driver: Box<dyn RigDriver>,
    journal: Journal,
    link: LinkHandle,
    up: watch::Receiver<bool>,
    meter: Meter,
    samples: SampleBuffer,
    seen: Observation,
    /// Work done before this start.
    jobs_before: JobCounters,
    report_seq: u64,
    reported_at: UnixMillis,
    open_order: Option<OpenOrder>,
    /// Envelope of the order being handled.
    envelope: Option<String>,
}

impl RigTask {
    pub(super) async fn new(
        config: RigConfig,
        agent: &AgentConfig,
        driver: Box<dyn RigDriver>,
        journal: Journal,
        link: LinkHandle,
        boot: &str,
    ) -> Result<Self, AgentError> {
        let now = agent.clock.now();
        let memory = memory::load(&journal, &config.id).await?;
        let jobs_before = memory::load_jobs(&journal, &config.id).await?;
        let settings = RigSettings::from_profile(&config.profile)
            .no_faster_than(agent.clock.farm_span(PATIENCE_MIN));
        let interval = agent.clock.wall_duration(agent.telemetry_interval);
        Ok(Self {
            rig: Rig::restore(config.id.clone(), settings, memory, now),
            id: config.id,
            agent: agent.agent.clone(),
            boot: boot.to_owned(),
            clock: agent.clock,
            look_every: (interval / LOOKS_PER_SAMPLE).clamp(LOOK_MIN, LOOK_MAX),
            driver,
            journal,
            up: link.up(),
            link,
            meter: Meter::new(agent.telemetry_interval),
            samples: SampleBuffer::new(Instant::now()),
            seen: Observation::default(),
            jobs_before,
            report_seq: 0,
            reported_at: now,
            open_order: None,
            envelope: None,
        })
    }

    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<RigOrder>,
        mut events: mpsc::Receiver<DriverEvent>,
        shutdown: CancellationToken,
    ) {
        let mut looks = tokio::time::interval(self.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut driver_lives = true;
        self.handle(RigEvent::Tick).await;
        self.report();
        loop {
            let (clock, wake) = (self.clock, self.rig.wake_at());
            tokio::select! {
                () = shutdown.cancelled() => break,
                told = events.recv(), if driver_lives => match told {
                    Some(event) => self.driver_says(event).await,
                    None => {
                        driver_lives = false;
                        self.handle(RigEvent::Failed { reason: "the driver ended".into() }).await;
                    }
                },
                Some(order) = orders.recv() => self.obey(order).await,
                Ok(()) = self.up.changed() => {
                    let up = *self.up.borrow_and_update();
                    self.handle(if up { RigEvent::LinkUp } else { RigEvent::LinkDown }).await;
                }
                () = clock.sleep_until(wake.unwrap_or_default()), if wake.is_some() => {
                    self.handle(RigEvent::Tick).await;
                }
                _ = looks.tick() => self.look().await,
            }
        }
        wind_down(&self.rig, self.driver.as_mut(), &mut events).await;
        self.finish().await;
    }

    async fn driver_says(&mut self, event: DriverEvent) {
        let event = match event {
            DriverEvent::Probed => RigEvent::Probed,
            DriverEvent::ProbeFailed { reason } => RigEvent::ProbeFailed { reason },
            DriverEvent::Started { workload } => RigEvent::Started { workload },
            DriverEvent::HandedOver { workload } => RigEvent::HandedOver { workload },
            DriverEvent::Failed { reason } => RigEvent::Failed { reason },
            DriverEvent::Drained => RigEvent::Drained,
            DriverEvent::Stopped => RigEvent::Stopped,
            DriverEvent::Trip(cause) => RigEvent::TripSignal(cause),
            // The driver tries again by itself and says so when it gives up; the doubt is kept for people.
            DriverEvent::Unconfirmed { reason } => {
                return self.record(EventKind::Unconfirmed, reason).await;
            }
            DriverEvent::CallbackRefused { block_hash, status, items, reason } => {
                let kind = EventKind::CallbackRefused { block_hash, status, items };
                return self.record(kind, format!("the Network Node answers {reason}")).await;
            }
            DriverEvent::ArtifactsDelivered { block_hash, nonces } => {
                let reason = format!("{} artifacts delivered", nonces.len());
                return self
                    .record(EventKind::ArtifactsDelivered { block_hash, nonces }, reason)
                    .await;
            }
        };
        // A look first: what the event says is judged by what is measured now, and energy is split where work changed.
        self.look().await;
        self.handle(event).await;
        self.look().await;
    }

    async fn obey(&mut self, order: RigOrder) {
        match order {
            RigOrder::Assigned { envelope, assignment } => {
                self.envelope = Some(envelope);
                self.handle(RigEvent::Assigned(assignment)).await;
            }
            RigOrder::ResetTrip { envelope, operator } => {
                self.envelope = Some(envelope);
                self.look().await;
                self.handle(RigEvent::OperatorReset { operator }).await;
            }
            RigOrder::Sync { envelope } => {
                self.report();
                self.answer(envelope, None, AckStatus::Done, "state sent".into());
            }
        }
        self.envelope = None;
    }

    /// Feeds the machine and carries out what it says.
    async fn handle(&mut self, event: RigEvent) {
        for effect in self.rig.handle(self.clock.now(), event) {
            self.carry_out(effect).await;
        }
        self.tell_if_reached();
    }

    async fn carry_out(&mut self, effect: RigEffect) {
        match effect {
            RigEffect::Probe => self.driver.probe(),
            RigEffect::Start(workload) => self.driver.start(workload),
            RigEffect::HandOver { from: _, to } => self.driver.hand_over(to),
            RigEffect::BeginDrain => self.driver.begin_drain(),
            RigEffect::CancelDrain => self.driver.cancel_drain(),
            RigEffect::Stop { force } => self.driver.stop(force),
            RigEffect::HoldFloor => self.driver.hold_floor(),
            RigEffect::CutPower => self.driver.cut_power(),
            RigEffect::Accept { generation } => {
                if let Some(envelope) = self.envelope.clone() {
                    let reason = self.rig.target().map_or_else(String::new, ToString::to_string);
                    self.answer(envelope.clone(), Some(generation), AckStatus::Accepted, reason);
                    self.open_order = Some(OpenOrder { envelope, generation });
                }
            }
            RigEffect::Refuse { generation, reason } => {
                tracing::warn!(rig = %self.id, generation, "assignment refused: {reason}");
                self.answer_now(Some(generation), AckStatus::Refused, reason);
            }
            RigEffect::ResetDone => {
                self.answer_now(None, AckStatus::Done, "the safety latch is open".into());
            }
            RigEffect::ResetRefused { reason } => {
                self.answer_now(None, AckStatus::Refused, reason);
            }
            RigEffect::Persist(rig_memory) => {
                if let Err(error) = memory::store(&self.journal, &self.id, rig_memory).await {
                    // Obeyed all the same: a rig with a broken disk must still be able to shed its load.
                    tracing::error!(rig = %self.id, "the target is not stored: {error}");
                }
            }
            RigEffect::Report => self.report(),
            RigEffect::Record { kind, reason } => self.record(kind, reason).await,
            RigEffect::Ignored { state, event } => {
                tracing::debug!(rig = %self.id, %state, event, "event ignored");
            }
        }
    }

    fn answer_now(&self, generation: Option<u64>, status: AckStatus, reason: String) {
        if let Some(envelope) = self.envelope.clone() {
            self.answer(envelope, generation, status, reason);
        }
    }

    fn answer(&self, envelope: String, generation: Option<u64>, status: AckStatus, reason: String) {
        self.link.ack(Ack { rig: self.id.clone(), envelope, generation, status, reason });
    }

    /// Answers the open order once the target is the state.
    fn tell_if_reached(&mut self) {
        if !is_reached(&self.rig) {
            return;
        }
        if let Some(order) =
            self.open_order.take_if(|order| order.generation == self.rig.generation())
        {
            let reason = self.rig.state().to_string();
            self.answer(order.envelope, Some(order.generation), AckStatus::Done, reason);
        }
    }

    /// Looks at the sensors: the machine judges, the meter sums.
    async fn look(&mut self) {
        let now = self.clock.now();
        self.seen = self.driver.observe();
        let running = self.rig.workload().cloned();
        if let Some(span) = self.meter.observe(now, self.seen.power, running.as_ref()) {
            self.sample(span);
        }
        let reading = measured(&self.seen);
        if reading != Reading::default() {
            self.handle(RigEvent::Measured(reading)).await;
        }
        if now.since(self.reported_at) >= REPORT_EVERY {
            self.report();
        }
        let heard = *self.up.borrow();
        if let Some(row) = self.samples.due(Instant::now(), heard) {
            self.write_row(row).await;
        }
    }

    fn sample(&mut self, span: MeteredSpan) {
        self.samples.push(TelemetrySample {
            at: span.at,
            span: span.span,
            power: span.power,
            workload: span.workload,
            state: self.rig.state(),
            hashrate: self.seen.hashrate,
            temperature: self.seen.temperature,
            jobs: self.jobs(),
        });
    }

    async fn write_row(&mut self, row: Vec<TelemetrySample>) {
        let stored = self.journal.append(&self.id, Entry::Telemetry(row.clone())).await;
        if let Err(error) = stored {
            tracing::error!(rig = %self.id, "telemetry is not journalled: {error}");
            self.samples.put_back(row);
            return;
        }
        if let Err(error) = memory::store_jobs(&self.journal, &self.id, &self.jobs()).await {
            tracing::error!(rig = %self.id, "totals are not stored: {error}");
        }
    }

    fn jobs(&self) -> JobCounters {
        self.jobs_before.plus(&self.seen.jobs)
    }

    async fn record(&mut self, kind: EventKind, reason: String) {
        tracing::info!(rig = %self.id, event = ?kind, "{reason}");
        let entry = Entry::Event { at: self.clock.now(), kind, reason };
        if let Err(error) = self.journal.append(&self.id, entry).await {
            tracing::error!(rig = %self.id, "an event is not journalled: {error}");
        }
    }

    fn report(&mut self) {
        let now = self.clock.now();
        self.report_seq += 1;
        self.reported_at = now;
        self.link.state(StateReport {
            rig: self.id.clone(),
            agent: self.agent.clone(),
            boot: self.boot.clone(),
            seq: self.report_seq,
            at: now,
            state: self.rig.state(),
            since: self.rig.since(),
            workload: self.rig.workload().cloned(),
            target: self.rig.target().cloned(),
            generation: self.rig.generation(),
            lease_until: self.rig.lease_until(),
            power: self.seen.power,
            hashrate: self.seen.hashrate,
            temperature: self.seen.temperature,
            jobs: self.jobs(),
            attempts: self.rig.attempts(),
            reason: self.rig.reason().to_owned(),
            engine: self.seen.engine.clone(),
            proof_rate: self.seen.proof_rates.first().cloned().map(Box::new),
            proof_rates: self.seen.proof_rates.clone(),
            proof: self.seen.proof.clone().map(Box::new),
            pools: self.seen.pools.clone(),
            hash_rates: self.seen.hash_rates.clone(),
        });
    }

    /// The last words: what was measured, what was done, where it stands.
    async fn finish(&mut self) {
        self.seen = self.driver.observe();
        let running = self.rig.workload().cloned();
        let now = self.clock.now();
        let last = self.meter.observe(now, self.seen.power, running.as_ref());
        for span in last.into_iter().chain(self.meter.close()) {
            self.sample(span);
        }
        if let Some(row) = self.samples.rest() {
            self.write_row(row).await;
        }
        self.report();
    }
}

/// What was measured; a profile's figure is a plan, not a measurement, and proves nothing about the hardware.
fn measured(seen: &Observation) -> Reading {
    Reading {
        power: seen
            .power
            .filter(|power| match power.source {
                PowerSource::Meter | PowerSource::Pdu | PowerSource::Firmware => true,
                PowerSource::Profile => false,
            })
            .map(|power| power.watts),
        temperature: seen.temperature,
        hashrate: seen.hashrate,
    }
}

/// True when the rig is where its target wants it.
fn is_reached(rig: &Rig) -> bool {
    match rig.target() {
        None => false,
        Some(Workload::Idle) => rig.state() == RigState::Idle,
        Some(Workload::Curtailed) => rig.state() == RigState::Curtailed,
        Some(active) => rig.state() == RigState::Running && rig.workload() == Some(active),
    }
}
