//! What the single MLNode tells and fetches: GPUs, models on disk, the clock, embeddings, metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::super::door::CALL_WAIT_MAX;
use super::super::metrics;
use super::super::reply::detail;
use super::super::rig::Health;
use super::FanOut;
use super::ask::{Question, Said, in_form, refusal};
use super::node::{CONTRACT_VERSION, LOOK_WAIT_MAX, numbered};

fn unix_time() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The controller's clock: it is what answers here.
pub(super) fn clock() -> Response {
    let now = || unix_time().as_nanos().to_string();
    let received = now();
    (StatusCode::NO_CONTENT, [("x-server-recv-ns", received), ("x-server-send-ns", now())])
        .into_response()
}

impl FanOut {
    /// The GPUs of all rigs, numbered through.
    pub(super) async fn devices(&self) -> Response {
        let said = self.ask_all(&Question::get("/api/v1/gpu/devices", LOOK_WAIT_MAX)).await;
        let views: Vec<Value> =
            said.iter().filter_map(Said::success).map(|reply| reply.json()).collect();
        let devices = numbered(views.iter().map(|view| &view["devices"]));
        Json(json!({"count": devices.len(), "devices": devices})).into_response()
    }

    /// The driver of the first rig that knows its own.
    pub(super) async fn driver(&self) -> Response {
        let said = self.ask_all(&Question::get("/api/v1/gpu/driver", LOOK_WAIT_MAX)).await;
        match said.iter().find_map(Said::success) {
            Some(reply) => in_form(reply),
            None => detail(StatusCode::SERVICE_UNAVAILABLE, "no rig knows its driver"),
        }
    }

    async fn of_models(&self, method: Method, step: &str, body: Option<Bytes>) -> Vec<Said> {
        let path = format!("/api/v1/models{step}");
        self.ask_all(&Question { method, path, body, wait: CALL_WAIT_MAX }).await
    }

    /// There when every rig that answers has it; otherwise what the one furthest behind says of itself.
    pub(super) async fn model_status(&self, body: Bytes) -> Response {
        let said = self.of_models(Method::POST, "/status", Some(body)).await;
        let views = said.iter().filter_map(Said::success).map(|reply| reply.json());
        let mut views: Vec<Value> = views.filter(Value::is_object).collect();
        let some = views.iter().any(|view| view["status"] != "NOT_FOUND");
        // Under way says more than missing: a download shows its progress.
        views.sort_by_key(|view| match view["status"].as_str() {
            Some("DOWNLOADING") => 0,
            Some("PARTIAL") => 1,
            Some("DOWNLOADED") => 3,
            Some(_) | None => 2,
        });
        let Some(mut view) = views.into_iter().next() else { return refusal(&said) };
        if view["status"] == "NOT_FOUND" && some {
            view["status"] = json!("PARTIAL");
        }
        Json(view).into_response()
    }

    /// Begun when one rig has begun: the others have it, or say why not at the next question.
    pub(super) async fn model_download(&self, body: Bytes) -> Response {
        let said = self.of_models(Method::POST, "/download", Some(body)).await;
        let begun = said
            .iter()
            .filter_map(Said::success)
            .find(|reply| reply.json()["status"] == "DOWNLOADING");
        begun.map_or_else(|| one_of(&said), in_form)
    }

    /// Gone when one rig had it.
    pub(super) async fn model_delete(&self, body: Bytes) -> Response {
        one_of(&self.of_models(Method::DELETE, "", Some(body)).await)
    }

    /// Every model that some rig has.
    pub(super) async fn model_list(&self) -> Response {
        let said = self.of_models(Method::GET, "/list", None).await;
        let mut models: Vec<Value> = vec![];
        for reply in said.iter().filter_map(Said::success) {
            for entry in reply.json()["models"].as_array().cloned().unwrap_or_default() {
                if !models.iter().any(|known| known["model"] == entry["model"]) {
                    models.push(entry);
                }
            }
        }
        Json(json!({"models": models})).into_response()
    }

    /// What all of them hold, and what the fullest of them has left: a model must fit each.
    pub(super) async fn model_space(&self) -> Response {
        let said = self.of_models(Method::GET, "/space", None).await;
        let views: Vec<Value> =
            said.iter().filter_map(Said::success).map(|reply| reply.json()).collect();
        let Some(first) = views.first() else { return refusal(&said) };
        let held: f64 = views.iter().filter_map(|view| view["cache_size_gb"].as_f64()).sum();
        let left = views.iter().filter_map(|view| view["available_gb"].as_f64());
        let left = left.reduce(f64::min);
        Json(json!({
            "cache_size_gb": held, "available_gb": left, "cache_path": first["cache_path"],
        }))
        .into_response()
    }

    /// The first rig that can.
    pub(super) async fn embed(&self, body: Bytes) -> Response {
        let question = Question::post("/api/v1/embed", Some(body), CALL_WAIT_MAX);
        let said = self.ask_present(&question).await;
        match said.iter().find_map(Said::success) {
            Some(reply) => in_form(reply),
            None => refusal(&said),
        }
    }

    /// The contract's families and the gateway's own, from memory.
    pub(super) fn metrics(&self) -> Response {
        let up = self.rigs.iter().filter(|rig| rig.health() == Health::Up);
        let models: Vec<Value> =
            up.map(|rig| rig.models()).filter_map(|m| m.into_iter().next()).collect();
        let mut head = format!(
            "# HELP gonka_metrics_schema_info Version of these families\n# TYPE gonka_metrics_schema_info gauge\ngonka_metrics_schema_info{{version=\"1\"}} 1\n# HELP mlnode_version_info Contract this node follows\n# TYPE mlnode_version_info gauge\nmlnode_version_info{{version=\"{CONTRACT_VERSION}\"}} 1\n# HELP mlnode_source_scrape_timestamp_seconds When this was read\n# TYPE mlnode_source_scrape_timestamp_seconds gauge\nmlnode_source_scrape_timestamp_seconds{{source=\"gateway\"}} {}\n",
            unix_time().as_secs()
        );
        if let Some(model) = models.first() {
            let name = model["id"].as_str().unwrap_or_default();
            let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            head.push_str(&format!(
                "# HELP mlnode_config_info What is loaded\n# TYPE mlnode_config_info gauge\nmlnode_config_info{{model_name=\"{name}\",replicas=\"{}\",max_model_len=\"{}\"}} 1\n",
                models.len(),
                model["max_model_len"].as_u64().unwrap_or(0)
            ));
        }
        metrics::page(&self.rigs, &head)
    }
}

/// The first success, or the refusal.
fn one_of(said: &[Said]) -> Response {
    match said.iter().find_map(Said::success) {
        Some(reply) => in_form(reply),
        None => refusal(said),
    }
}
