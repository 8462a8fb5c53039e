//! The task that asks for the hashprice again and again, and tells the farm when there is none any more.

use std::sync::Arc;
use std::time::Duration;

use farm_core::FarmEvent;
use farm_core::farm::Alert;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Asker, Kept, Reading};
use crate::clock::FarmClock;
use crate::config::{Hashprice, Site};

/// Shortest wall time between two looks: a fast clock must not make this a flood.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Wall time between two looks while the source fails.
const PAUSE_FAILING: Duration = Duration::from_secs(30);
/// Name of the alert.
const ALERT_KEY: &str = "hashprice";

/// A service that has not begun.
pub struct Service {
    parts: Option<(Hashprice, Asker)>,
    kept: Kept,
    clock: FarmClock,
    told: watch::Sender<Option<Arc<Reading>>>,
}

impl Service {
    /// Takes up what was kept. A site whose figure is written down needs no task.
    #[must_use]
    pub fn new(site: &Site) -> (Self, watch::Receiver<Option<Arc<Reading>>>) {
        let asked = site.income.hashprice.as_ref().filter(|it| it.written().is_none());
        let parts = asked.map(|hashprice| (hashprice.clone(), Asker::new(&hashprice.from)));
        let kept = Kept::in_folder(&site.state_dir);
        let (clock, now) = (site.clock, site.clock.now());
        let standing = parts.as_ref().and_then(|(hashprice, _)| {
            kept.read().filter(|reading| reading.stands(now, hashprice.hold)).map(Arc::new)
        });
        let (told, readings) = watch::channel(standing);
        (Self { parts, kept, clock, told }, readings)
    }

    /// Runs until `cancel` fires.
    pub async fn run(self, events: mpsc::Sender<FarmEvent>, cancel: CancellationToken) {
        let Some((hashprice, mut asker)) = self.parts else { return };
        let mut missing = false;
        loop {
            let asked = tokio::select! {
                () = cancel.cancelled() => return,
                asked = asker.ask(self.clock.now()) => asked,
            };
            let (pause, trouble) = match asked {
                Ok(reading) => {
                    if let Err(error) = self.kept.write(&reading) {
                        tracing::warn!(%error, "the hashprice outlives no restart");
                    }
                    self.told.send_replace(Some(Arc::new(reading)));
                    (self.clock.wall_span(hashprice.every).max(PAUSE_MIN), None)
                }
                Err(error) => {
                    tracing::warn!(%error, "no hashprice; the last one stands for a time");
                    let now = self.clock.now();
                    self.told.send_if_modified(|told| {
                        told.take_if(|reading| !reading.stands(now, hashprice.hold)).is_some()
                    });
                    (PAUSE_FAILING, Some(error.to_string()))
                }
            };
            let none = self.told.borrow().is_none();
            if none != missing {
                missing = none;
                let text = match trouble {
                    Some(trouble) if none => {
                        format!("there is no hashprice, so nothing is earned by hashing: {trouble}")
                    }
                    Some(_) | None => "there is a hashprice again".to_owned(),
                };
                let alert = Alert { key: ALERT_KEY.to_owned(), rig: None, active: none, text };
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
