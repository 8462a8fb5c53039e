//! The last reading in a file of the state folder, so that a restart while the source is away costs nothing.
//!
//! Losing it is harmless: the figure is then absent until somebody answers.

use std::path::{Path, PathBuf};

use super::Reading;

const FILE: &str = "hashprice.json";
/// Largest file read; a reading is below one kilobyte.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where readings are kept.
#[derive(Debug, Clone)]
pub struct Kept(PathBuf);

impl Kept {
    /// In the state folder of a site.
    #[must_use]
    pub fn in_folder(state_dir: &Path) -> Self {
        Self(state_dir.join(FILE))
    }

    /// The last reading; `None` when there is none that can be read.
    #[must_use]
    pub fn read(&self) -> Option<Reading> {
        if std::fs::metadata(&self.0).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let text = std::fs::read_to_string(&self.0).ok()?;
        serde_json::from_str(&text)
            .inspect_err(|error| {
                tracing::warn!(file = %self.0.display(), %error, "the kept hashprice is not used");
            })
            .ok()
    }

    /// Replaces it, in one step.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, reading: &Reading) -> std::io::Result<()> {
        let text = serde_json::to_string(reading)?;
        let fresh = self.0.with_extension("json.new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(fresh, &self.0)
    }
}
