//! The words the controller and the agents of a farm say to each other.
//!
//! No I/O, no clock, no database, no broker: a message is a value, and whether it may be believed is decided by
//! [`envelope::Envelope::open`], the one function that turns bytes from the wire into an order. Everything here is
//! serialisable and versioned by the topic prefix `roadbed/1/`; unknown fields are ignored so that an older agent can
//! read a newer controller.
//!
//! ```text
//! controller --(assignment, command: signed envelopes)--> agent
//! agent --(state, telemetry, event, ack: reports)--> controller
//! ```

pub mod assignment;
pub mod clock;
pub mod command;
pub mod envelope;
pub mod ids;
pub mod login;
pub mod mlnode;
pub mod pool;
pub mod profile;
pub mod report;
pub mod topics;
pub mod units;
pub mod workload;

pub use assignment::{Assignment, Cause};
pub use clock::{Millis, UnixMillis};
pub use command::Command;
pub use envelope::{Envelope, EnvelopeError, OpenedEnvelope, ReplayGuard, Signer, TrustedKeys};
pub use ids::{AgentId, FarmId, FeederId, GroupId, IdError, RigId};
pub use pool::{POOLS_REPORTED_MAX, PoolReport, PoolShares, PoolStanding};
pub use profile::{MiningStep, ProfileError, RigKind, RigProfile};
pub use report::{
    Ack, AckStatus, EventKind, HASH_RATES_REPORTED_MAX, HashRate, JobCounters, PowerReading,
    PowerSource, ProofActivity, ProofRate, ProofRound, ProofStatus, RigEventReport, RigState,
    StateReport, TelemetryBatch, TelemetrySample,
};
pub use units::{
    HashesPerSecond, MicrosPerHour, MicrosPerMwh, MilliCelsius, Money, WattHours, WattMillis, Watts,
};
pub use workload::{Workload, WorkloadKind};
