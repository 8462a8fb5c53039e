//! The tables, and how the file is opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::StoreError;

/// Number of the newest schema, kept in `user_version`.
const VERSION: u32 = 2;
/// How long another process (a backup, a person with `sqlite3`) may hold the file.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE plan (
    id INTEGER PRIMARY KEY, made_at INTEGER NOT NULL, plan TEXT NOT NULL
) STRICT;
CREATE TABLE assignment (
    rig TEXT PRIMARY KEY, generation INTEGER NOT NULL, assignment TEXT NOT NULL
) STRICT;
CREATE TABLE entry (
    agent TEXT NOT NULL, journal TEXT NOT NULL, seq INTEGER NOT NULL, parts TEXT NOT NULL,
    PRIMARY KEY (agent, journal, seq)
) STRICT;
CREATE TABLE journal (
    agent TEXT NOT NULL, journal TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (agent, journal)
) STRICT;
CREATE TABLE alert (
    at INTEGER NOT NULL, key TEXT NOT NULL, rig TEXT, active INTEGER NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE hold (
    rig TEXT PRIMARY KEY, workload TEXT NOT NULL, operator TEXT NOT NULL
) STRICT;
";

/// What Network Nodes last said, as they said it: read again by whatever version starts next.
const SINCE_2: &str = "
CREATE TABLE gonka (key TEXT PRIMARY KEY, at INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
";

/// Opens the file, makes the tables if it is new, and sets it to survive a power cut.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let sqlite = |source| StoreError::Sqlite { path: path.to_path_buf(), source };
    let mut connection = Connection::open(path).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
    // In WAL mode only FULL syncs at every commit; an acknowledged journal row may not be lost with the power.
    connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    match found {
        0 | 1 => {
            let transaction = connection.transaction().map_err(sqlite)?;
            if found == 0 {
                transaction.execute_batch(TABLES).map_err(sqlite)?;
            }
            transaction.execute_batch(SINCE_2).map_err(sqlite)?;
            transaction.pragma_update(None, "user_version", VERSION).map_err(sqlite)?;
            transaction.commit().map_err(sqlite)?;
        }
        VERSION => {}
        newer => {
            return Err(StoreError::Newer {
                path: path.to_path_buf(),
                found: newer,
                known: VERSION,
            });
        }
    }
    Ok(connection)
}
