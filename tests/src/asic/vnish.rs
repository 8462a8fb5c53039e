//! Emulated VNish 1.2.7 on an Antminer S21 Pro: the recorded REST answers with live values, a token, presets.
//!
//! `POST /api/v1/unlock {"pw"}` gives a token, which later requests carry as `Authorization`, with or without `Bearer`
//! (foreign clients send both forms). Most reads need none, but without one the host name is empty and settings are closed.
//! `POST settings` answers `{"restart_required":false,"reboot_required":false}` whether or not it did anything. Presets
//! named by watts: those of the config are tuned; choosing an untuned one starts a tuning run that lasts hours. The preset
//! switcher is on, as recorded, and keeps the `top_preset` it is given; at this hall's temperatures it never has cause to act.
//!
//! *Modelled*: the refusals (401), the states other than the recorded "auto-tuning", and a stopped machine's summary, which
//! follows the shape of a described machine without chains. On a real one `start` may be needed after `stop`, and `resume`
//! after `pause`; that is not known, so either wakes this one.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::stream;
use roadbed_protocol::{UnixMillis, Watts};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::cgminer::CommandFace;
use super::fault::{Fault, SLOW_ANSWER_MS};
use super::physics::{Activity, PowerStep};
use super::recording::{embedded, hundredths, patch};
use super::{AsicConfig, Miner};
use crate::clock::FarmClock;

/// Tokens remembered: a login more forgets the oldest, as a small web server would.
const TOKENS_MAX: usize = 8;
/// Farm milliseconds an untuned preset is tuned for after it is chosen.
const TUNING_MS: i64 = 3 * 3_600_000;
/// Largest answer that is cut or replaced by a fault.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A VNish machine's faces.
#[derive(Debug)]
pub struct Vnish {
    miner: Arc<Miner>,
    presets: Value,
    password: String,
    state: Mutex<Door>,
}

#[derive(Debug, Default)]
struct Door {
    tokens: VecDeque<Token>,
    made: u64,
    light: bool,
    tuning_until: Option<UnixMillis>,
    /// Ceiling of the preset switcher, once somebody has set it.
    top_preset: Option<String>,
}

#[derive(Debug)]
struct Token {
    text: String,
    orders: u64,
}

impl Vnish {
    /// A machine that has run for long. Configured steps become tuned presets among the recorded, untuned ones.
    #[must_use]
    pub fn new(config: &AsicConfig, clock: FarmClock) -> Self {
        let mut presets = embedded(include_str!("../../data/asic/vnish/web/autotune/presets.json"));
        let top = config.steps.iter().map(|step| step.watts).max();
        if let Some(list) = presets.as_array_mut() {
            let configured: Vec<u64> = config.steps.iter().map(|step| step.watts).collect();
            // The recording offers presets above the configured top; the emulated breaker would not like them.
            list.retain(|entry| match watts_of(entry) {
                Some(watts) => Some(watts) <= top && !configured.contains(&watts),
                None => true,
            });
            list.extend(config.steps.iter().map(|step| {
                json!({
                    "name": step.watts.to_string(),
                    "pretty": format!("{} watt ~ {} TH", step.watts, step.terahash.round()),
                    "status": "tuned", "modded_psu_required": false,
                })
            }));
            list.sort_by_key(watts_of);
        }
        let steps = presets
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let watts = watts_of(entry)?;
                let tuned = config.steps.iter().find(|step| step.watts == watts);
                Some(PowerStep {
                    name: watts.to_string(),
                    power: Watts(watts),
                    terahash: tuned.map_or_else(|| terahash_of(entry), |step| step.terahash),
                    tuned: tuned.is_some(),
                })
            })
            .collect();
        Self {
            miner: Miner::new(config, steps, clock),
            presets,
            password: config.password.clone(),
            state: Mutex::new(Door::default()),
        }
    }

    /// The miner behind it.
    #[must_use]
    pub fn miner(&self) -> &Arc<Miner> {
        &self.miner
    }

    fn unlock(&self, password: &str) -> Response {
        if self.miner.fault() == Some(Fault::WrongPassword) || password != self.password {
            return refusal(StatusCode::UNAUTHORIZED, "Wrong password");
        }
        let mut door = self.lock();
        door.made += 1;
        let seed = format!("{} {}", self.miner.id(), door.made);
        let text: String = Sha256::digest(seed.as_bytes())
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if door.tokens.len() == TOKENS_MAX {
            door.tokens.pop_front();
        }
        door.tokens.push_back(Token { text: text.clone(), orders: 0 });
        Json(json!({ "token": text })).into_response()
    }

    /// Whether the request carries a token that is good; an order uses it once.
    fn is_unlocked(&self, headers: &HeaderMap, order: bool) -> bool {
        let Some(given) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
        else {
            return false;
        };
        let given = given.strip_prefix("Bearer ").unwrap_or(given);
        let one_use = self.miner.fault() == Some(Fault::ExpiredToken);
        let mut door = self.lock();
        let Some(token) = door.tokens.iter_mut().find(|token| token.text == given) else {
            return false;
        };
        if one_use && token.orders > 0 {
            return false;
        }
        token.orders += u64::from(order);
        true
    }

    fn summary(&self) -> Value {
        let reading = self.miner.read();
        let (_, step) = self.miner.steps();
        let mut answer = embedded(include_str!("../../data/asic/vnish/web/summary.json"));
        let hashing = self.miner.is_awake();
        patch(&mut answer, "/miner/miner_status/miner_state", self.state_word());
        patch(&mut answer, "/miner/miner_status/miner_state_time", reading.uptime.0 / 1_000);
        for (key, terahash) in [
            ("hr_realtime", reading.terahash),
            ("hr_average", reading.average_terahash),
            ("hr_nominal", step.terahash),
        ] {
            patch(&mut answer, &format!("/miner/{key}"), hundredths(terahash * 1_000.0));
        }
        patch(&mut answer, "/miner/instant_hashrate", hundredths(reading.terahash));
        patch(&mut answer, "/miner/average_hashrate", hundredths(reading.average_terahash));
        for key in ["power_consumption", "power_usage"] {
            patch(&mut answer, &format!("/miner/{key}"), reading.power.0);
        }
        let efficiency = if reading.terahash > 1.0 {
            hundredths(real(reading.power) / reading.terahash)
        } else {
            0.0
        };
        patch(&mut answer, "/miner/power_efficiency", efficiency);
        let board = reading.celsius.round();
        patch(&mut answer, "/miner/pcb_temp", json!({ "min": board - 11.0, "max": board }));
        patch(&mut answer, "/miner/chip_temp", json!({ "min": board + 4.0, "max": board + 15.0 }));
        if hashing {
            for chain in 0..3 {
                let at = |key: &str| format!("/miner/chains/{chain}/{key}");
                patch(&mut answer, &at("power_consumption"), reading.power.0 / 3);
                patch(
                    &mut answer,
                    &at("hashrate_rt"),
                    hundredths(reading.terahash * 1_000.0 / 3.0),
                );
                patch(
                    &mut answer,
                    &at("hashrate_ideal"),
                    hundredths(step.terahash * 1_000.0 / 3.0),
                );
                patch(&mut answer, &at("status/state"), self.state_word());
            }
        } else {
            patch(&mut answer, "/miner/chains", json!([]));
            patch(&mut answer, "/miner/cooling/fans", json!([]));
            patch(&mut answer, "/miner/cooling/fan_duty", 0);
        }
        answer
    }

    fn status(&self, unlocked: bool) -> Value {
        let reading = self.miner.read();
        json!({
            "miner_state": self.state_word(), "miner_state_time": reading.uptime.0 / 1_000,
            "find_miner": self.lock().light, "restart_required": false, "reboot_required": false, "unlocked": unlocked,
        })
    }

    fn info(&self, unlocked: bool) -> Value {
        let mut answer = embedded(include_str!("../../data/asic/vnish/web/info.json"));
        if !unlocked {
            patch(&mut answer, "/system/network_status/hostname", "");
        }
        let minutes = self.miner.read().uptime.0 / 60_000;
        patch(&mut answer, "/system/uptime", format!("{}:{:02}", minutes / 60, minutes % 60));
        answer
    }

    fn performance(&self) -> Value {
        let mut answer = embedded(include_str!("../../data/asic/vnish/web/perf-summary.json"));
        let (_, step) = self.miner.steps();
        let preset = self
            .presets
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["name"] == step.name.as_str());
        if let Some(preset) = preset {
            patch(&mut answer, "/current_preset", preset.clone());
        }
        if let Some(top) = self.lock().top_preset.clone() {
            patch(&mut answer, "/preset_switcher/top_preset", top);
        }
        answer
    }

    fn settings(&self) -> Value {
        let mut answer = embedded(include_str!("../../data/asic/vnish/web/settings.json"));
        let (_, step) = self.miner.steps();
        patch(&mut answer, "/miner/overclock/preset", step.name);
        if let Some(top) = self.lock().top_preset.clone() {
            patch(&mut answer, "/miner/overclock/preset_switcher/top_preset", top);
        }
        answer
    }

    fn set_settings(&self, body: &[u8]) -> Response {
        let Ok(wanted) = serde_json::from_slice::<Value>(body) else {
            return refusal(StatusCode::BAD_REQUEST, "Invalid JSON");
        };
        let preset = wanted.pointer("/miner/overclock/preset").and_then(Value::as_str);
        let (steps, _) = self.miner.steps();
        let place = preset.and_then(|name| steps.iter().position(|step| step.name == name));
        let now = self.miner.now();
        let obeyed = self.miner.order(|body, now| {
            if let Some(place) = place {
                body.choose_step(place, now);
            }
        });
        if obeyed && let Some(place) = place {
            self.lock().tuning_until = if steps[place].tuned {
                None
            } else {
                Some(UnixMillis(now.0.saturating_add(TUNING_MS)))
            };
        }
        let top = wanted.pointer("/miner/overclock/preset_switcher/top_preset");
        if obeyed && let Some(top) = top.and_then(Value::as_str) {
            self.lock().top_preset = Some(top.to_owned());
        }
        let answer = embedded(include_str!("../../data/asic/vnish/privileged/settings.json"));
        Json(answer).into_response()
    }

    fn mining(&self, action: &str) -> Option<Value> {
        let recorded = match action {
            "stop" | "pause" => {
                self.miner.order(|body, now| body.sleep(now));
                include_str!("../../data/asic/vnish/privileged/mining/stop.json")
            }
            "start" | "resume" => {
                self.miner.order(|body, now| body.wake(now));
                include_str!("../../data/asic/vnish/privileged/mining/start.json")
            }
            "restart" => {
                self.miner.order(|body, now| {
                    body.sleep(now);
                    body.wake(now);
                });
                include_str!("../../data/asic/vnish/privileged/mining/resume.json")
            }
            _ => return None,
        };
        Some(embedded(recorded))
    }

    fn state_word(&self) -> &'static str {
        let now = self.miner.now();
        let tuning = self.lock().tuning_until.is_some_and(|end| now < end);
        match self.miner.read().activity {
            Activity::Asleep => "stopped",
            Activity::Stopping => "shutting-down",
            Activity::Starting | Activity::Rebooting => "starting",
            Activity::Hashing if tuning => "auto-tuning",
            Activity::Hashing => "mining",
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Door> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The read-only cgminer face on port 4028, which foreign tools identify the machine by.
impl CommandFace for Vnish {
    fn miner(&self) -> &Arc<Miner> {
        &self.miner
    }

    fn answer(&self, command: &str, _parameter: &str) -> Value {
        let reading = self.miner.read();
        let gigahash = hundredths(reading.terahash * 1_000.0);
        let average = hundredths(reading.average_terahash * 1_000.0);
        let mut answer = match command {
            "summary" => {
                let mut answer = embedded(include_str!("../../data/asic/vnish/rpc/summary.json"));
                patch(&mut answer, "/SUMMARY/0/GHS 5s", gigahash);
                patch(&mut answer, "/SUMMARY/0/GHS av", average);
                patch(&mut answer, "/SUMMARY/0/GHS 30m", average);
                patch(&mut answer, "/SUMMARY/0/Elapsed", reading.uptime.0 / 1_000);
                answer
            }
            "stats" => {
                let mut answer = embedded(include_str!("../../data/asic/vnish/rpc/stats.json"));
                patch(&mut answer, "/STATS/1/GHS 5s", gigahash.to_string());
                patch(&mut answer, "/STATS/1/GHS av", average);
                patch(&mut answer, "/STATS/1/total_rate", gigahash);
                patch(&mut answer, "/STATS/1/state", self.state_word());
                patch(&mut answer, "/STATS/1/Elapsed", reading.uptime.0 / 1_000);
                for chain in 1..=3 {
                    patch(
                        &mut answer,
                        &format!("/STATS/1/chain_rate{chain}"),
                        hundredths(gigahash / 3.0),
                    );
                    patch(
                        &mut answer,
                        &format!("/STATS/1/chain_consumption{chain}"),
                        reading.power.0 / 3,
                    );
                }
                answer
            }
            "pools" => embedded(include_str!("../../data/asic/vnish/rpc/pools.json")),
            "devdetails" => embedded(include_str!("../../data/asic/vnish/rpc/devdetails.json")),
            // As recorded, this is what it says to every command it does not know, `version` among them.
            _ => embedded(include_str!("../../data/asic/vnish/rpc/version.json")),
        };
        answer["STATUS"][0]["When"] = json!(self.miner.now().0.div_euclid(1_000));
        answer
    }
}

/// Serves the REST face until `stop`.
pub async fn serve(listener: TcpListener, face: Arc<Vnish>, stop: CancellationToken) {
    let gate = Gate { listener, miner: Arc::clone(face.miner()) };
    let router = router(face);
    if let Err(error) = axum::serve(gate, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
    {
        tracing::warn!(%error, "a VNish face ended");
    }
}

fn router(face: Arc<Vnish>) -> Router {
    Router::new()
        .route("/", get(|| async { Html("<html><head><title>AnthillOS</title></head></html>") }))
        .route("/api/v1/unlock", post(unlock))
        .route("/api/v1/info", get(info))
        .route("/api/v1/status", get(status))
        .route("/api/v1/summary", get(summary))
        .route("/api/v1/perf-summary", get(performance))
        .route("/api/v1/autotune/presets", get(presets))
        .route("/api/v1/settings", get(settings).post(set_settings))
        .route("/api/v1/mining/{action}", post(mining))
        .route("/api/v1/system/reboot", post(reboot))
        .route("/api/v1/find-miner", post(find_miner))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "Not found") })
        .layer(middleware::from_fn_with_state(Arc::clone(&face), misbehave))
        .with_state(face)
}

type Face = State<Arc<Vnish>>;

async fn unlock(State(face): Face, body: Bytes) -> Response {
    let password = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|body| Some(body.get("pw")?.as_str()?.to_owned()));
    match password {
        Some(password) => face.unlock(&password),
        None => refusal(StatusCode::BAD_REQUEST, "pw expected"),
    }
}

async fn info(State(face): Face, headers: HeaderMap) -> Json<Value> {
    Json(face.info(face.is_unlocked(&headers, false)))
}

async fn status(State(face): Face, headers: HeaderMap) -> Json<Value> {
    Json(face.status(face.is_unlocked(&headers, false)))
}

async fn summary(State(face): Face) -> Json<Value> {
    Json(face.summary())
}

async fn performance(State(face): Face) -> Json<Value> {
    Json(face.performance())
}

async fn presets(State(face): Face) -> Json<Value> {
    Json(face.presets.clone())
}

async fn settings(State(face): Face, headers: HeaderMap) -> Response {
    if face.is_unlocked(&headers, false) { Json(face.settings()).into_response() } else { locked() }
}

async fn set_settings(State(face): Face, headers: HeaderMap, body: Bytes) -> Response {
    if face.is_unlocked(&headers, true) { face.set_settings(&body) } else { locked() }
}

async fn mining(
    State(face): Face,
    axum::extract::Path(action): axum::extract::Path<String>,
    headers: HeaderMap,
) -> Response {
    if !face.is_unlocked(&headers, true) {
        return locked();
    }
    // `throttle` came with 1.3.3; this machine runs 1.2.7.
    face.mining(&action).map_or_else(
        || refusal(StatusCode::NOT_FOUND, "Not found"),
        |answer| Json(answer).into_response(),
    )
}

async fn reboot(State(face): Face, headers: HeaderMap) -> Response {
    if !face.is_unlocked(&headers, true) {
        return locked();
    }
    face.miner.order(|body, now| body.reboot(now));
    Json(embedded(include_str!("../../data/asic/vnish/privileged/system/reboot.json")))
        .into_response()
}

async fn find_miner(State(face): Face, headers: HeaderMap) -> Response {
    if !face.is_unlocked(&headers, true) {
        return locked();
    }
    let mut door = face.lock();
    door.light = !door.light;
    Json(json!({ "on": door.light })).into_response()
}

fn locked() -> Response {
    refusal(StatusCode::UNAUTHORIZED, "Unauthorized")
}

fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "err": reason }))).into_response()
}

/// Spoils requests and answers as the miner's fault demands.
async fn misbehave(State(face): Face, request: Request, next: Next) -> Response {
    if !face.miner.is_reachable() {
        // Off the network: an open connection is never answered. The client's own time-out ends this.
        return std::future::pending::<Response>().await;
    }
    let fault = face.miner.fault();
    let answer = next.run(request).await;
    match fault {
        Some(Fault::Slow) => {
            tokio::time::sleep(Duration::from_millis(SLOW_ANSWER_MS)).await;
            answer
        }
        Some(Fault::CutReply) => cut(answer).await,
        Some(Fault::Garbage) => Body::from(b"\x00\xff<html>{\"miner\":".to_vec()).into_response(),
        Some(
            Fault::OkButNothingHappens
            | Fault::SessionHeld
            | Fault::ExpiredToken
            | Fault::WrongPassword
            | Fault::Reboot
            | Fault::DropsOffline,
        )
        | None => answer,
    }
}

/// The same answer announced at full length, broken off in its middle.
async fn cut(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let whole = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let broken = stream::iter([Ok(half), Err(io::Error::other("cable pulled"))]);
    Response::from_parts(parts, Body::from_stream(broken))
}

/// A listener that drops connections while the miner is unreachable.
struct Gate {
    listener: TcpListener,
    miner: Arc<Miner>,
}

impl axum::serve::Listener for Gate {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) if self.miner.is_reachable() => return accepted,
                Ok(_) => {}
                // Out of descriptors or alike: let some go before the next try.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Watts of a preset, which is its name; none for "disabled".
fn watts_of(preset: &Value) -> Option<u64> {
    preset["name"].as_str()?.parse().ok()
}

/// Hashrate of a recorded preset, from its caption `2800 watt ~ 188 TH`.
fn terahash_of(preset: &Value) -> f64 {
    preset["pretty"]
        .as_str()
        .and_then(|caption| caption.split('~').nth(1))
        .and_then(|rate| rate.trim().strip_suffix(" TH"))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "watts of one machine stay far below 2^52")]
fn real(power: Watts) -> f64 {
    power.0 as f64
}
