//! How fast each backend of this machine hashes, and what it draws: measured by `bench hash`, kept for the planner.

use std::path::{Path, PathBuf};

use roadbed_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::clock::wall_now;

const FILE: &str = "hash-rates.json";
const VERSION: u32 = 1;
/// Figures kept: backends times algorithms. The oldest go first.
const RATES_MAX: usize = 64;
/// Above what so many figures take.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// A figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRate {
    /// What hashes: a code of the CPU (one thread), or an adapter.
    pub backend: String,
    pub algorithm: String,
    pub hashes_per_second: u64,
    /// Absent where no sensor tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub milliwatts: Option<u64>,
    /// By the wall.
    pub measured_at: UnixMillis,
}

impl HashRate {
    /// Of SHA-256d, measured now.
    #[must_use]
    pub fn now(backend: &str, hashes_per_second: f64, watts: Option<f64>) -> Self {
        Self {
            backend: backend.to_owned(),
            algorithm: "sha256d".to_owned(),
            hashes_per_second: hashes_per_second as u64,
            milliwatts: watts.map(|watts| (watts * 1e3) as u64),
            measured_at: wall_now(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RatesFile {
    version: u32,
    /// Newest first.
    rates: Vec<HashRate>,
}

/// All figures of this machine.
pub struct HashRates {
    file: Option<PathBuf>,
    rates: Vec<HashRate>,
}

impl HashRates {
    /// Goes on with what is kept in `folder`. A file that cannot be used is passed over: everything in it can be measured
    /// again.
    #[must_use]
    pub fn open(folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join(FILE));
        let rates = file.as_deref().and_then(read).unwrap_or_default();
        Self { file, rates }
    }

    /// Newest first.
    #[must_use]
    pub fn all(&self) -> &[HashRate] {
        &self.rates
    }

    /// Takes a figure in place of what was known of the same backend and algorithm.
    pub fn put(&mut self, rate: HashRate) {
        let same = |old: &HashRate| old.backend == rate.backend && old.algorithm == rate.algorithm;
        self.rates.retain(|old| !same(old));
        self.rates.insert(0, rate);
        self.rates.truncate(RATES_MAX);
    }

    /// Keeps the figures; a file that cannot be written is not there next time.
    pub fn write(&self) {
        let Some(file) = &self.file else { return };
        let document = RatesFile { version: VERSION, rates: self.rates.clone() };
        let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
        let written =
            serde_json::to_vec_pretty(&document).map_err(std::io::Error::from).and_then(|data| {
                file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::write(&unfinished, data)?;
                std::fs::rename(&unfinished, file)
            });
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "hash rates are not kept");
        }
    }
}

fn read(file: &Path) -> Option<Vec<HashRate>> {
    if std::fs::metadata(file).ok()?.len() > FILE_BYTES_MAX {
        tracing::warn!(file = %file.display(), "hash rates are passed over: the file is too long");
        return None;
    }
    let data = std::fs::read(file).ok()?;
    match serde_json::from_slice::<RatesFile>(&data) {
        Ok(document) if document.version == VERSION => Some(document.rates),
        Ok(document) => {
            tracing::warn!(version = document.version, "hash rates of another version");
            None
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "hash rates are passed over");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_back_one_for_each_backend_unless_the_file_is_unfit() {
        let folder = tempfile::tempdir().unwrap();
        let mut rates = HashRates::open(Some(folder.path()));
        rates.put(HashRate::now("cpu", 1e6, None));
        rates.put(HashRate::now("card", 2e9, Some(120.5)));
        rates.put(HashRate::now("cpu", 3e6, None));
        rates.write();
        let again = HashRates::open(Some(folder.path()));
        assert_eq!(again.all(), rates.all());
        let known: Vec<_> =
            again.all().iter().map(|r| (&*r.backend, r.hashes_per_second, r.milliwatts)).collect();
        assert_eq!(known, [("cpu", 3_000_000, None), ("card", 2_000_000_000, Some(120_500))]);
        for unfit in ["", "{}", r#"{"version":9,"rates":[]}"#] {
            std::fs::write(folder.path().join(FILE), unfit).unwrap();
            assert!(HashRates::open(Some(folder.path())).all().is_empty());
        }
        assert!(HashRates::open(None).all().is_empty());
    }
}
