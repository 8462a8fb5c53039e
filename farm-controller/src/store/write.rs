//! Records into tables, a batch a transaction.

use rusqlite::{Connection, Transaction, params};

use super::rows::PartRow;
use crate::control::Record;
use crate::control::snapshot::{Memory, plan_view};

/// Plans kept: a week of quarter-hours. Older ones say nothing a ledger entry does not.
const PLANS_MAX: i64 = 672;
/// Alerts kept.
const ALERTS_MAX: i64 = 100_000;

#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a number is too large for the file: {0}")]
    TooLarge(#[from] std::num::TryFromIntError),
}

/// Keeps all of `records` or none.
pub(super) fn batch(connection: &mut Connection, records: &[Record]) -> Result<(), WriteError> {
    let transaction = connection.transaction()?;
    for record in records {
        write(&transaction, record)?;
    }
    transaction.commit()?;
    Ok(())
}

fn write(transaction: &Transaction<'_>, record: &Record) -> Result<(), WriteError> {
    match record {
        Record::Plan { plan, notes, sheds } => {
            let memory = Memory {
                notes: notes.iter().map(ToString::to_string).collect(),
                sheds: sheds.iter().map(|shed| format!("{}: {}", shed.rig, shed.reason)).collect(),
                ..Memory::default()
            };
            let body = serde_json::to_string(&plan_view(plan, &memory))?;
            let id = i64::try_from(plan.id)?;
            run(transaction, "INSERT OR REPLACE INTO plans VALUES (?1, ?2, ?3)", params![
                id,
                plan.made_at.0,
                body
            ])?;
            run(transaction, "DELETE FROM plans WHERE id <= ?1", params![id - PLANS_MAX])?;
        }
        Record::Assignment(assignment) => {
            let body = serde_json::to_string(assignment)?;
            run(
                transaction,
                "INSERT INTO assignments VALUES (?1, ?2, ?3) ON CONFLICT (rig) DO UPDATE
                 SET generation = excluded.generation, body = excluded.body
                 WHERE excluded.generation >= generation",
                params![assignment.rig.as_str(), i64::try_from(assignment.generation)?, body],
            )?;
        }
        Record::Entry(entry) => {
            let parts: Vec<PartRow> = entry.parts.iter().map(PartRow::from).collect();
            run(
                transaction,
                "INSERT OR IGNORE INTO entries (agent, journal, seq, body) VALUES (?1, ?2, ?3, ?4)",
                params![
                    entry.agent.as_ref().map_or("", |agent| agent.as_str()),
                    entry.journal,
                    i64::try_from(entry.seq)?,
                    serde_json::to_string(&parts)?
                ],
            )?;
        }
        Record::Journal { agent, journal, seq } => run(
            transaction,
            "INSERT INTO journals VALUES (?1, ?2, ?3) ON CONFLICT (agent, journal) DO UPDATE
             SET seq = excluded.seq WHERE excluded.seq > seq",
            params![agent.as_str(), journal, i64::try_from(*seq)?],
        )?,
        Record::Alert { at, alert } => {
            run(
                transaction,
                "INSERT INTO alerts (at, key, rig, active, text) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    at.0,
                    alert.key,
                    alert.rig.as_ref().map(|rig| rig.as_str()),
                    alert.active,
                    alert.text
                ],
            )?;
            let last = transaction.last_insert_rowid();
            run(transaction, "DELETE FROM alerts WHERE number <= ?1", params![last - ALERTS_MAX])?;
        }
        Record::Hold { rig, workload, operator } => run(
            transaction,
            "INSERT OR REPLACE INTO holds VALUES (?1, ?2, ?3)",
            params![rig.as_str(), serde_json::to_string(workload)?, operator],
        )?,
        Record::Release { rig } => {
            run(transaction, "DELETE FROM holds WHERE rig = ?1", params![rig.as_str()])?;
        }
        Record::SignerCounter(counter) => run(
            transaction,
            "INSERT INTO signer VALUES (1, ?1) ON CONFLICT (one) DO UPDATE
             SET counter = excluded.counter WHERE excluded.counter > counter",
            params![i64::try_from(*counter)?],
        )?,
    }
    Ok(())
}

fn run(
    transaction: &Transaction<'_>,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<(), WriteError> {
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}
