//! Models on this machine, under their network names: what is here, what is on its way, what may go.

use std::sync::Arc;

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
use super::downloads::{ModelHub, Seen, Wanted};
use crate::engine::catalogue::{CATALOGUE, ModelStore, entry};
use crate::engine::pull::{HubFolder, HubSource};
use crate::engine::remove;
use crate::engine::space::free_bytes;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/api/v1/models/status", post(status))
        .route("/api/v1/models/download", post(download))
        .route("/api/v1/models", delete(forget))
        .route("/api/v1/models/list", get(list))
        .route("/api/v1/models/space", get(space))
}

/// `{"hf_repo", "hf_commit"}`.
struct ModelName {
    repo: String,
    commit: Option<String>,
}

/// How much of a model is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Part,
    Whole,
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

    /// The reference's name of a download.
    fn task(&self) -> String {
        format!("{}:{}", self.repo, self.commit.as_deref().unwrap_or("latest"))
    }

    /// What it names, or why it names nothing.
    fn wanted(&self) -> Result<Wanted, String> {
        if let Some(entry) = entry(&self.repo) {
            return Ok(Wanted::Catalogue(entry));
        }
        if self.repo.contains([':', '@']) {
            return Err(format!("{:?} is not of the form org/name", self.repo));
        }
        let revision = self.commit.as_ref().map_or_else(String::new, |commit| format!("@{commit}"));
        let source = format!("hf:{}{revision}", self.repo).parse::<HubSource>();
        source.map(Wanted::Hub).map_err(|error| error.to_string())
    }

    fn held(&self, store: &ModelStore) -> Held {
        match self.wanted() {
            Ok(Wanted::Catalogue(entry)) if store.holds(entry) => Held::Whole,
            Ok(Wanted::Hub(source)) => held_of_hub(store, &source, self.commit.as_deref()),
            Ok(Wanted::Catalogue(_)) | Err(_) => Held::Nothing,
        }
    }
}

fn held_of_hub(store: &ModelStore, source: &HubSource, commit: Option<&str>) -> Held {
    let folder = store.folder_of(source);
    if !folder.is_dir() {
        return Held::Nothing;
    }
    let Some(pulled) = HubFolder::load(&folder) else { return Held::Part };
    let of_commit = |file: &&crate::engine::pull::PulledFile| {
        commit.is_none_or(|commit| commit == "main" || file.commit.starts_with(commit))
    };
    if pulled.files.iter().filter(of_commit).count() < pulled.files.len() {
        // Another commit of it is here.
        return Held::Nothing;
    }
    let whole = !pulled.models().is_empty() && !has_parts(&folder);
    if whole { Held::Whole } else { Held::Part }
}

/// Whether a file of the folder is still on its way.
fn has_parts(folder: &std::path::Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|end| end == "part"))
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
    let (mut progress, mut error) = (Value::Null, Value::Null);
    let mut word = match name.held(store) {
        Held::Nothing => "NOT_FOUND",
        Held::Part => "PARTIAL",
        Held::Whole => "DOWNLOADED",
    };
    match node.downloads.seen(&name.task()) {
        Some(Seen::Fetching(view)) => {
            word = "DOWNLOADING";
            progress = view;
        }
        Some(Seen::Failed(reason)) => error = json!(reason),
        None => {}
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
    let wanted = match name.wanted() {
        Ok(wanted) => wanted,
        Err(message) => return detail(StatusCode::BAD_REQUEST, message),
    };
    let accepted = |task: String, word: &str| {
        let view = json!({"task_id": task, "status": word, "model": name.view()});
        (StatusCode::ACCEPTED, Json(view)).into_response()
    };
    let hub = match node.hub() {
        Ok(ModelHub::Hub(hub)) => *hub,
        Ok(ModelHub::Offline) => return accepted(format!("{}:offline", name.task()), "IGNORED"),
        Err(error) => return detail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let fetching = matches!(node.downloads.seen(&name.task()), Some(Seen::Fetching(_)));
    if !fetching && name.held(store) == Held::Whole {
        return accepted(name.task(), "DOWNLOADED");
    }
    match node.downloads.begin(&name.task(), wanted, hub, store.clone()) {
        Ok(()) => accepted(name.task(), "DOWNLOADING"),
        Err(busy) => {
            let status = match busy {
                super::downloads::Busy::Same => StatusCode::CONFLICT,
                super::downloads::Busy::TooMany => StatusCode::TOO_MANY_REQUESTS,
            };
            detail(status, busy.message(&name.repo))
        }
    }
}

async fn forget(State(node): Behind, body: WholeBody) -> Response {
    let name = match ModelName::read(&body) {
        Ok(name) => name,
        Err(fault) => return unprocessable(&fault),
    };
    let Some(store) = &node.store else { return no_store() };
    let unknown = || detail(StatusCode::NOT_FOUND, format!("{} is not here", name.repo));
    let Ok(wanted) = name.wanted() else { return unknown() };
    if node.model().is_some_and(|info| name.repo == info.served_as) {
        return detail(StatusCode::CONFLICT, format!("{} is in use", name.repo));
    }
    // Without a commit every version is meant.
    let (task, every) = (name.task(), format!("{}:", name.repo));
    let is_meant = |other: &str| {
        if name.commit.is_some() { other == task } else { other.starts_with(&every) }
    };
    let broken_off = node.downloads.break_off(is_meant);
    let removed = match wanted {
        Wanted::Catalogue(entry) => remove(store, entry).map_err(|error| error.to_string()),
        Wanted::Hub(_) if name.held(store) == Held::Nothing => Ok(false),
        Wanted::Hub(source) => store
            .removal(&format!("hf:{}", source.repo()))
            .and_then(crate::engine::inventory::Removal::carry_out)
            .map(|()| true)
            .map_err(|error| error.to_string()),
    };
    let gone = |word| Json(json!({"status": word, "model": name.view()})).into_response();
    match removed {
        Err(reason) => detail(StatusCode::INTERNAL_SERVER_ERROR, reason),
        Ok(_) if broken_off => gone("cancelled"),
        Ok(true) => gone("deleted"),
        Ok(false) => unknown(),
    }
}

async fn list(State(node): Behind) -> Response {
    let Some(store) = &node.store else { return no_store() };
    let of_catalogue = CATALOGUE.iter().filter(|entry| store.holds(entry));
    let mut models: Vec<Value> =
        of_catalogue.map(|entry| listed(entry.served_as, None, "DOWNLOADED")).collect();
    let folders = std::fs::read_dir(store.root()).into_iter().flatten().flatten();
    let mut folders: Vec<_> = folders.map(|entry| entry.path()).collect();
    folders.sort();
    for folder in folders {
        let Some(pulled) = HubFolder::load(&folder) else { continue };
        let commit = pulled.files.first().map(|file| file.commit.as_str());
        let whole = !pulled.models().is_empty() && !has_parts(&folder);
        models.push(listed(&pulled.repo, commit, if whole { "DOWNLOADED" } else { "PARTIAL" }));
    }
    Json(json!({ "models": models })).into_response()
}

fn listed(repo: &str, commit: Option<&str>, word: &str) -> Value {
    json!({"model": {"hf_repo": repo, "hf_commit": commit}, "status": word})
}

async fn space(State(node): Behind) -> Response {
    let Some(store) = &node.store else { return no_store() };
    let gigabytes = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    let held: u64 = store.installed().iter().map(|model| model.bytes).sum();
    Json(json!({
        "cache_size_gb": gigabytes(held),
        "available_gb": free_bytes(store.root()).map(gigabytes),
        "cache_path": store.root().display().to_string(),
    }))
    .into_response()
}
