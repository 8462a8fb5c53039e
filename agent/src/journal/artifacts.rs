//! Artifacts of Proof of Compute rounds: stored before they are sent, counted once.
//!
//! A round is named by a text its owner makes of everything that decides an artifact; what it means is not known here.

use rusqlite::OptionalExtension as _;

use super::error::JournalError;
use super::store::{Store, from_sql, to_sql};
use crate::clock::wall_now;

/// Rounds kept: a day holds about six, so a Network Node that comes back to one of this week finds it.
pub(super) const ROUNDS_KEPT_MAX: u64 = 64;

/// An artifact as it will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its nonce.
    pub nonce: u32,
    /// Its body, opaque here (the vector in base64).
    pub body: String,
}

/// What a round left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredRound {
    /// Position of the first nonce not worked on yet, from 0.
    pub next_index: u64,
    /// Computed, not known to be delivered, in the order they were computed.
    pub undelivered: Vec<Artifact>,
}

impl Store {
    pub(super) fn record_artifact(
        &self,
        round: &str,
        index: u64,
        nonce: u32,
        body: Option<&str>,
    ) -> Result<bool, JournalError> {
        let wrong = |error: rusqlite::Error| JournalError::write("store an artifact", error);
        let known = self.round(round)?;
        let next = to_sql(index.saturating_add(1));
        let number = match known {
            Some((number, _)) => {
                self.db
                    .prepare_cached(
                        "UPDATE rounds SET next_index = MAX(next_index, ?2) WHERE round = ?1",
                    )
                    .and_then(|mut statement| statement.execute((number, next)))
                    .map_err(wrong)?;
                number
            }
            None => {
                self.db
                    .prepare_cached(
                        "INSERT INTO rounds (name, next_index, began) VALUES (?1, ?2, ?3)",
                    )
                    .and_then(|mut statement| statement.execute((round, next, wall_now().0)))
                    .map_err(wrong)?;
                let number = self.db.last_insert_rowid();
                self.forget_old_rounds()?;
                number
            }
        };
        let Some(body) = body else { return Ok(false) };
        let rows = self
            .db
            .prepare_cached(
                "INSERT OR IGNORE INTO artifacts (round, nonce, position, body) VALUES (?1, ?2, ?3, ?4)",
            )
            .and_then(|mut statement| statement.execute((number, nonce, to_sql(index), body)))
            .map_err(wrong)?;
        Ok(rows == 1)
    }

    pub(super) fn recover_round(&self, round: &str) -> Result<StoredRound, JournalError> {
        let wrong = |error: rusqlite::Error| JournalError::write("read artifacts", error);
        let Some((number, next_index)) = self.round(round)? else {
            return Ok(StoredRound::default());
        };
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT nonce, body FROM artifacts WHERE round = ?1 AND delivered = 0 ORDER BY position",
            )
            .map_err(wrong)?;
        let rows = statement
            .query_map([number], |row| Ok(Artifact { nonce: row.get(0)?, body: row.get(1)? }))
            .map_err(wrong)?;
        let undelivered = rows.collect::<Result<_, _>>().map_err(wrong)?;
        Ok(StoredRound { next_index, undelivered })
    }

    pub(super) fn mark_delivered(
        &self,
        round: &str,
        nonces: &[u32],
    ) -> Result<Vec<u32>, JournalError> {
        let wrong = |error: rusqlite::Error| JournalError::write("mark artifacts", error);
        let Some((number, _)) = self.round(round)? else { return Ok(Vec::new()) };
        let mut update = self
            .db
            .prepare_cached(
                "UPDATE artifacts SET delivered = 1 WHERE round = ?1 AND nonce = ?2 AND delivered = 0",
            )
            .map_err(wrong)?;
        let mut marked = Vec::new();
        for &nonce in nonces {
            if update.execute((number, nonce)).map_err(wrong)? == 1 {
                marked.push(nonce);
            }
        }
        Ok(marked)
    }

    /// Number and next index of a known round.
    fn round(&self, name: &str) -> Result<Option<(i64, u64)>, JournalError> {
        self.db
            .prepare_cached("SELECT round, next_index FROM rounds WHERE name = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([name], |row| Ok((row.get(0)?, from_sql(row.get(1)?))))
                    .optional()
            })
            .map_err(|error| JournalError::write("read a round", error))
    }

    fn forget_old_rounds(&self) -> Result<(), JournalError> {
        let wrong = |error: rusqlite::Error| JournalError::write("forget old rounds", error);
        let oldest: Option<i64> = self
            .db
            .query_row(
                "SELECT round FROM rounds ORDER BY round DESC LIMIT 1 OFFSET ?1",
                [to_sql(ROUNDS_KEPT_MAX)],
                |row| row.get(0),
            )
            .optional()
            .map_err(wrong)?;
        let Some(oldest) = oldest else { return Ok(()) };
        let lost: i64 = self
            .db
            .query_row(
                "SELECT COUNT(*) FROM artifacts WHERE round <= ?1 AND delivered = 0",
                [oldest],
                |row| row.get(0),
            )
            .map_err(wrong)?;
        if lost > 0 {
            tracing::warn!("{lost} artifacts of old rounds were never taken by a Network Node");
        }
        self.db.execute("DELETE FROM artifacts WHERE round <= ?1", [oldest]).map_err(wrong)?;
        self.db.execute("DELETE FROM rounds WHERE round <= ?1", [oldest]).map_err(wrong)?;
        Ok(())
    }
}
