//! `mining: external:` of a rig: which profile, and what is asked of that miner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use roadbed_protocol::HashesPerSecond;
use serde::Deserialize;

use super::super::miner_profile::Template;
use super::super::pool_address::PoolAddress;
use super::super::scalar::{Bounded, Parsed};
use super::super::{ExternalConfig, ExternalPool};
use super::mining::{RigName, worker};
use super::{miner_profile_named, miner_profiles};

/// The GPUs of one rig; no machine has more.
const GPUS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExternalFile {
    miner: String,
    #[serde(default)]
    algorithm: Option<String>,
    #[serde(default)]
    pool: Option<ExternalPoolFile>,
    #[serde(default)]
    gpus: Vec<u32>,
    #[serde(default)]
    args: Vec<Parsed<Template>>,
    #[serde(default)]
    program: Option<String>,
    #[serde(default)]
    folder: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    profiles: Option<PathBuf>,
    #[serde(default)]
    floor: Option<Bounded<1, 1_000_000_000_000_000_000>>,
    #[serde(default)]
    share_every_seconds: Option<Bounded<1, 86_400>>,
    #[serde(default)]
    api_port: Option<Bounded<1, 65_535>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExternalPoolFile {
    url: Parsed<PoolAddress>,
    user: String,
    #[serde(default)]
    password: Option<String>,
}

impl ExternalFile {
    /// # Errors
    /// Field and problem.
    pub(super) fn resolve(
        self,
        base: &Path,
        name: &RigName<'_>,
    ) -> Result<ExternalConfig, (String, String)> {
        let wrong = |field: &str, problem: String| (format!("mining.external.{field}"), problem);
        let folder = self.profiles.map(|folder| base.join(folder));
        let profiles = miner_profiles(folder.as_deref());
        let profiles = profiles.map_err(|error| wrong("profiles", error.to_string()))?;
        let profile = miner_profile_named(profiles, &self.miner);
        let profile = profile.map_err(|problem| wrong("miner", problem))?;
        if self.gpus.len() > GPUS_MAX {
            return Err(wrong("gpus", format!("are more than {GPUS_MAX}")));
        }
        let pool = match self.pool {
            None => None,
            Some(pool) => Some(ExternalPool {
                address: pool.url.0,
                user: worker(&pool.user, name).map_err(|problem| wrong("pool.user", problem))?,
                password: pool.password.unwrap_or_else(|| "x".into()),
            }),
        };
        let algorithm = self.algorithm.unwrap_or_default();
        let mut config = ExternalConfig::new(profile, &algorithm, pool);
        if let Some(program) = self.program {
            // A bare name is looked for in PATH.
            config.program = match program.contains('/') {
                true => base.join(program).to_string_lossy().into_owned(),
                false => program,
            };
        }
        config.folder = self.folder.map(|folder| base.join(folder));
        config.env = self.env.into_iter().collect();
        config.gpus = self.gpus;
        config.args = self.args.into_iter().map(|argument| argument.0).collect();
        if let Some(floor) = self.floor {
            config.floor = HashesPerSecond(floor.0);
        }
        config.share_every = self.share_every_seconds.map(|seconds| Duration::from_secs(seconds.0));
        config.api_port = self.api_port.and_then(|port| u16::try_from(port.0).ok());
        config.validate().map_err(|(field, problem)| wrong(field, problem))?;
        Ok(config)
    }
}
