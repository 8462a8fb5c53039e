//! The duty to check others: one `pow/stop`, then one job for every participant, spread over the Host's nodes.
//!
//! The participants are made up. Where a test hands in a source of right artifacts, each stranger has those of its own key,
//! honest or with three of four spoiled; without a source the Host's own artifacts of the stage are checked, once as they are
//! and once spoiled. A verdict that differs from what was sent is a complaint.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Stranger;
use super::broker::Caller;
use super::registry::NodeConfig;
use super::stage::Job;
use super::world::{Shared, lock};
use crate::network_node::callback::encoded_twice;
use crate::network_node::judge;

/// What right artifacts are asked for.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the words of the PoC request")]
pub struct SourceOrder {
    pub block_hash: String,
    pub public_key: String,
    pub model: String,
    pub seq_len: u32,
    pub stronger_rng: bool,
    pub nonces: Vec<u32>,
}

/// Gives the vectors in base64, in the order of the nonces.
type Prover = dyn Fn(&SourceOrder) -> Vec<String> + Send + Sync;

/// Where right artifacts of anybody come from.
#[derive(Clone)]
pub struct ArtifactSource(pub Arc<Prover>);

impl fmt::Debug for ArtifactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArtifactSource")
    }
}

/// One job to be sent.
struct Order {
    node: NodeConfig,
    job: Job,
    body: Value,
}

impl Caller {
    /// Stops the generation of the stage on every node that had one.
    pub async fn stop_generation(&self, place: usize) {
        let nodes: Vec<NodeConfig> = {
            let mut world = lock(self.world());
            let stage = &mut world.stages[place];
            if std::mem::replace(&mut stage.stopped, true) {
                return;
            }
            world.nodes_in_poc()
        };
        for node in nodes {
            let stopped = self.post(&node, "/api/v1/inference/pow/stop", Some(&json!({}))).await;
            if let Some(stopped) = stopped
                && (!stopped.is_ok() || stopped.body["status"] != "OK")
            {
                let what = format!("POST pow/stop: {} {}", stopped.status, stopped.body);
                lock(self.world()).complain(what);
            }
        }
    }

    /// Sends the jobs of a stage.
    pub async fn validate(&self, place: usize, source: Option<&ArtifactSource>) {
        let orders = orders(self.world(), place, source);
        for Order { node, mut job, body } in orders {
            let Some(queued) =
                self.post(&node, "/api/v1/inference/pow/generate", Some(&body)).await
            else {
                continue;
            };
            let mut world = lock(self.world());
            match queued.body["request_id"].as_str() {
                Some(id) if queued.is_ok() && queued.body["status"] == "queued" => {
                    job.request_id = id.to_owned();
                    world.stages[place].jobs.push(job);
                }
                // A node that is down for now takes no duty; the others vote.
                _ if matches!(queued.status, 502 | 503) => {}
                _ => {
                    world.complain(format!("POST pow/generate: {} {}", queued.status, queued.body))
                }
            }
        }
    }
}

/// The jobs of a stage: every participant once.
fn orders(shared: &Shared, place: usize, source: Option<&ArtifactSource>) -> Vec<Order> {
    let world = lock(shared);
    let nodes = world.nodes_in_poc();
    let Some(first) = nodes.first() else { return Vec::new() };
    let Some(model) = world.config.model_for(first).cloned() else { return Vec::new() };
    let stage = &world.stages[place];
    let count = world.config.validation_sample;
    let own = |honest: bool| Stranger {
        address: world.config.address.clone(),
        public_key: world.config.public_key.clone(),
        weight: 0,
        node_num: 0,
        node_count: 1,
        honest,
    };
    let checked: Vec<Stranger> = match source {
        Some(_) => world.config.strangers.clone(),
        None => vec![own(true), own(false)],
    };
    let mut orders = Vec::new();
    for (place_of, stranger) in checked.into_iter().enumerate() {
        let (nonces, vectors): (Vec<u32>, Vec<String>) = match source {
            Some(source) => {
                let own_nonces = (0..).map(|x| stranger.node_num + x * stranger.node_count);
                let nonces: Vec<u32> = own_nonces.take(count).collect();
                let order = SourceOrder {
                    block_hash: stage.block_hash.clone(),
                    public_key: stranger.public_key.clone(),
                    model: model.id.clone(),
                    seq_len: model.seq_len,
                    stronger_rng: world.config.stronger_rng,
                    nonces: nonces.clone(),
                };
                (nonces, (source.0)(&order))
            }
            None => {
                let own = stage.artifacts.iter().take(count);
                own.map(|((_, nonce), artifact)| (*nonce, artifact.vector_b64.clone())).unzip()
            }
        };
        if nonces.is_empty() {
            continue;
        }
        let mut spoiled = BTreeSet::new();
        let artifacts: Vec<Value> = nonces
            .iter()
            .zip(vectors)
            .enumerate()
            .map(|(at, (nonce, right))| {
                let mut vector_b64 = right;
                if !stranger.honest && at % 4 != 3 {
                    spoiled.insert(*nonce);
                    vector_b64 = opposite(&vector_b64);
                }
                json!({ "nonce": nonce, "vector_b64": vector_b64 })
            })
            .collect();
        let mut body = json!({
            "block_hash": stage.block_hash, "block_height": stage.height,
            "public_key": stranger.public_key,
            "node_id": stranger.node_num, "node_count": stranger.node_count, "nonces": nonces,
            "params": { "model": model.id, "seq_len": model.seq_len },
            "url": format!("{}/v2/poc-batches/{}", world.config.callback_url, encoded_twice(&model.id)),
            "wait": false, "validation": { "artifacts": artifacts },
            "stat_test": {
                "dist_threshold": world.config.dist_threshold.as_f64(),
                "p_mismatch": crate::network_node::desk::P_MISMATCH, "p_value_threshold": 0.05,
            },
        });
        if world.config.stronger_rng {
            body["poc_stronger_rng"] = json!(true);
        }
        let node = nodes[place_of % nodes.len()].clone();
        let job = Job {
            node_id: node.id.clone(),
            request_id: String::new(),
            participant: stranger.address.clone(),
            nonces: nonces.into_iter().collect(),
            spoiled,
            verdict: None,
        };
        orders.push(Order { node, job, body });
    }
    orders
}

/// The opposite direction: 2 away, whatever the model.
fn opposite(vector_b64: &str) -> String {
    let vector = judge::decode(vector_b64).unwrap_or_else(|_| vec![1.0; judge::K_DIM]);
    judge::encode(&vector.iter().map(|number| -number).collect::<Vec<f64>>())
}
