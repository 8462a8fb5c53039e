//! Measuring for the check list before a PoC: a token out of the model, a connection to the callback, clocks, status.
//!
//! Everything is asked over the ways that the Network Node itself uses, except that the callback is tried from here, while
//! artifacts leave from the rig. Nothing that is asked changes a rig; a completion of one token is work it does all day.

use std::time::{Duration, Instant};

use axum::http::{Method, header};
use farm_core::gonka::{FeederRoom, Forward, Height, Measured, PowStatus, Reach};
use roadbed_protocol::{Millis, ProofRate, RigId, UnixMillis, Watts};
use serde_json::{Value, json};

use crate::clock::wall_now;
use crate::config::{Authorities, Moment};
use crate::web::{Asked, Login, Reply, Web};

/// How long one measurement may take, wall time: a first token of a rig at work takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer looked at.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest piece of a refusal that is repeated.
const SAID_CHARS_MAX: usize = 120;
/// Why a rig is not asked.
const NO_ADDRESS: &str = "the rig's address is not in the site file (ai_url)";
/// Nanoseconds in a millisecond.
const NANOS_PER_MILLI: i128 = 1_000_000;

/// One rig to be tried, with what is known without asking.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The rig.
    pub rig: RigId,
    /// Id of the model by governance.
    pub model: String,
    /// Base address of the rig's MLNode and OpenAI faces, if it is known.
    pub face: Option<String>,
    /// The token they ask for.
    pub token: Option<String>,
    /// Where artifacts go, if it is known.
    pub callback: Option<String>,
    /// Base address of the Network Node.
    pub network_node: String,
    /// Who vouches for it over `https`; without them whom this machine trusts.
    pub authorities: Option<Authorities>,
    /// Newest measured rate.
    pub rate: Option<ProofRate>,
    /// Its usual level, in thousandths of a nonce per minute.
    pub usual_rate: Option<u64>,
    /// What proving takes beyond what the rig draws now.
    pub draws_more: Watts,
    /// Circuits above the rig.
    pub feeders: Vec<FeederRoom>,
    /// A confirmation PoC is under way.
    pub is_confirming: bool,
    /// Start of the PoC this is for.
    pub poc_start: Height,
}

/// Asks everything at once and waits for the slowest.
pub async fn measure(trial: &Trial, at: UnixMillis) -> Measured {
    let rig = match &trial.face {
        None => Err(NO_ADDRESS.to_owned()),
        Some(face) => {
            Asker::of_rig(face, trial.token.as_deref()).map(|asker| (asker, face.as_str()))
        }
    };
    let (forward, listed, pow, rig_skew, node_skew, callback) = tokio::join!(
        forward(&rig, trial),
        listed(&rig),
        pow_status(&rig),
        rig_skew(&rig),
        node_skew(trial),
        callback(trial),
    );
    Measured {
        rig: trial.rig.clone(),
        at,
        model: trial.model.clone(),
        listed,
        forward,
        callback,
        skew: node_skew.map(|node| node.saturating_sub(rig_skew.unwrap_or(0))),
        rate: trial.rate.clone(),
        usual_rate: trial.usual_rate,
        draws_more: trial.draws_more,
        feeders: trial.feeders.clone(),
        pow,
        is_confirming: trial.is_confirming,
        poc_start: trial.poc_start,
    }
}

/// Asks one server; with the rig's token if it is the rig.
struct Asker {
    web: Web,
    login: Option<Login>,
}

impl Asker {
    fn of_rig(face: &str, token: Option<&str>) -> Result<Self, String> {
        let login = token.map(Login::bearer).transpose().map_err(|fault| fault.to_string())?;
        Ok(Self { web: Web::to(face, None), login })
    }

    async fn ask(&self, method: Method, url: &str, json: Option<&Value>) -> Result<Reply, String> {
        let login = self.login.as_ref();
        let asked = Asked { method, url, login, json, wait: PATIENCE, bytes_max: ANSWER_BYTES_MAX };
        self.web.ask(asked).await.map_err(|fault| fault.to_string())
    }

    /// The JSON of an answer with status 2xx.
    async fn json(&self, method: Method, url: &str, json: Option<&Value>) -> Result<Value, String> {
        let reply = self.ask(method, url, json).await?;
        if !(200..300).contains(&reply.status) {
            let text: String =
                String::from_utf8_lossy(&reply.body).chars().take(SAID_CHARS_MAX).collect();
            return Err(format!("{}: {}", reply.status, text.trim()));
        }
        serde_json::from_slice(&reply.body).map_err(|error| format!("no JSON: {error}"))
    }
}

/// What asks a rig, and its address; or why it cannot be asked.
type OfRig<'f> = Result<(Asker, &'f str), String>;

async fn forward(rig: &OfRig<'_>, trial: &Trial) -> Forward {
    let (asker, face) = match rig {
        Ok(rig) => rig,
        Err(why) => return Forward::Untried { why: why.clone() },
    };
    let body = json!({
        "model": trial.model,
        "messages": [{ "role": "user", "content": "1" }],
        "max_tokens": 1,
        "temperature": 0,
        "stream": false,
    });
    let url = format!("{face}/v1/chat/completions");
    let began = Instant::now();
    let answer = asker.json(Method::POST, &url, Some(&body)).await;
    let took = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    match answer {
        Ok(answer) => {
            let tokens = answer["usage"]["completion_tokens"].as_u64();
            if answer["choices"][0].is_null() || tokens == Some(0) {
                return Forward::Failed { why: "it answered without a token".into() };
            }
            let model = answer["model"].as_str().unwrap_or_default().to_owned();
            Forward::Answered { took, model }
        }
        Err(why) => Forward::Failed { why },
    }
}

async fn listed(rig: &OfRig<'_>) -> Option<String> {
    let (asker, face) = rig.as_ref().ok()?;
    let answer = asker.json(Method::GET, &format!("{face}/v1/models"), None).await.ok()?;
    answer["data"][0]["id"].as_str().map(str::to_owned)
}

async fn pow_status(rig: &OfRig<'_>) -> PowStatus {
    let (asker, face) = match rig {
        Ok(rig) => rig,
        Err(why) => return PowStatus::Unread { why: why.clone() },
    };
    let url = format!("{face}/api/v1/inference/pow/status");
    match asker.json(Method::GET, &url, None).await {
        Ok(answer) => read_pow_status(&answer),
        Err(why) => PowStatus::Unread { why },
    }
}

/// What a rig's face says of its proofs.
pub async fn pow_status_of(face: &str, token: Option<&str>) -> PowStatus {
    pow_status(&Asker::of_rig(face, token).map(|asker| (asker, face))).await
}

/// The oldest generation any backend is busy with: one that is stale is enough to keep the next from starting.
fn read_pow_status(answer: &Value) -> PowStatus {
    let generating = |backend: &&Value| backend["status"] == "GENERATING";
    let heights = answer["backends"].as_array().into_iter().flatten().filter(generating);
    let oldest = heights.filter_map(|backend| backend["config"]["block_height"].as_i64()).min();
    match (answer["status"].as_str(), oldest) {
        (_, Some(height)) => PowStatus::Generating(Height(height)),
        (Some("IDLE"), None) => PowStatus::Idle,
        (Some("VALIDATING"), None) => PowStatus::Validating,
        (Some("NO_BACKENDS"), None) => {
            PowStatus::Unread { why: "NO_BACKENDS: no engine is up".into() }
        }
        (Some(word), None) => {
            PowStatus::Unread { why: format!("{word}, of which block it does not say") }
        }
        (None, None) => PowStatus::Unread { why: "it does not say its status".into() },
    }
}

/// Clock of the rig less ours, by the route the Network Node itself uses.
async fn rig_skew(rig: &OfRig<'_>) -> Option<i64> {
    let (asker, face) = rig.as_ref().ok()?;
    let sent = wall_now();
    let reply = asker.ask(Method::GET, &format!("{face}/api/v1/clock"), None).await.ok()?;
    let received = wall_now();
    let nanos = |name: &str| reply.headers.get(name)?.to_str().ok()?.parse::<i128>().ok();
    let (came, left) = (nanos("x-server-recv-ns")?, nanos("x-server-send-ns")?);
    let theirs = (came + left) / 2 / NANOS_PER_MILLI;
    i64::try_from(theirs - middle(sent, received)).ok()
}

/// Clock of the Network Node less ours. Any of its answers carries its date, to the second: half of one is the error.
async fn node_skew(trial: &Trial) -> Option<i64> {
    let web = Web::to(&trial.network_node, trial.authorities.as_ref());
    let asker = Asker { web, login: None };
    let sent = wall_now();
    let url = format!("{}/v1/epochs/latest", trial.network_node);
    let reply = asker.ask(Method::GET, &url, None).await.ok()?;
    let received = wall_now();
    let date = reply.headers.get(header::DATE)?.to_str().ok()?;
    let theirs = i128::from(http_date(date)?.0) + 500;
    i64::try_from(theirs - middle(sent, received)).ok()
}

fn middle(a: UnixMillis, b: UnixMillis) -> i128 {
    i128::midpoint(i128::from(a.0), i128::from(b.0))
}

/// `Mon, 23 Nov 2026 18:11:42 GMT` (RFC 9110).
fn http_date(text: &str) -> Option<UnixMillis> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.strip_suffix(" GMT")?.split(' ');
    let (day, month) = (words.next()?, words.next()?);
    let (year, time) = (words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let moment: Moment = format!("{year}-{month:02}-{day}T{time}Z").parse().ok()?;
    Some(moment.0)
}

async fn callback(trial: &Trial) -> Reach {
    let Some(url) = &trial.callback else { return Reach::NoAddress };
    let asker = Asker { web: Web::to(url, None), login: None };
    let began = Instant::now();
    // Any status will do: outside its phase the Network Node refuses artifacts, and it has no other route there.
    match asker.ask(Method::GET, url, None).await {
        Ok(_) => {
            let took = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            Reach::Answered { took }
        }
        Err(why) => Reach::Failed { why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_http_is_read() {
        let read = |text: &str| http_date(text).map(|at| at.0);
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        for bad in
            ["", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Nix 1994 08:49:37 GMT", "Sun, 06 Nov 1994"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_oldest_generation_counts() {
        let backend = |status: &str, height: i64| json!({ "status": status, "config": { "block_height": height } });
        let status = |word: &str, backends: Value| {
            read_pow_status(&json!({ "status": word, "backends": backends }))
        };
        let mixed =
            json!([backend("GENERATING", 90), backend("IDLE", 5), backend("GENERATING", 70)]);
        assert_eq!(status("MIXED", mixed), PowStatus::Generating(Height(70)));
        assert_eq!(status("IDLE", json!([])), PowStatus::Idle);
        assert!(matches!(status("GENERATING", json!([])), PowStatus::Unread { .. }));
        assert!(matches!(read_pow_status(&json!([1])), PowStatus::Unread { .. }));
    }
}
