//! A rig's external miner: which one, and what it shall do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use roadbed_protocol::HashesPerSecond;

use super::miner_profile::{MinerProfile, Template};
use super::{MiningConfig, PoolAddress};

/// What a rig hashes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RigMining {
    /// Our own SHA-256d.
    BuiltIn(MiningConfig),
    /// A program of somebody else.
    External(Box<ExternalConfig>),
}

/// An external miner.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalConfig {
    /// What it is.
    pub profile: MinerProfile,
    /// The program, a path or a name that is looked for in `PATH`.
    pub program: String,
    /// Where it runs; the agent's own folder when nobody says.
    pub folder: Option<PathBuf>,
    /// Variables set for it beside those of the agent.
    pub env: Vec<(String, String)>,
    /// Our word for its algorithm.
    pub algorithm: String,
    /// For whom it hashes; without one its whole command line is `args`.
    pub pool: Option<ExternalPool>,
    /// The miner's numbers of the GPUs; all of them when empty.
    pub gpus: Vec<u32>,
    /// More arguments; blanks are filled in.
    pub args: Vec<Template>,
    /// Slower than this is a stall.
    pub floor: HashesPerSecond,
    /// Time between two shares, if known.
    pub share_every: Option<Duration>,
    /// Port of its API; a free one at each start when nobody says.
    pub api_port: Option<u16>,
}

/// For whom an external miner hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalPool {
    /// Where it is; Stratum V1, bare or in TLS.
    pub address: PoolAddress,
    /// Worker name; `{workload}` is filled in at the start.
    pub user: String,
    /// Password, often just `x`.
    pub password: String,
}

impl fmt::Debug for ExternalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of variables, arguments and the password may be secrets.
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ExternalConfig")
            .field("profile", &self.profile.name)
            .field("program", &self.program)
            .field("folder", &self.folder)
            .field("env", &names)
            .field("algorithm", &self.algorithm)
            .field("pool", &self.pool.as_ref().map(|pool| pool.address.to_string()))
            .field("gpus", &self.gpus)
            .field("args", &self.args.len())
            .field("floor", &self.floor)
            .field("share_every", &self.share_every)
            .field("api_port", &self.api_port)
            .finish()
    }
}

impl ExternalConfig {
    /// Of a profile, with nothing else said.
    #[must_use]
    pub fn new(profile: MinerProfile, algorithm: &str, pool: Option<ExternalPool>) -> Self {
        Self {
            program: profile.program.clone(),
            profile,
            folder: None,
            env: vec![],
            algorithm: algorithm.to_owned(),
            pool,
            gpus: vec![],
            args: vec![],
            floor: HashesPerSecond(1),
            share_every: None,
            api_port: None,
        }
    }

    /// Checks what spans several of its fields.
    ///
    /// # Errors
    /// Field and problem.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        use super::PoolProtocol;
        use super::miner_profile::Blank;
        let title = &self.profile.title;
        match &self.pool {
            None if self.args.is_empty() => {
                return Err((
                    "pool",
                    "is missing; expected a pool, or the miner's whole command line as `args`"
                        .into(),
                ));
            }
            None => {}
            Some(pool) => {
                self.profile
                    .algorithm(&self.algorithm)
                    .map_err(|problem| ("algorithm", problem))?;
                let can = match pool.address.protocol {
                    PoolProtocol::StratumV1 => self.profile.pool_tcp.is_some(),
                    PoolProtocol::StratumV1Tls => self.profile.pool_tls.is_some(),
                    PoolProtocol::StratumV2 { .. } => false,
                };
                if !can {
                    let problem = format!(
                        "{title} cannot mine for {}; expected stratum+tcp:// or stratum+ssl://",
                        pool.address
                    );
                    return Err(("pool.url", problem));
                }
            }
        }
        if !self.gpus.is_empty() && self.pool.is_some() && !self.profile.has_blank(Blank::Gpus) {
            return Err((
                "gpus",
                format!(
                    "the profile of {title} does not know how GPUs are chosen; give the option in `args`"
                ),
            ));
        }
        Ok(())
    }
}
