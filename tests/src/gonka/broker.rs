//! The calls that bring a node to what is wanted of it, in the order and with the blind spots of the original.
//!
//! Source: gonka-ai/gonka `decentralized-api/broker/node_worker_commands.go`. Its blind spots matter to whoever serves: an
//! `inference/up` counts as done whatever its status says; while a PoC is wanted nobody calls `inference/up`; `MIXED` is not
//! `GENERATING`, so a half dead fan-out is started again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::registry::{Doing, NodeConfig};
use super::stage::Share;
use super::world::{Shared, lock};
use crate::network_node::callback::encoded_twice;

/// The original waits this long for every management call.
const CALL_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest answer read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Route of the proof status.
const PROOF_STATUS: &str = "/api/v1/inference/pow/status";

/// An HTTP answer: the status and the body as JSON, null when it is none.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Value,
}

impl Answer {
    /// Whether the original takes the call for a success: it asks only whether the status is below 400.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.status < 400
    }
}

/// Which base address a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Management.
    Poc,
    /// Inference, with the token.
    Inference,
    /// Inference without the token, as one version of the original lists models.
    InferenceBare,
}

/// A caller of MLNodes, with the manners of Go's client: JSON without a Content-Type.
#[derive(Debug, Clone)]
pub struct Caller {
    http: reqwest::Client,
    world: Shared,
}

impl Caller {
    /// A caller.
    ///
    /// # Errors
    /// When no HTTP client can be made at all.
    pub fn new(world: Shared) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(CALL_TIME_MAX).build()?;
        Ok(Self { http, world })
    }

    /// A call; `None` when no answer came.
    pub async fn call(
        &self,
        node: &NodeConfig,
        base: Base,
        path: &str,
        body: Option<&Value>,
        is_post: bool,
    ) -> Option<Answer> {
        let address = match base {
            Base::Poc => node.poc_base(),
            Base::Inference | Base::InferenceBare => node.inference_base(),
        };
        let prefix = lock(&self.world).config.version_prefix.clone();
        let url = format!("{address}{prefix}{path}");
        let request = if is_post { self.http.post(url) } else { self.http.get(url) };
        // `json()` would set the header that the original does not send.
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let request = if node.auth_token.is_empty() || base == Base::InferenceBare {
            request
        } else {
            request.bearer_auth(&node.auth_token)
        };
        let answer = read(request).await;
        let mut world = lock(&self.world);
        let verb = if is_post { "POST" } else { "GET" };
        *world.counters.calls.entry(format!("{verb} {path}")).or_default() += 1;
        match answer {
            Ok(answer) => {
                if answer.status == 415 {
                    world.complain(format!("{path}: 415, but a Content-Type is never sent"));
                }
                if answer.status == 500 {
                    world.complain(format!("{verb} {path}: 500 {}", answer.body));
                }
                Some(answer)
            }
            Err(error) => {
                tracing::debug!(path, %error, "no answer from the MLNode");
                world.counters.unreached += 1;
                None
            }
        }
    }

    /// The memory it notes everything in.
    pub(super) const fn world(&self) -> &Shared {
        &self.world
    }

    /// A GET of the management base.
    pub async fn get(&self, node: &NodeConfig, path: &str) -> Option<Answer> {
        self.call(node, Base::Poc, path, None, false).await
    }

    /// A POST to the management base.
    pub async fn post(
        &self,
        node: &NodeConfig,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Answer> {
        self.call(node, Base::Poc, path, body, true).await
    }

    /// Brings a node to what is wanted of it and notes what it does then.
    pub async fn reconcile(&self, id: &str) {
        let Some((config, wanted)) = self.take(id) else { return };
        let done = match wanted {
            Doing::Inference => self.inference(&config).await,
            Doing::Generating => self.generate(&config).await,
            // The orchestrator of validation makes the calls.
            Doing::Validating => Ok(Doing::Validating),
            Doing::Stopped => match self.post(&config, "/api/v1/stop", None).await {
                Some(answer) if answer.is_ok() => Ok(Doing::Stopped),
                Some(answer) => Err(format!("stop: {}", answer.status)),
                None => Err("stop: no answer".to_owned()),
            },
            Doing::Unknown | Doing::Failed => Ok(Doing::Unknown),
        };
        self.put_back(id, wanted, done);
    }

    /// Marks a node busy; `None` when it is already, or gone.
    fn take(&self, id: &str) -> Option<(NodeConfig, Doing)> {
        let mut world = lock(&self.world);
        let node = world.registry.get_mut(id).filter(|node| !node.busy)?;
        node.busy = true;
        Some((node.config.clone(), node.wanted))
    }

    fn put_back(&self, id: &str, wanted: Doing, done: Result<Doing, String>) {
        let mut world = lock(&self.world);
        let now = world.now_ms();
        let Some(node) = world.registry.get_mut(id) else { return };
        node.busy = false;
        // Results of what is no longer wanted are thrown away; the next status query sees for itself.
        if node.wanted != wanted {
            return;
        }
        node.seen_ms = now;
        match done {
            Ok(doing) => {
                node.seen = doing;
                node.failure.clear();
            }
            Err(why) => {
                node.seen = Doing::Failed;
                node.failure = why;
            }
        }
    }

    /// Serves the right model: nothing more than a stop of forgotten proofs; otherwise stop and up.
    async fn inference(&self, node: &NodeConfig) -> Result<Doing, String> {
        let Some(model) = self.model_of(node) else {
            return Err("No epoch models available for this node".to_owned());
        };
        if let Some(state) = self.get(node, "/api/v1/state").await
            && state.status == 200
            && state.body["state"] == "INFERENCE"
            && self.is_healthy(node).await
            && self.serves(node, &model).await
        {
            if let Some(status) = self.get(node, PROOF_STATUS).await
                && matches!(status.body["status"].as_str(), Some("GENERATING" | "VALIDATING"))
            {
                self.post(node, "/api/v1/inference/pow/stop", Some(&json!({}))).await;
            }
            return Ok(Doing::Inference);
        }
        match self.post(node, "/api/v1/stop", None).await {
            Some(answer) if answer.is_ok() => {}
            Some(answer) => return Err(format!("stop: {}", answer.status)),
            None => return Err("stop: no answer".to_owned()),
        }
        let args = node.models.get(&model).map(|model| model.args.clone()).unwrap_or_default();
        let order = json!({ "model": model, "dtype": "float16", "additional_args": args });
        match self.post(node, "/api/v1/inference/up", Some(&order)).await {
            // Whatever the status says.
            Some(_) => Ok(Doing::Inference),
            None => Err("inference/up: no answer".to_owned()),
        }
    }

    /// Makes artifacts for the stage that is open: at most one call that changes anything.
    async fn generate(&self, node: &NodeConfig) -> Result<Doing, String> {
        if let Some(status) = self.get(node, PROOF_STATUS).await
            && status.body["status"] == "GENERATING"
        {
            self.look_for_stale(&status.body);
            return Ok(Doing::Generating);
        }
        let (place, share, order) = {
            let world = lock(&self.world);
            let Some(place) = world.stage_now() else { return Err("no stage".to_owned()) };
            let Some(model) = world.config.model_for(node) else {
                return Err("no model".to_owned());
            };
            let number = world.registry.get(&node.id).map_or(0, |node| node.node_num);
            let share = Share { node_num: number, node_count: world.registry.node_count() };
            let stage = &world.stages[place];
            let mut order = json!({
                "block_hash": stage.block_hash, "block_height": stage.height,
                "public_key": world.config.public_key,
                "node_id": share.node_num, "node_count": share.node_count,
                "params": { "model": model.id, "seq_len": model.seq_len },
                "url": format!("{}/v2/poc-batches/{}", world.config.callback_url, encoded_twice(&model.id)),
            });
            if world.config.stronger_rng {
                order["poc_stronger_rng"] = json!(true);
            }
            (place, share, order)
        };
        let answer = self.post(node, "/api/v1/inference/pow/init/generate", Some(&order)).await;
        let mut world = lock(&self.world);
        let stage = &mut world.stages[place];
        match answer {
            Some(answer) if answer.is_ok() => {
                stage.starts += 1;
                stage.orders.insert(node.id.clone(), share);
                if answer.body["status"] != "OK" {
                    world.complain(format!("POST init/generate: {}", answer.body));
                }
                Ok(Doing::Generating)
            }
            Some(answer) => {
                stage.refused_starts += 1;
                if !matches!(answer.status, 409 | 502 | 503) {
                    let what = format!("POST init/generate: {} {}", answer.status, answer.body);
                    world.complain(what);
                }
                Err(format!("init/generate: {}", answer.status))
            }
            None => Err("init/generate: no answer".to_owned()),
        }
    }

    /// A generation of another block would let the original believe that all is well: a lost epoch.
    fn look_for_stale(&self, status: &Value) {
        let mut world = lock(&self.world);
        let Some(place) = world.stage_now() else { return };
        let hash = world.stages[place].block_hash.clone();
        let running = status["backends"].as_array().into_iter().flatten();
        let mut hashes = running.filter_map(|backend| backend["config"]["block_hash"].as_str());
        if hashes.any(|other| other != hash) {
            world.complain("a generation of another stage is still running".to_owned());
        }
    }

    /// What a node does, by its own word: the query that comes around by itself.
    pub async fn query(&self, id: &str) {
        let Some(config) = lock(&self.world).registry.get(id).map(|node| node.config.clone())
        else {
            return;
        };
        let state = self.get(&config, "/api/v1/state").await;
        let word = state.as_ref().and_then(|state| state.body["state"].as_str());
        let seen = match (&state, word) {
            (Some(state), Some("INFERENCE")) if state.status == 200 => {
                let proof = self.get(&config, PROOF_STATUS).await;
                let proof =
                    proof.and_then(|proof| proof.body["status"].as_str().map(str::to_owned));
                if proof.as_deref() == Some("GENERATING") {
                    Doing::Generating
                } else if self.is_healthy(&config).await {
                    Doing::Inference
                } else {
                    Doing::Failed
                }
            }
            (Some(state), Some("STOPPED" | "TRAIN")) if state.status == 200 => Doing::Stopped,
            (Some(state), _) => {
                let what = format!("GET state: {} {}", state.status, state.body);
                lock(&self.world).complain(what);
                Doing::Failed
            }
            (None, _) => Doing::Failed,
        };
        self.clock(&config).await;
        let mut world = lock(&self.world);
        let now = world.now_ms();
        let Some(node) = world.registry.get_mut(id).filter(|node| !node.busy) else { return };
        // A node that validates says INFERENCE; that is as it should be.
        if !(node.wanted == Doing::Validating && seen == Doing::Inference) {
            node.seen = seen;
        }
        node.seen_ms = now;
    }

    /// Clock skew by `/api/v1/clock`; a node without it is none the worse.
    async fn clock(&self, node: &NodeConfig) {
        let url = format!("{}/api/v1/clock", node.poc_base());
        let before = unix_ns();
        let Ok(answer) = self.http.get(url).send().await else { return };
        let after = unix_ns();
        let header = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            value.parse::<i128>().ok()
        };
        let (Some(received), Some(sent)) = (header("X-Server-Recv-Ns"), header("X-Server-Send-Ns"))
        else {
            return;
        };
        let mut world = lock(&self.world);
        if sent < received {
            world.complain("the clock route answers before it was asked".to_owned());
        }
        let skew = i128::midpoint(received, sent)
            - i128::midpoint(before, after)
            - i128::from(world.config.clock_skew_ms) * 1_000_000;
        let skew_ms = u64::try_from(skew.unsigned_abs() / 1_000_000).unwrap_or(u64::MAX);
        world.counters.clock_skew_ms_max = world.counters.clock_skew_ms_max.max(skew_ms);
    }

    fn model_of(&self, node: &NodeConfig) -> Option<String> {
        lock(&self.world).config.model_for(node).map(|model| model.id.clone())
    }

    /// The probe: `/readyz` of a base address, `/health` of host and port.
    async fn is_healthy(&self, node: &NodeConfig) -> bool {
        let path = if node.base_url.is_empty() { "/health" } else { "/readyz" };
        let answer = self.call(node, Base::Inference, path, None, false).await;
        answer.is_some_and(|answer| answer.status == 200)
    }

    /// An error in the comparison counts as a match.
    async fn serves(&self, node: &NodeConfig, model: &str) -> bool {
        match self.call(node, Base::InferenceBare, "/v1/models", None, false).await {
            Some(models) if models.status == 200 => {
                models.body.pointer("/data/0/id").is_none_or(|id| id == model)
            }
            Some(_) | None => true,
        }
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&part);
    }
    Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn unix_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))
}
