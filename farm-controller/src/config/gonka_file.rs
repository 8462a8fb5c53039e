//! The fields of a site's `gonka:` section as they stand in YAML, before any rule is checked.

use std::path::PathBuf;

use roadbed_protocol::RigId;
use serde::Deserialize;

use super::decimal::Decimal;
use super::origin::OriginFile;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GonkaFile {
    pub nodes: Vec<String>,
    #[serde(default)]
    pub admin_url: Option<String>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub callback_url: Option<String>,
    pub address: String,
    #[serde(default)]
    pub price: Option<PriceFile>,
    #[serde(default)]
    pub expected_loss: Option<LossFile>,
    pub rigs: Vec<GonkaRigFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceFile {
    pub per_gnk: Decimal,
    #[serde(flatten)]
    pub origin: OriginFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LossFile {
    pub percent: Decimal,
    #[serde(flatten)]
    pub origin: OriginFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GonkaRigFile {
    pub rig: RigId,
    pub node_id: String,
    #[serde(default)]
    pub base_url: Option<String>,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub inference_port: Option<u32>,
    #[serde(default)]
    pub inference_segment: String,
    #[serde(default)]
    pub poc_port: Option<u32>,
    #[serde(default)]
    pub poc_segment: String,
    #[serde(default)]
    pub auth_token_file: Option<PathBuf>,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default = "five_hundred")]
    pub max_concurrent: u32,
    #[serde(default)]
    pub hardware: Vec<CardFile>,
    #[serde(default)]
    pub vram_gb: Option<u64>,
    #[serde(default)]
    pub weights: Option<String>,
}

/// What Gonka's own example configs write.
fn five_hundred() -> u32 {
    500
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CardFile {
    #[serde(rename = "type")]
    pub kind: String,
    pub count: u32,
}
