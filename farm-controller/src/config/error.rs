//! Why a config cannot be used: where it stands and what was expected.

use std::fmt;
use std::path::{Path, PathBuf};

/// One complaint about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, from 1, where known.
    pub place: Option<(usize, usize)>,
    /// Field, what is wrong and what was expected.
    pub text: String,
}

/// Why a config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file says something it may not say.
    #[error("{}", Lines(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, at least one.
        problems: Vec<Problem>,
    },
}

/// One line a problem: `file:line:column: field: what`.
struct Lines<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.0.display())?;
            if let Some((line, column)) = problem.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", problem.text)?;
        }
        Ok(())
    }
}
