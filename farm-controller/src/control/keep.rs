//! What must be durable before it has an effect outside, and who keeps it.
//!
//! The loop collects the records of a batch of events, waits until they are kept in one transaction, and only then
//! publishes and acknowledges. A crash between the two repeats messages; it never forgets a promise.

use farm_core::farm::{Alert, FarmMemory};
use farm_core::guard::Shed;
use farm_core::ledger::Entry;
use farm_core::plan::{Note, Plan};
use roadbed_protocol::{AgentId, Assignment, RigId, UnixMillis, Workload};

use crate::broker::Waiting;

/// One thing to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A committed plan.
    Plan {
        /// The plan.
        plan: Plan,
        /// What a person should know about it.
        notes: Vec<Note>,
        /// What the guard took away.
        sheds: Vec<Shed>,
    },
    /// The newest assignment of a rig.
    Assignment(Assignment),
    /// Something booked.
    Entry(Entry),
    /// How far a journal is kept without gaps.
    Journal {
        /// The agent.
        agent: AgentId,
        /// Its journal.
        journal: String,
        /// The row.
        seq: u64,
    },
    /// Something a person should look at, or that is over.
    Alert {
        /// When.
        at: UnixMillis,
        /// What.
        alert: Alert,
    },
    /// A hold that stands from now on.
    Hold {
        /// The rig.
        rig: RigId,
        /// At what.
        workload: Workload,
        /// By whom.
        operator: String,
    },
    /// A hold that ended.
    Release {
        /// The rig.
        rig: RigId,
    },
    /// Something a Network Node said, or that follows from it; replaces what has the same key.
    Gonka {
        /// What was asked.
        key: String,
        /// When it was answered.
        at: UnixMillis,
        /// The answer, as JSON.
        body: String,
    },
    /// The highest counter the signer may use before the next such record.
    SignerCounter(u64),
}

/// Keeps records.
pub trait Keeper: Send + Sync {
    /// Keeps all of them or none; returns once they would survive a power cut.
    fn keep(&self, records: Vec<Record>) -> Waiting<'_, Result<(), KeepError>>;
}

/// Why records could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the farm's store does not keep anything: {0}")]
pub struct KeepError(pub String);

/// What was kept, as a controller needs it when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// For the farm machine.
    pub memory: FarmMemory,
    /// Every entry ever booked, for the ledger.
    pub entries: Vec<Entry>,
    /// The highest counter the signer may have used.
    pub signer_counter: u64,
    /// What Network Nodes last said.
    pub gonka: Vec<Answer>,
}

/// One thing a Network Node said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was asked.
    pub key: String,
    /// When it was answered.
    pub at: UnixMillis,
    /// The answer, as JSON.
    pub body: String,
}
