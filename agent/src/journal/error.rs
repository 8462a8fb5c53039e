//! What can go wrong with the journal.

use std::path::PathBuf;

/// Why the journal did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened or created.
    #[error("journal {}: cannot be opened: {reason}; check that the folder exists and is writable", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another process has it.
    #[error("journal {}: another agent holds it; every agent needs a data_dir of its own", path.display())]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// A write or read failed.
    #[error("journal: cannot {what}: {reason}; check free space and the disk")]
    Write {
        /// What was tried.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// The journal was shut down.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    pub(super) fn write(what: &str, error: impl ToString) -> Self {
        Self::Write { what: what.to_owned(), reason: error.to_string() }
    }
}
