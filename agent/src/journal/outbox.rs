//! Rows on their way to the controller.
//!
//! A row is numbered when it is written and its number is part of its body, so a row sent twice is the same row twice.
//! When the outbox is full, the oldest telemetry row is emptied of its samples but keeps its number: the controller
//! acknowledges without gaps, and what is lost is a hole in a chart, not a stuck journal. Events are never dropped.

use roadbed_protocol::{RigEventReport, RigId, TelemetryBatch, topics::RigLeaf};

use super::Entry;
use super::error::JournalError;
use super::store::{Store, from_sql, to_sql};

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowClass {
    /// A telemetry batch.
    Telemetry,
    /// An event.
    Event,
}

/// Stored values of the column `class`: a telemetry row, an event, a telemetry row emptied of its samples.
const TELEMETRY: i64 = 0;
const EVENT: i64 = 1;
const EMPTIED: i64 = 2;

impl RowClass {
    /// The rig's topic it goes to.
    #[must_use]
    pub const fn leaf(self) -> RigLeaf {
        match self {
            Self::Telemetry => RigLeaf::Telemetry,
            Self::Event => RigLeaf::Event,
        }
    }
}

/// A row as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number.
    pub seq: u64,
    /// What it is.
    pub class: RowClass,
    /// The rig it is about.
    pub rig: RigId,
    /// JSON for the wire.
    pub body: Vec<u8>,
}

impl Store {
    pub(super) fn append(&mut self, rig: &RigId, entry: Entry) -> Result<u64, JournalError> {
        let seq = self.newest + 1;
        let (class, body) = match entry {
            Entry::Telemetry(samples) => {
                let batch = TelemetryBatch {
                    rig: rig.clone(),
                    agent: self.agent.clone(),
                    journal: self.id().to_owned(),
                    seq,
                    samples,
                };
                (TELEMETRY, serde_json::to_vec(&batch))
            }
            Entry::Event { at, kind, reason } => {
                let event = RigEventReport {
                    rig: rig.clone(),
                    agent: self.agent.clone(),
                    journal: self.id().to_owned(),
                    seq,
                    at,
                    kind,
                    reason,
                };
                (EVENT, serde_json::to_vec(&event))
            }
        };
        let body = body.map_err(|error| JournalError::write("write a row as JSON", error))?;
        self.db
            .prepare_cached("INSERT INTO outbox (seq, class, rig, body) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut statement| statement.execute((to_sql(seq), class, rig.as_str(), &body)))
            .map_err(|error| JournalError::write("append a row", error))?;
        self.newest = seq;
        self.outbox_bytes += body.len() as u64;
        self.make_room()?;
        Ok(seq)
    }

    /// Empties the oldest telemetry rows until the outbox is within its limit again.
    fn make_room(&mut self) -> Result<(), JournalError> {
        let wrong = |error: rusqlite::Error| JournalError::write("make room", error);
        while self.outbox_bytes > self.outbox_bytes_max {
            let oldest = self
                .db
                .prepare_cached(
                    "SELECT seq, rig, LENGTH(body) FROM outbox WHERE class = ?1 ORDER BY seq LIMIT 1",
                )
                .and_then(|mut statement| {
                    let mut rows = statement.query([TELEMETRY])?;
                    rows.next()?
                        .map(|row| Ok((from_sql(row.get(0)?), row.get(1)?, from_sql(row.get(2)?))))
                        .transpose()
                })
                .map_err(wrong)?;
            let Some((seq, rig, bytes)): Option<(u64, String, u64)> = oldest else {
                return Ok(());
            };
            let emptied = serde_json::to_vec(&TelemetryBatch {
                rig: rig_id(rig)?,
                agent: self.agent.clone(),
                journal: self.id().to_owned(),
                seq,
                samples: Vec::new(),
            })
            .map_err(|error| JournalError::write("write a row as JSON", error))?;
            self.db
                .prepare_cached("UPDATE outbox SET class = ?1, body = ?2 WHERE seq = ?3")
                .and_then(|mut statement| statement.execute((EMPTIED, &emptied, to_sql(seq))))
                .map_err(wrong)?;
            self.outbox_bytes =
                self.outbox_bytes.saturating_sub(bytes).saturating_add(emptied.len() as u64);
            tracing::warn!(seq, "the outbox is full: the oldest telemetry is given up");
        }
        Ok(())
    }

    pub(super) fn rows_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, JournalError> {
        let wrong = |error: rusqlite::Error| JournalError::write("read the outbox", error);
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT seq, class, rig, body FROM outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )
            .map_err(wrong)?;
        let mut rows = statement.query((to_sql(after), to_sql(limit as u64))).map_err(wrong)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(wrong)? {
            let class: i64 = row.get(1).map_err(wrong)?;
            found.push(OutboxRow {
                seq: from_sql(row.get(0).map_err(wrong)?),
                class: if class == EVENT { RowClass::Event } else { RowClass::Telemetry },
                rig: rig_id(row.get(2).map_err(wrong)?)?,
                body: row.get(3).map_err(wrong)?,
            });
        }
        Ok(found)
    }

    pub(super) fn forget_up_to(&mut self, seq: u64) -> Result<(), JournalError> {
        let wrong = |error: rusqlite::Error| JournalError::write("forget rows", error);
        let freed: i64 = self
            .db
            .prepare_cached("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM outbox WHERE seq <= ?1")
            .and_then(|mut statement| statement.query_row([to_sql(seq)], |row| row.get(0)))
            .map_err(wrong)?;
        self.db
            .prepare_cached("DELETE FROM outbox WHERE seq <= ?1")
            .and_then(|mut statement| statement.execute([to_sql(seq)]))
            .map_err(wrong)?;
        self.outbox_bytes = self.outbox_bytes.saturating_sub(from_sql(freed));
        Ok(())
    }
}

fn rig_id(text: String) -> Result<RigId, JournalError> {
    RigId::new(text).map_err(|error| JournalError::write("read a row", error))
}
