//! What the Network Node knows: the stage it is in, the artifacts it received, its judgements and its complaints.

use std::collections::{BTreeMap, BTreeSet};

use roadbed_protocol::UnixMillis;
use serde::Serialize;
use serde_json::Value;

use super::judge::{self, Golden};

/// Artifacts kept of one round: more than a small model makes in a window, and a bound to memory.
const ARTIFACTS_MAX: usize = 100_000;
/// Complaints kept: the first ones matter.
const ERRORS_MAX: usize = 32;
/// Distance above which an artifact is wrong beyond any rounding (the vectors' README: "above 0.1 is a bug").
const DISTANCE_MAX: f64 = 0.1;
/// Verdict threshold of the reference, which does not know the threshold that the chain's API sends.
pub const FRAUD_THRESHOLD: f64 = 0.01;
/// Statistics sent with validation jobs: mainnet values reported in 2026-02.
pub const DIST_THRESHOLD: f64 = 0.2;
/// Expected share of honest mismatches.
pub const P_MISMATCH: f64 = 0.1;

/// Where in the epoch the chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Serving customers.
    Inference,
    /// Making artifacts for the round of this place.
    Generating(usize),
    /// Checking others for the round of this place.
    Validating(usize),
}

/// The part of the status document that tells of the Network Node.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NetworkNodeStatus {
    /// Every PoC window that was opened.
    pub rounds: Vec<RoundStatus>,
    /// Breaches of the contract, the first ones.
    pub errors: Vec<String>,
    /// Calls made.
    pub calls: u64,
    /// Calls that got no answer at all.
    pub unreached: u64,
    /// `inference/up` calls that were done.
    pub ups: u64,
    /// `inference/up` calls that were refused because the MLNode does something else.
    pub ups_refused: u64,
    /// Whether the MLNode last served the model.
    pub model_loaded: bool,
}

/// One PoC window in the status document.
#[derive(Debug, Clone, Serialize)]
pub struct RoundStatus {
    /// Block hash the round's seeds are made of.
    pub block_hash: String,
    /// Farm time at which generation was acknowledged.
    pub started_farm_ms: Option<i64>,
    /// Different nonces received.
    pub artifacts: u64,
    /// Nonces received again; they do not count.
    pub duplicates: u64,
    /// Artifacts compared to a golden vector.
    pub judged: u64,
    /// Largest distance of those.
    pub distance_max: f64,
    /// Mean distance of those.
    pub distance_mean: f64,
    /// Deliveries taken.
    pub callbacks: u64,
    /// Deliveries refused, the deliberate one included.
    pub rejected_callbacks: u64,
    /// Whether the delivery that was refused on purpose came again unchanged.
    pub retried: bool,
    /// Starts that were refused.
    pub refused_starts: u64,
    /// Verdict over the node's own artifacts.
    pub validation: Option<Verdict>,
    /// Verdict over artifacts of which some were spoiled on purpose.
    pub corrupted_validation: Option<Verdict>,
}

/// A verdict as reported by the MLNode.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Nonces checked.
    pub n_total: u32,
    /// Nonces that did not match.
    pub n_mismatch: u32,
    /// Whether that is fraud.
    pub fraud_detected: bool,
}

/// One PoC window.
#[derive(Debug, Clone)]
pub struct Round {
    /// Text used in every seed.
    pub block_hash: String,
    /// Height of the stage's first block.
    pub block_height: i64,
    started: Option<UnixMillis>,
    artifacts: BTreeMap<u32, Artifact>,
    duplicates: u64,
    distances: Vec<f64>,
    callbacks: u64,
    rejected_callbacks: u64,
    refused_starts: u64,
    /// A delivery refused on purpose, waited for again.
    awaited: Option<Value>,
    retried: bool,
    jobs: Vec<Job>,
}

/// A received artifact.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// As received.
    pub vector_b64: String,
    /// Its numbers.
    pub vector: Vec<f64>,
}

/// A validation job sent to the MLNode.
#[derive(Debug, Clone)]
pub struct Job {
    /// As answered when it was queued.
    pub request_id: String,
    /// Nonces sent.
    pub nonces: BTreeSet<u32>,
    /// Those whose vectors were spoiled.
    pub spoiled: BTreeSet<u32>,
    /// What came back.
    pub verdict: Option<Verdict>,
}

impl Round {
    /// A window whose generation has not been acknowledged yet.
    #[must_use]
    pub fn open(block_hash: String, block_height: i64) -> Self {
        Self {
            block_hash,
            block_height,
            started: None,
            artifacts: BTreeMap::new(),
            duplicates: 0,
            distances: Vec::new(),
            callbacks: 0,
            rejected_callbacks: 0,
            refused_starts: 0,
            awaited: None,
            retried: false,
            jobs: Vec::new(),
        }
    }

    /// Artifacts by nonce.
    #[must_use]
    pub const fn artifacts(&self) -> &BTreeMap<u32, Artifact> {
        &self.artifacts
    }

    /// Validation jobs sent.
    #[must_use]
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    fn status(&self) -> RoundStatus {
        let judged = u32::try_from(self.distances.len()).unwrap_or(u32::MAX);
        let verdict = |spoiled: bool| {
            self.jobs
                .iter()
                .filter(|job| job.spoiled.is_empty() != spoiled)
                .find_map(|job| job.verdict.clone())
        };
        RoundStatus {
            block_hash: self.block_hash.clone(),
            started_farm_ms: self.started.map(|time| time.0),
            artifacts: u64::try_from(self.artifacts.len()).unwrap_or(u64::MAX),
            duplicates: self.duplicates,
            judged: u64::from(judged),
            distance_max: self.distances.iter().copied().fold(0.0, f64::max),
            distance_mean: self.distances.iter().sum::<f64>() / f64::from(judged.max(1)),
            callbacks: self.callbacks,
            rejected_callbacks: self.rejected_callbacks,
            retried: self.retried,
            refused_starts: self.refused_starts,
            validation: verdict(false),
            corrupted_validation: verdict(true),
        }
    }
}

/// Why a delivery was not taken: the HTTP status and the words.
pub type Refusal = (u16, &'static str);

/// Everything the Network Node remembers.
#[derive(Debug)]
pub struct Desk {
    /// Where in the epoch the chain is.
    pub stage: Stage,
    /// Whether the next delivery is to be refused although it is in time.
    pub refuse_next: bool,
    golden: Golden,
    rounds: Vec<Round>,
    status: NetworkNodeStatus,
}

impl Desk {
    /// A desk with nothing on it.
    #[must_use]
    pub fn new(golden: Golden) -> Self {
        Self {
            stage: Stage::Inference,
            refuse_next: false,
            golden,
            rounds: Vec::new(),
            status: NetworkNodeStatus::default(),
        }
    }

    /// Block hash and public key of the golden run.
    #[must_use]
    pub const fn golden(&self) -> &Golden {
        &self.golden
    }

    /// The counters, to be counted up.
    pub const fn counters(&mut self) -> &mut NetworkNodeStatus {
        &mut self.status
    }

    /// The status document's part.
    #[must_use]
    pub fn status(&self) -> NetworkNodeStatus {
        NetworkNodeStatus {
            rounds: self.rounds.iter().map(Round::status).collect(),
            ..self.status.clone()
        }
    }

    /// Notes a breach of the contract.
    pub fn complain(&mut self, what: String) {
        tracing::warn!(%what, "the MLNode broke the contract");
        if self.status.errors.len() < ERRORS_MAX && !self.status.errors.contains(&what) {
            self.status.errors.push(what);
        }
    }

    /// Opens a window; returns its place.
    pub fn open_round(&mut self, round: Round) -> usize {
        self.rounds.push(round);
        self.rounds.len() - 1
    }

    /// The window of this place.
    #[must_use]
    pub fn round(&self, place: usize) -> Option<&Round> {
        self.rounds.get(place)
    }

    /// Notes that a start was acknowledged.
    pub fn generation_started(&mut self, place: usize, now: UnixMillis) {
        if let Some(round) = self.rounds.get_mut(place) {
            round.started.get_or_insert(now);
        }
    }

    /// Notes that a start was refused.
    pub fn start_refused(&mut self, place: usize) {
        if let Some(round) = self.rounds.get_mut(place) {
            round.refused_starts += 1;
        }
    }

    /// Notes a validation job that was queued.
    pub fn job_queued(&mut self, place: usize, job: Job) {
        if let Some(round) = self.rounds.get_mut(place) {
            round.jobs.push(job);
        }
    }

    /// Takes a delivery of artifacts, or says why not.
    ///
    /// # Errors
    /// 503 outside the stage (and once inside, on purpose), 400 for what can never be right.
    pub fn take_artifacts(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let taken = self.try_artifacts(body);
        if let Err((status, why)) = taken {
            if status == 400 {
                self.complain(format!("a delivery of artifacts was refused: {why}"));
            }
            if let Some(round) = self.rounds.last_mut() {
                round.rejected_callbacks += 1;
            }
        }
        taken
    }

    fn try_artifacts(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let document: Value = serde_json::from_slice(body).map_err(|_| (400, "not JSON"))?;
        let Stage::Generating(place) = self.stage else {
            return Err((503, "not in a PoC generate stage"));
        };
        let Some(round) = self.rounds.get_mut(place) else {
            return Err((503, "no round"));
        };
        if self.refuse_next {
            self.refuse_next = false;
            round.awaited = Some(document);
            return Err((503, "refused on purpose"));
        }
        if document["node_id"] != 0 {
            return Err((400, "unknown node_id"));
        }
        if document["public_key"] != self.golden.public_key.as_str() {
            return Err((400, "unknown public_key"));
        }
        if document["block_hash"] != round.block_hash.as_str() {
            return Err((400, "block_hash of another round"));
        }
        if document["block_height"] != round.block_height {
            return Err((400, "block_height of another round"));
        }
        let artifacts = document["artifacts"]
            .as_array()
            .filter(|artifacts| !artifacts.is_empty())
            .ok_or((400, "no artifacts"))?;
        let mut decoded = Vec::with_capacity(artifacts.len());
        for artifact in artifacts {
            let nonce = artifact["nonce"]
                .as_i64()
                .and_then(|nonce| i32::try_from(nonce).ok())
                .and_then(|nonce| u32::try_from(nonce).ok())
                .ok_or((400, "nonce is no int32 from 0"))?;
            let text = artifact["vector_b64"].as_str().ok_or((400, "no vector_b64"))?;
            let vector = judge::decode(text).map_err(|why| (400, why))?;
            decoded.push((nonce, text.to_owned(), vector));
        }
        round.callbacks += 1;
        let mut complaints = Vec::new();
        if let Some(awaited) = round.awaited.take() {
            if awaited == document {
                round.retried = true;
            } else {
                complaints.push("a refused delivery did not come again unchanged".to_owned());
            }
        }
        for (nonce, vector_b64, vector) in decoded {
            if round.artifacts.contains_key(&nonce) || round.artifacts.len() >= ARTIFACTS_MAX {
                round.duplicates += 1;
                continue;
            }
            if !judge::has_unit_norm(&vector) {
                complaints.push(format!("nonce {nonce}: a vector that is not of unit length"));
            }
            if round.block_hash == self.golden.block_hash
                && let Some(distance) = self.golden.distance(nonce, &vector)
            {
                round.distances.push(distance);
                if distance > DISTANCE_MAX {
                    complaints
                        .push(format!("nonce {nonce}: {distance:.4} away from the golden vector"));
                }
            }
            round.artifacts.insert(nonce, Artifact { vector_b64, vector });
        }
        for complaint in complaints {
            self.complain(complaint);
        }
        Ok(())
    }

    /// Takes a verdict, or says why not.
    ///
    /// # Errors
    /// 503 outside the stage, 400 for what can never be right.
    pub fn take_verdict(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let document: Value = serde_json::from_slice(body).map_err(|_| (400, "not JSON"))?;
        let Stage::Validating(place) = self.stage else {
            return Err((503, "not in a PoC validate stage"));
        };
        let Some(round) = self.rounds.get_mut(place) else {
            return Err((503, "no round"));
        };
        let request_id = document["request_id"].as_str().unwrap_or("");
        // The queue's answer puts the backend before the id ("5001:…"); the report may leave it out.
        let job = round.jobs.iter_mut().find(|job| {
            !request_id.is_empty()
                && (job.request_id == request_id
                    || job.request_id.ends_with(&format!(":{request_id}")))
        });
        let Some(job) = job else {
            return Err((400, "unknown request_id"));
        };
        let count = |key: &str| document[key].as_u64().and_then(|n| u32::try_from(n).ok());
        let (Some(n_total), Some(n_mismatch), Some(fraud_detected), Some(p_value)) = (
            count("n_total"),
            count("n_mismatch"),
            document["fraud_detected"].as_bool(),
            document["p_value"].as_f64(),
        ) else {
            return Err((400, "a verdict without n_total, n_mismatch, p_value or fraud_detected"));
        };
        let named: BTreeSet<u32> = document["mismatch_nonces"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|nonce| u32::try_from(nonce.as_u64()?).ok())
            .collect();
        let mut complaints = Vec::new();
        let mut check = |fine: bool, what: &str| {
            if !fine {
                complaints.push(format!("verdict {request_id}: {what}"));
            }
        };
        let sent = u32::try_from(job.nonces.len()).unwrap_or(u32::MAX);
        let spoiled = u32::try_from(job.spoiled.len()).unwrap_or(u32::MAX);
        let want = judge::p_value(sent, spoiled, P_MISMATCH);
        check(n_total == sent, "n_total is not the number of nonces sent");
        check(
            n_mismatch == spoiled && named == job.spoiled,
            "the mismatches are not the artifacts that were spoiled",
        );
        check((p_value - want).abs() <= 1e-6, "the p-value is not that of the binomial test");
        check(
            fraud_detected == (want < FRAUD_THRESHOLD),
            "fraud_detected is not what the binomial test says",
        );
        let first = job.verdict.is_none();
        job.verdict = Some(Verdict { n_total, n_mismatch, fraud_detected });
        // A report may arrive twice; only the first is worth a complaint.
        if first {
            for complaint in complaints {
                self.complain(complaint);
            }
        }
        Ok(())
    }
}
