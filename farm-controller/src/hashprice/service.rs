//! The task that asks a source of figures again and again, and tells the farm when there is none any more.

use std::sync::Arc;
use std::time::Duration;

use farm_core::FarmEvent;
use farm_core::farm::Alert;
use roadbed_protocol::{Millis, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{AskError, Kept};
use crate::clock::FarmClock;
use crate::config::Site;

/// Shortest wall time between two looks: a fast clock must not make this a flood.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Wall time between two looks while the source fails.
const PAUSE_FAILING: Duration = Duration::from_secs(30);

/// Whoever tells what hashing earns.
pub trait Source: Send + 'static {
    /// What it tells.
    type Reading: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Where the last reading is kept, in the state folder.
    const FILE: &'static str;
    /// What people are told.
    const WORDS: Words;

    /// Farm time for which the last reading stands when the source fails.
    fn hold(&self) -> Millis;

    /// Farm time between two looks.
    fn every(&self) -> Millis;

    /// When a reading was made, farm time.
    fn asked_at(reading: &Self::Reading) -> UnixMillis;

    /// Asks once.
    fn ask(
        &mut self,
        now: UnixMillis,
    ) -> impl Future<Output = Result<Self::Reading, AskError>> + Send;
}

/// What people are told of a source.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Name of the alert.
    pub key: &'static str,
    /// There is none; the reason comes after it.
    pub none: &'static str,
    /// There is one again.
    pub again: &'static str,
}

/// A service that has not begun.
pub struct Service<S: Source> {
    source: Option<S>,
    kept: Kept<S::Reading>,
    clock: FarmClock,
    told: watch::Sender<Option<Arc<S::Reading>>>,
}

impl<S: Source> Service<S> {
    /// Takes up what was kept. A site without such a source needs no task.
    #[must_use]
    pub fn new(site: &Site, source: Option<S>) -> (Self, watch::Receiver<Option<Arc<S::Reading>>>) {
        let kept = Kept::in_folder(&site.state_dir, S::FILE);
        let (clock, now) = (site.clock, site.clock.now());
        let standing = source.as_ref().and_then(|source| {
            let stands = |reading: &S::Reading| now.since(S::asked_at(reading)) <= source.hold();
            kept.read().filter(stands).map(Arc::new)
        });
        let (told, readings) = watch::channel(standing);
        (Self { source, kept, clock, told }, readings)
    }

    /// Runs until `cancel` fires.
    pub async fn run(self, events: mpsc::Sender<FarmEvent>, cancel: CancellationToken) {
        let Some(mut source) = self.source else { return };
        let mut missing = false;
        loop {
            let asked = tokio::select! {
                () = cancel.cancelled() => return,
                asked = source.ask(self.clock.now()) => asked,
            };
            let (pause, trouble) = match asked {
                Ok(reading) => {
                    if let Err(error) = self.kept.write(&reading) {
                        tracing::warn!(%error, key = S::WORDS.key, "a reading outlives no restart");
                    }
                    self.told.send_replace(Some(Arc::new(reading)));
                    (self.clock.wall_span(source.every()).max(PAUSE_MIN), None)
                }
                Err(error) => {
                    tracing::warn!(%error, key = S::WORDS.key, "no reading; the last one stands for a time");
                    let now = self.clock.now();
                    self.told.send_if_modified(|told| {
                        let old = |reading: &Arc<S::Reading>| {
                            now.since(S::asked_at(reading)) > source.hold()
                        };
                        told.take_if(|reading| old(reading)).is_some()
                    });
                    (PAUSE_FAILING, Some(error.to_string()))
                }
            };
            let none = self.told.borrow().is_none();
            if none != missing {
                missing = none;
                let text = match trouble {
                    Some(trouble) if none => {
                        format!("{}: {trouble}", S::WORDS.none)
                    }
                    Some(_) | None => S::WORDS.again.to_owned(),
                };
                let alert = Alert { key: S::WORDS.key.to_owned(), rig: None, active: none, text };
                if events.send(FarmEvent::Noticed(alert)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
