//! One start of an external miner: its command line, its API, what of it must not be seen.

use std::net::TcpListener;
use std::time::Duration;

use roadbed_protocol::Millis;

use super::api::Api;
use super::supervisor::Terms;
use crate::child::Manners;
use crate::config::miner_profile::{Blank, Blanks};
use crate::config::{ExternalConfig, PoolAddress, PoolProtocol, ServerCommand};
use crate::random;

/// Names the miner's processes as ours: they inherit it, and a stranger has another or none.
pub(super) const MARK: &str = "ROADBED_MINER";

/// An external miner as it shall run, for a workload of a name.
#[derive(Clone)]
pub struct Launch {
    config: ExternalConfig,
    workload: String,
}

/// What one start needs.
pub(super) struct Start {
    pub(super) command: ServerCommand,
    pub(super) manners: Manners,
    pub(super) api: Api,
    pub(super) mark: String,
}

impl Launch {
    /// Of a config.
    #[must_use]
    pub fn new(config: ExternalConfig, workload: &str) -> Self {
        Self { config, workload: workload.to_owned() }
    }

    /// What it is and for whom it hashes, for people.
    #[must_use]
    pub fn description(&self) -> String {
        let ExternalConfig { profile, algorithm, pool, .. } = &self.config;
        match pool {
            Some(pool) => format!("{} {algorithm} for {}", profile.title, pool.address),
            None => format!("{} with its own command line", profile.title),
        }
    }

    /// For whom it hashes.
    pub(super) fn pool(&self) -> Option<&PoolAddress> {
        self.config.pool.as_ref().map(|pool| &pool.address)
    }

    /// What is expected of it.
    pub(super) fn terms(&self) -> Terms {
        let millis = |time: Duration| Millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Terms {
            first_answer: millis(self.config.profile.start_wait),
            floor: self.config.floor,
            share_every: self.config.share_every.map(millis),
            stops_by_api: self.config.profile.stop.is_some(),
        }
    }

    /// Command line, port and token of a start.
    ///
    /// # Errors
    /// What has no value, or no port is free.
    pub(super) fn prepare(&self) -> Result<Start, String> {
        let ExternalConfig { profile, pool, .. } = &self.config;
        let (port, token, mark) = (self.port()?, random()?, random()?);
        let mut blanks = Blanks::default();
        blanks.set(Blank::ApiPort, port.to_string());
        blanks.set(Blank::ApiToken, token.clone());
        if let Ok(algorithm) = profile.algorithm(&self.config.algorithm) {
            blanks.set(Blank::Algorithm, algorithm);
        }
        if !self.config.gpus.is_empty() {
            let gpus: Vec<String> = self.config.gpus.iter().map(u32::to_string).collect();
            blanks.set(Blank::Gpus, gpus.join(","));
        }
        let mut secrets = vec![token];
        let missing =
            |blank: Blank| format!("the command line of {}: {blank} has no value", profile.title);
        let mut args = Vec::new();
        if let Some(pool) = pool {
            let tls = pool.address.protocol == PoolProtocol::StratumV1Tls;
            blanks.set(
                Blank::PoolHost,
                match pool.address.host.contains(':') {
                    true => format!("[{}]", pool.address.host),
                    false => pool.address.host.clone(),
                },
            );
            blanks.set(Blank::PoolPort, pool.address.port.to_string());
            blanks.set(Blank::User, pool.user.replace("{workload}", &self.workload));
            blanks.set(Blank::Password, pool.password.clone());
            secrets.push(pool.password.clone());
            let url = if tls { &profile.pool_tls } else { &profile.pool_tcp };
            let url = url
                .as_ref()
                .ok_or_else(|| format!("{} cannot mine for {}", profile.title, pool.address))?;
            blanks.set(Blank::PoolUrl, url.fill(&blanks).map_err(missing)?);
            args = profile.arguments(&blanks, tls).map_err(missing)?;
        }
        for template in &self.config.args {
            args.push(template.fill(&blanks).map_err(missing)?);
        }
        let mut env = self.config.env.clone();
        env.push((MARK.to_owned(), mark.clone()));
        let command = ServerCommand {
            program: self.config.program.clone(),
            args,
            env,
            folder: self.config.folder.clone(),
            // The supervisor ends it; this is for the one that is dropped.
            stop_wait: Duration::ZERO,
        };
        let api = Api::new(profile, port, &blanks)?;
        Ok(Start { command, manners: Manners { what: "miner", secrets }, api, mark })
    }

    /// The configured port, else one that is free now: who else comes to it first makes the start fail and the next one
    /// choose another.
    fn port(&self) -> Result<u16, String> {
        if let Some(port) = self.config.api_port {
            // Whoever listens there already would be taken for the miner.
            let free = TcpListener::bind(("127.0.0.1", port));
            return match free {
                Ok(_) => Ok(port),
                Err(error) => Err(format!("port {port} for its API: {error}")),
            };
        }
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        free.map(|address| address.port()).map_err(|error| format!("no port for its API: {error}"))
    }
}

fn random() -> Result<String, String> {
    random::hex::<16>().map_err(|error| format!("no random numbers: {error}"))
}
