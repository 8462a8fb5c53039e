//! `pool:` and `mining:` of a rig.
//!
//! `pool:` is the short form of a `mining:` with one pool. `mining: external:` is a miner of somebody else, and stands alone.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::RigMining;
use super::super::mining::{Difficulty, MiningConfig, POOLS_MAX, PoolConfig, PoolTrust};
use super::super::pool_address::{PoolAddress, PoolProtocol};
use super::super::scalar::{Bounded, Parsed};
use super::external_miner::ExternalFile;
use super::{THREADS_MAX, parse_hex_32};

/// Words in braces that a worker name may hold.
const PLACEHOLDERS: [&str; 3] = ["{rig}", "{farm}", "{workload}"];

/// Hash threads of one rig.
type Threads = Bounded<1, THREADS_MAX>;
/// The same where GPUs may do without.
type SomeThreads = Bounded<0, THREADS_MAX>;
/// Rank of a pool.
type Priority = Bounded<1, 1_000>;
/// Weight of a pool.
type Weight = Bounded<1, 1_000_000>;

/// The short form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolFile {
    url: Parsed<PoolAddress>,
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    threads: Option<Threads>,
}

/// The long form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MiningFile {
    #[serde(default)]
    threads: Option<SomeThreads>,
    #[serde(default)]
    gpus: Vec<String>,
    #[serde(default)]
    pools: Option<Vec<ListedPoolFile>>,
    #[serde(default)]
    external: Option<ExternalFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedPoolFile {
    url: Parsed<PoolAddress>,
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    priority: Option<Priority>,
    #[serde(default)]
    weight: Option<Weight>,
    #[serde(default)]
    tls: Option<TlsFile>,
    #[serde(default)]
    suggest_difficulty: Option<DifficultyFile>,
    #[serde(default)]
    minimum_difficulty: Option<DifficultyFile>,
    #[serde(default)]
    subscribe_extranonce: bool,
    #[serde(default)]
    follow_to_other_hosts: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFile {
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    fingerprint: Option<Parsed<Fingerprint>>,
    #[serde(default)]
    insecure: bool,
}

struct Fingerprint([u8; 32]);

impl std::str::FromStr for Fingerprint {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        parse_hex_32(&digits).map(Self).ok_or_else(|| {
            "expected the 64 hex digits of a certificate's SHA-256, as `openssl x509 -fingerprint -sha256` prints them"
                .into()
        })
    }
}

#[derive(Deserialize)]
#[serde(try_from = "f64")]
struct DifficultyFile(Difficulty);

impl TryFrom<f64> for DifficultyFile {
    type Error = &'static str;
    fn try_from(number: f64) -> Result<Self, Self::Error> {
        Difficulty::new(number).map(Self).ok_or("a difficulty is a number above 0")
    }
}

/// Who a rig is, for worker names.
pub(super) struct RigName<'n> {
    pub(super) farm: &'n str,
    pub(super) rig: &'n str,
}

impl PoolFile {
    /// # Errors
    /// Field and problem.
    pub(super) fn resolve(self, name: &RigName<'_>) -> Result<RigMining, (String, String)> {
        let user = worker(&self.user, name).map_err(|problem| ("pool.user".into(), problem))?;
        Ok(RigMining::BuiltIn(MiningConfig {
            threads: self.threads.map_or(1, |threads| usize::try_from(threads.0).unwrap_or(1)),
            gpus: Vec::new(),
            pools: vec![PoolConfig::new(self.url.0, &user, &self.password)],
        }))
    }
}

impl MiningFile {
    /// # Errors
    /// Field and problem.
    pub(super) fn resolve(
        self,
        base: &Path,
        name: &RigName<'_>,
    ) -> Result<RigMining, (String, String)> {
        if let Some(external) = self.external {
            if self.threads.is_some() || !self.gpus.is_empty() || self.pools.is_some() {
                let problem = "stands beside threads, gpus or pools of the built-in miner; a rig hashes with one of both";
                return Err(("mining.external".into(), problem.into()));
            }
            let external = external.resolve(base, name);
            return external.map(|external| RigMining::External(Box::new(external)));
        }
        let listed = self.pools.unwrap_or_default();
        let threads_default = if self.gpus.is_empty() { 1 } else { 0 };
        let threads = self.threads.map_or(threads_default, |threads| threads.0);
        if threads == 0 && self.gpus.is_empty() {
            return Err(("mining.threads".into(), "is 0 and no GPU hashes either".into()));
        }
        let count = listed.len();
        if count == 0 || count > POOLS_MAX {
            let problem = format!("names {count} pools; expected 1 to {POOLS_MAX}");
            return Err(("mining.pools".into(), problem));
        }
        let mut pools = Vec::with_capacity(count);
        for (place, pool) in listed.into_iter().enumerate() {
            let listed = pool.resolve(place, base, name);
            pools.push(
                listed.map_err(|(field, problem)| {
                    (format!("mining.pools[{place}].{field}"), problem)
                })?,
            );
        }
        let threads = usize::try_from(threads).unwrap_or(1);
        Ok(RigMining::BuiltIn(MiningConfig { threads, gpus: self.gpus, pools }))
    }
}

impl ListedPoolFile {
    fn resolve(
        self,
        place: usize,
        base: &Path,
        name: &RigName<'_>,
    ) -> Result<PoolConfig, (&'static str, String)> {
        let user = worker(&self.user, name).map_err(|problem| ("user", problem))?;
        let tls_wanted = self.url.0.protocol == PoolProtocol::StratumV1Tls;
        if self.tls.is_some() && !tls_wanted {
            return Err(("tls", "belongs to an address that begins with stratum+ssl://".into()));
        }
        let trust = self.tls.map_or(Ok(PoolTrust::System), |tls| tls.resolve(base));
        let place = u64::try_from(place).unwrap_or(u64::MAX);
        let priority = self.priority.map_or(place + 1, |priority| priority.0);
        let weight = self.weight.and_then(|weight| NonZeroU32::new(u32::try_from(weight.0).ok()?));
        Ok(PoolConfig {
            priority: u32::try_from(priority).unwrap_or(u32::MAX),
            weight: weight.unwrap_or(NonZeroU32::MIN),
            trust: trust.map_err(|problem| ("tls", problem))?,
            suggest_difficulty: self.suggest_difficulty.map(|file| file.0),
            minimum_difficulty: self.minimum_difficulty.map(|file| file.0),
            subscribe_extranonce: self.subscribe_extranonce,
            follow_to_other_hosts: self.follow_to_other_hosts,
            ..PoolConfig::new(self.url.0, &user, &self.password)
        })
    }
}

impl TlsFile {
    fn resolve(self, base: &Path) -> Result<PoolTrust, String> {
        match (self.ca_file, self.fingerprint, self.insecure) {
            (None, None, false) => Ok(PoolTrust::System),
            (Some(file), None, false) => {
                let path = base.join(file);
                let pem =
                    std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));
                pem.map(PoolTrust::Authorities)
            }
            (None, Some(fingerprint), false) => Ok(PoolTrust::Fingerprint(fingerprint.0.0)),
            (None, None, true) => Ok(PoolTrust::Anybody),
            _ => Err("is one of ca_file, fingerprint and insecure, not several".into()),
        }
    }
}

/// A worker name with rig and farm filled in.
pub(super) fn worker(template: &str, name: &RigName<'_>) -> Result<String, String> {
    let user = template.replace("{rig}", name.rig).replace("{farm}", name.farm);
    if user.is_empty() {
        return Err("is empty; expected the worker name that the pool knows".into());
    }
    if user.replace("{workload}", "").contains(['{', '}']) {
        return Err(format!(
            "{template:?} holds something in braces that is none of {}",
            PLACEHOLDERS.join(", ")
        ));
    }
    Ok(user)
}
