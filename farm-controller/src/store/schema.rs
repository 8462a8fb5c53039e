//! Tables and settings of the file.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// Version of the tables below; kept in SQLite's `user_version`.
const VERSION: u32 = 1;

const TABLES: &str = "
CREATE TABLE assignments (
    rig TEXT PRIMARY KEY, generation INTEGER NOT NULL, body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE plans (
    id INTEGER PRIMARY KEY, made_at INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    agent TEXT NOT NULL, journal TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (agent, journal, seq)
) STRICT;
CREATE TABLE journals (
    agent TEXT NOT NULL, journal TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (agent, journal)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
    rig TEXT PRIMARY KEY, workload TEXT NOT NULL, operator TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE alerts (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, key TEXT NOT NULL, rig TEXT,
    active INTEGER NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE signer (one INTEGER PRIMARY KEY CHECK (one = 1), counter INTEGER NOT NULL) STRICT;
";

/// Opens the file, makes the tables in an empty one.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Open {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    // A power cut must not lose what was acknowledged.
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    match found {
        0 => {
            let transaction = connection.transaction().map_err(failed)?;
            transaction.execute_batch(TABLES).map_err(failed)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        VERSION => {}
        found => {
            return Err(StoreError::TooNew { path: path.to_owned(), found, known: VERSION });
        }
    }
    Ok(connection)
}
