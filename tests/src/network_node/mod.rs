//! Stand-in of Gonka's Network Node (its API process): drives an MLNode with the original's calls and judges what comes back.
//!
//! Between PoC windows it reconciles towards INFERENCE: state, health, models, proof status, and `stop` + `inference/up` when
//! that is not what it finds. In a window it starts the generation, takes artifacts on a callback, stops it, and lets
//! the MLNode validate: once its own artifacts (which must pass) and once with three of four spoiled. Sequences: the
//! original's `broker/node_worker_commands.go`, as our research recorded them.
//!
//! Departures: the chain is the config's list of windows on the farm's clock, and the reconcile pause is shorter than the
//! original's 30 s. Misbehaves on purpose: no Content-Type, a versioned path once, a double slash once, a callback address
//! encoded twice, and one delivery refused with 503 in the middle of a stage.

pub mod callback;
pub mod desk;
pub mod judge;
pub mod mlnode;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roadbed_protocol::UnixMillis;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::FarmClock;
use callback::{SharedDesk, encoded_twice};
use desk::{DIST_THRESHOLD, Desk, Job, NetworkNodeStatus, P_MISMATCH, Round, Stage};
use judge::Golden;
use mlnode::{Addressing, Answer, MlNode};

/// Wall time that must be left of a stage for the deliberate refusal: the retry comes after a second or two.
const ROOM_FOR_RETRY: Duration = Duration::from_secs(3);
/// Height of the first window's first block, and blocks between windows.
const FIRST_HEIGHT: i64 = 6_353_400;
const EPOCH_BLOCKS: i64 = 15_391;

/// The Network Node as the config file gives it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkNodeConfig {
    /// Where it takes callbacks.
    pub callback_listen: SocketAddr,
    /// Base address of the MLNode, both of its management and its inference routes.
    pub mlnode_url: String,
    /// Model the chain has approved for this node.
    pub model: String,
    /// Positions of the prefill that is proved.
    pub seq_len: u32,
    /// PoC windows in farm time, one after the other.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Wall milliseconds between reconciliations.
    #[serde(default = "default_reconcile_wall_ms")]
    pub reconcile_wall_ms: u64,
    /// Artifacts sent to validation.
    #[serde(default = "default_validation_sample")]
    pub validation_sample: usize,
}

/// One PoC window, farm time in Unix milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Generation starts.
    pub from_ms: i64,
    /// Generation ends, validation starts.
    pub generate_until_ms: i64,
    /// Validation ends.
    pub until_ms: i64,
    /// Block hash; the golden one if absent. With another hash nothing can be compared to golden vectors.
    #[serde(default)]
    pub block_hash: Option<String>,
}

fn default_reconcile_wall_ms() -> u64 {
    1_500
}

/// On a software adapter a nonce takes seconds, and each is computed twice.
fn default_validation_sample() -> usize {
    4
}

impl NetworkNodeConfig {
    /// The first value that makes no sense: its field, and what was expected there.
    #[must_use]
    pub fn first_fault(&self) -> Option<(String, &'static str)> {
        if !self.mlnode_url.starts_with("http://") {
            return Some(("mlnode_url".to_owned(), "an http:// address expected"));
        }
        if self.model.is_empty() {
            return Some(("model".to_owned(), "a model id expected"));
        }
        if self.seq_len == 0 {
            return Some(("seq_len".to_owned(), "a whole number above zero expected"));
        }
        if self.reconcile_wall_ms == 0 {
            return Some(("reconcile_wall_ms".to_owned(), "milliseconds above zero expected"));
        }
        let mut last = i64::MIN;
        for (place, window) in self.windows.iter().enumerate() {
            let ordered = last <= window.from_ms
                && window.from_ms < window.generate_until_ms
                && window.generate_until_ms < window.until_ms;
            if !ordered {
                return Some((
                    format!("windows[{place}]"),
                    "from_ms < generate_until_ms < until_ms, after the window before, expected",
                ));
            }
            last = window.until_ms;
        }
        None
    }

    /// The stage that the clock asks for: the window's place, and whether it still generates.
    fn window_at(&self, now: UnixMillis) -> Option<(usize, bool)> {
        self.windows.iter().enumerate().find_map(|(place, window)| {
            let inside = window.from_ms <= now.0 && now.0 < window.until_ms;
            inside.then_some((place, now.0 < window.generate_until_ms))
        })
    }

    /// The next time at which [`Self::window_at`] changes.
    fn next_change(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.windows
            .iter()
            .flat_map(|window| [window.from_ms, window.generate_until_ms, window.until_ms])
            .find(|time| now.0 < *time)
            .map(UnixMillis)
    }
}

/// A running Network Node.
#[derive(Debug)]
pub struct NetworkNode {
    desk: SharedDesk,
    callback_address: SocketAddr,
}

/// Binds the callback server and starts driving, until `stop`.
///
/// # Errors
/// What binding the address said, or that no HTTP client could be made.
pub async fn start(
    config: &NetworkNodeConfig,
    clock: FarmClock,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<NetworkNode> {
    let listener = TcpListener::bind(config.callback_listen).await?;
    let callback_address = listener.local_addr()?;
    let desk = Arc::new(Mutex::new(Desk::new(Golden::of_seq_len(config.seq_len))));
    let mlnode = MlNode::new(&config.mlnode_url).map_err(std::io::Error::other)?;
    let driver = Driver {
        callback_url: format!(
            "http://{callback_address}/v2/poc-batches/{}",
            encoded_twice(&config.model)
        ),
        config: config.clone(),
        clock,
        mlnode,
        desk: Arc::clone(&desk),
        window: None,
        ended: None,
        refused_once: false,
        states_asked: 0,
    };
    let (desk_of_server, model, token) = (Arc::clone(&desk), config.model.clone(), stop.clone());
    tasks.spawn(async move { callback::serve(listener, desk_of_server, &model, token).await });
    tasks.spawn(driver.run(stop.clone()));
    Ok(NetworkNode { desk, callback_address })
}

impl NetworkNode {
    /// Where it takes callbacks.
    #[must_use]
    pub const fn callback_address(&self) -> SocketAddr {
        self.callback_address
    }

    /// Its part of the status document.
    #[must_use]
    pub fn status(&self) -> NetworkNodeStatus {
        lock(&self.desk).status()
    }
}

/// The one task that calls the MLNode.
struct Driver {
    config: NetworkNodeConfig,
    callback_url: String,
    clock: FarmClock,
    mlnode: MlNode,
    desk: SharedDesk,
    /// Place in the config of the window being worked on, and of its round on the desk.
    window: Option<(usize, usize)>,
    /// Place in the config of the last window whose generation was ended.
    ended: Option<usize>,
    refused_once: bool,
    states_asked: u64,
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.step() => {}
            }
            let pause = Duration::from_millis(self.config.reconcile_wall_ms);
            let change = self.config.next_change(self.clock.now());
            let pause = change.map_or(pause, |at| pause.min(self.clock.wall_until(at)));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.max(Duration::from_millis(5))) => {}
            }
        }
    }

    async fn step(&mut self) {
        let due = self.config.window_at(self.clock.now());
        // Whatever is due now, a generation whose time is over is ended first.
        if let Some((place, round)) = self.window
            && self.ended != Some(place)
            && due != Some((place, true))
        {
            self.end_generation(place, round).await;
        }
        match due {
            Some((place, true)) => self.generate(place).await,
            Some((place, false)) => {
                if let Some((open, round)) = self.window
                    && open == place
                    && lock(&self.desk).round(round).is_some_and(|round| round.jobs().is_empty())
                {
                    self.validate(round).await;
                }
            }
            None => {
                if let Some((_, round)) = self.window.take() {
                    self.close(round);
                }
                self.serve().await;
            }
        }
    }

    /// What is wanted between windows: the model answers, and nobody proves.
    async fn serve(&mut self) {
        self.states_asked += 1;
        let addressing = match self.states_asked {
            2 => Addressing::Versioned,
            3 => Addressing::DoubleSlash,
            _ => Addressing::Plain,
        };
        let Some(state) = self.get("/api/v1/state", addressing).await else {
            return;
        };
        let word = state.body["state"].as_str().unwrap_or("");
        if !state.is_ok() || !matches!(word, "STOPPED" | "INFERENCE" | "TRAIN") {
            self.complain(format!("GET state ({addressing:?}): {} {}", state.status, state.body));
            return;
        }
        if word == "INFERENCE" && self.is_serving_the_model().await {
            lock(&self.desk).counters().model_loaded = true;
            if let Some(status) = self.get(PROOF_STATUS, Addressing::Plain).await
                && matches!(status.body["status"].as_str(), Some("GENERATING" | "VALIDATING"))
            {
                self.post(PROOF_STOP, Some(&json!({}))).await;
            }
            return;
        }
        lock(&self.desk).counters().model_loaded = false;
        if let Some(stopped) = self.post("/api/v1/stop", None).await
            && !stopped.is_ok()
        {
            self.complain(format!("POST stop: {} {}", stopped.status, stopped.body));
        }
        let order =
            json!({ "model": self.config.model, "dtype": "float16", "additional_args": [] });
        let Some(up) = self.post("/api/v1/inference/up", Some(&order)).await else {
            return;
        };
        let mut desk = lock(&self.desk);
        match up.status {
            200 => desk.counters().ups += 1,
            409 if up.body["detail"].is_string() => desk.counters().ups_refused += 1,
            status => desk.complain(format!("POST inference/up: {status} {}", up.body)),
        }
    }

    /// Health probe and model comparison; an error in the comparison counts as a match, as with the original.
    async fn is_serving_the_model(&mut self) -> bool {
        let Some(health) = self.get("/health", Addressing::Plain).await else {
            return false;
        };
        // With a base address the original probes /readyz; with host and port, /health.
        let Some(ready) = self.get("/readyz", Addressing::Plain).await else {
            return false;
        };
        if !health.is_ok() || !ready.is_ok() {
            return false;
        }
        match self.get("/v1/models", Addressing::Plain).await {
            Some(models) if models.is_ok() => match models.body.pointer("/data/0/id") {
                Some(id) => *id == self.config.model.as_str(),
                None => true,
            },
            Some(_) | None => true,
        }
    }

    /// What is wanted while a window generates: exactly one generation, for this round.
    async fn generate(&mut self, place: usize) {
        let round = match self.window {
            Some((open, round)) if open == place => round,
            _ => self.open(place),
        };
        self.refuse_one_delivery();
        let Some(status) = self.get(PROOF_STATUS, Addressing::Plain).await else {
            return;
        };
        let (block_hash, block_height, public_key) = self.seeds_of(round);
        if status.body["status"] == "GENERATING" {
            let other = status.body["backends"].as_array().into_iter().flatten().any(|backend| {
                backend["config"]["block_hash"].as_str().is_some_and(|hash| hash != block_hash)
            });
            if other {
                self.complain("a generation of another round is still running".to_owned());
            }
            return;
        }
        let order = json!({
            "block_hash": block_hash, "block_height": block_height, "public_key": public_key,
            "node_id": 0, "node_count": 1,
            "params": { "model": self.config.model, "seq_len": self.config.seq_len },
            "url": self.callback_url,
        });
        let Some(started) = self.post("/api/v1/inference/pow/init/generate", Some(&order)).await
        else {
            return;
        };
        let mut desk = lock(&self.desk);
        if started.is_ok() && started.body["status"] == "OK" {
            desk.generation_started(round, self.clock.now());
        } else {
            desk.start_refused(round);
            if !matches!(started.status, 409 | 502 | 503) {
                desk.complain(format!("POST init/generate: {} {}", started.status, started.body));
            }
        }
    }

    /// Puts a round for a window on the desk; returns its place there.
    fn open(&mut self, place: usize) -> usize {
        let mut desk = lock(&self.desk);
        let hash = self.config.windows[place]
            .block_hash
            .clone()
            .unwrap_or_else(|| desk.golden().block_hash.clone());
        let number = i64::try_from(place).unwrap_or(0);
        let round = desk.open_round(Round::open(hash, FIRST_HEIGHT + EPOCH_BLOCKS * number));
        desk.stage = Stage::Generating(round);
        self.window = Some((place, round));
        round
    }

    /// Once in a run, when there is time for a retry, the next delivery is refused.
    fn refuse_one_delivery(&mut self) {
        let Some((place, _)) = self.window else {
            return;
        };
        let end = UnixMillis(self.config.windows[place].generate_until_ms);
        if !self.refused_once && self.clock.wall_until(end) > ROOM_FOR_RETRY {
            self.refused_once = true;
            lock(&self.desk).refuse_next = true;
        }
    }

    /// Ends a generation. Deliveries are taken until the stop is answered; validation reports after that.
    async fn end_generation(&mut self, place: usize, round: usize) {
        if let Some(stopped) = self.post(PROOF_STOP, Some(&json!({}))).await {
            if !stopped.is_ok() || stopped.body["status"] != "OK" {
                self.complain(format!("POST pow/stop: {} {}", stopped.status, stopped.body));
            }
            self.ended = Some(place);
        }
        let mut desk = lock(&self.desk);
        desk.refuse_next = false;
        desk.stage = Stage::Validating(round);
    }

    /// Queues the two validation jobs: the node's own artifacts, and the same with three of four spoiled,
    /// which is fraud by the binomial test from four nonces on.
    async fn validate(&mut self, round: usize) {
        let sample: Vec<(u32, desk::Artifact)> = {
            let desk = lock(&self.desk);
            let artifacts = desk.round(round).map(Round::artifacts);
            let mut all: Vec<_> = artifacts
                .into_iter()
                .flatten()
                .map(|(nonce, artifact)| (*nonce, artifact.clone()))
                .collect();
            all.truncate(self.config.validation_sample);
            all
        };
        if sample.is_empty() {
            return;
        }
        self.queue_validation(round, &sample, false).await;
        self.queue_validation(round, &sample, true).await;
    }

    async fn queue_validation(
        &mut self,
        round: usize,
        sample: &[(u32, desk::Artifact)],
        spoil: bool,
    ) {
        let (block_hash, block_height, public_key) = self.seeds_of(round);
        let mut job = Job {
            request_id: String::new(),
            nonces: sample.iter().map(|(nonce, _)| *nonce).collect(),
            spoiled: std::collections::BTreeSet::new(),
            verdict: None,
        };
        let artifacts: Vec<Value> = sample
            .iter()
            .enumerate()
            .map(|(place, (nonce, artifact))| {
                let mut vector_b64 = artifact.vector_b64.clone();
                if spoil && place % 4 != 3 {
                    // The opposite direction: 2 away, whatever the model.
                    let opposite: Vec<f64> = artifact.vector.iter().map(|n| -n).collect();
                    vector_b64 = judge::encode(&opposite);
                    job.spoiled.insert(*nonce);
                }
                json!({ "nonce": nonce, "vector_b64": vector_b64 })
            })
            .collect();
        let order = json!({
            "block_hash": block_hash, "block_height": block_height, "public_key": public_key,
            "node_id": 0, "node_count": 1, "nonces": job.nonces,
            "params": { "model": self.config.model, "seq_len": self.config.seq_len },
            "url": self.callback_url, "wait": false,
            "validation": { "artifacts": artifacts },
            "stat_test": {
                "dist_threshold": DIST_THRESHOLD, "p_mismatch": P_MISMATCH, "p_value_threshold": 0.05
            },
        });
        let Some(queued) = self.post("/api/v1/inference/pow/generate", Some(&order)).await else {
            return;
        };
        let mut desk = lock(&self.desk);
        match queued.body["request_id"].as_str() {
            Some(id) if queued.is_ok() => {
                job.request_id = id.to_owned();
                desk.job_queued(round, job);
            }
            _ => desk.complain(format!("POST pow/generate: {} {}", queued.status, queued.body)),
        }
    }

    /// Draws the line under a window.
    fn close(&mut self, round: usize) {
        let mut desk = lock(&self.desk);
        desk.stage = Stage::Inference;
        let Some(done) = desk.round(round) else {
            return;
        };
        let mut complaints = Vec::new();
        if done.artifacts().is_empty() {
            complaints.push(format!("round {round}: no artifact arrived"));
        }
        for job in done.jobs().iter().filter(|job| job.verdict.is_none()) {
            complaints.push(format!("round {round}: no report of job {}", job.request_id));
        }
        for complaint in complaints {
            desk.complain(complaint);
        }
    }

    fn seeds_of(&self, round: usize) -> (String, i64, String) {
        let desk = lock(&self.desk);
        let (hash, height) = desk
            .round(round)
            .map(|round| (round.block_hash.clone(), round.block_height))
            .unwrap_or_default();
        (hash, height, desk.golden().public_key.clone())
    }

    async fn get(&mut self, path: &str, addressing: Addressing) -> Option<Answer> {
        let answer = self.mlnode.get(path, addressing).await;
        self.count(path, answer)
    }

    async fn post(&mut self, path: &str, body: Option<&Value>) -> Option<Answer> {
        let answer = self.mlnode.post(path, body).await;
        self.count(path, answer)
    }

    fn count(&self, path: &str, answer: Result<Answer, reqwest::Error>) -> Option<Answer> {
        let mut desk = lock(&self.desk);
        desk.counters().calls += 1;
        match answer {
            // A gateway in between whose rig is not there (yet): as good as no connection.
            Ok(answer) if is_gone(&answer) => {
                tracing::debug!(path, status = answer.status, "nobody behind the gateway");
                desk.counters().unreached += 1;
                None
            }
            Ok(answer) => {
                if answer.status == 415 {
                    desk.complain(format!("{path}: 415, but a Content-Type is never sent"));
                }
                Some(answer)
            }
            Err(error) => {
                tracing::debug!(path, %error, "no answer from the MLNode");
                desk.counters().unreached += 1;
                None
            }
        }
    }

    fn complain(&self, what: String) {
        lock(&self.desk).complain(what);
    }
}

/// Whether a gateway says that it could not reach the MLNode: nothing of the call arrived there.
fn is_gone(answer: &Answer) -> bool {
    let said = answer.body["detail"].as_str().unwrap_or_default();
    matches!(answer.status, 502 | 503) && said.contains("cannot be reached")
}

const PROOF_STATUS: &str = "/api/v1/inference/pow/status";
const PROOF_STOP: &str = "/api/v1/inference/pow/stop";

fn lock(desk: &SharedDesk) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}
