//! The last reading in a file of the state folder, so that a restart while the source is away costs nothing.
//!
//! Losing it is harmless: the figure is then absent until somebody answers.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest file read: a list of two thousand coins.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where readings of one kind are kept.
#[derive(Debug, Clone)]
pub struct Kept<R>(PathBuf, PhantomData<fn() -> R>);

impl<R: Serialize + DeserializeOwned> Kept<R> {
    /// In a file of the state folder of a site.
    #[must_use]
    pub fn in_folder(state_dir: &Path, file: &str) -> Self {
        Self(state_dir.join(file), PhantomData)
    }

    /// The last reading; `None` when there is none that can be read.
    #[must_use]
    pub fn read(&self) -> Option<R> {
        if std::fs::metadata(&self.0).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let text = std::fs::read_to_string(&self.0).ok()?;
        serde_json::from_str(&text)
            .inspect_err(|error| {
                tracing::warn!(file = %self.0.display(), %error, "what is kept there is not used");
            })
            .ok()
    }

    /// Replaces it, in one step.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, reading: &R) -> std::io::Result<()> {
        let text = serde_json::to_string(reading)?;
        let fresh = self.0.with_extension("json.new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(fresh, &self.0)
    }
}
