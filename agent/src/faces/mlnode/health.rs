//! Probes, the clock and the metrics page: small, cheap, without side effects.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use roadbed_protocol::{ProofActivity, ProofStatus};
use serde_json::json;

use super::super::door::empty;
use super::super::metrics::Page;
use super::super::node::{Node, NodeState};
use super::super::openai::count_embeddings;
use super::gpu::device_list;
use super::{Behind, CONTRACT_VERSION};
use crate::engine::{MeasuredRate, RateOf, ReplicaView, Standing};
use crate::inference::Inference;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(health))
        .route("/readyz", get(ready))
        .route("/api/v1/clock", get(clock))
}

pub(super) fn metrics_routes() -> Router<Arc<Node>> {
    Router::new().route("/metrics", get(metrics))
}

async fn health(State(node): Behind) -> Response {
    let (word, running, healthy) = match node.state() {
        NodeState::Stopped => ("STOPPED", false, false),
        NodeState::Inference(_) => ("INFERENCE", true, true),
        NodeState::Broken { .. } => ("INFERENCE", true, false),
    };
    let devices = device_list(&node).await;
    // A server finds its GPU by itself.
    let gpu = !devices.is_empty() || matches!(node.inference, Inference::Upstream(_));
    let well = gpu && running == healthy;
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let (ready, replicas) = node.inference.replicas_ready();
    let view = json!({
        "status": if well { "healthy" } else { "unhealthy" },
        // Some of the rig's GPUs answer and some do not.
        "degraded": running && healthy && ready < replicas,
        "replicas": {"ready": ready, "count": replicas},
        "service_state": word,
        "gpu": {"available": gpu, "count": devices.len(), "devices": devices},
        "managers": {
            "inference": {"running": running, "healthy": healthy},
            "train": {"running": false, "healthy": false},
        },
    });
    (status, Json(view)).into_response()
}

async fn ready(State(node): Behind) -> Response {
    match node.state() {
        NodeState::Stopped | NodeState::Inference(_) => {
            Json(json!({"ready": true})).into_response()
        }
        NodeState::Broken { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false}))).into_response()
        }
    }
}

fn unix_nanos() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

async fn clock() -> Response {
    let received = unix_nanos();
    let mut response = empty(StatusCode::NO_CONTENT);
    for (name, nanos) in [("x-server-recv-ns", received), ("x-server-send-ns", unix_nanos())] {
        if let Ok(value) = nanos.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Prometheus text, format 0.0.4.
async fn metrics(State(node): Behind) -> Response {
    let mut page = Page::default();
    page.gauge("gonka_metrics_schema_info", "Version of these families", "version=\"1\"", 1);
    let version = format!("version=\"{CONTRACT_VERSION}\"");
    page.gauge("mlnode_version_info", "Contract this node follows", &version, 1);
    let name = "mlnode_source_scrape_timestamp_seconds";
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    page.gauge(name, "When the source was read", "source=\"engine\"", seconds);
    if let Some(info) = node.model() {
        let labels = format!(
            "model_name=\"{}\",dtype=\"{}\",replicas=\"{}\",max_num_seqs=\"{}\",max_model_len=\"{}\",tensor_parallel_size=\"1\",pipeline_parallel_size=\"{}\"",
            escaped(&info.served_as),
            if matches!(node.inference, Inference::Own { .. }) { "gguf" } else { "unknown" },
            node.inference.replicas_ready().1,
            info.answers_max,
            info.context_tokens,
            info.adapters.len()
        );
        page.gauge("mlnode_config_info", "What is loaded", &labels, 1);
    }
    engine_info(&node, &mut page);
    let up = u64::from(node.model().is_some());
    page.gauge("roadbed_model_up", "1 while a model answers", "", up);
    page.gauge(
        "roadbed_open_jobs",
        "Chats that wait or run",
        "",
        node.inference.open_jobs() as u64,
    );
    let now = node.inference.occupancy();
    for (name, help, value) in [
        ("roadbed_answers_running", "Answers under way together", now.running),
        ("roadbed_jobs_waiting", "Chats that wait", now.waiting),
        ("roadbed_kv_pages_free", "Pages of the KV cache that no answer holds", now.pages_free),
        ("roadbed_kv_pages", "Pages of the KV cache", now.pages),
    ] {
        page.gauge(name, help, "", value as u64);
    }
    let engine = node.inference.stats();
    let proof = node.inference.proof_counters();
    for (name, help, value) in [
        ("roadbed_completions_total", "Answers given in full", engine.completions),
        ("roadbed_tokens_total", "Tokens generated", engine.tokens),
        ("roadbed_prompt_tokens_total", "Prompt tokens read", engine.prompt_tokens),
        ("roadbed_jobs_refused_total", "Chats refused for a full queue", engine.refused),
        ("roadbed_jobs_cancelled_total", "Chats nobody waited for", engine.cancelled),
        ("roadbed_jobs_failed_total", "Chats that failed by our fault", engine.failed),
        ("roadbed_artifacts_total", "Artifacts computed", engine.artifacts),
        ("roadbed_nonces_dropped_total", "Nonces that gave NaN", engine.nonces_dropped),
        ("roadbed_artifacts_delivered_total", "Artifacts delivered", proof.delivered),
        ("roadbed_callback_failures_total", "Callbacks not taken", proof.failed_posts),
        ("roadbed_callback_refusals_total", "Payloads refused with a 4xx", proof.refused_payloads),
        ("roadbed_artifacts_refused_total", "Artifacts set aside after refusals", proof.refused),
        (
            "roadbed_artifacts_dropped_total",
            "Artifacts a full buffer had no place for",
            proof.dropped,
        ),
        ("roadbed_artifacts_discarded_total", "Artifacts unsent at a stop", proof.discarded),
    ] {
        page.counter(name, help, value);
    }
    proof_status(node.inference.proof_status().as_ref(), &mut page);
    proof_rates(&node.inference.proof_rates(), &mut page);
    if let Inference::Own { engine, .. } = &node.inference {
        replicas(&engine.replicas(), &mut page);
    }
    node.metrics.write(&mut page);
    if let Some(service) = node.embeddings() {
        count_embeddings(&mut page, service);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text)
        .into_response()
}

/// What `pow/status` says and since when: a round that nobody stops keeps the next one from being started.
fn proof_status(status: Option<&ProofStatus>, page: &mut Page) {
    let Some(ProofStatus { activity, since, round: _ }) = status else { return };
    let word = match activity {
        ProofActivity::Absent => "absent",
        ProofActivity::Idle => "idle",
        ProofActivity::Validating => "validating",
        ProofActivity::Generating => "generating",
    };
    let label = format!("activity=\"{word}\"");
    page.gauge("roadbed_proof_activity", "What is done of proofs", &label, 1);
    let seconds = u64::try_from(since.0 / 1000).unwrap_or_default();
    let help = "When that began, in seconds since 1970";
    page.gauge("roadbed_proof_activity_since_seconds", help, "", seconds);
}

/// How fast this rig proves; a few lines, for figures of other models stay known.
fn proof_rates(rates: &[MeasuredRate], page: &mut Page) {
    if rates.is_empty() {
        return;
    }
    let labels: Vec<String> = rates
        .iter()
        .map(|rate| {
            let RateOf { model, seq_len, max_tokens, adapters } = &rate.of;
            let gpus = escaped(&adapters.join(" + "));
            let model = escaped(model);
            format!(
                "model=\"{model}\",seq_len=\"{seq_len}\",max_tokens=\"{max_tokens}\",gpus=\"{gpus}\""
            )
        })
        .collect();
    let help = "Nonces proved a minute of wall time, median of recent steps, in thousandths";
    let values = labels.iter().zip(rates.iter().map(|rate| rate.millinonces_per_minute));
    page.family("roadbed_proof_millinonces_per_minute", help, "gauge", values);
    let help = "When that was measured, in seconds since 1970";
    let seconds =
        |rate: &MeasuredRate| u64::try_from(rate.measured_at.0 / 1000).unwrap_or_default();
    let values = labels.iter().zip(rates.iter().map(seconds));
    page.family("roadbed_proof_rate_measured_seconds", help, "gauge", values);
}

/// Each replica by itself; as many lines as there are GPUs at most.
fn replicas(replicas: &[ReplicaView], page: &mut Page) {
    let labels: Vec<String> = replicas
        .iter()
        .map(|replica| {
            let names: Vec<String> = replica.adapters.iter().map(ToString::to_string).collect();
            format!("replica=\"{}\",gpus=\"{}\"", replica.number, escaped(&names.join(" + ")))
        })
        .collect();
    let mut family = |name: &str, help: &str, kind, value: fn(&ReplicaView) -> u64| {
        let values = labels.iter().zip(replicas.iter().map(value));
        page.family(name, help, kind, values);
    };
    let ready = |r: &ReplicaView| u64::from(matches!(r.standing, Standing::Ready(_)));
    family("roadbed_replica_up", "1 while the replica answers", "gauge", ready);
    let help = "Answers under way on the replica";
    family("roadbed_replica_answers_running", help, "gauge", |r| r.load.running as u64);
    let help = "Pages of the replica's KV cache that no answer holds";
    family("roadbed_replica_kv_pages_free", help, "gauge", |r| r.load.pages_free as u64);
    let help = "Tokens generated by the replica";
    family("roadbed_replica_tokens_total", help, "counter", |r| r.stats.tokens);
    let help = "Artifacts computed by the replica";
    family("roadbed_replica_artifacts_total", help, "counter", |r| r.stats.artifacts);
}

/// Which engine answers, and what only a server has.
fn engine_info(node: &Node, page: &mut Page) {
    let kind = node.inference.kind();
    let name = "roadbed_engine_info";
    let help = "What answers on this rig";
    match &node.inference {
        Inference::Own { .. } => page.gauge(name, help, &format!("engine=\"{kind}\""), 1),
        Inference::Upstream(server) => {
            let url = escaped(&server.url().to_string());
            let ours = server.is_ours();
            let labels = format!("engine=\"{kind}\",server=\"{url}\",supervised=\"{ours}\"");
            page.gauge(name, help, &labels, 1);
            let help = "Times the server was brought up again after it was lost";
            page.counter("roadbed_upstream_restarts_total", help, server.restarts());
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
