//! Measured figures in small files of JSON, kept from one start to the next and shared by the agents of a machine.
//!
//! All of them can be measured again, so a file that cannot be used is passed over with a line in the log.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use roadbed_protocol::UnixMillis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Figures kept in one file. The oldest go first.
pub(crate) const FIGURES_MAX: usize = 64;
const VERSION: u32 = 1;

/// A figure.
pub(crate) trait Figure: Clone + Serialize + DeserializeOwned {
    /// What a file of these holds, for people.
    const WHAT: &'static str;
    /// Above what as many as are kept take.
    const FILE_BYTES_MAX: u64;

    /// Whether both are about the same, so that the newer replaces the older.
    fn is_of_same(&self, other: &Self) -> bool;

    /// By the wall.
    fn measured_at(&self) -> UnixMillis;
}

#[derive(Serialize, Deserialize)]
struct Document<F> {
    version: u32,
    /// Newest first.
    rates: Vec<F>,
}

/// Takes a figure in place of what was known of the same.
pub(crate) fn put<F: Figure>(figures: &mut Vec<F>, figure: F) {
    figures.retain(|old| !old.is_of_same(&figure));
    figures.insert(0, figure);
    figures.truncate(FIGURES_MAX);
}

/// What a file holds, the newest first; nothing when there is none or it cannot be used.
pub(crate) fn read<F: Figure>(path: &Path) -> Vec<F> {
    let passed_over = |reason: String| {
        let (file, what) = (path.display(), F::WHAT);
        tracing::warn!(%file, reason, "{what} are not used and will be measured again");
        vec![]
    };
    let text = || -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(path)?.take(F::FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    match text() {
        Ok(text) if text.len() as u64 > F::FILE_BYTES_MAX => {
            passed_over(format!("it is longer than {} bytes", F::FILE_BYTES_MAX))
        }
        Ok(text) => match serde_json::from_str::<Document<F>>(&text) {
            Ok(Document { version: VERSION, mut rates }) => {
                rates.truncate(FIGURES_MAX);
                rates
            }
            Ok(document) => passed_over(format!("it is of version {}", document.version)),
            Err(error) => passed_over(error.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        Err(error) => passed_over(error.to_string()),
    }
}

/// Keeps figures in one step; one that cannot be kept is told in the log. Other agents of this machine keep theirs in the
/// same file, so theirs are read first and stay.
pub(crate) fn write<F: Figure>(path: &Path, ours: &[F]) {
    if let Err(error) = replace(path, ours) {
        let (file, what) = (path.display(), F::WHAT);
        tracing::warn!(%file, %error, "{what} are not kept");
    }
}

fn replace<F: Figure>(path: &Path, ours: &[F]) -> io::Result<()> {
    let mut rates = ours.to_vec();
    let is_theirs = |figure: &F| ours.iter().all(|own| !own.is_of_same(figure));
    rates.extend(read(path).into_iter().filter(is_theirs));
    rates.sort_by_key(|rate| std::cmp::Reverse(rate.measured_at()));
    rates.truncate(FIGURES_MAX);
    let data = serde_json::to_vec_pretty(&Document { version: VERSION, rates })?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::File::create(&unfinished)
        .and_then(|mut file| file.write_all(&data))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It may not be there; the first error is the one to tell.
        drop(fs::remove_file(&unfinished));
    }
    written
}
