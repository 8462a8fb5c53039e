//! Downloads that a Network Node asked for: at most a few at once, each with its progress, each can be broken off.
//!
//! A model is named as the network names it, `org/repo` and perhaps a commit. One of our catalogue comes from its package,
//! every other one from the Hugging Face Hub. `HF_HUB_OFFLINE` switches fetching off, as it does for the network's nodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::engine::catalogue::{CatalogueEntry, ModelStore};
use crate::engine::pull::{Hub, HubPull, HubSource, Patience, PullError, PullStep, pull_from_hub};
use crate::engine::{pull, remove};

/// Downloads at once, as in the network's own nodes.
const DOWNLOADS_MAX: usize = 3;
/// Failed downloads remembered, for `models/status` to say why; the oldest go first.
const FAILURES_KEPT_MAX: usize = 64;

/// Where models come from.
#[derive(Clone)]
pub enum ModelHub {
    /// Nothing is fetched.
    Offline,
    /// This Hub.
    Hub(Box<Hub>),
}

impl ModelHub {
    /// `HF_HUB_OFFLINE`, `HF_ENDPOINT` and `HF_TOKEN`.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn from_environment() -> Result<Self, PullError> {
        let word = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
        if matches!(word.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes") {
            return Ok(Self::Offline);
        }
        Ok(Self::Hub(Box::new(Hub::from_environment(Patience::default())?)))
    }
}

/// What is fetched.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Catalogue(&'static CatalogueEntry),
    Hub(HubSource),
}

/// Why a download does not begin.
pub(super) enum Busy {
    /// It is under way.
    Same,
    /// Too many are.
    TooMany,
}

impl Busy {
    pub(super) fn message(&self, repo: &str) -> String {
        match self {
            Self::Same => format!("Model {repo} is already downloading"),
            Self::TooMany => format!("Maximum concurrent downloads ({DOWNLOADS_MAX}) reached"),
        }
    }
}

struct Download {
    began: Instant,
    began_unix: f64,
    /// Bytes that came.
    bytes: Arc<AtomicU64>,
    broken_off: Arc<AtomicBool>,
    stage: Stage,
}

enum Stage {
    /// The task is noted a moment after it began.
    Fetching(Option<AbortHandle>),
    Failed(String),
}

/// What `models/status` says of a download.
pub(super) enum Seen {
    /// Its progress.
    Fetching(Value),
    /// Why it failed.
    Failed(String),
}

/// Downloads under way and failed, by name.
#[derive(Clone, Default)]
pub(in super::super) struct Downloads(Arc<Mutex<BTreeMap<String, Download>>>);

impl Downloads {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Download>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self, name: &str) -> Option<Seen> {
        self.lock().get(name).map(|download| match &download.stage {
            Stage::Fetching(_) => Seen::Fetching(json!({
                "start_time": download.began_unix,
                "elapsed_seconds": download.began.elapsed().as_secs_f64(),
                "downloaded_bytes": download.bytes.load(Ordering::Relaxed),
            })),
            Stage::Failed(reason) => Seen::Failed(reason.clone()),
        })
    }

    /// Begins a download; it goes on when the caller is gone.
    pub(super) fn begin(
        &self,
        name: &str,
        wanted: Wanted,
        hub: Hub,
        store: ModelStore,
    ) -> Result<(), Busy> {
        let (bytes, broken_off) = self.admit(name)?;
        let (downloads, key) = (self.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let fetched = fetch(wanted, hub, store, bytes, broken_off).await;
            downloads.end(&key, fetched);
        });
        if let Some(Download { stage: Stage::Fetching(handle), .. }) = self.lock().get_mut(name) {
            *handle = Some(task.abort_handle());
        }
        Ok(())
    }

    fn admit(&self, name: &str) -> Result<(Arc<AtomicU64>, Arc<AtomicBool>), Busy> {
        let mut all = self.lock();
        let fetching = |download: &Download| matches!(download.stage, Stage::Fetching(_));
        if all.get(name).is_some_and(fetching) {
            return Err(Busy::Same);
        }
        if all.values().filter(|download| fetching(download)).count() >= DOWNLOADS_MAX {
            return Err(Busy::TooMany);
        }
        while all.len() >= FAILURES_KEPT_MAX {
            let failed = all.iter().filter(|(_, download)| !fetching(download));
            let oldest = failed.min_by_key(|(_, d)| d.began).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { break };
            all.remove(&oldest);
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let download = Download {
            began: Instant::now(),
            began_unix: since_epoch.as_secs_f64(),
            bytes: Arc::default(),
            broken_off: Arc::default(),
            stage: Stage::Fetching(None),
        };
        let shared = (Arc::clone(&download.bytes), Arc::clone(&download.broken_off));
        all.insert(name.to_owned(), download);
        Ok(shared)
    }

    fn end(&self, name: &str, fetched: Result<(), String>) {
        let mut all = self.lock();
        match fetched {
            Ok(()) => {
                all.remove(name);
            }
            Err(reason) => {
                tracing::error!(reason, model = name, "the model was not fetched");
                if let Some(download) = all.get_mut(name) {
                    download.stage = Stage::Failed(reason);
                }
            }
        }
    }

    /// Breaks downloads of a model off; true if there was one. A failure is forgotten with it.
    pub(super) fn break_off(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        let mut all = self.lock();
        let mut found = false;
        all.retain(|name, download| {
            if !is_meant(name) {
                return true;
            }
            if let Stage::Fetching(handle) = &download.stage {
                found = true;
                download.broken_off.store(true, Ordering::Release);
                if let Some(handle) = handle {
                    handle.abort();
                }
            }
            false
        });
        found
    }
}

async fn fetch(
    wanted: Wanted,
    hub: Hub,
    store: ModelStore,
    bytes: Arc<AtomicU64>,
    broken_off: Arc<AtomicBool>,
) -> Result<(), String> {
    match wanted {
        Wanted::Catalogue(entry) => {
            let fetching = tokio::task::spawn_blocking(move || {
                let mut say = |step: &str| tracing::info!(model = entry.name, step);
                pull(&store, entry, &mut say).map_err(|error| error.to_string())?;
                // Its fetching is another program, which cannot be stopped half-way.
                if broken_off.load(Ordering::Acquire) {
                    remove(&store, entry).map_err(|error| error.to_string())?;
                }
                Ok(())
            });
            fetching.await.unwrap_or_else(|error| Err(error.to_string()))
        }
        Wanted::Hub(source) => {
            let order = HubPull { hub: &hub, store: &store, source: &source };
            let mut whole = 0;
            let mut told = |step: PullStep| match step {
                PullStep::Said(line) => tracing::info!(model = %source, line),
                PullStep::Begins { .. } => {}
                PullStep::At(done) => bytes.store(whole + done, Ordering::Relaxed),
                PullStep::Ends(done) => {
                    whole += done;
                    bytes.store(whole, Ordering::Relaxed);
                }
            };
            pull_from_hub(order, &mut told).await.map(drop).map_err(|error| error.to_string())
        }
    }
}
