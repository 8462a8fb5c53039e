//! The hands of one rig: what the runtime may ask of hardware, and what hardware tells back.
//!
//! Every call returns at once. What came of it arrives later as a [`DriverEvent`] on the bounded channel the driver was
//! given when it was built, because a firmware that answers "done" has promised, not acted: an event is sent only when
//! watts and hashrate show it.

pub use farm_core::rig::TripCause;
use roadbed_protocol::{
    HashRate, HashesPerSecond, JobCounters, MilliCelsius, PoolReport, PowerReading, ProofRate,
    ProofStatus, Workload,
};
use tokio::sync::mpsc;

/// Events a driver may have under way towards the runtime. A driver produces a handful a minute; a full channel means
/// the runtime is stuck, and then the driver must wait rather than forget.
pub const DRIVER_EVENTS_MAX: usize = 64;

/// Where a driver's events go.
pub type DriverEvents = mpsc::Sender<DriverEvent>;

/// What the sensors and the workload of a rig show now. Reading it never blocks: drivers answer from what they polled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Wall power with its source; `None` when nothing is known, not even from a profile.
    pub power: Option<PowerReading>,
    /// Hashrate, for a mining rig.
    pub hashrate: Option<HashesPerSecond>,
    /// Hottest sensor.
    pub temperature: Option<MilliCelsius>,
    /// Work done since the driver was built; never falls.
    pub jobs: JobCounters,
    /// Name of the engine, driver or firmware that does the work.
    pub engine: String,
    /// How fast it proves its model, once that was measured; `measured_at` in farm time.
    pub proof_rates: Vec<ProofRate>,
    /// What it does of proofs, for a rig with an engine of ours; in farm time.
    pub proof: Option<ProofStatus>,
    /// The pools of its miner, while that runs.
    pub pools: Vec<PoolReport>,
    /// How fast it hashes, once that was measured; `measured_at` in farm time.
    pub hash_rates: Vec<HashRate>,
}

/// What became of an order, or what the hardware did by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverEvent {
    /// The hardware answers and is what it should be.
    Probed,
    /// It does not answer, or is not what it should be.
    ProbeFailed {
        /// Why, in one line for people.
        reason: String,
    },
    /// The workload runs, confirmed.
    Started {
        /// What runs.
        workload: Workload,
    },
    /// The running workload became this one without a stop.
    HandedOver {
        /// What runs now.
        workload: Workload,
    },
    /// The workload could not be started, or died.
    Failed {
        /// Why, in one line for people.
        reason: String,
    },
    /// No job is open any more.
    Drained,
    /// Nothing runs and the power is at its floor, confirmed.
    Stopped,
    /// The hardware answered that it obeyed, but watts and hashrate do not show it.
    Unconfirmed {
        /// What was seen instead.
        reason: String,
    },
    /// The hardware must be made safe.
    Trip(TripCause),
    /// The Network Node does not want a payload of a proof.
    CallbackRefused {
        /// Block hash of the round.
        block_hash: String,
        /// What it answered, 400 to 499.
        status: u16,
        /// Artifacts or verdicts in the payload.
        items: u64,
        /// Its words.
        reason: String,
    },
    /// Artifacts of a proof were taken by the Network Node.
    ArtifactsDelivered {
        /// Block hash of the round.
        block_hash: String,
        /// Nonces taken.
        nonces: Vec<u32>,
    },
}

/// One rig's hands. Calls return at once; what came of them is told through the [`DriverEvents`] channel.
pub trait RigDriver: Send {
    /// Look whether the hardware is there; answered by [`DriverEvent::Probed`] or [`DriverEvent::ProbeFailed`].
    fn probe(&mut self);
    /// Begin this workload; answered by [`DriverEvent::Started`] or [`DriverEvent::Failed`].
    fn start(&mut self, workload: Workload);
    /// Become another workload without a stop ([`Workload::hands_over_to`]); answered by [`DriverEvent::HandedOver`]
    /// or [`DriverEvent::Failed`].
    fn hand_over(&mut self, to: Workload);
    /// Take no new job and finish the open ones; answered by [`DriverEvent::Drained`].
    fn begin_drain(&mut self);
    /// Take jobs again: the target came back before the drain ended.
    fn cancel_drain(&mut self);
    /// End the workload, open jobs or not when `force`; answered by [`DriverEvent::Stopped`] once watts confirm it.
    fn stop(&mut self, force: bool);
    /// Hold the power floor: nothing may run until the next [`RigDriver::start`].
    fn hold_floor(&mut self);
    /// Cut the power as far as this hardware can: the answer to a trip. Safe to call in any state.
    fn cut_power(&mut self);
    /// What is known now.
    fn observe(&mut self) -> Observation;
}
