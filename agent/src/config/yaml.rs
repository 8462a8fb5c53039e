//! The one place where this crate reads YAML: a file becomes an [`AgentConfig`] or an error that names file, line and field.
//!
//! Rules that span fields are checked while the fields are read, so that the parser can still say on which line.

mod engine;
mod external_miner;
mod miner_profile;
mod mining;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use roadbed_protocol::{
    AgentId, FarmId, Millis, RigId, RigKind, RigProfile, TrustedKeys, UnixMillis,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::scalar::{Bounded, Parsed, Rate};
use super::{
    AgentConfig, AsicConfig, AsicDriverKind, BrokerAddress, GpuConfig, Kv, LogprobsWord,
    MemoryBytes, RIGS_MAX, RigConfig, RigHardware, SensorChoice, Split,
};
use crate::clock::FarmClock;
use engine::EngineFile;
pub use miner_profile::{load_miner_profile, miner_profile_named, miner_profiles};
use mining::{MiningFile, PoolFile, RigName};

/// Longest context that is no typing error: no model was trained for more.
const CONTEXT_MAX: u64 = 16 << 20;
/// Largest config or profile file read: a hall of 256 rigs is about 40 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Hash threads one rig may be given; above it the figure is a typing error.
const THREADS_MAX: u64 = 512;
/// Telemetry interval when the file gives none.
const TELEMETRY_SECONDS_DEFAULT: u64 = 10;

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is no valid config.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// Field, what is wrong and what was expected.
        problem: String,
    },
    /// A rule about the whole file is broken.
    #[error("{}: {field}: {problem}", path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// Reads `agent.yaml`, the key file and every profile it names.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load(path: &Path) -> Result<AgentConfig, ConfigError> {
    let file: AgentFile = read_yaml(path)?;
    let rule = |field: &str, problem: String| ConfigError::Rule {
        path: path.to_path_buf(),
        field: field.to_owned(),
        problem,
    };
    let base = path.parent().unwrap_or(Path::new("."));
    let clock = match file.clock {
        None => FarmClock::real(),
        Some(clock) => FarmClock::accelerated(
            clock.rate.0,
            UnixMillis(clock.farm_origin_ms),
            UnixMillis(clock.wall_origin_ms),
        )
        .map_err(|error| rule("clock.rate", error.to_string()))?,
    };
    let mut trusted_keys = TrustedKeys::default();
    if file.trusted_keys.is_empty() {
        return Err(rule(
            "trusted_keys",
            "is empty; expected at least the controller's key, or no order could ever be obeyed"
                .into(),
        ));
    }
    for trusted in &file.trusted_keys {
        trusted_keys
            .insert(trusted.kid.clone(), &trusted.key.0.0)
            .map_err(|error| rule("trusted_keys", error.to_string()))?;
    }
    if file.rigs.is_empty() || file.rigs.len() > RIGS_MAX {
        return Err(rule(
            "rigs",
            format!("has {} entries; expected 1 to {RIGS_MAX}", file.rigs.len()),
        ));
    }
    let mut rigs: Vec<RigConfig> = Vec::with_capacity(file.rigs.len());
    for entry in file.rigs {
        if rigs.iter().any(|known| known.id == entry.id.0) {
            return Err(rule("rigs", format!("{} is listed twice", entry.id.0)));
        }
        rigs.push(entry.resolve(base, &file.farm.0).map_err(|error| match error {
            ResolveError::File(error) => error,
            ResolveError::Rule { field, problem } => rule(&field, problem),
        })?);
    }
    let gpu_rigs = rigs.iter().filter(|rig| matches!(rig.hardware, RigHardware::Gpu(_))).count();
    if gpu_rigs > 1 {
        return Err(rule(
            "rigs",
            format!("{gpu_rigs} of them are GPU rigs; expected at most one: it is this machine"),
        ));
    }
    let key_path = base.join(&file.key_file);
    let secret = read_key(&key_path)?;
    Ok(AgentConfig {
        agent: file.agent.0,
        farm: file.farm.0,
        data_dir: base.join(file.data_dir),
        secret,
        broker: file.broker.address.0,
        trusted_keys,
        clock,
        telemetry_interval: Millis::from_secs(file.telemetry_seconds.0),
        rigs,
    })
}

/// Reads one rig profile and checks its rules.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load_profile(path: &Path) -> Result<RigProfile, ConfigError> {
    let profile: RigProfile = read_yaml(path)?;
    profile.validate().map_err(|error| ConfigError::Rule {
        path: path.to_path_buf(),
        field: error.field.to_owned(),
        problem: error.problem,
    })?;
    Ok(profile)
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_path_buf(), reason };
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(format!("{length} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse_yaml(path, &read_text(path)?)
}

fn parse_yaml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    serde_yaml::from_str(text).map_err(|error| {
        let (line, column) =
            error.location().map_or((1, 1), |place| (place.line(), place.column()));
        let problem = error.to_string();
        // The place stands in front already; the parser repeats it at the end.
        let problem = match problem.rsplit_once(" at line ") {
            Some((before, _)) => before.to_owned(),
            None => problem,
        };
        ConfigError::Invalid { path: path.to_path_buf(), line, column, problem }
    })
}

/// The key file: 64 hex digits, readable by its owner only.
fn read_key(path: &Path) -> Result<[u8; 32], ConfigError> {
    let text = read_secret(path, "key_file")?;
    parse_hex_32(&text).ok_or_else(|| ConfigError::Rule {
        path: path.to_path_buf(),
        field: "key_file".into(),
        problem: "is not a key; expected 64 hex digits".into(),
    })
}

/// A secret that fills a file, which only its owner may read. `field` is what names the file.
///
/// # Errors
/// The file cannot be read, or others can read it, or it is empty.
pub fn read_secret(path: &Path, field: &str) -> Result<String, ConfigError> {
    let text = read_text(path)?;
    let rule = |problem: &str| ConfigError::Rule {
        path: path.to_path_buf(),
        field: field.into(),
        problem: problem.into(),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode =
            std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or(0);
        if mode & 0o077 != 0 {
            return Err(rule("can be read by others than its owner; run `chmod 600` on it"));
        }
    }
    let secret = text.trim();
    if secret.is_empty() || secret.contains(char::is_control) {
        return Err(rule("is no secret; expected one line of text"));
    }
    Ok(secret.to_owned())
}

fn parse_hex_32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    agent: Parsed<AgentId>,
    farm: Parsed<FarmId>,
    data_dir: PathBuf,
    key_file: PathBuf,
    broker: BrokerFile,
    trusted_keys: Vec<TrustedKeyFile>,
    #[serde(default)]
    clock: Option<ClockFile>,
    #[serde(default)]
    telemetry_seconds: TelemetrySeconds,
    rigs: Vec<RigFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokerFile {
    address: Parsed<BrokerAddress>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustedKeyFile {
    kid: String,
    key: Parsed<HexKey>,
}

struct HexKey([u8; 32]);

impl FromStr for HexKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse_hex_32(text).map(Self).ok_or_else(|| {
            format!(
                "expected 64 hex digits of an ed25519 public key, got {} characters",
                text.len()
            )
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockFile {
    rate: Rate,
    farm_origin_ms: i64,
    wall_origin_ms: i64,
}

/// Farm time between two samples: at most a day.
type TelemetrySeconds = Bounded<1, 86_400>;

impl Default for TelemetrySeconds {
    fn default() -> Self {
        Self(TELEMETRY_SECONDS_DEFAULT)
    }
}

impl FromStr for BrokerAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = split_host_port(text)
            .ok_or_else(|| format!("{text:?} is no address; expected host:port"))?;
        Ok(Self { host, port })
    }
}

fn split_host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = u16::from_str(port).ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RigFile {
    id: Parsed<RigId>,
    profile: PathBuf,
    #[serde(default)]
    gpu: Option<GpuFile>,
    #[serde(default)]
    pool: Option<PoolFile>,
    #[serde(default)]
    mining: Option<MiningFile>,
    #[serde(default)]
    asic: Option<AsicFile>,
}

enum ResolveError {
    File(ConfigError),
    Rule { field: String, problem: String },
}

impl RigFile {
    fn resolve(self, base: &Path, farm: &FarmId) -> Result<RigConfig, ResolveError> {
        let profile = load_profile(&base.join(&self.profile)).map_err(ResolveError::File)?;
        let rule = |leaf: &str, problem: &str| ResolveError::Rule {
            field: format!("rigs[{}].{leaf}", self.id.0),
            problem: problem.into(),
        };
        let name = RigName { farm: farm.as_str(), rig: self.id.0.as_str() };
        let mining = match (self.pool, self.mining) {
            (None, None) => None,
            (Some(pool), None) => Some(pool.resolve(&name)),
            (None, Some(mining)) => Some(mining.resolve(base, &name)),
            (Some(_), Some(_)) => {
                return Err(rule("pool", "stands beside `mining:`, which lists the pools"));
            }
        };
        let mining = mining.transpose().map_err(|(field, problem)| rule(&field, &problem))?;
        let hardware = match (self.gpu, self.asic, mining) {
            (Some(mut gpu), None, mining) => RigHardware::Gpu(Box::new(GpuConfig {
                engine: gpu.resolve_engine(base).map_err(|error| match error {
                    ResolveError::File(error) => ResolveError::File(error),
                    ResolveError::Rule { field, problem } => rule(&field, &problem),
                })?,
                embeddings: gpu.embeddings,
                served_as: gpu.served_as,
                listen: gpu.listen,
                auth_token: gpu.auth_token,
                pocstream_listen: gpu.pocstream_listen,
                apply_p_value_threshold: gpu.apply_p_value_threshold,
                accuse_with_own_weights: gpu.accuse_with_own_weights,
                metrics: gpu.metrics,
                sensor: gpu.sensor.into(),
                mining,
            })),
            (None, Some(asic), None) => RigHardware::Asic(AsicConfig {
                driver: asic.driver.into(),
                address: asic.address,
                password: asic.password,
            }),
            (None, Some(_), Some(_)) => {
                return Err(rule(
                    "pool",
                    "belongs to a GPU rig; an ASIC's pool is set in its firmware",
                ));
            }
            (None, None, _) => return Err(rule("gpu", "is missing; expected `gpu:` or `asic:`")),
            (Some(_), Some(_), _) => {
                return Err(rule("asic", "stands beside `gpu:`; a rig is one or the other"));
            }
        };
        let fits = match (&hardware, profile.kind) {
            (RigHardware::Gpu(_), RigKind::Gpu) | (RigHardware::Asic(_), RigKind::Asic) => true,
            (RigHardware::Gpu(_), RigKind::Asic) | (RigHardware::Asic(_), RigKind::Gpu) => false,
        };
        if !fits {
            return Err(rule("profile", "is of the other kind of rig (asic or gpu)"));
        }
        Ok(RigConfig { id: self.id.0, profile, hardware })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GpuFile {
    #[serde(default)]
    model: Option<String>,
    served_as: String,
    #[serde(default)]
    adapter: Option<String>,
    #[serde(default)]
    gpus: Option<Vec<String>>,
    #[serde(default)]
    split: Option<Parsed<Split>>,
    #[serde(default)]
    context: Option<Bounded<1, CONTEXT_MAX>>,
    #[serde(default)]
    memory: Option<Parsed<MemoryBytes>>,
    #[serde(default)]
    kv: Option<Parsed<Kv>>,
    #[serde(default)]
    codebook: Option<PathBuf>,
    #[serde(default)]
    logprobs_mode: Option<Parsed<LogprobsWord>>,
    #[serde(default)]
    deterministic_sampling: Option<bool>,
    #[serde(default)]
    engine: Option<EngineFile>,
    #[serde(default)]
    embeddings: Option<String>,
    listen: std::net::SocketAddr,
    #[serde(default)]
    auth_token: Option<String>,
    #[serde(default)]
    pocstream_listen: Option<std::net::SocketAddr>,
    #[serde(default)]
    apply_p_value_threshold: bool,
    #[serde(default)]
    accuse_with_own_weights: bool,
    #[serde(default = "yes")]
    metrics: bool,
    #[serde(default)]
    sensor: SensorWord,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum SensorWord {
    #[default]
    Auto,
    Nvml,
    Sysinfo,
    Simulated,
}

impl From<SensorWord> for SensorChoice {
    fn from(word: SensorWord) -> Self {
        match word {
            SensorWord::Auto => Self::Auto,
            SensorWord::Nvml => Self::Nvml,
            SensorWord::Sysinfo => Self::Sysinfo,
            SensorWord::Simulated => Self::Simulated,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AsicFile {
    driver: AsicWord,
    address: std::net::SocketAddr,
    #[serde(default)]
    password: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum AsicWord {
    Luxos,
    Vnish,
}

impl From<AsicWord> for AsicDriverKind {
    fn from(word: AsicWord) -> Self {
        match word {
            AsicWord::Luxos => Self::Luxos,
            AsicWord::Vnish => Self::Vnish,
        }
    }
}
