//! The fields of a site file as they stand in YAML, before any rule is checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use roadbed_protocol::{AgentId, FarmId, FeederId, RigId};
use serde::Deserialize;

use super::coins::CoinsFile;
use super::decimal::Decimal;
use super::gateway::{GatewayFile, Secret};
use super::gonka_file::GonkaFile;
use super::hashprice::HashpriceFile;
use super::moment::{DayTime, Moment};
use super::origin::OriginFile;
use crate::clock::FarmClock;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteFile {
    pub farm: FarmId,
    #[serde(default)]
    pub name: String,
    pub currency: String,
    #[serde(default)]
    pub utc_offset_minutes: i16,
    pub broker_listen: SocketAddr,
    pub state_dir: PathBuf,
    pub key_file: PathBuf,
    #[serde(default)]
    pub clock: FarmClock,
    pub policy: PathBuf,
    pub feeders: Vec<FeederFile>,
    pub agents: Vec<AgentFile>,
    pub rigs: Vec<RigFile>,
    pub tariff: TariffFile,
    #[serde(default)]
    pub income: IncomeFile,
    #[serde(default)]
    pub commitments: Vec<CommitmentFile>,
    #[serde(default)]
    pub gateway: Option<GatewayFile>,
    #[serde(default)]
    pub gonka: Option<GonkaFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeederFile {
    pub id: FeederId,
    #[serde(default)]
    pub parent: Option<FeederId>,
    #[serde(default)]
    pub limit_watts: Option<u64>,
    #[serde(default)]
    pub breaker: Option<BreakerFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakerFile {
    pub amps: u64,
    pub volts: u64,
    pub phases: u8,
    #[serde(default = "four_fifths")]
    pub continuous_derate: Decimal,
}

/// 80 %: what a breaker may carry continuously (DESIGN section 2, point 5).
fn four_fifths() -> Decimal {
    Decimal(800_000)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentFile {
    pub id: AgentId,
    pub public_key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RigFile {
    pub id: RigId,
    pub profile: PathBuf,
    pub feeder: FeederId,
    pub agent: AgentId,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub ai_url: Option<String>,
    #[serde(default)]
    pub ai_token: Option<Secret>,
    #[serde(default)]
    pub switch_cost: Decimal,
    #[serde(default)]
    pub hand_over_cost: Decimal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TariffFile {
    #[serde(default)]
    pub feed: Option<FeedFile>,
    #[serde(default)]
    pub fixed_per_mwh: Option<Decimal>,
    #[serde(default)]
    pub time_of_use: Option<Vec<TimeOfUseFile>>,
    #[serde(default)]
    pub adder_per_mwh: Decimal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeedFile {
    pub csv: PathBuf,
    pub time_column: String,
    pub price_column: String,
    #[serde(default = "an_hour")]
    pub step_minutes: u64,
}

fn an_hour() -> u64 {
    60
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeOfUseFile {
    pub from: DayTime,
    pub price_per_mwh: Decimal,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IncomeFile {
    #[serde(default)]
    pub hashprice: Option<HashpriceFile>,
    #[serde(default)]
    pub coins: Option<CoinsFile>,
    #[serde(default)]
    pub gpu_mine: Option<RateFile>,
    #[serde(default)]
    pub serve: Option<ServeFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateFile {
    pub per_hour: Decimal,
    #[serde(flatten)]
    pub origin: OriginFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServeFile {
    pub by_time: Vec<ServeRateFile>,
    #[serde(flatten)]
    pub origin: OriginFile,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServeRateFile {
    pub from: DayTime,
    pub per_hour: Decimal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitmentFile {
    pub id: String,
    pub rig: RigId,
    pub from: Moment,
    pub until: Moment,
    #[serde(default)]
    pub load_lead_minutes: u64,
    pub income: Decimal,
    pub penalty: Decimal,
    #[serde(flatten)]
    pub origin: OriginFile,
}
