//! Models on this machine: those of the catalogue, under their network names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::super::body::{BodyFault, read_body};
use super::super::door::WholeBody;
use super::super::node::Node;
use super::super::reply::{detail, unprocessable};
use super::Behind;
use crate::engine::catalogue::{CATALOGUE, CatalogueEntry, ModelStore, entry};
use crate::engine::space::free_bytes;
use crate::engine::{pull, remove};

/// Downloads at once, as in the network's own nodes.
const DOWNLOADS_MAX: usize = 3;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/api/v1/models/status", post(status))
        .route("/api/v1/models/download", post(download))
        .route("/api/v1/models", delete(forget))
        .route("/api/v1/models/list", get(list))
        .route("/api/v1/models/space", get(space))
}

/// Downloads under way and failed; at most one entry per model of the catalogue.
#[derive(Default)]
pub(in super::super) struct Downloads(Mutex<BTreeMap<&'static str, Download>>);

struct Download {
    began: Instant,
    began_unix: f64,
    error: Option<String>,
}

impl Downloads {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Download>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ModelName {
    repo: String,
    commit: Option<String>,
}

impl ModelName {
    fn read(body: &[u8]) -> Result<Self, BodyFault> {
        read_body(body, |fields| {
            let repo = fields.required("hf_repo");
            let commit = fields.optional("hf_commit");
            Some(Self { repo: repo?, commit })
        })
    }

    fn view(&self) -> Value {
        json!({"hf_repo": self.repo, "hf_commit": self.commit})
    }
}

fn no_store() -> Response {
    detail(StatusCode::SERVICE_UNAVAILABLE, "this node has no directory for models")
}

async fn status(State(node): Behind, body: WholeBody) -> Response {
    let name = match ModelName::read(&body) {
        Ok(name) => name,
        Err(fault) => return unprocessable(&fault),
    };
    let Some(store) = &node.store else { return no_store() };
    let mut word = "NOT_FOUND";
    let (mut progress, mut error) = (Value::Null, Value::Null);
    if let Some(entry) = entry(&name.repo) {
        if let Some(download) = node.downloads.lock().get(entry.name) {
            match &download.error {
                Some(reason) => error = json!(reason),
                None => {
                    word = "DOWNLOADING";
                    let elapsed = download.began.elapsed().as_secs_f64();
                    progress =
                        json!({"start_time": download.began_unix, "elapsed_seconds": elapsed});
                }
            }
        }
        if progress.is_null() && store.holds(entry) {
            word = "DOWNLOADED";
        }
    }
    let view = name.view();
    Json(json!({"model": view, "status": word, "progress": progress, "error_message": error}))
        .into_response()
}

async fn download(State(node): Behind, body: WholeBody) -> Response {
    let name = match ModelName::read(&body) {
        Ok(name) => name,
        Err(fault) => return unprocessable(&fault),
    };
    let Some(store) = &node.store else { return no_store() };
    let Some(entry) = entry(&name.repo) else {
        let known: Vec<&str> = CATALOGUE.iter().map(|entry| entry.served_as).collect();
        let message = format!("{} cannot be fetched here; known: {}", name.repo, known.join(", "));
        return detail(StatusCode::NOT_FOUND, message);
    };
    if store.holds(entry) {
        return detail(StatusCode::CONFLICT, format!("{} is already downloaded", name.repo));
    }
    {
        let mut downloads = node.downloads.lock();
        let under_way = |download: &Download| download.error.is_none();
        if downloads.get(entry.name).is_some_and(under_way) {
            return detail(StatusCode::CONFLICT, format!("{} is being downloaded", name.repo));
        }
        if downloads.values().filter(|download| under_way(download)).count() >= DOWNLOADS_MAX {
            let message = format!("{DOWNLOADS_MAX} downloads are under way");
            return detail(StatusCode::TOO_MANY_REQUESTS, message);
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_unix = since_epoch.as_secs_f64();
        let download = Download { began: Instant::now(), began_unix, error: None };
        downloads.insert(entry.name, download);
    }
    let (store, behind) = (store.clone(), Arc::clone(&node));
    tokio::task::spawn_blocking(move || fetch(&store, entry, &behind.downloads));
    let commit = name.commit.as_deref().unwrap_or("latest");
    let task_id = format!("{}:{commit}", name.repo);
    let view = json!({"task_id": task_id, "status": "DOWNLOADING", "model": name.view()});
    (StatusCode::ACCEPTED, Json(view)).into_response()
}

fn fetch(store: &ModelStore, entry: &'static CatalogueEntry, downloads: &Downloads) {
    let outcome = pull(store, entry, &mut |step| tracing::info!(model = entry.name, step));
    let mut downloads = downloads.lock();
    match outcome {
        Ok(_path) => {
            downloads.remove(entry.name);
        }
        Err(error) => {
            tracing::error!(%error, model = entry.name, "the model was not fetched");
            if let Some(download) = downloads.get_mut(entry.name) {
                download.error = Some(error.to_string());
            }
        }
    }
}

async fn forget(State(node): Behind, body: WholeBody) -> Response {
    let name = match ModelName::read(&body) {
        Ok(name) => name,
        Err(fault) => return unprocessable(&fault),
    };
    let Some(store) = &node.store else { return no_store() };
    let Some(entry) = entry(&name.repo) else {
        return detail(StatusCode::NOT_FOUND, format!("{} is not known", name.repo));
    };
    if node.model().is_some_and(|info| entry.served_as == info.served_as) {
        return detail(StatusCode::CONFLICT, format!("{} is in use", name.repo));
    }
    match remove(store, entry) {
        Ok(true) => Json(json!({"status": "deleted", "model": name.view()})).into_response(),
        Ok(false) => detail(StatusCode::NOT_FOUND, format!("{} is not here", name.repo)),
        Err(error) => detail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn list(State(node): Behind) -> Response {
    let Some(store) = &node.store else { return no_store() };
    let models: Vec<Value> = CATALOGUE
        .iter()
        .filter(|entry| store.holds(entry))
        .map(|entry| {
            let model = json!({"hf_repo": entry.served_as, "hf_commit": null});
            json!({"model": model, "status": "DOWNLOADED"})
        })
        .collect();
    Json(json!({ "models": models })).into_response()
}

async fn space(State(node): Behind) -> Response {
    let Some(store) = &node.store else { return no_store() };
    let gigabytes = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    let held: u64 =
        CATALOGUE.iter().filter(|entry| store.holds(entry)).map(|entry| entry.bytes).sum();
    Json(json!({
        "cache_size_gb": gigabytes(held),
        "available_gb": free_bytes(store.root()).map(gigabytes),
        "cache_path": store.root().display().to_string(),
    }))
    .into_response()
}
