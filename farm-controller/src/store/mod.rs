//! The controller's memory on disk: one SQLite file, one thread that writes it.
//!
//! Everything a batch of the control loop decided is kept in one transaction, synced before it is reported as kept. Rows
//! of agents' journals are keyed by journal and number, so a row that comes twice is stored once; the generation of a
//! rig and the signer's counter can only rise.

mod entry;
mod read;
mod schema;
mod write;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::broker::Waiting;
use crate::control::{KeepError, Keeper, Kept, Record};

pub use read::{StoredAlert, StoredPlan, alerts, plans};

/// Batches waiting for the disk. The control loop waits for each, so more than one waits only in tests.
const BATCHES_WAITING_MAX: usize = 16;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its folder cannot be made.
    #[error("store {}: {source}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// SQLite refuses.
    #[error("store {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
    /// It was written by a newer version.
    #[error("store {} has schema {found}, this version writes {known}: update the controller or move the file away", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Schema in the file.
        found: u32,
        /// Newest schema known here.
        known: u32,
    },
    /// A row cannot be read back.
    #[error("store {}: {what} is damaged: {reason}; restore a copy or move the file away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which row.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

type Batch = (Vec<Record>, oneshot::Sender<Result<(), KeepError>>);

/// The open store. Dropping it closes the file after the last batch.
pub struct Store {
    batches: Option<mpsc::Sender<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or makes the file and tells what it holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<(Self, Kept), StoreError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| StoreError::Folder { path: path.to_path_buf(), source })?;
        }
        let mut connection = schema::open(path)?;
        let kept = read::kept(&connection, path)?;
        let (batches, mut waiting) = mpsc::channel::<Batch>(BATCHES_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Some((records, answer)) = waiting.blocking_recv() {
                    let _ = answer.send(keep(&mut connection, &records));
                }
            })
            .map_err(|source| StoreError::Folder { path: path.to_path_buf(), source })?;
        Ok((Self { batches: Some(batches), thread: Some(thread) }, kept))
    }
}

/// Reads what a store holds without keeping it open: for reports after a run.
///
/// # Errors
/// [`StoreError`].
pub fn read_kept(path: &Path) -> Result<Kept, StoreError> {
    let connection = schema::open(path)?;
    read::kept(&connection, path)
}

impl Keeper for Store {
    fn keep(&self, records: Vec<Record>) -> Waiting<'_, Result<(), KeepError>> {
        Box::pin(async move {
            let gone = || KeepError("its thread has ended".to_owned());
            let (answer, kept) = oneshot::channel();
            let batches = self.batches.as_ref().ok_or_else(gone)?;
            batches.send((records, answer)).await.map_err(|_| gone())?;
            kept.await.map_err(|_| gone())?
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep(connection: &mut Connection, records: &[Record]) -> Result<(), KeepError> {
    let failed = |error: rusqlite::Error| KeepError(error.to_string());
    let transaction = connection.transaction().map_err(failed)?;
    for record in records {
        write::record(&transaction, record)?;
    }
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests;
