//! The file: its tables, how it is opened, and how a damaged one is set aside.

use std::path::{Path, PathBuf};

use roadbed_protocol::AgentId;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use super::error::JournalError;
use crate::clock::wall_now;

/// Name of the file in the agent's data folder.
pub const FILE_NAME: &str = "journal.sqlite";
/// Bytes of outbox rows kept at most before telemetry is given up, oldest first: about a month of a hall without a
/// controller, and small beside any disk.
pub(super) const OUTBOX_BYTES_MAX: u64 = 64 * 1024 * 1024;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, class INTEGER NOT NULL, rig TEXT NOT NULL, body BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS outbox_by_class ON outbox (class, seq);
    CREATE TABLE IF NOT EXISTS rounds (
        round INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, next_index INTEGER NOT NULL,
        began INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS artifacts (
        round INTEGER NOT NULL REFERENCES rounds (round), nonce INTEGER NOT NULL, position INTEGER NOT NULL,
        body TEXT NOT NULL, delivered INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (round, nonce)
    ) WITHOUT ROWID;
";

/// The open file.
pub(super) struct Store {
    pub(super) db: Connection,
    pub(super) agent: AgentId,
    id: String,
    pub(super) newest: u64,
    pub(super) outbox_bytes: u64,
    pub(super) outbox_bytes_max: u64,
}

/// Why the file is not usable.
enum Refusal {
    Damaged(String),
    Other(JournalError),
}

impl Store {
    /// Opens or creates the file; a damaged one is renamed first.
    pub(super) fn open(folder: &Path, agent: &AgentId) -> Result<Self, JournalError> {
        let path = folder.join(FILE_NAME);
        let open_error = |reason: String| JournalError::Open { path: path.clone(), reason };
        std::fs::create_dir_all(folder).map_err(|error| open_error(error.to_string()))?;
        let reason = match Self::try_open(&path, agent) {
            Ok(store) => return Ok(store),
            Err(Refusal::Other(error)) => return Err(error),
            Err(Refusal::Damaged(reason)) => reason,
        };
        let aside = set_aside(&path).map_err(|error| open_error(error.to_string()))?;
        tracing::error!(
            file = %path.display(),
            kept_as = %aside.display(),
            "the journal is damaged ({reason}): a new one is begun; rows that were not yet \
             acknowledged are in the old file only"
        );
        Self::try_open(&path, agent).map_err(|refusal| match refusal {
            Refusal::Damaged(reason) => open_error(reason),
            Refusal::Other(error) => error,
        })
    }

    fn try_open(path: &Path, agent: &AgentId) -> Result<Self, Refusal> {
        let refuse = |error: rusqlite::Error| refusal(path, &error);
        let db = Connection::open(path).map_err(refuse)?;
        // Exclusive, so that two agents can never number rows in one file.
        db.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;
             PRAGMA foreign_keys = ON;",
        )
        .map_err(refuse)?;
        let verdict: String =
            db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(refuse)?;
        if verdict != "ok" {
            return Err(Refusal::Damaged(verdict));
        }
        db.execute_batch(SCHEMA).map_err(refuse)?;
        let known: Option<String> = db
            .query_row("SELECT value FROM meta WHERE key = 'id'", [], |row| row.get(0))
            .optional()
            .map_err(refuse)?;
        let id = match known {
            Some(id) => id,
            None => {
                let id = fresh_id();
                db.execute("INSERT INTO meta (key, value) VALUES ('id', ?1)", [&id])
                    .map_err(refuse)?;
                id
            }
        };
        let newest: Option<i64> = db
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'", [], |row| {
                row.get(0)
            })
            .optional()
            .map_err(refuse)?;
        let outbox_bytes: i64 = db
            .query_row("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM outbox", [], |row| row.get(0))
            .map_err(refuse)?;
        Ok(Self {
            db,
            agent: agent.clone(),
            id,
            newest: newest.map_or(0, from_sql),
            outbox_bytes: from_sql(outbox_bytes),
            outbox_bytes_max: OUTBOX_BYTES_MAX,
        })
    }

    /// Names this file.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Number of the newest row ever appended.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn put(&self, key: &str, value: &[u8]) -> Result<(), JournalError> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO kv (key, value) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute((key, value)))
            .map(|_rows| ())
            .map_err(|error| JournalError::write("store a value", error))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, JournalError> {
        self.db
            .prepare_cached("SELECT value FROM kv WHERE key = ?1")
            .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
            .map_err(|error| JournalError::write("read a value", error))
    }

    /// Begins a transaction; a `lasting` one is on the disk, not only in its cache, when it is committed.
    pub(super) fn begin(&self, lasting: bool) -> Result<(), JournalError> {
        let synchronous = if lasting { "FULL" } else { "NORMAL" };
        self.db
            .execute_batch(&format!("PRAGMA synchronous = {synchronous}; BEGIN IMMEDIATE"))
            .map_err(|error| JournalError::write("begin a write", error))
    }

    pub(super) fn commit(&self) -> Result<(), JournalError> {
        self.db
            .execute_batch("COMMIT")
            .map_err(|error| JournalError::write("commit a write", error))
    }

    /// Undoes what was written since [`Store::begin`] and reads the figures kept in memory again.
    pub(super) fn roll_back(&mut self) {
        if let Err(error) = self.db.execute_batch("ROLLBACK") {
            tracing::warn!("journal: cannot roll back: {error}");
        }
        let seq =
            self.db.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'", [], |row| {
                row.get(0)
            });
        self.newest = seq.map_or(self.newest, from_sql);
        let bytes =
            self.db.query_row("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM outbox", [], |row| {
                row.get(0)
            });
        self.outbox_bytes = bytes.map_or(self.outbox_bytes, from_sql);
    }
}

/// SQLite's integers are signed; none of ours comes near the end.
pub(super) fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// See [`to_sql`].
pub(super) fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn refusal(path: &Path, error: &rusqlite::Error) -> Refusal {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Refusal::Damaged(error.to_string())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Refusal::Other(JournalError::Held { path: path.to_path_buf() })
        }
        _ => Refusal::Other(JournalError::Open {
            path: path.to_path_buf(),
            reason: error.to_string(),
        }),
    }
}

/// Renames the file and what SQLite keeps beside it, so that somebody can still look into them.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let stamp = wall_now().0;
    let renamed = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let aside = renamed(&format!(".damaged-{stamp}"));
    std::fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        let beside = renamed(suffix);
        if beside.exists() {
            std::fs::rename(&beside, format!("{}{suffix}", aside.display()))?;
        }
    }
    Ok(aside)
}

/// A name no other journal has: 128 random bits, or the time where the system gives no entropy.
fn fresh_id() -> String {
    crate::random::hex::<16>().unwrap_or_else(|_| format!("at-{}", wall_now().0))
}
