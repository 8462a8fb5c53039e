//! Measuring for the check list before a PoC: a token out of the model, a connection to the callback, clocks, status.
//!
//! Everything is asked over the ways that the Network Node itself uses, except that the callback is tried from here, while
//! artifacts leave from the rig. Nothing that is asked changes a rig; a completion of one token is work it does all day.

use std::time::{Duration, Instant};

use farm_core::gonka::{FeederRoom, Forward, Height, Measured, PowStatus, Reach};
use roadbed_protocol::{Millis, ProofRate, RigId, UnixMillis, Watts};
use serde_json::{Value, json};

use crate::clock::wall_now;
use crate::config::Moment;

/// How long one measurement may take, wall time: a first token of a rig at work takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer looked at.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest piece of a refusal that is repeated.
const SAID_CHARS_MAX: usize = 120;
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
    let asker = Asker { http: client(), token: trial.token.clone() };
    let (forward, listed, pow, rig_skew, node_skew, callback) = tokio::join!(
        forward(&asker, trial),
        listed(&asker, trial),
        pow_status(&asker, trial),
        rig_skew(&asker, trial),
        node_skew(&asker, trial),
        callback(&asker, trial),
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

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE);
    builder.build().unwrap_or_default()
}

/// A client with the rig's token.
struct Asker {
    http: reqwest::Client,
    token: Option<String>,
}

impl Asker {
    fn get(&self, url: &str) -> reqwest::RequestBuilder {
        self.authorised(self.http.get(url))
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The JSON of an answer with status 2xx.
    async fn json(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        let mut response = request.send().await.map_err(|error| innermost(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let text: String =
                String::from_utf8_lossy(&bytes).chars().take(SAID_CHARS_MAX).collect();
            return Err(format!("{}: {}", status.as_u16(), text.trim()));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("no JSON: {error}"))
    }
}

async fn forward(asker: &Asker, trial: &Trial) -> Forward {
    let Some(face) = &trial.face else {
        return Forward::Untried {
            why: "the rig's address is not in the site file (ai_url)".into(),
        };
    };
    let body = json!({
        "model": trial.model,
        "messages": [{ "role": "user", "content": "1" }],
        "max_tokens": 1,
        "temperature": 0,
        "stream": false,
    });
    let request = asker.http.post(format!("{face}/v1/chat/completions")).json(&body);
    let began = Instant::now();
    let answer = asker.json(asker.authorised(request)).await;
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

async fn listed(asker: &Asker, trial: &Trial) -> Option<String> {
    let face = trial.face.as_ref()?;
    let answer = asker.json(asker.get(&format!("{face}/v1/models"))).await.ok()?;
    answer["data"][0]["id"].as_str().map(str::to_owned)
}

async fn pow_status(asker: &Asker, trial: &Trial) -> PowStatus {
    let Some(face) = &trial.face else {
        return PowStatus::Unread {
            why: "the rig's address is not in the site file (ai_url)".into(),
        };
    };
    pow_status_of(face, asker.token.as_deref()).await
}

/// What a rig's face says of its proofs.
pub async fn pow_status_of(face: &str, token: Option<&str>) -> PowStatus {
    let asker = Asker { http: client(), token: token.map(str::to_owned) };
    let url = format!("{face}/api/v1/inference/pow/status");
    match asker.json(asker.get(&url)).await {
        Ok(answer) => read_pow_status(&answer),
        Err(why) => PowStatus::Unread { why },
    }
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
async fn rig_skew(asker: &Asker, trial: &Trial) -> Option<i64> {
    let face = trial.face.as_ref()?;
    let sent = wall_now();
    let response = asker.get(&format!("{face}/api/v1/clock")).send().await.ok()?;
    let received = wall_now();
    let nanos = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<i128>().ok();
    let (came, left) = (nanos("x-server-recv-ns")?, nanos("x-server-send-ns")?);
    let theirs = (came + left) / 2 / NANOS_PER_MILLI;
    i64::try_from(theirs - middle(sent, received)).ok()
}

/// Clock of the Network Node less ours. Any of its answers carries its date, to the second: half of one is the error.
async fn node_skew(asker: &Asker, trial: &Trial) -> Option<i64> {
    let sent = wall_now();
    let url = format!("{}/v1/epochs/latest", trial.network_node);
    let response = asker.http.get(&url).send().await.ok()?;
    let received = wall_now();
    let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
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

async fn callback(asker: &Asker, trial: &Trial) -> Reach {
    let Some(url) = &trial.callback else { return Reach::NoAddress };
    let began = Instant::now();
    // Any status will do: outside its phase the Network Node refuses artifacts, and it has no other route there.
    match asker.http.get(url).send().await {
        Ok(_) => {
            let took = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            Reach::Answered { took }
        }
        Err(error) => Reach::Failed { why: innermost(&error) },
    }
}

/// The cause at the bottom of an error: "connection refused" says more than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(source) = at.source() {
        at = source;
    }
    if error.is_timeout() {
        format!("no answer within {} s", PATIENCE.as_secs())
    } else {
        at.to_string()
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
