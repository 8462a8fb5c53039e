//! How fast each backend of this machine hashes, and what it draws: measured by `bench hash`, kept for the planner.

use std::path::{Path, PathBuf};

use roadbed_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::clock::wall_now;
use crate::measured::{self, Figure};

const FILE: &str = "hash-rates.json";

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

impl Figure for HashRate {
    const WHAT: &'static str = "hash rates";
    const FILE_BYTES_MAX: u64 = 1 << 16;

    fn is_of_same(&self, other: &Self) -> bool {
        self.backend == other.backend && self.algorithm == other.algorithm
    }

    fn measured_at(&self) -> UnixMillis {
        self.measured_at
    }
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
        let rates = file.as_deref().map(measured::read).unwrap_or_default();
        Self { file, rates }
    }

    /// Newest first.
    #[must_use]
    pub fn all(&self) -> &[HashRate] {
        &self.rates
    }

    /// Takes a figure in place of what was known of the same backend and algorithm.
    pub fn put(&mut self, rate: HashRate) {
        measured::put(&mut self.rates, rate);
    }

    /// Keeps the figures; a file that cannot be written is not there next time.
    pub fn write(&self) {
        if let Some(file) = &self.file {
            measured::write(file, &self.rates);
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
