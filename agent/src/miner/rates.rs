//! How fast each backend of this machine hashes, and what it draws: measured by `bench hash`, kept for the planner.

use std::path::{Path, PathBuf};

use roadbed_protocol::{self as protocol, HashesPerSecond, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::clock::wall_now;
use crate::measured::{self, Figure};

const FILE: &str = "hash-rates.json";
/// What the built-in miner hashes.
pub const SHA256D: &str = "sha256d";

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
            algorithm: SHA256D.to_owned(),
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

    /// What a rig hashes an algorithm with, together: SHA-256d with these GPUs, each by its label, and `threads` threads of the
    /// CPU's code `cpu`; of any other algorithm the newest figure, for its miner drives all cards by itself. A sum with an
    /// unmeasured part is no figure.
    #[must_use]
    pub fn of_rig(&self, gpus: &[String], threads: usize, cpu: &str) -> Vec<protocol::HashRate> {
        let told = |algorithm: &str, rate: u64, at: UnixMillis| protocol::HashRate {
            algorithm: algorithm.to_owned(),
            hashes_per_second: HashesPerSecond(rate),
            measured_at: at,
        };
        let own = |backend: &str| {
            self.rates.iter().find(|rate| rate.algorithm == SHA256D && rate.backend == backend)
        };
        let threads = u64::try_from(threads).unwrap_or(u64::MAX);
        let parts = gpus.iter().map(|gpu| (own(gpu), 1));
        let parts: Option<Vec<_>> = parts
            .chain((threads > 0).then(|| (own(cpu), threads)))
            .map(|(rate, times)| Some((rate?, times)))
            .collect();
        let mut rates = Vec::new();
        if let Some(parts) = parts
            && let Some(oldest) = parts.iter().map(|(rate, _)| rate.measured_at).min()
        {
            let sum = parts.iter().fold(0_u64, |sum, (rate, times)| {
                sum.saturating_add(rate.hashes_per_second.saturating_mul(*times))
            });
            rates.push(told(SHA256D, sum, oldest));
        }
        for rate in self.rates.iter().filter(|rate| rate.algorithm != SHA256D) {
            if !rates.iter().any(|known| known.algorithm == rate.algorithm) {
                rates.push(told(&rate.algorithm, rate.hashes_per_second, rate.measured_at));
            }
        }
        rates.truncate(protocol::HASH_RATES_REPORTED_MAX);
        rates
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

    #[test]
    fn a_rig_is_told_as_the_sum_of_what_it_mines_with() {
        let mut rates = HashRates::open(None);
        rates.put(HashRate::now("cpu", 3e6, None));
        rates.put(HashRate::now("card (0000:01:00.0)", 2e9, None));
        rates.put(HashRate { algorithm: "kawpow".into(), ..HashRate::now("miner", 3e7, None) });
        let card = ["card (0000:01:00.0)".to_owned()];
        let told = |gpus: &[String], threads| {
            let rates = rates.of_rig(gpus, threads, "cpu").into_iter();
            rates.map(|rate| (rate.algorithm, rate.hashes_per_second.0)).collect::<Vec<_>>()
        };
        let kawpow = ("kawpow".to_owned(), 30_000_000);
        assert_eq!(told(&card, 2), [("sha256d".to_owned(), 2_006_000_000), kawpow.clone()]);
        assert_eq!(
            told(&["another".to_owned()], 2),
            std::slice::from_ref(&kawpow),
            "a part is not measured"
        );
        assert_eq!(told(&[], 0), [kawpow]);
    }
}
