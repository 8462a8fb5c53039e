//! The single MLNode's states: INFERENCE as soon as one rig is, STOPPED when all are.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::door::CALL_WAIT_MAX;
use super::super::health::look;
use super::ask::{Question, Said, errors, refusal};
use super::{FanOut, Order};

/// The contract this was written from; told when no rig tells its own.
pub(super) const CONTRACT_VERSION: &str = "3.0.16";
/// For an answer that a rig has ready, as in the network's own fan-out.
pub(super) const LOOK_WAIT_MAX: Duration = Duration::from_secs(10);
/// For the end of everything at a rig: its engine may take 20 s, a server in its place longer.
const STOP_WAIT_MAX: Duration = Duration::from_secs(120);

/// One word for what several engines do of proofs.
pub(super) fn proof_word(words: &[&str]) -> &'static str {
    let all = |word: &str| words.iter().all(|own| *own == word);
    let any = |word: &str| words.contains(&word);
    match () {
        () if words.is_empty() => "NO_BACKENDS",
        () if all("GENERATING") => "GENERATING",
        () if any("GENERATING") => "MIXED",
        () if all("IDLE") => "IDLE",
        () if any("VALIDATING")
            && words.iter().all(|own| matches!(*own, "IDLE" | "VALIDATING")) =>
        {
            "VALIDATING"
        }
        () => "MIXED",
    }
}

impl FanOut {
    async fn states(&self) -> Vec<Value> {
        let said = self.ask_all(&Question::get("/api/v1/state", LOOK_WAIT_MAX)).await;
        said.iter().filter_map(Said::success).map(|reply| reply.json()).collect()
    }

    pub(super) async fn state(&self) -> Response {
        let states = self.states().await;
        let up: Vec<&Value> = states.iter().filter(|view| view["state"] == "INFERENCE").collect();
        let well: Vec<&Value> =
            up.iter().copied().filter(|view| view["inference_healthy"] != false).collect();
        let version = states.iter().find_map(|view| view["version"].as_str());
        let words: Vec<&str> = well.iter().filter_map(|view| view["poc_status"].as_str()).collect();
        // Rigs that were brought up and do not answer at all are a node that is up and ill.
        let is_lost = states.is_empty() && matches!(*self.last(), Some(Order::Up(_)));
        let view = if up.is_empty() && !is_lost {
            json!({
                "state": "STOPPED", "version": version.unwrap_or(CONTRACT_VERSION),
                "poc_status": null, "inference_healthy": null, "loaded_model": null,
            })
        } else {
            let model = well.first().or(up.first()).map(|view| view["loaded_model"].clone());
            json!({
                "state": "INFERENCE", "version": version.unwrap_or(CONTRACT_VERSION),
                "poc_status": proof_word(&words), "inference_healthy": !well.is_empty(),
                "loaded_model": model,
            })
        };
        Json(view).into_response()
    }

    pub(super) async fn up(&self, body: Bytes) -> Response {
        let question = Question::post("/api/v1/inference/up", Some(body.clone()), CALL_WAIT_MAX);
        let said = match self.tell_up(body, &question).await {
            Ok(said) => said,
            Err(refusal) => return refusal,
        };
        self.look_again().await;
        Json(done(&said)).into_response()
    }

    pub(super) async fn up_async(&self, body: Bytes) -> Response {
        let path = "/api/v1/inference/up/async";
        let question = Question::post(path, Some(body.clone()), LOOK_WAIT_MAX);
        match self.tell_up(body, &question).await {
            Ok(said) => Json(up_view(&said)).into_response(),
            Err(refusal) => refusal,
        }
    }

    /// Tells all rigs to load. It is the last order from its beginning, because loading takes minutes, in which a rig that
    /// comes back must not be told the stop before; and none when no rig took it.
    async fn tell_up(&self, body: Bytes, question: &Question) -> Result<Vec<Said>, Response> {
        let order = Order::Up(body);
        let before = self.last().replace(order.clone());
        let said = self.ask_all(question).await;
        if said.iter().any(|said| said.success().is_some()) {
            return Ok(said);
        }
        let mut last = self.last();
        if last.as_ref() == Some(&order) {
            *last = before;
        }
        Err(refusal(&said))
    }

    pub(super) async fn up_status(&self) -> Response {
        let said = self.ask_all(&Question::get("/api/v1/inference/up/status", LOOK_WAIT_MAX)).await;
        Json(up_view(&said)).into_response()
    }

    /// Always a success: a rig that cannot be reached is stopped when it comes back.
    pub(super) async fn stop(&self) -> Response {
        let _order = self.orders.lock().await;
        self.book().end();
        *self.last() = Some(Order::Stop);
        let said = self.ask_all(&Question::post("/api/v1/stop", None, STOP_WAIT_MAX)).await;
        self.look_again().await;
        for error in said.iter().filter_map(Said::error) {
            tracing::warn!(%error, "a rig of the single MLNode was not stopped");
        }
        Json(json!({"status": "OK"})).into_response()
    }

    /// What rigs serve has changed: customers need not wait for the next look.
    async fn look_again(&self) {
        let looks = self.rigs.iter().map(|rig| look(&self.wire, rig, LOOK_WAIT_MAX));
        for unwell in join_all(looks).await.into_iter().filter_map(Result::err) {
            tracing::debug!(unwell, "a rig does not show what it serves now");
        }
    }

    /// Healthy while one rig is; degraded while another is not.
    pub(super) async fn health(&self) -> Response {
        let said = self.ask_all(&Question::get("/health", LOOK_WAIT_MAX)).await;
        // A rig that is ill says so with a page, too.
        let pages: Vec<Value> = said
            .iter()
            .filter_map(|said| Some(said.outcome.as_ref().ok()?.json()))
            .filter(Value::is_object)
            .collect();
        let healthy = said.iter().filter(|said| said.success().is_some()).count();
        let devices = numbered(pages.iter().map(|page| &page["gpu"]["devices"]));
        let manager =
            |name: &str, what: &str| pages.iter().any(|page| page["managers"][name][what] == true);
        let is_up = pages.iter().any(|page| page["service_state"] == "INFERENCE");
        let view = json!({
            "status": if healthy > 0 { "healthy" } else { "unhealthy" },
            "degraded": healthy > 0 && healthy < self.backends.len(),
            "service_state": if is_up { "INFERENCE" } else { "STOPPED" },
            "gpu": {
                "available": pages.iter().any(|page| page["gpu"]["available"] == true),
                "count": devices.len(), "devices": devices,
            },
            "managers": {
                "inference": {
                    "running": manager("inference", "running"),
                    "healthy": manager("inference", "healthy"),
                },
                "train": {"running": false, "healthy": false},
            },
        });
        let status = if healthy > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(view)).into_response()
    }

    pub(super) async fn ready(&self) -> Response {
        let said = self.ask_all(&Question::get("/readyz", LOOK_WAIT_MAX)).await;
        let ready = said.iter().any(|said| said.success().is_some());
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(json!({"ready": ready}))).into_response()
    }
}

/// The devices of several lists, numbered through. A list that is none, or an entry that is no device, is left out.
pub(super) fn numbered<'v>(lists: impl Iterator<Item = &'v Value>) -> Vec<Value> {
    let devices = lists.filter_map(Value::as_array).flatten().filter_map(Value::as_object);
    let numbered = devices.enumerate().map(|(index, device)| {
        let mut device = device.clone();
        device.insert("index".to_owned(), json!(index));
        Value::Object(device)
    });
    numbered.collect()
}

/// `OK`, with what rigs said against it, if any did.
fn done(said: &[Said]) -> Value {
    let mut view = json!({"status": "OK"});
    let errors = errors(said);
    if !errors.is_null() {
        view["errors"] = errors;
    }
    view
}

/// Ready when no rig is still loading and one is up.
fn up_view(said: &[Said]) -> Value {
    let views: Vec<Value> =
        said.iter().filter_map(Said::success).map(|reply| reply.json()).collect();
    let find = |word: &str| views.iter().find(|view| view["status"] == word);
    let running = views.iter().any(|view| view["is_running"] == true);
    let (word, error) = match (find("starting"), running, find("failed")) {
        (Some(_), ..) => ("starting", Value::Null),
        (None, true, _) => ("running", Value::Null),
        (None, false, Some(failed)) => ("failed", failed["error"].clone()),
        (None, false, None) => ("not_started", Value::Null),
    };
    let elapsed = views.iter().filter_map(|view| view["elapsed_seconds"].as_f64());
    json!({
        "status": word, "is_running": word == "running", "is_starting": word == "starting",
        "elapsed_seconds": elapsed.reduce(f64::max), "error": error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_for_all_engines() {
        for (words, word) in [
            (&[][..], "NO_BACKENDS"),
            (&["GENERATING", "GENERATING"], "GENERATING"),
            (&["GENERATING", "IDLE"], "MIXED"),
            (&["IDLE", "IDLE"], "IDLE"),
            (&["IDLE", "VALIDATING"], "VALIDATING"),
            (&["IDLE", "ERROR"], "MIXED"),
            (&["MIXED"], "MIXED"),
        ] {
            assert_eq!(proof_word(words), word, "{words:?}");
        }
    }
}
