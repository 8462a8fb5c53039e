//! What an agent is told at its start, in types that cannot be wrong.
//!
//! YAML is read in [`yaml`] and nowhere else; a value of [`AgentConfig`] has every file it names already read and every
//! rule checked, so nothing further in needs to doubt it.

mod external_miner;
mod kv;
mod logprobs;
mod memory;
pub mod miner_profile;
mod mining;
mod pool_address;
mod scalar;
mod split;
mod upstream;
mod yaml;

use std::net::SocketAddr;
use std::path::PathBuf;

use roadbed_protocol::{AgentId, FarmId, Millis, RigId, RigProfile, TrustedKeys};

use crate::clock::FarmClock;

pub use external_miner::{ExternalConfig, ExternalPool, RigMining};
pub use kv::Kv;
pub use logprobs::LogprobsWord;
pub use memory::MemoryBytes;
pub use mining::{Difficulty, MiningConfig, POOLS_MAX, PoolConfig, PoolTrust};
pub use pool_address::{
    AddressError, AuthorityKey, ChannelKind, Identity, KeyError, PoolAddress, PoolProtocol,
    UnknownKind,
};
pub use split::Split;
pub use upstream::{CONCURRENT_DEFAULT, ServerCommand, UpstreamConfig, UpstreamUrl};
pub use yaml::{
    ConfigError, load, load_miner_profile, load_profile, miner_profile_named, miner_profiles,
    read_secret,
};

/// Rigs one agent may host: a hall of ASICs behind one box. Each costs a task, a driver and two subscriptions, and the
/// broker allows 16 subscriptions a client unless the site raises it.
pub const RIGS_MAX: usize = 256;

/// Everything an agent needs to run.
#[derive(Clone)]
pub struct AgentConfig {
    /// Who this agent is; also its MQTT user name and client id.
    pub agent: AgentId,
    /// The farm it belongs to.
    pub farm: FarmId,
    /// Where the journal lives; created when absent.
    pub data_dir: PathBuf,
    /// The agent's own ed25519 secret; signs login tokens.
    pub secret: [u8; 32],
    /// The broker.
    pub broker: BrokerAddress,
    /// Keys whose orders are obeyed.
    pub trusted_keys: TrustedKeys,
    /// The clock everything decides by.
    pub clock: FarmClock,
    /// Farm time between two telemetry samples of a rig.
    pub telemetry_interval: Millis,
    /// The rigs, at least one.
    pub rigs: Vec<RigConfig>,
}

/// Where the broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// One rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigConfig {
    /// Who it is.
    pub id: RigId,
    /// What its model draws and does.
    pub profile: RigProfile,
    /// How its hardware is reached.
    pub hardware: RigHardware,
}

/// How a rig's hardware is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RigHardware {
    /// This machine's own GPU and processor.
    Gpu(Box<GpuConfig>),
    /// A miner behind a firmware API.
    Asic(AsicConfig),
}

/// A GPU rig: this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuConfig {
    /// The name the network and customers call its model by.
    pub served_as: String,
    /// What answers.
    pub engine: EngineConfig,
    /// Encoder that answers `/v1/embeddings` beside the model, if any: a folder, a file or `hf:org/repo`.
    pub embeddings: Option<String>,
    /// Where the MLNode and OpenAI faces listen.
    pub listen: SocketAddr,
    /// Bearer token every request to the faces must carry, if any.
    pub auth_token: Option<String>,
    /// Where a Network Node fetches callbacks over gRPC; they are posted to it where nothing is given.
    pub pocstream_listen: Option<SocketAddr>,
    /// Whether the Network Node's `p_value_threshold` decides about fraud.
    pub apply_p_value_threshold: bool,
    /// Whether verdicts of fraud count where the weights take fewer than 16 bits.
    pub accuse_with_own_weights: bool,
    /// Whether `/metrics` is there.
    pub metrics: bool,
    /// Which power and heat sensor is read.
    pub sensor: SensorChoice,
    /// What it mines with and for, when it may mine.
    pub mining: Option<RigMining>,
}

/// Our own engine on a rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgpuConfig {
    /// Model file or catalogue name.
    pub model: String,
    /// Names or PCI ids of the GPUs; `auto` is the best one, and a single `all` is every card.
    pub gpus: Vec<String>,
    /// How the model is shared out over several.
    pub split: Split,
    /// Longest sequence, prompt and answer together; the engine's default unless given.
    pub context_tokens: Option<usize>,
    /// Memory the model, and the encoder beside it, may take on each GPU.
    pub memory: Option<MemoryBytes>,
    /// How answers keep keys and values.
    pub kv: Kv,
    /// The network's codebook file, for proofs of the scheme DECODE.
    pub codebook: Option<PathBuf>,
    /// What log probabilities tell of where a request does not say.
    pub logprobs: LogprobsWord,
    /// Requests that name an inference of the chain are drawn by the deterministic sampling contract.
    pub deterministic_sampling: bool,
}

/// What answers on a GPU rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineConfig {
    /// Our own engine.
    Wgpu(WgpuConfig),
    /// An external OpenAI-compatible server.
    Upstream(Box<UpstreamConfig>),
}

/// Which sensor of a GPU rig is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SensorChoice {
    /// NVML when its library is there, else processor sensors with the profile's power.
    Auto,
    /// NVIDIA's management library only.
    Nvml,
    /// The operating system's heat sensors, with the profile's power.
    Sysinfo,
    /// No hardware at all: the profile's power with a ramp.
    Simulated,
}

/// An ASIC behind a firmware API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsicConfig {
    /// Which firmware family it speaks.
    pub driver: AsicDriverKind,
    /// Address of the API.
    pub address: SocketAddr,
    /// Password of the API, where the family needs one.
    pub password: Option<String>,
}

/// The firmware families that can be driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AsicDriverKind {
    /// Luxor LuxOS: JSON over TCP, port 4028.
    Luxos,
    /// VNish: REST over HTTP, port 80.
    Vnish,
}

impl AsicDriverKind {
    /// The word in the config file and in reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Luxos => "luxos",
            Self::Vnish => "vnish",
        }
    }
}

#[cfg(test)]
mod tests;
