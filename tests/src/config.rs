//! The stand-ins' config file (`standins.yaml`), checked once, so that nothing behind this module meets a bad value.
//!
//! Every section but the clock may be missing; what is missing is not started.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::asic::AsicConfig;
use crate::clock::FarmClock;
use crate::customer::CustomerConfig;
use crate::gonka::GonkaConfig;
use crate::network_node::NetworkNodeConfig;
use crate::pool::PoolConfig;
use crate::stratum2::templates::TemplatesConfig;

/// What to stand in for, and where.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandinsConfig {
    /// The farm's clock.
    #[serde(default)]
    pub clock: FarmClock,
    /// Where the status document is served.
    pub status_listen: SocketAddr,
    /// The mining pool.
    #[serde(default)]
    pub pool: Option<PoolConfig>,
    /// The template provider of a real Stratum V2 pool.
    #[serde(default)]
    pub templates: Option<TemplatesConfig>,
    /// The emulated miners.
    #[serde(default)]
    pub asics: Vec<AsicConfig>,
    /// The Network Node.
    #[serde(default)]
    pub network_node: Option<NetworkNodeConfig>,
    /// The Network Node with a chain of its own, admin API and all.
    #[serde(default)]
    pub gonka: Option<GonkaConfig>,
    /// The customer of the chat endpoint.
    #[serde(default)]
    pub customer: Option<CustomerConfig>,
}

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The text is no YAML of the expected shape; the reason names field, line and what was expected.
    #[error("{}: {reason}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: serde_yaml::Error,
    },
    /// A value is of the right type but makes no sense.
    #[error("{}: {field}: {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Path of the field in the document.
        field: String,
        /// What was expected there.
        expected: &'static str,
    },
}

impl StandinsConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with the file and the place in it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::Read { path: path.to_owned(), reason })?;
        Self::parse(&text, path)
    }

    /// Parses and checks the text of the file `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with the file and the place in it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = serde_yaml::from_str(text)
            .map_err(|reason| ConfigError::Shape { path: path.to_owned(), reason })?;
        match config.first_fault() {
            None => Ok(config),
            Some((field, expected)) => {
                Err(ConfigError::Value { path: path.to_owned(), field, expected })
            }
        }
    }

    /// The first value that makes no sense: its field, and what was expected there.
    fn first_fault(&self) -> Option<(String, &'static str)> {
        if !(self.clock.rate.is_finite() && self.clock.rate > 0.0) {
            return Some(("clock.rate".to_owned(), "a number above zero expected"));
        }
        if let Some(pool) = &self.pool
            && let Some((field, expected)) = pool.first_fault()
        {
            return Some((format!("pool.{field}"), expected));
        }
        if let Some(templates) = &self.templates
            && let Some((field, expected)) = templates.first_fault()
        {
            return Some((format!("templates.{field}"), expected));
        }
        let mut ids = HashSet::new();
        for (place, asic) in self.asics.iter().enumerate() {
            if let Some((field, expected)) = asic_fault(asic) {
                return Some((format!("asics[{place}].{field}"), expected));
            }
            if !ids.insert(asic.id.as_str()) {
                return Some((format!("asics[{place}].id"), "an id used once expected"));
            }
        }
        if let Some(node) = &self.network_node
            && let Some((field, expected)) = node.first_fault()
        {
            return Some((format!("network_node.{field}"), expected));
        }
        if let Some(node) = &self.gonka
            && let Some((field, expected)) = node.first_fault()
        {
            return Some((format!("gonka.{field}"), expected));
        }
        None
    }
}

fn asic_fault(asic: &AsicConfig) -> Option<(&'static str, &'static str)> {
    if asic.id.is_empty() {
        return Some(("id", "a name expected"));
    }
    if asic.steps.is_empty() {
        return Some(("steps", "at least one power step expected"));
    }
    let sensible =
        |terahash: f64, watts| terahash.is_finite() && terahash > 0.0 && watts > asic.floor_watts;
    if !asic.steps.iter().all(|step| sensible(step.terahash, step.watts)) {
        return Some(("steps", "a hashrate above zero and watts above floor_watts expected"));
    }
    if let Some(fault) = asic.fault
        && !fault.applies_to(asic.family)
    {
        return Some(("fault", "a fault that this family can have expected"));
    }
    None
}
