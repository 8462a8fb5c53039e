//! The MLNodes that the Host registered: their config as the admin API takes it, and what is wanted of each and seen.
//!
//! Wanted and seen are two fields that only the broker brings together. A node's number (`node_num`, the `node_id` of PoC
//! requests) is given once, from 1 on, and never used again: `broker/node_admin_commands.go` of the original.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chain::Phase;

/// One node as `/admin/v1/nodes` takes and gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the original's names; the admin API's documents explain them")]
pub struct NodeConfig {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub inference_segment: String,
    #[serde(default)]
    pub inference_port: i64,
    #[serde(default)]
    pub poc_segment: String,
    #[serde(default)]
    pub poc_port: i64,
    #[serde(default)]
    pub base_url: String,
    #[serde(default)]
    pub auth_token: String,
    #[serde(default)]
    pub models: BTreeMap<String, ModelArgs>,
    #[serde(default)]
    pub max_concurrent: i64,
    #[serde(default)]
    pub hardware: Vec<Hardware>,
}

/// Arguments of the engine for one model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelArgs {
    /// As a command line.
    #[serde(default)]
    pub args: Vec<String>,
}

/// GPUs as the Host names them; the chain checks nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Name.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many.
    pub count: u32,
}

impl NodeConfig {
    /// Everything that is wrong with it.
    #[must_use]
    pub fn faults(&self, approved: &[String]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |fine: bool, what: &str| {
            if !fine {
                faults.push(what.to_owned());
            }
        };
        check(!self.id.is_empty(), "node id is required");
        if self.base_url.is_empty() {
            check(!self.host.is_empty(), "host is required");
            let port = |port: i64| (1..=65_535).contains(&port);
            check(port(self.inference_port), "inference_port must be between 1 and 65535");
            check(port(self.poc_port), "poc_port must be between 1 and 65535");
        } else {
            let is_http =
                ["http://", "https://"].iter().any(|head| self.base_url.starts_with(head));
            check(is_http, "base_url must be http or https");
            let alone = self.host.is_empty() && self.inference_port == 0 && self.poc_port == 0;
            check(alone, "either base_url or host and ports, not both");
        }
        check(!self.models.is_empty(), "at least one model is required");
        check(self.max_concurrent > 0, "max_concurrent must be above 0");
        for model in self.models.keys().filter(|model| !approved.contains(model)) {
            faults.push(format!("model {model} is not a governance model"));
        }
        faults
    }

    /// Base address of the management routes.
    #[must_use]
    pub fn poc_base(&self) -> String {
        if self.base_url.is_empty() {
            format!("http://{}:{}{}", self.host, self.poc_port, self.poc_segment)
        } else {
            self.base_url.trim_end_matches('/').to_owned()
        }
    }

    /// Base address of the inference routes.
    #[must_use]
    pub fn inference_base(&self) -> String {
        if self.base_url.is_empty() {
            format!("http://{}:{}{}", self.host, self.inference_port, self.inference_segment)
        } else {
            self.base_url.trim_end_matches('/').to_owned()
        }
    }
}

/// What a node is to do, or was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Nothing was asked or answered yet.
    Unknown,
    /// Serves customers.
    Inference,
    /// Makes artifacts.
    Generating,
    /// Checks artifacts of others.
    Validating,
    /// Nothing.
    Stopped,
    /// It does not answer, or answers nonsense.
    Failed,
}

impl Doing {
    /// The original's two words: of the node and of its PoC.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Unknown => ("UNKNOWN", ""),
            Self::Inference => ("INFERENCE", "IDLE"),
            Self::Generating => ("POC", "GENERATING"),
            Self::Validating => ("POC", "VALIDATING"),
            Self::Stopped => ("STOPPED", "IDLE"),
            Self::Failed => ("FAILED", "IDLE"),
        }
    }
}

/// A registered node.
#[derive(Debug, Clone)]
pub struct Node {
    /// As registered.
    pub config: NodeConfig,
    /// Its number in PoC requests.
    pub node_num: u64,
    /// What is wanted of it.
    pub wanted: Doing,
    /// What it was last seen to do.
    pub seen: Doing,
    /// When that was, by the chain's clock.
    pub seen_ms: i64,
    /// Why it failed, if it did.
    pub failure: String,
    /// Whether the Host wants it.
    pub enabled: bool,
    /// Epoch in which that was said.
    pub enabled_epoch: u64,
    /// `POC_SLOT`: it serves on during PoC and keeps its weight.
    pub preserved: bool,
    /// A call is under way.
    pub busy: bool,
}

impl Node {
    /// A node disabled in an epoch stays to its end; one that is enabled in the middle of a PoC waits for its end.
    #[must_use]
    pub fn is_operational(&self, latest_epoch: u64, phase: Phase) -> bool {
        if self.enabled {
            latest_epoch > self.enabled_epoch || phase == Phase::Inference
        } else {
            latest_epoch <= self.enabled_epoch
        }
    }

    /// As the admin API lists it.
    #[must_use]
    pub fn document(&self, epoch_model: Option<&str>, poc_weight: u64) -> Value {
        let (intended, poc_intended) = self.wanted.words();
        let (current, poc_current) = self.seen.words();
        let mut config = serde_json::to_value(&self.config).unwrap_or_default();
        config["node_num"] = json!(self.node_num);
        let models: BTreeMap<&str, Value> =
            epoch_model.into_iter().map(|id| (id, json!({ "id": id }))).collect();
        let weights: BTreeMap<&str, Value> = epoch_model
            .into_iter()
            .map(|id| {
                let slots = [true, self.preserved];
                let info = json!({
                    "node_id": self.config.id, "throughput": 0, "poc_weight": poc_weight,
                    "timeslot_allocation": slots,
                });
                (id, info)
            })
            .collect();
        json!({
            "node": config,
            "state": {
                "intended_status": intended, "current_status": current,
                "poc_intended_status": poc_intended, "poc_current_status": poc_current,
                "lock_count": 0, "failure_reason": self.failure,
                "status_timestamp": rfc3339(self.seen_ms),
                "admin_state": { "enabled": self.enabled, "epoch": self.enabled_epoch },
                "epoch_models": models, "epoch_ml_nodes": weights,
            },
        })
    }
}

/// Unix milliseconds as the original's Go writes a time.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    let (days, in_day) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    // Civil date from days since 1970-01-01: years begin in March, so that a leap day is a year's last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Every node of the Host.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    nodes: BTreeMap<String, Node>,
    numbers_given: u64,
}

impl Registry {
    /// Puts a node in, or gives a known one another config; its number and state stay then.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn upsert(
        &mut self,
        config: NodeConfig,
        approved: &[String],
        epoch: u64,
    ) -> Result<&Node, Vec<String>> {
        let mut faults = config.faults(approved);
        let taken = self.nodes.values().find(|other| {
            other.config.id != config.id && other.config.poc_base() == config.poc_base()
        });
        if let Some(other) = taken {
            faults.push(format!("endpoint is already used by node {}", other.config.id));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let id = config.id.clone();
        if let Some(known) = self.nodes.get_mut(&id) {
            known.config = config;
        } else {
            self.numbers_given += 1;
            let node = Node {
                config,
                node_num: self.numbers_given,
                wanted: Doing::Unknown,
                seen: Doing::Unknown,
                seen_ms: 0,
                failure: String::new(),
                enabled: true,
                enabled_epoch: epoch,
                preserved: false,
                busy: false,
            };
            self.nodes.insert(id.clone(), node);
        }
        Ok(&self.nodes[&id])
    }

    /// Takes a node out; whether there was one.
    pub fn remove(&mut self, id: &str) -> bool {
        self.nodes.remove(id).is_some()
    }

    /// Enables or disables; whether there is such a node.
    pub fn enable(&mut self, id: &str, enabled: bool, epoch: u64) -> bool {
        self.nodes.get_mut(id).is_some_and(|node| {
            node.enabled = enabled;
            node.enabled_epoch = epoch;
            true
        })
    }

    /// One node.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// One node, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Node> {
        self.nodes.get_mut(id)
    }

    /// The node of a number.
    #[must_use]
    pub fn by_number(&self, node_num: u64) -> Option<&Node> {
        self.nodes.values().find(|node| node.node_num == node_num)
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.values_mut()
    }

    /// `node_count` of PoC requests: every number ever given, so that no two nodes can share a nonce.
    #[must_use]
    pub const fn node_count(&self) -> u64 {
        self.numbers_given
    }

    /// Forgets what was seen and wanted, as a restart of the original does; configs and numbers are kept on disk.
    pub fn forget_states(&mut self) {
        for node in self.nodes.values_mut() {
            node.wanted = Doing::Unknown;
            node.seen = Doing::Unknown;
            node.busy = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, port: i64) -> NodeConfig {
        serde_json::from_value(json!({
            "id": id, "host": "10.0.0.2", "inference_port": port, "poc_port": port,
            "models": { "org/name": { "args": [] } }, "max_concurrent": 5,
        }))
        .unwrap()
    }

    #[test]
    fn numbers_are_given_once_and_kept() {
        let approved = ["org/name".to_owned()];
        let mut registry = Registry::default();
        assert_eq!(registry.upsert(node("a", 1), &approved, 5).unwrap().node_num, 1);
        assert_eq!(registry.upsert(node("b", 2), &approved, 5).unwrap().node_num, 2);
        assert_eq!(registry.upsert(node("a", 3), &approved, 5).unwrap().node_num, 1);
        assert!(registry.remove("b") && !registry.remove("b"));
        assert_eq!(registry.upsert(node("b", 2), &approved, 5).unwrap().node_num, 3);
        assert_eq!(registry.node_count(), 3);
        assert_eq!(registry.upsert(node("c", 2), &approved, 5).unwrap_err().len(), 1);
    }

    #[test]
    fn every_fault_of_a_config_is_named() {
        let approved = ["org/name".to_owned()];
        assert_eq!(node("a", 1).faults(&approved), Vec::<String>::new());
        let both = NodeConfig { base_url: "http://x".into(), ..node("a", 1) };
        assert_eq!(both.faults(&approved).len(), 1);
        let bad = NodeConfig { host: String::new(), max_concurrent: 0, ..node("", 70_000) };
        assert_eq!(bad.faults(&[]).len(), 6, "{:?}", bad.faults(&[]));
    }

    #[test]
    fn a_disabled_node_leaves_at_the_next_poc() {
        let mut registry = Registry::default();
        registry.upsert(node("a", 1), &["org/name".to_owned()], 5).unwrap();
        let at = |registry: &Registry, epoch, phase| {
            registry.get("a").unwrap().is_operational(epoch, phase)
        };
        assert!(at(&registry, 5, Phase::Inference) && !at(&registry, 5, Phase::Validate));
        assert!(at(&registry, 6, Phase::Generate));
        assert!(registry.enable("a", false, 6) && !registry.enable("x", true, 6));
        assert!(at(&registry, 6, Phase::Inference) && !at(&registry, 7, Phase::Generate));
    }

    #[test]
    fn times_are_written_as_go_does() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
    }
}
