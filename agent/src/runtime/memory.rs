//! What a rig must still know after a crash, as the journal keeps it.

use farm_core::rig::RigMemory;
use roadbed_protocol::{Assignment, JobCounters, RigId};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, JournalError};

/// The wire form of [`RigMemory`]; the decision types of the core know no serialisation.
#[derive(Serialize, Deserialize)]
struct MemoryRow {
    assignment: Option<Assignment>,
    tripped: Option<String>,
}

/// Reads what a rig last stored; a rig never seen starts with nothing.
///
/// # Errors
/// [`JournalError`] when it cannot be read: a rig that forgot its generation could obey an order that was revoked.
pub(super) async fn load(journal: &Journal, rig: &RigId) -> Result<RigMemory, JournalError> {
    let row: Option<MemoryRow> = load_json(journal, memory_key(rig)).await?;
    Ok(row.map_or_else(RigMemory::default, |row| RigMemory {
        assignment: row.assignment,
        tripped: row.tripped,
    }))
}

/// Stores what a rig must not forget.
///
/// # Errors
/// [`JournalError`] when it could not be stored.
pub(super) async fn store(
    journal: &Journal,
    rig: &RigId,
    memory: RigMemory,
) -> Result<(), JournalError> {
    let row = MemoryRow { assignment: memory.assignment, tripped: memory.tripped };
    store_json(journal, memory_key(rig), &row).await
}

/// Work done by a rig before this start.
///
/// # Errors
/// [`JournalError`] when it cannot be read.
pub(super) async fn load_jobs(journal: &Journal, rig: &RigId) -> Result<JobCounters, JournalError> {
    Ok(load_json(journal, jobs_key(rig)).await?.unwrap_or_default())
}

/// Stores the totals, so that they do not fall at the next start.
///
/// # Errors
/// [`JournalError`] when they could not be stored.
pub(super) async fn store_jobs(
    journal: &Journal,
    rig: &RigId,
    jobs: &JobCounters,
) -> Result<(), JournalError> {
    store_json(journal, jobs_key(rig), jobs).await
}

fn memory_key(rig: &RigId) -> String {
    format!("rig/{rig}")
}

fn jobs_key(rig: &RigId) -> String {
    format!("jobs/{rig}")
}

async fn load_json<T: for<'de> Deserialize<'de>>(
    journal: &Journal,
    key: String,
) -> Result<Option<T>, JournalError> {
    let Some(bytes) = journal.get(key.clone()).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| JournalError::Write {
        what: format!("read {key}"),
        reason: error.to_string(),
    })
}

async fn store_json<T: Serialize + Sync>(
    journal: &Journal,
    key: String,
    value: &T,
) -> Result<(), JournalError> {
    let bytes = serde_json::to_vec(value).map_err(|error| JournalError::Write {
        what: format!("write {key}"),
        reason: error.to_string(),
    })?;
    journal.put(key, bytes).await
}
