//! Why a model was not fetched.

use std::io;
use std::path::{Path, PathBuf};

use super::name::NameError;
use crate::engine::space::NoSpace;

/// The one error of a pull: what failed, where, what to do. What was fetched so far stays unless the variant says
/// otherwise, and the next pull goes on from it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A name that names nothing.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A program is missing or cannot be run.
    #[error("cannot run {program}: {source}; install it (Debian: apt-get install python3-pip)")]
    Program {
        /// The program.
        program: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A step of a program failed.
    #[error("{step} failed: {output}")]
    Step {
        /// Which one.
        step: &'static str,
        /// The last line the program wrote.
        output: String,
    },
    /// The package or repository holds no such file.
    #[error("{place} holds no file {file}{hint}")]
    NotInside {
        /// The package or repository.
        place: String,
        /// The file.
        file: String,
        /// What it does hold, or nothing.
        hint: String,
    },
    /// The repository holds several files that could be meant.
    #[error("{place} holds several models; name one: {choices}")]
    Ambiguous {
        /// The repository.
        place: String,
        /// How to name each.
        choices: String,
    },
    /// The file is not the one that was meant.
    #[error("the file from {place} has SHA-256 {found}, expected {expected}; it was thrown away")]
    WrongSum {
        /// Where it came from.
        place: String,
        /// Its sum.
        found: String,
        /// The right one.
        expected: String,
    },
    /// The file is not as long as it was said to be.
    #[error("{place} has {found} bytes now, expected {expected}: it has changed; pull again")]
    WrongSize {
        /// Where it came from.
        place: String,
        /// What the server sends.
        found: u64,
        /// What was expected.
        expected: u64,
    },
    /// The server wants to know who asks, or will not have him.
    #[error("{place} is not open to everybody (HTTP {status}): {advice}")]
    Denied {
        /// What was asked for.
        place: String,
        /// 401 or 403.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
    /// There is no such thing there.
    #[error(
        "{place} does not exist (HTTP 404): check the spelling, and that HF_TOKEN is set if it is private"
    )]
    NotFound {
        /// What was asked for.
        place: String,
    },
    /// The server has been asked too often, or is ill, for longer than we wait.
    #[error(
        "{place}: {reason}, {tries} times in a row{advice}; what is here stays: pull again later"
    )]
    Unreachable {
        /// What was asked for.
        place: String,
        /// What happened the last time.
        reason: String,
        /// How often it was tried without anything coming.
        tries: u32,
        /// When the server says to come again, or nothing.
        advice: String,
    },
    /// An answer we do not understand.
    #[error("{place}: {reason}")]
    BadAnswer {
        /// What was asked for.
        place: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Another process fetches the same file.
    #[error("{path} is being fetched by another process already")]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// The disk.
    #[error("{path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Gives an error of the disk its place.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> PullError {
    let path = path.to_owned();
    move |source| PullError::Disk { path, source }
}
