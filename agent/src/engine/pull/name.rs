//! What may be fetched, as a person writes it, and which names from outside may become names of files.
//!
//! A model's file names come from a server. Only plain names get through: no way out of the folder, nothing hidden,
//! nothing that another system reads differently.

use std::fmt;
use std::str::FromStr;

use crate::engine::catalogue::{self, CatalogueEntry};

/// The Hub's own bound on names of organisations and repositories.
const NAME_CHARACTERS_MAX: usize = 96;
/// Real repositories go one folder deep; the longest published file names have about 100 characters.
const PATH_CHARACTERS_MAX: usize = 255;
const PATH_DEPTH_MAX: usize = 4;
/// Branch, tag or commit.
const REVISION_DEFAULT: &str = "main";

/// Something that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullSource {
    /// A model of the catalogue.
    Catalogue(&'static CatalogueEntry),
    /// A repository of the Hub, or one file in it.
    Hub(HubSource),
}

/// `hf:org/repo[@revision][:file]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSource {
    /// The organisation or user.
    pub organisation: String,
    /// The repository.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// A file in it, or a part of a file's name such as `Q4_K_M`.
    pub file: Option<String>,
}

/// A name that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?}: {reason}")]
pub struct NameError {
    given: String,
    reason: String,
}

impl NameError {
    fn new(given: &str, reason: impl Into<String>) -> Self {
        Self { given: given.to_owned(), reason: reason.into() }
    }
}

impl FromStr for PullSource {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(entry) = catalogue::entry(text) {
            return Ok(Self::Catalogue(entry));
        }
        if text.starts_with("hf:") {
            return text.parse().map(Self::Hub);
        }
        let known: Vec<&str> = catalogue::CATALOGUE.iter().map(|entry| entry.name).collect();
        Err(NameError::new(
            text,
            format!(
                "is neither in the catalogue ({}) nor of the form hf:org/repo[:file]",
                known.join(", ")
            ),
        ))
    }
}

impl FromStr for HubSource {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |reason: String| NameError::new(text, reason);
        let rest = text.strip_prefix("hf:").unwrap_or(text);
        let (rest, file) = match rest.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (rest, None),
        };
        let (rest, revision) = rest.split_once('@').unwrap_or((rest, REVISION_DEFAULT));
        let (organisation, repository) = rest
            .split_once('/')
            .ok_or_else(|| bad("expected hf:org/repo[@revision][:file]".into()))?;
        for (what, name) in [("organisation", organisation), ("repository", repository)] {
            check_name(name).map_err(|reason| bad(format!("{what} {reason}")))?;
        }
        for part in revision.split('/') {
            check_name(part).map_err(|reason| bad(format!("revision {reason}")))?;
        }
        if let Some(file) = file {
            check_path(file).map_err(|reason| bad(format!("file {reason}")))?;
        }
        Ok(Self {
            organisation: organisation.to_owned(),
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for HubSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo())?;
        if self.revision != REVISION_DEFAULT {
            write!(f, "@{}", self.revision)?;
        }
        self.file.as_ref().map_or(Ok(()), |file| write!(f, ":{file}"))
    }
}

impl HubSource {
    /// `org/repo`.
    #[must_use]
    pub fn repo(&self) -> String {
        format!("{}/{}", self.organisation, self.repository)
    }

    /// The folder of the repository among the models. The Hub allows no `--` in names, so no two share one.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}--{}", self.organisation, self.repository)
    }
}

/// Letters, digits, `-`, `_` and `.`, as the Hub has it; no `--`, nothing hidden.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_CHARACTERS_MAX {
        return Err(format!("has {} characters; expected 1 to {NAME_CHARACTERS_MAX}", name.len()));
    }
    if !name.chars().all(plain) || name.starts_with('.') || name.contains("--") {
        return Err(format!("{name:?} has other characters than letters, digits, - _ and ."));
    }
    Ok(())
}

/// True for a file that may be written below a folder of models: relative, plain, not hidden.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+ ()[]=,".contains(c);
    if path.is_empty() || path.len() > PATH_CHARACTERS_MAX {
        return Err(format!("has {} characters; expected 1 to {PATH_CHARACTERS_MAX}", path.len()));
    }
    let parts: Vec<&str> = path.split('/').collect();
    let fits =
        |part: &&str| !part.is_empty() && !part.starts_with(['.', ' ']) && part.chars().all(plain);
    if parts.len() > PATH_DEPTH_MAX || !parts.iter().all(fits) {
        return Err(format!("{path:?} is no plain relative path; it is refused"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<String, String> {
        let parsed: Result<PullSource, NameError> = text.parse();
        parsed.map(|source| format!("{source:?}")).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read() {
        let hub = |text: &str| -> HubSource { text.parse().unwrap() };
        let plain = hub("hf:org/repo");
        assert_eq!((plain.repo(), plain.folder()), ("org/repo".into(), "org--repo".into()));
        assert_eq!((plain.revision.as_str(), plain.file.as_ref()), ("main", None));
        let full = hub("hf:Org-1/Re.po_2@refs/pr/7:sub/model-Q4_K_M.gguf");
        assert_eq!(full.revision, "refs/pr/7");
        assert_eq!(full.file.as_deref(), Some("sub/model-Q4_K_M.gguf"));
        for text in ["hf:org/repo", "hf:org/repo@v1", "hf:org/repo@v1:a/b.gguf", "hf:org/repo:q4"] {
            assert_eq!(hub(text).to_string(), text);
        }
        assert!(source("smollm2-135m").unwrap().starts_with("Catalogue"));
        assert!(source("smollm3").unwrap_err().contains("smollm2-135m"));
    }

    #[test]
    fn hostile_names_are_refused() {
        for text in [
            "hf:",
            "hf:org",
            "hf:/repo",
            "hf:org/",
            "hf:org/re po",
            "hf:../etc",
            "hf:org/..",
            "hf:o--g/r",
            "hf:org/repo@",
            "hf:org/repo@../x",
            "hf:org/repo:",
            "hf:org/repo:/etc/passwd",
            "hf:org/repo:../x",
            "hf:org/repo:a/../../x",
            "hf:org/repo:a\\b",
            "hf:org/repo:.hidden",
            "hf:org/repo:a\0b",
            "hf:org/a/b",
            "hf:org/repo:a//b",
            "hf:org/repo:a/b/c/d/e",
            "hf:org/repo:\u{202e}gguf",
            "hf:org/repo:a:b",
            "hf:org/repo:~",
        ] {
            assert!(source(text).is_err(), "{text:?}");
        }
        assert!(check_path(&"a".repeat(256)).is_err());
        assert!(check_path("model-00001-of-00003.safetensors").is_ok());
    }
}
