//! One PoC stage and its artifact store: what was ordered, what arrived, and what a delivery may be refused for.
//!
//! The store keeps a nonce once. Whoever delivers it a second time counts as a duplicate and is not told; whoever delivers
//! it with other numbers, or from another node, broke the contract, and that is said.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::network_node::judge;

/// Artifacts kept of one stage: more than a small model makes, and a bound to memory.
pub const ARTIFACTS_MAX: usize = 200_000;
/// `max|nonce| / count` from which a commit is rejected.
pub const POROSITY_MAX: u64 = 100;

/// What kind of stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// The PoC at the start of an epoch.
    Poc,
    /// A confirmation PoC, by its sequence in the epoch.
    Confirmation(u64),
}

/// A stored artifact.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The node that delivered it first.
    pub node_id: String,
    /// As received.
    pub vector_b64: String,
    /// Its numbers.
    pub vector: Vec<f64>,
}

/// What a node was ordered to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its number.
    pub node_num: u64,
    /// Numbers altogether.
    pub node_count: u64,
}

/// A validation job sent to an MLNode.
#[derive(Debug, Clone)]
pub struct Job {
    /// The node it was sent to.
    pub node_id: String,
    /// As answered when it was queued.
    pub request_id: String,
    /// Address of the participant that is checked.
    pub participant: String,
    /// Nonces sent.
    pub nonces: BTreeSet<u32>,
    /// Those whose vectors were spoiled.
    pub spoiled: BTreeSet<u32>,
    /// What came back.
    pub verdict: Option<Verdict>,
}

/// A verdict as reported by an MLNode.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Nonces checked.
    pub n_total: u32,
    /// Nonces that did not match.
    pub n_mismatch: u32,
    /// Of the binomial test.
    pub p_value: f64,
    /// Whether that is fraud.
    pub fraud_detected: bool,
    /// The vote it becomes on the chain: `n_total`, or -1.
    pub validated_weight: i64,
}

/// One PoC stage.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What kind.
    pub kind: StageKind,
    /// Epoch it belongs to.
    pub epoch: u64,
    /// The height that names it: the PoC start, or the trigger of a confirmation PoC.
    pub height: i64,
    /// Hash in every seed.
    pub block_hash: String,
    /// Orders that were acknowledged, by node.
    pub orders: BTreeMap<String, Share>,
    /// Orders acknowledged, repetitions counted.
    pub starts: u64,
    /// Orders that were refused.
    pub refused_starts: u64,
    /// The store.
    pub artifacts: BTreeMap<(String, u32), Stored>,
    /// Artifacts received again.
    pub duplicates: u64,
    /// Deliveries taken.
    pub callbacks: u64,
    /// Deliveries refused, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Bodies refused with 503, or because their node was not known, whose repetition is awaited, by a digest.
    pub awaited: BTreeSet<String>,
    /// Bodies that came again unchanged and were taken.
    pub retried: u64,
    /// Jobs sent.
    pub jobs: Vec<Job>,
    /// Whether `pow/stop` was sent to the nodes.
    pub stopped: bool,
}

/// One stage in the status document.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the same words as in Stage")]
pub struct StageStatus {
    pub kind: StageKind,
    pub epoch: u64,
    pub height: i64,
    pub block_hash: String,
    pub starts: u64,
    pub refused_starts: u64,
    pub artifacts: u64,
    pub artifacts_by_node: BTreeMap<String, u64>,
    pub duplicates: u64,
    pub callbacks: u64,
    pub refused: BTreeMap<u16, u64>,
    pub retried: u64,
    pub jobs: u64,
    pub verdicts: Vec<Verdict>,
}

impl Stage {
    /// A stage of which nothing is known yet.
    #[must_use]
    pub const fn open(kind: StageKind, epoch: u64, height: i64, block_hash: String) -> Self {
        Self {
            kind,
            epoch,
            height,
            block_hash,
            orders: BTreeMap::new(),
            starts: 0,
            refused_starts: 0,
            artifacts: BTreeMap::new(),
            duplicates: 0,
            callbacks: 0,
            refused: BTreeMap::new(),
            awaited: BTreeSet::new(),
            retried: 0,
            jobs: Vec::new(),
            stopped: false,
        }
    }

    /// Puts an artifact into the store; what is wrong with it beyond being known.
    pub fn store(&mut self, model: &str, nonce: u32, artifact: Stored) -> Vec<String> {
        let mut complaints = Vec::new();
        if !judge::has_unit_norm(&artifact.vector) {
            complaints.push(format!("nonce {nonce}: a vector that is not of unit length"));
        }
        match self.orders.get(&artifact.node_id) {
            Some(share)
                if u64::from(nonce) % share.node_count != share.node_num % share.node_count =>
            {
                complaints.push(format!(
                    "nonce {nonce} is not of node {} of {}",
                    share.node_num, share.node_count
                ));
            }
            Some(_) => {}
            None => complaints.push(format!("{} was not ordered to prove", artifact.node_id)),
        }
        let key = (model.to_owned(), nonce);
        if let Some(known) = self.artifacts.get(&key) {
            self.duplicates += 1;
            if known.node_id != artifact.node_id {
                complaints.push(format!(
                    "nonce {nonce} of {} came again from {}",
                    known.node_id, artifact.node_id
                ));
            }
            if known.vector_b64 != artifact.vector_b64 {
                complaints.push(format!("nonce {nonce} came again with other numbers"));
            }
        } else if self.artifacts.len() < ARTIFACTS_MAX {
            self.artifacts.insert(key, artifact);
        }
        complaints
    }

    /// Nonces of a node, ascending.
    #[must_use]
    pub fn nonces_of(&self, node_id: &str) -> Vec<u32> {
        let own = self.artifacts.iter().filter(|(_, artifact)| artifact.node_id == node_id);
        own.map(|((_, nonce), _)| *nonce).collect()
    }

    /// Artifacts that count for a node: none if the whole commit is too porous.
    #[must_use]
    pub fn accepted_of(&self, node_id: &str) -> u64 {
        if self.is_porous() { 0 } else { self.nonces_of(node_id).len() as u64 }
    }

    /// Whether the commit skips so many nonces that it is rejected.
    #[must_use]
    pub fn is_porous(&self) -> bool {
        let largest = self.artifacts.keys().map(|(_, nonce)| u64::from(*nonce)).max().unwrap_or(0);
        let count = self.artifacts.len() as u64;
        count > 0 && largest / count >= POROSITY_MAX
    }

    /// Its part of the status document.
    #[must_use]
    pub fn status(&self) -> StageStatus {
        let mut by_node = BTreeMap::new();
        for artifact in self.artifacts.values() {
            *by_node.entry(artifact.node_id.clone()).or_insert(0) += 1;
        }
        StageStatus {
            kind: self.kind,
            epoch: self.epoch,
            height: self.height,
            block_hash: self.block_hash.clone(),
            starts: self.starts,
            refused_starts: self.refused_starts,
            artifacts: self.artifacts.len() as u64,
            artifacts_by_node: by_node,
            duplicates: self.duplicates,
            callbacks: self.callbacks,
            refused: self.refused.clone(),
            retried: self.retried,
            jobs: self.jobs.len() as u64,
            verdicts: self.jobs.iter().filter_map(|job| job.verdict.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(node: &str, first: f64) -> Stored {
        let mut vector = vec![0.0; judge::K_DIM];
        vector[0] = first;
        Stored { node_id: node.to_owned(), vector_b64: judge::encode(&vector), vector }
    }

    fn stage() -> Stage {
        let mut stage = Stage::open(StageKind::Poc, 1, 100, "AB".to_owned());
        stage.orders.insert("a".to_owned(), Share { node_num: 1, node_count: 2 });
        stage.orders.insert("b".to_owned(), Share { node_num: 2, node_count: 2 });
        stage
    }

    #[test]
    fn a_nonce_counts_once_and_only_for_its_node() {
        let mut stage = stage();
        assert_eq!(stage.store("m", 1, artifact("a", 1.0)), Vec::<String>::new());
        assert_eq!(stage.store("m", 1, artifact("a", 1.0)), Vec::<String>::new());
        assert_eq!((stage.artifacts.len(), stage.duplicates), (1, 1));
        assert_eq!(stage.store("m", 1, artifact("a", -1.0)).len(), 1, "other numbers");
        assert_eq!(stage.store("m", 1, artifact("b", 1.0)).len(), 2, "wrong residue, other node");
        assert_eq!(stage.store("m", 3, artifact("c", 0.5)).len(), 2, "no order, wrong length");
        assert_eq!(stage.nonces_of("a"), [1]);
    }

    #[test]
    fn a_porous_commit_counts_nothing() {
        let mut stage = stage();
        stage.store("m", 199, artifact("a", 1.0));
        assert!(stage.is_porous());
        assert_eq!(stage.accepted_of("a"), 0);
        stage.store("m", 1, artifact("a", 1.0));
        assert_eq!((stage.is_porous(), stage.accepted_of("a")), (false, 2));
    }
}
