//! Everything the Network Node and its chain remember, and what they say to a delivery.
//!
//! One lock around it all: the driver, the three servers and a test that looks in share it, and none holds it while it waits
//! for anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::GonkaConfig;
use super::chain::{Chain, ConfirmationPhase, Phase};
use super::faults::Faults;
use super::registry::Registry;
use super::stage::{Job, Stage, StageKind, StageStatus, Stored, Verdict};
use super::weights::EpochBook;
use crate::network_node::callback::encoded_twice;
use crate::network_node::desk::{FRAUD_THRESHOLD, P_MISMATCH};
use crate::network_node::judge;

/// Complaints kept: the first ones matter.
const ERRORS_MAX: usize = 64;

/// What a delivery of a node that is not registered is told.
const UNKNOWN_NODE: &str = "unknown node_num";

/// Why a delivery was not taken: the HTTP status and the words.
pub type Refusal = (u16, String);

/// What the Network Node did and saw; its part of the status document.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GonkaStatus {
    /// Newest block.
    pub height: i64,
    /// Number of the latest epoch.
    pub epoch: u64,
    /// Word of the phase.
    pub phase: String,
    /// Every stage that was opened.
    pub stages: Vec<StageStatus>,
    /// Epochs whose weights stand, or whose rewards were claimed.
    pub epochs: BTreeMap<u64, EpochBook>,
    /// Breaches of the contract, the first ones.
    pub errors: Vec<String>,
    /// Calls made to MLNodes, by verb and path.
    pub calls: BTreeMap<String, u64>,
    /// Calls that got no answer at all.
    pub unreached: u64,
    /// Inference validations: similarity of each.
    pub similarities: Vec<f64>,
    /// Largest difference between an MLNode's clock and ours, in milliseconds.
    pub clock_skew_ms_max: u64,
}

/// The whole memory.
#[derive(Debug)]
pub struct World {
    /// As configured.
    pub config: GonkaConfig,
    /// The chain.
    pub chain: Chain,
    /// The registered nodes.
    pub registry: Registry,
    /// Every stage so far.
    pub stages: Vec<Stage>,
    /// Weights and rewards by epoch.
    pub books: BTreeMap<u64, EpochBook>,
    /// How the public API misbehaves.
    pub faults: Faults,
    /// Status with which every delivery is refused, if any.
    pub refuse: Option<u16>,
    /// Deliveries still to be refused with 503, one by one.
    pub refuse_next: u32,
    /// Height from which it knows its nodes: before, a delivery is one of an unknown node. The original reads them from its
    /// store some time after its start.
    pub forgetful_until: i64,
    /// Its callback server alone is down: nobody listens there.
    pub callback_down: bool,
    /// The API process is down: its servers answer nobody, its driver sleeps. The chain goes on.
    pub down: bool,
    /// Counters.
    pub counters: GonkaStatus,
}

/// The memory, shared.
pub type Shared = Arc<Mutex<World>>;

/// The lock, whoever panicked before.
pub fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Notes a breach of the contract.
    pub fn complain(&mut self, what: String) {
        tracing::warn!(%what, "an MLNode broke the contract");
        if self.counters.errors.len() < ERRORS_MAX && !self.counters.errors.contains(&what) {
            self.counters.errors.push(what);
        }
    }

    /// The chain's time: that of the newest block.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        let blocks = self.chain.height - self.config.start_height;
        self.config.start_ms + blocks * self.config.block_ms
    }

    /// The status document's part.
    #[must_use]
    pub fn status(&self) -> GonkaStatus {
        GonkaStatus {
            height: self.chain.height,
            epoch: self.chain.stages().epoch_index,
            phase: self.chain.phase().word().to_owned(),
            stages: self.stages.iter().map(Stage::status).collect(),
            epochs: self.books.clone(),
            ..self.counters.clone()
        }
    }

    /// Place of the stage that the chain is in, PoC or confirmation.
    #[must_use]
    pub fn stage_now(&self) -> Option<usize> {
        let height = match self.chain.phase() {
            Phase::Inference => self.chain.confirmation()?.trigger_height,
            Phase::Generate
            | Phase::GenerateWindDown
            | Phase::Validate
            | Phase::ValidateWindDown => self.chain.stages().poc_start,
        };
        self.stages.iter().rposition(|stage| stage.height == height)
    }

    /// Whether artifacts are taken at this height.
    #[must_use]
    pub fn takes_artifacts(&self) -> bool {
        let at = self.chain.height;
        match self.chain.phase() {
            Phase::Generate => true,
            Phase::GenerateWindDown => at <= self.chain.stages().poc_exchange_end,
            Phase::Validate | Phase::ValidateWindDown => false,
            Phase::Inference => self.chain.confirmation().is_some_and(|event| {
                event.phase_at(at) == ConfirmationPhase::Generation && at <= event.exchange_end
            }),
        }
    }

    /// Whether verdicts are taken at this height.
    #[must_use]
    pub fn takes_verdicts(&self) -> bool {
        match self.chain.phase() {
            Phase::Validate | Phase::ValidateWindDown => true,
            Phase::Generate | Phase::GenerateWindDown => false,
            Phase::Inference => self.chain.confirmation().is_some_and(|event| {
                event.phase_at(self.chain.height) == ConfirmationPhase::Validation
            }),
        }
    }

    /// The model of a callback's path segment, which must be ours encoded twice.
    fn model_of(&mut self, segment: &str) -> Result<String, Refusal> {
        let found = self.config.models.iter().find(|model| encoded_twice(&model.id) == segment);
        if let Some(model) = found {
            return Ok(model.id.clone());
        }
        self.complain(format!("the callback address was altered: {segment}"));
        Err((400, "invalid model_id".to_owned()))
    }

    /// Whether it has not read its nodes yet.
    fn forgets(&self) -> bool {
        self.chain.height < self.forgetful_until
    }

    /// Takes a delivery of artifacts, or says why not.
    ///
    /// # Errors
    /// 503 outside the stage, 400 for what can never be right.
    pub fn take_artifacts(&mut self, segment: &str, body: &[u8]) -> Result<(), Refusal> {
        let taken = self.try_artifacts(segment, body);
        if let Err((status, why)) = &taken {
            // That it forgot its nodes is its own fault.
            let own_fault = self.forgets() && why == UNKNOWN_NODE;
            if *status == 400 && !own_fault {
                self.complain(format!("a delivery of artifacts was refused: {why}"));
            }
            let status = *status;
            if let Some(stage) = self.stages.last_mut() {
                *stage.refused.entry(status).or_default() += 1;
                if status == 503 || why == UNKNOWN_NODE {
                    stage.awaited.insert(digest(body));
                }
            }
        }
        taken
    }

    fn try_artifacts(&mut self, segment: &str, body: &[u8]) -> Result<(), Refusal> {
        let bad = |why: &str| (400, why.to_owned());
        if let Some(status) = self.refuse {
            return Err((status, "told to refuse".to_owned()));
        }
        if self.refuse_next > 0 {
            self.refuse_next -= 1;
            return Err((503, "told to refuse this one".to_owned()));
        }
        let document: Value = serde_json::from_slice(body).map_err(|_| bad("not JSON"))?;
        let model = self.model_of(segment)?;
        if !self.takes_artifacts() {
            return Err((503, "not in PoC generate phase".to_owned()));
        }
        let Some(place) = self.stage_now() else {
            return Err((503, "missing poc stage recipe".to_owned()));
        };
        if document["block_height"] != self.stages[place].height {
            return Err(bad("block_height is not the active PoC stage"));
        }
        let node_num = document["node_id"].as_u64().ok_or_else(|| bad("no node_id"))?;
        let known = if self.forgets() { None } else { self.registry.by_number(node_num) };
        let node = known.ok_or_else(|| bad(UNKNOWN_NODE))?;
        let node_id = node.config.id.clone();
        // The original looks at neither of these; what else is in them would be another's proof.
        if document["public_key"] != self.config.public_key.as_str() {
            return Err(bad("public_key of another"));
        }
        if document["block_hash"] != self.stages[place].block_hash.as_str() {
            return Err(bad("block_hash of another stage"));
        }
        let mut decoded = Vec::new();
        for artifact in document["artifacts"].as_array().ok_or_else(|| bad("no artifacts"))? {
            let nonce = artifact["nonce"].as_i64().and_then(|nonce| i32::try_from(nonce).ok());
            let nonce = nonce.and_then(|nonce| u32::try_from(nonce).ok());
            let nonce = nonce.ok_or_else(|| bad("nonce is no int32 from 0"))?;
            let text = artifact["vector_b64"].as_str().filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| bad("empty artifact vector"))?;
            let vector = judge::decode(text).map_err(bad)?;
            decoded.push((nonce, text.to_owned(), vector));
        }
        let stage = &mut self.stages[place];
        stage.callbacks += 1;
        if stage.awaited.remove(&digest(body)) {
            stage.retried += 1;
        }
        let mut complaints = Vec::new();
        for (nonce, vector_b64, vector) in decoded {
            let stored = Stored { node_id: node_id.clone(), vector_b64, vector };
            complaints.extend(stage.store(&model, nonce, stored));
        }
        complaints.into_iter().for_each(|complaint| self.complain(complaint));
        Ok(())
    }

    /// Takes a verdict, or says why not.
    ///
    /// # Errors
    /// 503 outside the stage, 400 for what can never be right.
    pub fn take_verdict(&mut self, segment: &str, body: &[u8]) -> Result<(), Refusal> {
        let bad = |why: &str| (400, why.to_owned());
        if let Some(status) = self.refuse {
            return Err((status, "told to refuse".to_owned()));
        }
        let report: Value = serde_json::from_slice(body).map_err(|_| bad("not JSON"))?;
        self.model_of(segment)?;
        if !self.takes_verdicts() {
            return Err((503, "not in PoC validate phase".to_owned()));
        }
        let Some(place) = self.stage_now() else {
            return Err((503, "no stage".to_owned()));
        };
        let request_id = report["request_id"].as_str().unwrap_or("").to_owned();
        let jobs = &mut self.stages[place].jobs;
        // The queue's answer puts the backend before the id ("5001:…"); the report may leave it out.
        let of_this = |job: &&mut Job| {
            let ends = job.request_id.ends_with(&format!(":{request_id}"));
            !request_id.is_empty() && (job.request_id == request_id || ends)
        };
        let Some(job) = jobs.iter_mut().find(of_this) else {
            self.complain(format!("a verdict of an unknown job: {request_id}"));
            return Err(bad("unknown request_id"));
        };
        let (verdict, complaints) = judged(job, &report).ok_or_else(|| {
            bad("a verdict without n_total, n_mismatch, p_value or fraud_detected")
        })?;
        let first = job.verdict.replace(verdict).is_none();
        if first {
            let told = complaints.into_iter().map(|what| format!("verdict {request_id}: {what}"));
            told.collect::<Vec<_>>().into_iter().for_each(|what| self.complain(what));
        }
        Ok(())
    }

    /// Opens the stage of this height if there is none yet; its place.
    pub fn open_stage(&mut self, kind: StageKind, height: i64, seed_height: i64) -> usize {
        if let Some(place) = self.stages.iter().rposition(|stage| stage.height == height) {
            return place;
        }
        let epoch = self.chain.stages_at(height).epoch_index;
        let hash = self.chain.hash(seed_height);
        self.stages.push(Stage::open(kind, epoch, height, hash));
        self.stages.len() - 1
    }
}

/// The verdict of a report and what is wrong with it; `None` when it is no verdict.
fn judged(job: &Job, report: &Value) -> Option<(Verdict, Vec<String>)> {
    let count = |key: &str| report[key].as_u64().and_then(|n| u32::try_from(n).ok());
    let (n_total, n_mismatch) = (count("n_total")?, count("n_mismatch")?);
    let (p_value, fraud) = (report["p_value"].as_f64()?, report["fraud_detected"].as_bool()?);
    let named = report["mismatch_nonces"].as_array().into_iter().flatten();
    let named: std::collections::BTreeSet<u32> =
        named.filter_map(|nonce| u32::try_from(nonce.as_u64()?).ok()).collect();
    let sent = u32::try_from(job.nonces.len()).unwrap_or(u32::MAX);
    let spoiled = u32::try_from(job.spoiled.len()).unwrap_or(u32::MAX);
    let want = judge::p_value(sent, spoiled, P_MISMATCH);
    let mut complaints = Vec::new();
    let mut check = |fine: bool, what: &str| {
        if !fine {
            complaints.push(what.to_owned());
        }
    };
    check(n_total == sent, "n_total is not the number of nonces sent");
    let found = n_mismatch == spoiled && named == job.spoiled;
    check(found, "the mismatches are not the artifacts that were spoiled");
    check((p_value - want).abs() <= 1e-6, "the p-value is not that of the binomial test");
    let fraud_is_right = fraud == (want < FRAUD_THRESHOLD);
    check(fraud_is_right, "fraud_detected is not what the binomial test says");
    let validated_weight = if !fraud && n_total > 0 { i64::from(n_total) } else { -1 };
    let verdict = Verdict { n_total, n_mismatch, p_value, fraud_detected: fraud, validated_weight };
    Some((verdict, complaints))
}

/// A short name of a body.
fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
