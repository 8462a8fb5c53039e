//! An agent in the simulation: the real rig machines, a durable journal, and volatile everything else.

use std::collections::BTreeMap;

use farm_core::rig::{Rig, RigMemory};
use roadbed_protocol::{
    AgentId, EventKind, JobCounters, PowerReading, PowerSource, RigEventReport, RigId, StateReport,
    TelemetryBatch, TelemetrySample, UnixMillis, Workload,
};

use super::hardware::Hardware;

/// Rows sent again at a time.
pub const RESEND_ROWS: usize = 20;

/// One journal row.
#[derive(Debug, Clone)]
pub enum Row {
    /// Samples.
    Samples(TelemetryBatch),
    /// An event.
    Event(RigEventReport),
}

impl Row {
    /// When it was written.
    #[must_use]
    pub fn at(&self) -> UnixMillis {
        match self {
            Self::Samples(batch) => batch.samples.last().map_or(UnixMillis(0), |last| last.at),
            Self::Event(event) => event.at,
        }
    }
}

/// An agent with what survives its crash and what does not.
#[derive(Debug)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Rows not yet acknowledged, by number: on disk.
    pub outbox: BTreeMap<u64, Row>,
    /// Number of the next row: on disk.
    pub next_row: u64,
    /// Counts its starts: names the boot.
    pub boot: u64,
    /// Down since a crash.
    pub is_down: bool,
    /// Number of the latest state report of this boot.
    pub report_seq: u64,
}

/// A rig of an agent.
#[derive(Debug)]
pub struct SimRig {
    /// Its agent, by index.
    pub agent: usize,
    /// The real machine.
    pub machine: Rig,
    /// The metal.
    pub hardware: Hardware,
    /// What the machine asked to store: on disk.
    pub stored: RigMemory,
    /// Number of the latest order to the driver; answers to earlier ones are dropped.
    pub order: u64,
    /// When its next wake was asked for.
    pub wake: Option<UnixMillis>,
    /// Round and nonce of the next artifact.
    pub artifact: (u64, u32),
    /// Artifacts delivered in truth.
    pub delivered: u64,
    /// Time of the last sample.
    pub sampled_at: UnixMillis,
}

impl Agent {
    /// An agent that runs for the first time.
    #[must_use]
    pub fn new(id: AgentId) -> Self {
        Self { id, outbox: BTreeMap::new(), next_row: 1, boot: 1, is_down: false, report_seq: 0 }
    }

    /// Writes an event to the journal.
    pub fn journal_event(
        &mut self,
        rig: &RigId,
        at: UnixMillis,
        kind: EventKind,
        reason: String,
    ) -> Row {
        let seq = self.next_row;
        let (agent, journal) = (self.id.clone(), "j".to_owned());
        let row =
            Row::Event(RigEventReport { rig: rig.clone(), agent, journal, seq, at, kind, reason });
        self.write(row)
    }

    /// Writes a sample to the journal.
    pub fn journal_sample(&mut self, rig: &RigId, sample: TelemetrySample) -> Row {
        let seq = self.next_row;
        let (agent, journal) = (self.id.clone(), "j".to_owned());
        let samples = vec![sample];
        self.write(Row::Samples(TelemetryBatch { rig: rig.clone(), agent, journal, seq, samples }))
    }

    /// The controller has everything up to `seq`.
    pub fn forget(&mut self, seq: u64) {
        self.outbox = self.outbox.split_off(&(seq + 1));
    }

    /// The full state of one of its rigs.
    pub fn report(&mut self, rig: &SimRig, now: UnixMillis) -> StateReport {
        self.report_seq += 1;
        let machine = &rig.machine;
        let reading = rig.hardware.read(now);
        StateReport {
            rig: machine.id().clone(),
            agent: self.id.clone(),
            boot: format!("boot-{}", self.boot),
            seq: self.report_seq,
            at: now,
            state: machine.state(),
            since: machine.since(),
            workload: machine.workload().cloned(),
            target: machine.target().cloned(),
            generation: machine.generation(),
            lease_until: machine.lease_until(),
            power: reading.power.map(|watts| PowerReading { watts, source: PowerSource::Meter }),
            hashrate: reading.hashrate,
            temperature: reading.temperature,
            jobs: JobCounters::default(),
            attempts: machine.attempts(),
            reason: machine.reason().into(),
            engine: "simulated".into(),
            proof_rate: None,
            proof_rates: vec![],
            proof: None,
            pools: Vec::new(),
            hash_rates: Vec::new(),
        }
    }

    fn write(&mut self, row: Row) -> Row {
        self.outbox.insert(self.next_row, row.clone());
        self.next_row += 1;
        row
    }
}

impl SimRig {
    /// A sample of the time since the last one.
    pub fn sample(&mut self, now: UnixMillis) -> TelemetrySample {
        let span = now.since(self.sampled_at);
        self.sampled_at = now;
        let reading = self.hardware.read(now);
        TelemetrySample {
            at: now,
            span,
            power: PowerReading {
                watts: reading.power.unwrap_or_default(),
                source: PowerSource::Meter,
            },
            workload: self.machine.workload().cloned(),
            state: self.machine.state(),
            hashrate: reading.hashrate,
            temperature: reading.temperature,
            jobs: JobCounters::default(),
        }
    }

    /// Artifacts delivered since the last sample, told again now and then, as a restart does.
    pub fn prove(&mut self, again: bool) -> Option<EventKind> {
        let proves = matches!(self.hardware.process, Some(Workload::Prove { .. }));
        if !proves {
            self.artifact = (self.artifact.0 + u64::from(self.artifact.1 > 0), 0);
            return None;
        }
        let (round, next) = self.artifact;
        let from = if again { next.saturating_sub(3) } else { next };
        self.delivered += 5;
        self.artifact.1 += 5;
        Some(EventKind::ArtifactsDelivered {
            block_hash: format!("{round:064x}"),
            nonces: (from..next + 5).collect(),
        })
    }
}
