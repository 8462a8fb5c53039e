//! Which models are in the store, and how one leaves it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::catalogue::{CATALOGUE, ModelStore, entry};
use super::pull::{HubFolder, HubSource};

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledModel {
    /// How it is named on the command line.
    pub name: String,
    /// The file or folder that is loaded.
    pub path: PathBuf,
    /// Size of all its files.
    pub bytes: u64,
}

/// Why a model was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such model in the store.
    #[error("{model:?} is no model in {}; see: roadbed-agent models list", root.display())]
    NotHere {
        /// What was named.
        model: String,
        /// The store.
        root: PathBuf,
    },
    /// It is somewhere else, where nothing is removed.
    #[error("{} lies outside of {}: only models in there are removed", path.display(), root.display())]
    Outside {
        /// What was named.
        path: PathBuf,
        /// The store.
        root: PathBuf,
    },
    /// The disk.
    #[error("{}: {source}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Something in the store that may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Files and folders that go.
    pub paths: Vec<PathBuf>,
    /// Size of all files in them.
    pub bytes: u64,
    /// The repository and files that its folder must forget.
    forget: Option<(PathBuf, String, Vec<String>)>,
}

impl ModelStore {
    /// Every model here: of the catalogue, of the Hub, and GGUF files that somebody put here.
    #[must_use]
    pub fn installed(&self) -> Vec<InstalledModel> {
        let mut models = Vec::new();
        for entry in CATALOGUE.iter().filter(|entry| self.holds(entry)) {
            let (name, path) = (entry.name.to_owned(), self.path_of(entry));
            models.push(InstalledModel { name, path, bytes: entry.bytes });
        }
        let mut inside: Vec<PathBuf> = fs::read_dir(self.root())
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        inside.sort();
        for path in inside {
            if let Some(pulled) = HubFolder::load(&path) {
                models.extend(hub_models(&path, &pulled));
            } else if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
                let bytes = fs::metadata(&path).map_or(0, |file| file.len());
                models.push(InstalledModel { name: path.display().to_string(), path, bytes });
            }
        }
        models
    }

    /// What would go with a model: named as [`ModelStore::find`] takes it, or by a path in the store.
    ///
    /// # Errors
    /// [`RemoveError`]: it is not here, or lies elsewhere.
    pub fn removal(&self, model: &str) -> Result<Removal, RemoveError> {
        let not_here =
            || RemoveError::NotHere { model: model.to_owned(), root: self.root().to_owned() };
        if let Some(entry) = entry(model) {
            return self.whole(&self.root().join(entry.name)).ok_or_else(not_here);
        }
        if let Ok(source) = model.parse::<HubSource>()
            && (model.starts_with("hf:") || self.folder_of(&source).is_dir())
        {
            let folder = self.folder_of(&source);
            return match &source.file {
                None => self.whole(&folder).ok_or_else(not_here),
                Some(file) => pieces(&folder, &source.repo(), file).ok_or_else(not_here),
            };
        }
        let path = Path::new(model);
        if path.symlink_metadata().is_err() {
            return Err(not_here());
        }
        self.check_inside(path)?;
        self.whole(path).ok_or_else(not_here)
    }

    /// The folder that a path is in is looked up, the path itself is not: a link that lies in the store is in the store.
    fn check_inside(&self, path: &Path) -> Result<(), RemoveError> {
        let outside =
            || RemoveError::Outside { path: path.to_owned(), root: self.root().to_owned() };
        let absolute = std::path::absolute(path).map_err(|_| outside())?;
        let (parent, name) = absolute.parent().zip(absolute.file_name()).ok_or_else(outside)?;
        let parent = parent.canonicalize().map_err(|_| outside())?;
        let root = self.root().canonicalize().map_err(|_| outside())?;
        let plain = name != ".." && name != ".";
        if plain && parent.starts_with(&root) { Ok(()) } else { Err(outside()) }
    }

    fn whole(&self, path: &Path) -> Option<Removal> {
        path.symlink_metadata().ok()?;
        Some(Removal { paths: vec![path.to_owned()], bytes: size_of(path), forget: None })
    }
}

impl Removal {
    /// Removes it.
    ///
    /// # Errors
    /// [`RemoveError::Disk`]; what was removed before is gone.
    pub fn carry_out(self) -> Result<(), RemoveError> {
        for path in &self.paths {
            // Never what a link points to.
            let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.map_err(|source| RemoveError::Disk { path: path.clone(), source })?;
        }
        if let Some((folder, repo, files)) = self.forget {
            for file in files {
                HubFolder::forget(&folder, &repo, &file).map_err(|error| RemoveError::Disk {
                    path: folder.clone(),
                    source: io::Error::other(error),
                })?;
            }
        }
        Ok(())
    }
}

fn hub_models(folder: &Path, pulled: &HubFolder) -> Vec<InstalledModel> {
    let mut models = Vec::new();
    for (name, files) in pulled.models() {
        let wanted =
            name.rsplit_once(':').map(|(_, file)| file).filter(|_| name.matches(':').count() > 1);
        if let Ok(path) = pulled.model(folder, wanted) {
            let bytes = files.iter().map(|file| file.bytes).sum();
            models.push(InstalledModel { name, path, bytes });
        }
    }
    models
}

/// The files of one model in the folder of a repository.
fn pieces(folder: &Path, repo: &str, file: &str) -> Option<Removal> {
    let pulled = HubFolder::load(folder)?;
    let models = pulled.models();
    let meant = pulled.model(folder, Some(file)).ok()?;
    let (_, files) = models
        .iter()
        .find(|(_, files)| files.iter().any(|file| folder.join(&file.path) == meant))?;
    Some(Removal {
        paths: files.iter().map(|file| folder.join(&file.path)).collect(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        forget: Some((
            folder.to_owned(),
            repo.to_owned(),
            files.iter().map(|file| file.path.clone()).collect(),
        )),
    })
}

fn size_of(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_of(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ModelStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::at(dir.path().join("models"));
        let folder = store.root().join("org--repo");
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in [("m-Q4_0.gguf", 3), ("m-Q8_0.gguf", 5)] {
            fs::write(folder.join(name), vec![0; bytes]).unwrap();
        }
        let file = |path: &str, bytes| serde_json::json!({"path": path, "bytes": bytes, "sha256": "", "commit": ""});
        let manifest = serde_json::json!(
            {"repo": "org/repo", "files": [file("m-Q4_0.gguf", 3), file("m-Q8_0.gguf", 5)]}
        );
        fs::write(folder.join("roadbed.json"), manifest.to_string()).unwrap();
        fs::write(store.root().join("own.gguf"), b"1234").unwrap();
        (dir, store)
    }

    #[test]
    fn what_is_here_is_listed_found_and_removed() {
        let (_dir, store) = store();
        let names = |store: &ModelStore| -> Vec<String> {
            store.installed().into_iter().map(|model| model.name).collect()
        };
        let own = store.root().join("own.gguf").display().to_string();
        assert_eq!(names(&store), ["hf:org/repo:m-Q4_0.gguf", "hf:org/repo:m-Q8_0.gguf", &own]);
        let found = store.find("org/repo:q8_0").unwrap();
        assert_eq!(
            (found.served_as.as_str(), found.path.file_name().unwrap().to_str()),
            ("org/repo", Some("m-Q8_0.gguf"))
        );
        assert!(
            store.find("hf:org/repo").unwrap_err().to_string().contains("hf:org/repo:m-Q4_0.gguf")
        );
        let said = store.find("hf:org/other:x").unwrap_err().to_string();
        assert!(said.ends_with("models pull hf:org/other:x"), "{said}");

        let removal = store.removal("hf:org/repo:q4_0").unwrap();
        assert_eq!(removal.bytes, 3);
        removal.carry_out().unwrap();
        assert_eq!(names(&store), ["hf:org/repo", &own]);
        assert_eq!(store.find("org/repo").unwrap().path.file_name().unwrap(), "m-Q8_0.gguf");
        store.removal(&own).unwrap().carry_out().unwrap();
        store.removal("org/repo").unwrap().carry_out().unwrap();
        assert!(names(&store).is_empty() && store.root().is_dir());
    }

    #[test]
    fn nothing_outside_of_the_store_is_removed() {
        let (dir, store) = store();
        let outside = dir.path().join("precious.gguf");
        fs::write(&outside, b"x").unwrap();
        let within = |path: &str| store.root().join(path).display().to_string();
        for path in [
            outside.display().to_string(),
            within("../precious.gguf"),
            within("."),
            within(".."),
            within("org--repo/.."),
            "/".into(),
        ] {
            assert!(matches!(store.removal(&path), Err(RemoveError::Outside { .. })), "{path}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&outside, store.root().join("link.gguf")).unwrap();
            std::os::unix::fs::symlink(dir.path(), store.root().join("way-out")).unwrap();
            assert!(matches!(
                store.removal(&within("way-out/precious.gguf")),
                Err(RemoveError::Outside { .. })
            ));
            // The links themselves may go; what they point to stays.
            for link in ["link.gguf", "way-out"] {
                store.removal(&within(link)).unwrap().carry_out().unwrap();
            }
        }
        assert!(outside.exists());
        assert!(matches!(store.removal("nothing"), Err(RemoveError::NotHere { .. })));
        assert!(matches!(store.removal("smollm2-135m"), Err(RemoveError::NotHere { .. })));
    }
}
