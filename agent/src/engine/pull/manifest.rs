//! What was fetched into a folder: `roadbed.json` beside the files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{PullError, at};
use super::listing::{choose_among, is_gguf};

const NAME: &str = "roadbed.json";
/// Held while the manifest is changed, because two pulls may end at once.
const LOCK_NAME: &str = ".roadbed.lock";

/// The folder of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubFolder {
    /// `org/repo`.
    pub repo: String,
    /// What is here, by path.
    pub files: Vec<PulledFile>,
}

/// A file that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledFile {
    /// Path below the folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, lower-case hex.
    pub sha256: String,
    /// The commit it is of.
    pub commit: String,
}

impl HubFolder {
    /// What the folder says of itself; nothing if it is not there or says nothing sensible.
    #[must_use]
    pub fn load(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(NAME)).ok()?).ok()
    }

    /// The file of this path, if it is here as it was fetched. Its size suffices: its sum was right when it got here.
    #[must_use]
    pub fn holds(&self, folder: &Path, path: &str) -> Option<&PulledFile> {
        let file = self.files.iter().find(|file| file.path == path)?;
        fs::metadata(folder.join(path)).is_ok_and(|found| found.len() == file.bytes).then_some(file)
    }

    /// The model meant by `wanted`, if it is whole: a GGUF file, the first piece of a split one, or the folder itself
    /// when it is made of safetensors.
    ///
    /// # Errors
    /// [`PullError::Ambiguous`], or [`PullError::NotInside`] if it is not here.
    pub fn model(&self, folder: &Path, wanted: Option<&str>) -> Result<PathBuf, PullError> {
        let place = format!("hf:{}", self.repo);
        let names: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let chosen = choose_among(&place, &names, wanted)?;
        if let Some(broken) = chosen.iter().find(|path| self.holds(folder, path).is_none()) {
            let file = (*broken).to_owned();
            return Err(PullError::NotInside { place, file, hint: String::new() });
        }
        Ok(match chosen.first() {
            Some(first) if !first.ends_with(".safetensors") => folder.join(first),
            Some(_) | None => folder.to_owned(),
        })
    }

    /// Every model here, as it is named on the command line, with its files.
    #[must_use]
    pub fn models(&self) -> Vec<(String, Vec<&PulledFile>)> {
        let place = format!("hf:{}", self.repo);
        let names: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let mut models: Vec<(String, Vec<&str>)> = Vec::new();
        if let Ok(files) = choose_among(&place, &names, None) {
            models.push((place.clone(), files));
        }
        for name in names.iter().filter(|name| is_gguf(name)) {
            if models.iter().any(|(_, files)| files.contains(name)) {
                continue;
            }
            if let Ok(files) = choose_among(&place, &names, Some(name)) {
                models.push((format!("{place}:{}", files.first().unwrap_or(name)), files));
            }
        }
        let of = |paths: Vec<&str>| {
            self.files.iter().filter(|file| paths.contains(&file.path.as_str())).collect()
        };
        models.into_iter().map(|(name, paths)| (name, of(paths))).collect()
    }

    /// Puts a file in, in place of an older one of its path.
    pub(super) fn record(folder: &Path, repo: &str, file: PulledFile) -> Result<(), PullError> {
        Self::change(folder, repo, |files| {
            files.retain(|known| known.path != file.path);
            files.push(file);
            files.sort_by(|a, b| a.path.cmp(&b.path));
        })
    }

    /// Takes a file out.
    ///
    /// # Errors
    /// [`PullError::Disk`].
    pub fn forget(folder: &Path, repo: &str, path: &str) -> Result<(), PullError> {
        Self::change(folder, repo, |files| files.retain(|known| known.path != path))
    }

    fn change(
        folder: &Path,
        repo: &str,
        edit: impl FnOnce(&mut Vec<PulledFile>),
    ) -> Result<(), PullError> {
        let lock_path = folder.join(LOCK_NAME);
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        let mut manifest =
            Self::load(folder).unwrap_or_else(|| Self { repo: repo.into(), files: vec![] });
        edit(&mut manifest.files);
        let path = folder.join(NAME);
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| PullError::Disk { path: path.clone(), source: error.into() })?;
        let beside: PathBuf = folder.join(format!(".{NAME}"));
        fs::write(&beside, text).map_err(at(&beside))?;
        fs::rename(&beside, &path).map_err(at(&path))
    }
}
