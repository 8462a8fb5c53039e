//! Tables back into what a controller needs when it starts.

use std::path::Path;

use farm_core::farm::FarmMemory;
use farm_core::ledger::{Entry, Part};
use roadbed_protocol::AgentId;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::de::DeserializeOwned;

use super::StoreError;
use super::rows::PartRow;
use crate::control::Kept;

/// Reads everything.
pub(super) fn load(connection: &Connection, path: &Path) -> Result<Kept, StoreError> {
    let reader = Reader { connection, path };
    let plan_id: Option<i64> = reader.one("plans", "SELECT max(id) FROM plans")?;
    let counter: Option<i64> = reader.one("signer", "SELECT max(counter) FROM signer")?;
    Ok(Kept {
        memory: FarmMemory {
            assignments: reader.rows("assignments", "SELECT body FROM assignments", |row| {
                json(&row.get::<_, String>(0)?)
            })?,
            plan_id: plan_id.and_then(|id| u64::try_from(id).ok()).unwrap_or(0),
            journals: reader.rows("journals", "SELECT agent, journal, seq FROM journals", |row| {
                Ok((id(&row.get::<_, String>(0)?)?, row.get(1)?, count(row.get(2)?)?))
            })?,
            holds: reader.rows("holds", "SELECT rig, workload, operator FROM holds", |row| {
                let rig: String = row.get(0)?;
                let rig = rig.parse().map_err(|error| RowError(format!("{error}")))?;
                Ok((rig, json(&row.get::<_, String>(1)?)?, row.get(2)?))
            })?,
            orders: Vec::new(),
        },
        entries: reader.rows(
            "entries",
            "SELECT agent, journal, seq, body FROM entries ORDER BY number",
            entry,
        )?,
        signer_counter: counter.and_then(|counter| u64::try_from(counter).ok()).unwrap_or(0),
    })
}

fn entry(row: &Row<'_>) -> Result<Entry, RowError> {
    let agent: String = row.get(0)?;
    let parts: Vec<PartRow> = json(&row.get::<_, String>(3)?)?;
    Ok(Entry {
        agent: if agent.is_empty() { None } else { Some(id(&agent)?) },
        journal: row.get(1)?,
        seq: count(row.get(2)?)?,
        parts: parts.into_iter().map(Part::from).collect(),
    })
}

/// Why a row is not understood.
struct RowError(String);

impl From<rusqlite::Error> for RowError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, RowError> {
    serde_json::from_str(text).map_err(|error| RowError(error.to_string()))
}

fn id(text: &str) -> Result<AgentId, RowError> {
    text.parse().map_err(|error| RowError(format!("{error}")))
}

fn count(number: i64) -> Result<u64, RowError> {
    u64::try_from(number).map_err(|_| RowError(format!("{number} is negative")))
}

struct Reader<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

impl Reader<'_> {
    fn failed(&self, table: &'static str, reason: String) -> StoreError {
        StoreError::Row { path: self.path.to_owned(), table, reason }
    }

    fn one(&self, table: &'static str, sql: &str) -> Result<Option<i64>, StoreError> {
        self.connection
            .query_row(sql, [], |row| row.get::<_, Option<i64>>(0))
            .optional()
            .map(Option::flatten)
            .map_err(|error| self.failed(table, error.to_string()))
    }

    fn rows<T>(
        &self,
        table: &'static str,
        sql: &str,
        read: impl Fn(&Row<'_>) -> Result<T, RowError>,
    ) -> Result<Vec<T>, StoreError> {
        let broken = |error: rusqlite::Error| self.failed(table, error.to_string());
        let mut statement = self.connection.prepare(sql).map_err(broken)?;
        let mut rows = statement.query([]).map_err(broken)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(broken)? {
            found.push(read(row).map_err(|RowError(reason)| self.failed(table, reason))?);
        }
        Ok(found)
    }
}
