//! What an agent says about its rigs: claims, each with its time, sequence number and boot id.
//!
//! State is retained and repeated; telemetry and events are journalled with a sequence number per agent until the
//! controller's application acknowledgement, so every one of them may arrive twice and late, and none may count twice.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::{Millis, UnixMillis};
use crate::ids::{AgentId, RigId};
use crate::pool::PoolReport;
use crate::units::{HashesPerSecond, MilliCelsius, Watts};
use crate::workload::Workload;

/// The states of the rig machine (DESIGN section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RigState {
    /// Hardware being probed, nothing running.
    Booting,
    /// Powered, safe, no workload.
    Idle,
    /// Process or model loading, with a deadline.
    Starting,
    /// Doing its workload.
    Running,
    /// Takes no new job, finishes open ones, with a deadline.
    Draining,
    /// Workload told to end; watts being confirmed.
    Stopping,
    /// Held at its power floor.
    Curtailed,
    /// Recoverable, backing off.
    Faulted,
    /// Safety latch.
    Tripped,
}

impl RigState {
    /// Every state, in the order of the table in DESIGN section 4.
    pub const ALL: [Self; 9] = [
        Self::Booting,
        Self::Idle,
        Self::Starting,
        Self::Running,
        Self::Draining,
        Self::Stopping,
        Self::Curtailed,
        Self::Faulted,
        Self::Tripped,
    ];

    /// The word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Curtailed => "curtailed",
            Self::Faulted => "faulted",
            Self::Tripped => "tripped",
        }
    }
}

impl fmt::Display for RigState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Where a power figure comes from, best first (DESIGN section 2, point 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerSource {
    /// A meter on the circuit.
    Meter,
    /// A switched PDU outlet.
    Pdu,
    /// The firmware's or driver's own figure.
    Firmware,
    /// The rig's profile: a planning value, nothing was measured.
    Profile,
}

/// Power with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerReading {
    /// Wall power.
    pub watts: Watts,
    /// Who says so.
    pub source: PowerSource,
}

/// The state of one rig, complete: it replaces all earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// The rig.
    pub rig: RigId,
    /// The agent that hosts it.
    pub agent: AgentId,
    /// Changes at every start of the agent.
    pub boot: String,
    /// Rises with every state report of this boot; a lower one of the same boot is late and ignored.
    pub seq: u64,
    /// When it was true.
    pub at: UnixMillis,
    /// State of the rig machine.
    pub state: RigState,
    /// When that state began.
    pub since: UnixMillis,
    /// What runs, if anything.
    pub workload: Option<Workload>,
    /// What the rig was last told, if anything.
    pub target: Option<Workload>,
    /// Generation of that target; 0 before the first.
    pub generation: u64,
    /// End of the lease of that target.
    pub lease_until: Option<UnixMillis>,
    /// Latest power.
    pub power: Option<PowerReading>,
    /// Latest hashrate.
    pub hashrate: Option<HashesPerSecond>,
    /// Hottest sensor.
    pub temperature: Option<MilliCelsius>,
    /// Running totals of work done.
    pub jobs: JobCounters,
    /// Faults in a row.
    pub attempts: u32,
    /// Why it is in this state, in one line for people.
    pub reason: String,
    /// Name of the engine, driver or firmware that does the work.
    pub engine: String,
    /// How fast it proves, once that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_rate: Option<Box<ProofRate>>,
    /// The same at every length that was measured, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proof_rates: Vec<ProofRate>,
    /// What `pow/status` of its MLNode face says now; absent where no engine of ours proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Box<ProofStatus>>,
    /// The pools it may mine for, in the order of its list, while it mines; at most
    /// [`POOLS_REPORTED_MAX`](crate::POOLS_REPORTED_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolReport>,
    /// How fast it hashes, one figure an algorithm, once that was measured; at most [`HASH_RATES_REPORTED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hash_rates: Vec<HashRate>,
}

/// Algorithms a rig tells its rates of: more than any miner's benchmark of a card.
pub const HASH_RATES_REPORTED_MAX: usize = 32;

/// How fast a rig hashes with everything it would mine with: measured, never taken from a data sheet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRate {
    /// What is hashed, as the benchmark calls it.
    pub algorithm: String,
    /// All of the rig together.
    pub hashes_per_second: HashesPerSecond,
    /// When the oldest of its parts was measured, farm time.
    pub measured_at: UnixMillis,
}

impl HashRate {
    /// Longest name of an algorithm that is kept.
    const ALGORITHM_CHARS_MAX: usize = 40;

    /// With a name no longer than any algorithm's.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.algorithm = self.algorithm.chars().take(Self::ALGORITHM_CHARS_MAX).collect();
        self
    }
}

/// What an engine does of proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofActivity {
    /// No model is up (`NO_BACKENDS`).
    Absent,
    /// Ready, and nothing asked of it.
    Idle,
    /// Recomputes nonces of others.
    Validating,
    /// Proves a round. One that is not stopped keeps the Network Node from starting the next.
    Generating,
}

/// What a Network Node is told of an engine's proofs, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofStatus {
    /// What it does.
    pub activity: ProofActivity,
    /// When that began; of a round, when it was (re)started.
    pub since: UnixMillis,
    /// The round it generates, or the one that ended early and still delivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<ProofRound>,
}

/// A round of Proof of Compute, seen from the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRound {
    /// As the request spells it.
    pub block_hash: String,
    /// Height of that block, as the request has it.
    pub block_height: i64,
    /// Nonces worked on since it was (re)started.
    pub processed: u64,
    /// Artifacts that wait to be taken.
    pub waiting: u64,
}

/// How fast a rig proves a model: measured, never estimated from a data sheet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRate {
    /// The model, under the name it is served as.
    pub model: String,
    /// Tokens of a nonce.
    pub seq_len: u32,
    /// Thousandths of a nonce per minute.
    pub millinonces_per_minute: u64,
    /// When it was measured.
    pub measured_at: UnixMillis,
}

/// Work done since the agent's journal began; never falls, so the difference of two is what happened between them.
///
/// What became of an artifact: delivered, refused, dropped or discarded. All but the delivered ones stay in the journal,
/// go out when the same round is asked for again, and are then counted as delivered too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobCounters {
    /// Shares sent to the pool.
    pub shares_submitted: u64,
    /// Shares the pool accepted.
    pub shares_accepted: u64,
    /// Shares the pool refused.
    pub shares_rejected: u64,
    /// Of the refused, those that came too late.
    pub shares_stale: u64,
    /// Chat and text completions answered.
    pub completions: u64,
    /// Tokens generated for them.
    pub tokens: u64,
    /// Proof of Compute artifacts computed.
    pub artifacts_computed: u64,
    /// Artifacts the Network Node has taken.
    pub artifacts_delivered: u64,
    /// Payloads of a proof that the Network Node refused with a 4xx, counted at the first refusal of each: a wrong
    /// address, or a node it does not know.
    pub callbacks_refused: u64,
    /// Artifacts set aside because their payload was refused again and again.
    pub artifacts_refused: u64,
    /// Artifacts that fell out of a full buffer, or that nobody fetched in time.
    pub artifacts_dropped: u64,
    /// Artifacts that still waited when their round was stopped.
    pub artifacts_discarded: u64,
    /// Nonces that gave NaN: passed over, as the network wants it.
    pub nonces_nan: u64,
}

impl JobCounters {
    /// What was done between `earlier` and `self`; a counter that fell (a new journal) counts from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, |now, then| if now >= then { now - then } else { now })
    }

    /// What was done in two spans together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn with(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            shares_submitted: of(self.shares_submitted, other.shares_submitted),
            shares_accepted: of(self.shares_accepted, other.shares_accepted),
            shares_rejected: of(self.shares_rejected, other.shares_rejected),
            shares_stale: of(self.shares_stale, other.shares_stale),
            completions: of(self.completions, other.completions),
            tokens: of(self.tokens, other.tokens),
            artifacts_computed: of(self.artifacts_computed, other.artifacts_computed),
            artifacts_delivered: of(self.artifacts_delivered, other.artifacts_delivered),
            callbacks_refused: of(self.callbacks_refused, other.callbacks_refused),
            artifacts_refused: of(self.artifacts_refused, other.artifacts_refused),
            artifacts_dropped: of(self.artifacts_dropped, other.artifacts_dropped),
            artifacts_discarded: of(self.artifacts_discarded, other.artifacts_discarded),
            nonces_nan: of(self.nonces_nan, other.nonces_nan),
        }
    }
}

/// One sample of one rig. `energy` covers `span`, ending at `at`, so a lost sample is a hole, not a guess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetrySample {
    /// End of the sample.
    pub at: UnixMillis,
    /// How long it covers.
    pub span: Millis,
    /// Mean power over the span.
    pub power: PowerReading,
    /// What ran during it.
    pub workload: Option<Workload>,
    /// State at its end.
    pub state: RigState,
    /// Hashrate at its end.
    pub hashrate: Option<HashesPerSecond>,
    /// Hottest sensor at its end.
    pub temperature: Option<MilliCelsius>,
    /// Running totals at its end.
    pub jobs: JobCounters,
}

/// Samples of one rig, journalled as one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryBatch {
    /// The rig.
    pub rig: RigId,
    /// The agent whose journal holds the row.
    pub agent: AgentId,
    /// Which journal: changes only when the journal file is lost.
    pub journal: String,
    /// Row number in that journal.
    pub seq: u64,
    /// Oldest first, at most 60.
    pub samples: Vec<TelemetrySample>,
}

/// What kind of thing happened on a rig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The rig machine changed state.
    StateChanged {
        /// From this state.
        from: RigState,
        /// To this one.
        to: RigState,
    },
    /// A workload began to run.
    Switched {
        /// What ran before, if anything.
        from: Option<Workload>,
        /// What runs now, if anything.
        to: Option<Workload>,
    },
    /// The rig tripped.
    Tripped,
    /// A fault that will be retried.
    Fault,
    /// An assignment or command was refused.
    Refused,
    /// The lease lapsed and the fallback applies.
    LeaseLapsed,
    /// A firmware answered "done" but watts and hashrate do not show it.
    Unconfirmed,
    /// The Network Node does not want a payload of a proof: a wrong address, or a node it does not know.
    CallbackRefused {
        /// Block hash of the round.
        block_hash: String,
        /// What it answered, 400 to 499.
        status: u16,
        /// Artifacts or verdicts in the payload.
        items: u64,
    },
    /// An artifact of a proof was delivered; counted once by its identity.
    ArtifactsDelivered {
        /// Block hash of the round.
        block_hash: String,
        /// The nonces delivered.
        nonces: Vec<u32>,
    },
}

/// Something that happened on a rig, journalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RigEventReport {
    /// The rig.
    pub rig: RigId,
    /// The agent whose journal holds the row.
    pub agent: AgentId,
    /// Which journal.
    pub journal: String,
    /// Row number in that journal.
    pub seq: u64,
    /// When it happened.
    pub at: UnixMillis,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
    /// Why, in one line for people.
    pub reason: String,
}

/// How far an order has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckStatus {
    /// Taken; the machine works on it.
    Accepted,
    /// Refused; the reason says why.
    Refused,
    /// Reached.
    Done,
}

/// The answer to an assignment or command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The rig.
    pub rig: RigId,
    /// The envelope answered.
    pub envelope: String,
    /// Generation, when it answers an assignment.
    pub generation: Option<u64>,
    /// How far it has got.
    pub status: AckStatus,
    /// Why, in one line for people.
    pub reason: String,
}

/// The last will of an agent and its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Connected or not.
    pub online: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive_a_new_journal() {
        let before = JobCounters { shares_accepted: 10, ..JobCounters::default() };
        let after = JobCounters { shares_accepted: 13, ..JobCounters::default() };
        let fresh = JobCounters { shares_accepted: 2, ..JobCounters::default() };
        assert_eq!(after.since(&before).shares_accepted, 3);
        assert_eq!(fresh.since(&after).shares_accepted, 2);
        assert_eq!(fresh.plus(&after).shares_accepted, 15);
    }

    #[test]
    fn events_are_flat_on_the_wire() {
        let event = RigEventReport {
            rig: RigId::new("a").unwrap(),
            agent: AgentId::new("b").unwrap(),
            journal: "j".into(),
            seq: 1,
            at: UnixMillis(2),
            kind: EventKind::StateChanged { from: RigState::Idle, to: RigState::Starting },
            reason: "r".into(),
        };
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.contains(r#""kind":"state_changed","from":"idle","to":"starting""#), "{text}");
        assert_eq!(serde_json::from_str::<RigEventReport>(&text).unwrap(), event);
    }
}
