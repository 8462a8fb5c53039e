//! Proof of Compute over several rigs: each a group of the node's nonces; validations to one rig after the other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::super::door::CALL_WAIT_MAX;
use super::super::reply::detail;
use super::super::wire::{Reply, WireFault};
use super::ask::{
    ALREADY_GENERATING, Question, Said, errors, in_form, no_backends, reason, refusal,
};
use super::node::{LOOK_WAIT_MAX, proof_word};
use super::round::{Look, Round};
use super::{Backend, FanOut};

/// For the beginning or end of a round at a rig: no more than a step of its engine.
pub(super) const ORDER_WAIT_MAX: Duration = Duration::from_secs(60);
/// How rigs are asked what they prove: their node's floor knows whether a model is up.
pub(super) const STATUS: &str = "/api/v1/inference/pow/status";
/// How a round of a rig is begun: its engine's floor takes a group.
pub(super) const INIT: &str = "/api/v1/pow/init/generate";
/// How a round of a rig is ended.
pub(super) const STOP: &str = "/api/v1/inference/pow/stop";

/// What a rig's status says.
pub(super) fn look_of(reply: &Reply) -> Look {
    let view = reply.json();
    match view["backends"].as_array().and_then(|backends| backends.first()) {
        Some(backend) if reply.status.is_success() => Look::of(backend),
        Some(_) | None => Look::NoModel,
    }
}

impl FanOut {
    pub(super) async fn init(&self, body: Bytes) -> Response {
        let _order = self.orders.lock().await;
        let looks = join_all(self.backends.iter().map(async |backend| {
            if !backend.rig.may_answer() {
                return Look::NoModel;
            }
            let question = Question::get(STATUS, LOOK_WAIT_MAX);
            question.to(&self.wire, &backend.rig).await.map_or(Look::NoModel, |r| look_of(&r))
        }))
        .await;
        let order: Option<Map<String, Value>> = serde_json::from_slice(&body).ok();
        let ids: Vec<_> = self.backends.iter().map(|backend| &backend.rig.id).collect();
        let round = order.map(|order| self.book().round_of(order, &ids, &looks));
        // Without any engine the rigs still say what is wrong with the order, if anything is.
        let engines = looks.iter().any(|look| *look != Look::NoModel);
        let asked = self.backends.iter().zip(&looks).filter(|(backend, look)| {
            if engines { **look != Look::NoModel } else { backend.rig.may_answer() }
        });
        let said = join_all(asked.map(async |(backend, look)| Said {
            label: backend.label,
            outcome: self.init_one(backend, look, round.as_ref(), &body).await,
        }))
        .await;
        let Some(round) = round.filter(|_| said.iter().any(|said| said.success().is_some())) else {
            return refusal(&said);
        };
        let begun = |said: &&Said| match &said.outcome {
            Ok(reply) => reply.status.is_success(),
            Err(_) => false,
        };
        let results: Vec<Value> = said
            .iter()
            .filter(begun)
            .map(|said| json!({"port": said.label, "status": "OK"}))
            .collect();
        let view = json!({
            "status": "OK", "backends": said.len(), "n_groups": round.n_groups,
            "results": results, "errors": errors(&said),
        });
        self.book().begin(round);
        Json(view).into_response()
    }

    /// Begins a round at a rig. What it proves of a round that nobody wants any more is ended first.
    async fn init_one(
        &self,
        backend: &Backend,
        look: &Look,
        round: Option<&Round>,
        body: &Bytes,
    ) -> Result<Reply, WireFault> {
        let order = match round {
            // No object: the rig says what is wrong with it.
            None => Some(body.to_vec()),
            Some(round) => round.order(&backend.rig.id),
        };
        let Some(order) = order else { return Ok(refused("no group is left in this round")) };
        if let Look::Generating { identity, .. } = look {
            let same = identity.is_some() && *identity == round.and_then(Round::identity);
            if same || self.book().runs(look) {
                return Ok(refused(ALREADY_GENERATING));
            }
            let stop = Question::post(STOP, Some(Bytes::from_static(b"{}")), ORDER_WAIT_MAX);
            stop.to(&self.wire, &backend.rig).await?;
        }
        Question::post(INIT, Some(order.into()), ORDER_WAIT_MAX).to(&self.wire, &backend.rig).await
    }

    pub(super) async fn proof_stop(&self) -> Response {
        let _order = self.orders.lock().await;
        self.book().end();
        let stop = Question::post(STOP, Some(Bytes::from_static(b"{}")), ORDER_WAIT_MAX);
        let said = self.ask_present(&stop).await;
        // A rig without a model has nothing to stop and says so.
        let results: Vec<Value> = said
            .iter()
            .filter(|said| said.success().is_some_and(|reply| reply.json()["results"].is_array()))
            .map(|said| json!({"port": said.label, "status": "stopped"}))
            .collect();
        let errors = errors(&said);
        if results.is_empty() && errors.is_null() {
            return Json(json!({"status": "OK", "message": "No backends to stop"})).into_response();
        }
        Json(json!({"status": "OK", "results": results, "errors": errors})).into_response()
    }

    pub(super) async fn proof_status(&self) -> Response {
        let said = self.ask_present(&Question::get(STATUS, LOOK_WAIT_MAX)).await;
        let mut backends = vec![];
        for said in &said {
            match said.success().map(Reply::json) {
                Some(view) => {
                    if let Some(backend) = view["backends"].as_array().and_then(|all| all.first()) {
                        let part = |name: &str| backend[name].clone();
                        backends.push(json!({
                            "port": said.label, "status": part("status"),
                            "config": part("config"), "stats": part("stats"),
                        }));
                    }
                }
                None => {
                    let error = said.error().unwrap_or_default();
                    backends.push(json!({
                        "port": said.label, "status": "ERROR", "detail": error["error"],
                    }));
                }
            }
        }
        // A rig that died a moment ago takes no part: the others' round is no mixed one for that.
        let words: Vec<&str> = backends
            .iter()
            .filter_map(|backend| backend["status"].as_str())
            .filter(|word| *word != "ERROR")
            .collect();
        Json(json!({"status": proof_word(&words), "backends": backends})).into_response()
    }

    /// The next rig in turn takes the job; if it is gone, has no model or is full, the one after it.
    pub(super) async fn generate(&self, body: Bytes) -> Response {
        let present: Vec<&Backend> = self.present().collect();
        let question = Question::post("/api/v1/pow/generate", Some(body), CALL_WAIT_MAX);
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut refused: Option<Reply> = None;
        for step in 0..present.len() {
            let Some(backend) = present.get((first + step) % present.len()) else { break };
            match question.to(&self.wire, &backend.rig).await {
                Ok(reply) if is_elsewhere(reply.status) => {
                    // That one is full says more than that another has no model.
                    if refused.as_ref().is_none_or(|r| r.status != StatusCode::TOO_MANY_REQUESTS) {
                        refused = Some(reply);
                    }
                }
                Ok(reply) => return labelled(&reply, backend.label),
                // Nothing was sent.
                Err(WireFault::Unreached { .. }) => {}
                Err(fault @ (WireFault::Broken { .. } | WireFault::Silent { .. })) => {
                    return detail(StatusCode::BAD_GATEWAY, fault.to_string());
                }
            }
        }
        match refused {
            Some(reply) if reply.status == StatusCode::TOO_MANY_REQUESTS => in_form(&reply),
            // "Engine not available" is a word of one floor below; a job that failed says what failed.
            Some(reply) if reason(&reply) != "Engine not available" => {
                detail(StatusCode::BAD_GATEWAY, json!({"errors": [{"error": reason(&reply)}]}))
            }
            Some(_) | None => no_backends(),
        }
    }

    pub(super) async fn job(&self, id: &str) -> Response {
        let id = id.replace("%3A", ":").replace("%3a", ":");
        let Some((label, uuid)) = id.split_once(':') else {
            let text = "Invalid request_id format (expected port:uuid)";
            return detail(StatusCode::BAD_REQUEST, text);
        };
        let Ok(label) = label.parse::<u16>() else {
            return detail(StatusCode::BAD_REQUEST, "Invalid port in request_id");
        };
        let plain = uuid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let backend = self.backends.iter().find(|backend| backend.label == label);
        let Some(backend) = backend.filter(|_| plain && !uuid.is_empty()) else {
            return detail(StatusCode::NOT_FOUND, "Request not found");
        };
        let question = Question::get(&format!("/api/v1/pow/generate/{uuid}"), LOOK_WAIT_MAX);
        match question.to(&self.wire, &backend.rig).await {
            Ok(reply) if reply.status == StatusCode::NOT_FOUND => {
                detail(StatusCode::NOT_FOUND, "Request not found")
            }
            Ok(reply) => {
                let mut view = reply.json();
                if !reply.status.is_success() || !view.is_object() {
                    return in_form(&reply);
                }
                view["request_id"] = json!(id);
                Json(view).into_response()
            }
            Err(fault) => detail(StatusCode::BAD_GATEWAY, fault.to_string()),
        }
    }
}

/// Answers that another rig may not give.
fn is_elsewhere(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

/// A refusal of the fan-out's own, among those of the rigs.
fn refused(text: &str) -> Reply {
    Reply {
        status: StatusCode::CONFLICT,
        headers: axum::http::HeaderMap::new(),
        body: Bytes::from(json!({"detail": text}).to_string()),
    }
}

/// A job that is queued is found again by the label of its rig.
fn labelled(reply: &Reply, label: u16) -> Response {
    let mut view = reply.json();
    let id = view["request_id"].as_str().map(str::to_owned);
    match id {
        Some(id) if reply.status.is_success() && view["status"] == "queued" => {
            view["request_id"] = json!(format!("{label}:{id}"));
            Json(view).into_response()
        }
        Some(_) | None => in_form(reply),
    }
}
