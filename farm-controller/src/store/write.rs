//! One record into its table. Every statement may run twice without a second effect.

use rusqlite::{Transaction, params};
use serde::Serialize;

use super::entry;
use crate::control::snapshot::{Memory, plan_view};
use crate::control::{KeepError, Record};

/// Plans kept: a week of quarter-hours; older ones are of no use to anybody.
const PLANS_KEPT: i64 = 672;
/// Alerts kept.
const ALERTS_KEPT: i64 = 10_000;

pub(super) fn record(transaction: &Transaction<'_>, record: &Record) -> Result<(), KeepError> {
    let sql = |result: rusqlite::Result<usize>| {
        result.map(|_| ()).map_err(|error| KeepError(error.to_string()))
    };
    match record {
        Record::Plan { plan, notes, sheds } => {
            let memory = Memory {
                notes: notes.iter().map(ToString::to_string).collect(),
                sheds: sheds.iter().map(|shed| format!("{}: {}", shed.rig, shed.reason)).collect(),
                ..Memory::default()
            };
            let text = json(&plan_view(plan, &memory))?;
            sql(transaction.execute(
                "INSERT OR REPLACE INTO plan (id, made_at, plan) VALUES (?1, ?2, ?3)",
                params![integer(plan.id), plan.made_at.0, text],
            ))?;
            sql(transaction.execute(
                "DELETE FROM plan WHERE id <= ?1 - ?2",
                params![integer(plan.id), PLANS_KEPT],
            ))
        }
        Record::Assignment(assignment) => sql(transaction.execute(
            "INSERT INTO assignment (rig, generation, assignment) VALUES (?1, ?2, ?3)
             ON CONFLICT (rig) DO UPDATE
             SET generation = excluded.generation, assignment = excluded.assignment
             WHERE excluded.generation >= generation",
            params![assignment.rig.as_str(), integer(assignment.generation), json(assignment)?],
        )),
        Record::Entry(booked) => sql(transaction.execute(
            "INSERT OR IGNORE INTO entry (agent, journal, seq, parts) VALUES (?1, ?2, ?3, ?4)",
            params![
                booked.agent.as_ref().map_or("", |agent| agent.as_str()),
                booked.journal,
                integer(booked.seq),
                json(&entry::stored(booked))?
            ],
        )),
        Record::Journal { agent, journal, seq } => sql(transaction.execute(
            "INSERT INTO journal (agent, journal, seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (agent, journal) DO UPDATE SET seq = max(seq, excluded.seq)",
            params![agent.as_str(), journal, integer(*seq)],
        )),
        Record::Alert { at, alert } => {
            sql(transaction.execute(
                "INSERT INTO alert (at, key, rig, active, text) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    at.0,
                    alert.key,
                    alert.rig.as_ref().map(|rig| rig.as_str()),
                    alert.active,
                    alert.text
                ],
            ))?;
            sql(transaction.execute(
                "DELETE FROM alert WHERE rowid <= (SELECT max(rowid) FROM alert) - ?1",
                params![ALERTS_KEPT],
            ))
        }
        Record::Hold { rig, workload, operator } => sql(transaction.execute(
            "INSERT OR REPLACE INTO hold (rig, workload, operator) VALUES (?1, ?2, ?3)",
            params![rig.as_str(), json(workload)?, operator],
        )),
        Record::Release { rig } => {
            sql(transaction.execute("DELETE FROM hold WHERE rig = ?1", params![rig.as_str()]))
        }
        Record::Gonka { key, at, body } => sql(transaction.execute(
            "INSERT OR REPLACE INTO gonka (key, at, body) VALUES (?1, ?2, ?3)",
            params![key, at.0, body],
        )),
        Record::SignerCounter(counter) => sql(transaction.execute(
            "INSERT INTO counter (name, value) VALUES ('signer', ?1)
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            params![integer(*counter)],
        )),
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, KeepError> {
    serde_json::to_string(value).map_err(|error| KeepError(error.to_string()))
}

/// SQLite's integers are signed; our counters never come near the difference.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
