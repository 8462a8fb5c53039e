//! What a rig mines with and for.

use std::num::NonZeroU32;

use super::pool_address::PoolAddress;

/// Most pools of one rig; each wanted one costs a task and a connection.
pub const POOLS_MAX: usize = 16;

/// What a rig mines with and for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MiningConfig {
    /// Hash threads on the processor.
    pub threads: usize,
    /// GPUs that hash too, by name or PCI id; `auto` is the best one.
    pub gpus: Vec<String>,
    /// At least one.
    pub pools: Vec<PoolConfig>,
}

/// A mining pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Where it is and what it speaks.
    pub address: PoolAddress,
    /// Worker name as the pool knows it; `{workload}` is filled in at the start.
    pub user: String,
    /// Password, often just `x`.
    pub password: String,
    /// Pools of the lowest number are hashed for while one of them is up.
    pub priority: u32,
    /// Share of the hashes among pools of the same priority.
    pub weight: NonZeroU32,
    /// Whom TLS trusts, for addresses that ask for TLS.
    pub trust: PoolTrust,
    /// Difficulty asked for after login.
    pub suggest_difficulty: Option<Difficulty>,
    /// Lowest difficulty asked for in `mining.configure`.
    pub minimum_difficulty: Option<Difficulty>,
    /// Whether `mining.extranonce.subscribe` is sent.
    pub subscribe_extranonce: bool,
    /// Whether `client.reconnect` may lead to another host.
    pub follow_to_other_hosts: bool,
}

impl PoolConfig {
    /// First of a list, with nothing special.
    #[must_use]
    pub fn new(address: PoolAddress, user: &str, password: &str) -> Self {
        Self {
            address,
            user: user.to_owned(),
            password: password.to_owned(),
            priority: 1,
            weight: NonZeroU32::MIN,
            trust: PoolTrust::System,
            suggest_difficulty: None,
            minimum_difficulty: None,
            subscribe_extranonce: false,
            follow_to_other_hosts: false,
        }
    }
}

/// Whom TLS to a pool trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolTrust {
    /// Whom this machine trusts.
    System,
    /// These authorities only, PEM.
    Authorities(Vec<u8>),
    /// This one certificate: SHA-256 of its DER form.
    Fingerprint([u8; 32]),
    /// Anybody: encrypted, but not to anyone in particular.
    Anybody,
}

/// A difficulty somebody asks for: finite and above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difficulty(f64);

/// No difficulty is NaN.
impl Eq for Difficulty {}

impl Difficulty {
    /// None unless it is finite and above zero.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        (number.is_finite() && number > 0.0).then_some(Self(number))
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}
