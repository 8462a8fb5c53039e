//! What the store holds, as the controller and its reports need it.

use std::fmt::Display;
use std::path::Path;

use farm_core::farm::FarmMemory;
use farm_core::ledger::Entry;
use roadbed_protocol::{AgentId, RigId, UnixMillis};
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::{StoreError, entry, schema};
use crate::control::{Answer, Kept};
use crate::view::PlanView;

/// A plan as it was committed.
pub type StoredPlan = PlanView;

/// An alert as it was raised, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlert {
    /// When.
    pub at: UnixMillis,
    /// Names the condition.
    pub key: String,
    /// The rig concerned.
    pub rig: Option<RigId>,
    /// False when it ended.
    pub active: bool,
    /// One line for people.
    pub text: String,
}

/// Everything a controller needs when it starts.
pub(super) fn kept(connection: &Connection, path: &Path) -> Result<Kept, StoreError> {
    let reader = Reader { connection, path };
    let assignments = reader
        .rows("SELECT rig, assignment FROM assignment ORDER BY rig", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
    let journals = reader.rows("SELECT agent, journal, seq FROM journal", |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    })?;
    let holds = reader.rows("SELECT rig, workload, operator FROM hold", |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let plan_id = reader.number("SELECT coalesce(max(id), 0) FROM plan")?;
    let signer_counter =
        reader.number("SELECT coalesce(max(value), 0) FROM counter WHERE name = 'signer'")?;
    let memory = FarmMemory {
        assignments: assignments
            .into_iter()
            .map(|(rig, text)| reader.json(&format!("the assignment of {rig}"), &text))
            .collect::<Result<_, _>>()?,
        plan_id,
        journals: journals
            .into_iter()
            .map(|(agent, journal, seq)| {
                let agent = reader.agent(&agent)?;
                Ok((agent, journal, u64::try_from(seq).unwrap_or(0)))
            })
            .collect::<Result<_, StoreError>>()?,
        holds: holds
            .into_iter()
            .map(|(rig, workload, operator)| {
                let workload = reader.json(&format!("the hold of {rig}"), &workload)?;
                let rig = RigId::new(rig).map_err(|error| reader.damaged("a hold", error))?;
                Ok((rig, workload, operator))
            })
            .collect::<Result<_, StoreError>>()?,
        orders: Vec::new(),
    };
    let gonka = reader.rows("SELECT key, at, body FROM gonka ORDER BY key", |row| {
        Ok(Answer { key: row.get(0)?, at: UnixMillis(row.get(1)?), body: row.get(2)? })
    })?;
    Ok(Kept { memory, entries: reader.entries()?, signer_counter, gonka })
}

/// Every plan kept, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn plans(path: &Path) -> Result<Vec<StoredPlan>, StoreError> {
    let connection = schema::open(path)?;
    let reader = Reader { connection: &connection, path };
    let rows = reader.rows("SELECT plan FROM plan ORDER BY id", |row| row.get::<_, String>(0))?;
    rows.iter().map(|text| reader.json("a plan", text)).collect()
}

/// Every alert kept, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn alerts(path: &Path) -> Result<Vec<StoredAlert>, StoreError> {
    let connection = schema::open(path)?;
    let reader = Reader { connection: &connection, path };
    reader.rows("SELECT at, key, rig, active, text FROM alert ORDER BY rowid", |row| {
        Ok(StoredAlert {
            at: UnixMillis(row.get(0)?),
            key: row.get(1)?,
            rig: row.get::<_, Option<String>>(2)?.and_then(|rig| RigId::new(rig).ok()),
            active: row.get(3)?,
            text: row.get(4)?,
        })
    })
}

struct Reader<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

impl Reader<'_> {
    fn sqlite(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.to_path_buf(), source }
    }

    fn damaged(&self, what: &str, reason: impl Display) -> StoreError {
        StoreError::Damaged {
            path: self.path.to_path_buf(),
            what: what.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn rows<T>(
        &self,
        sql: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare(sql).map_err(|error| self.sqlite(error))?;
        let rows = statement.query_map([], read).map_err(|error| self.sqlite(error))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|error| self.sqlite(error))
    }

    fn number(&self, sql: &str) -> Result<u64, StoreError> {
        let value: i64 = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| self.sqlite(error))?;
        Ok(u64::try_from(value).unwrap_or(0))
    }

    fn json<T: DeserializeOwned>(&self, what: &str, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|error| self.damaged(what, error))
    }

    fn agent(&self, text: &str) -> Result<AgentId, StoreError> {
        AgentId::new(text).map_err(|error| self.damaged("an agent's journal", error))
    }

    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let rows =
            self.rows("SELECT agent, journal, seq, parts FROM entry ORDER BY rowid", |row| {
                let (agent, journal): (String, String) = (row.get(0)?, row.get(1)?);
                Ok((agent, journal, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
            })?;
        rows.into_iter()
            .map(|(agent, journal, seq, parts)| {
                let what = format!("row {seq} of journal {journal}");
                Ok(Entry {
                    agent: if agent.is_empty() { None } else { Some(self.agent(&agent)?) },
                    journal,
                    seq: u64::try_from(seq).unwrap_or(0),
                    parts: entry::parts(self.json(&what, &parts)?),
                })
            })
            .collect()
    }
}
