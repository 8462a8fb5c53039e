//! The three tasks of Gonka inside a controller: one asks, one draws the conclusions and tells the farm, one looks after
//! the proofs.

use std::sync::Arc;

use farm_core::FarmEvent;
use farm_core::gonka::GonkaFacts;
use farm_core::plan::Commitment;
use roadbed_protocol::Millis;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::adviser::Adviser;
use super::desk::{Desk, sights};
use super::feed::Feed;
use super::promised::Promised;
use super::view::GonkaView;
use crate::clock::FarmClock;
use crate::config::Site;
use crate::control::{Answer, Keeper, Record};
use crate::view::FarmView;

/// Farm time after which conclusions are drawn again though nothing was answered: ages grow, promises end.
const LOOK_EVERY: Millis = Millis::from_secs(15);
/// Where promises are kept.
const PROMISES_KEY: &str = "promises";

/// What others of the controller read.
#[derive(Debug, Clone)]
pub struct Told {
    /// All promises of the site, the file's and Gonka's, with what they pay.
    pub commitments: watch::Receiver<Arc<Vec<Commitment>>>,
    /// The picture for people; `None` for a site without a place on Gonka.
    pub view: watch::Receiver<Option<Arc<GonkaView>>>,
    /// The facts themselves.
    pub facts: watch::Receiver<Arc<GonkaFacts>>,
}

/// Where it is told to.
struct Telling {
    commitments: watch::Sender<Arc<Vec<Commitment>>>,
    view: watch::Sender<Option<Arc<GonkaView>>>,
}

/// A service that has not begun.
pub struct Service {
    site: Site,
    parts: Option<(Feed, Desk)>,
    telling: Telling,
    facts: watch::Sender<Arc<GonkaFacts>>,
    keeper: Arc<dyn Keeper>,
    /// What the adviser wrote down before, among the rest.
    kept: Vec<Answer>,
}

impl Service {
    /// Takes up what was kept. What was promised before is told at once.
    #[must_use]
    pub fn new(site: &Site, kept: &[Answer], keeper: Arc<dyn Keeper>) -> (Self, Told) {
        let promised = kept.iter().find(|answer| answer.key == PROMISES_KEY);
        let promised =
            promised.map_or_else(Promised::default, |kept| Promised::from_document(&kept.body));
        let first = all_commitments(site, promised.commitments());
        let parts = site.gonka.as_ref().and_then(|gonka| {
            let feed = Feed::new(gonka, site.clock, kept, Some(Arc::clone(&keeper)));
            Some((feed, Desk::new(site, promised)?))
        });
        let (commitments, commitments_out) = watch::channel(Arc::new(first));
        let (view, view_out) = watch::channel(None);
        let (facts, facts_out) = watch::channel(Arc::default());
        let told = Told { commitments: commitments_out, view: view_out, facts: facts_out };
        let telling = Telling { commitments, view };
        let (site, kept) = (site.clone(), kept.to_vec());
        (Self { site, parts, telling, facts, keeper, kept }, told)
    }

    /// Runs until `cancel` fires; a site without a place on Gonka only waits for that.
    pub fn start(
        self,
        views: watch::Receiver<FarmView>,
        events: mpsc::Sender<FarmEvent>,
        cancel: CancellationToken,
    ) -> JoinHandle<()> {
        tokio::spawn(async move {
            let Some((feed, desk)) = self.parts else {
                cancel.cancelled().await;
                return;
            };
            let facts = self.facts.subscribe();
            let asking = tokio::spawn(feed.run(self.facts, cancel.clone()));
            let adviser = Adviser::new(
                Arc::new(self.site.clone()),
                views.clone(),
                facts.clone(),
                events.clone(),
                Arc::clone(&self.keeper),
                &self.kept,
            );
            let advising = tokio::spawn(adviser.run(cancel.clone()));
            let concluding = Concluding {
                site: self.site,
                desk,
                telling: self.telling,
                keeper: self.keeper,
                kept: String::new(),
            };
            concluding.run(facts, views, events, cancel).await;
            if let Err(error) = asking.await {
                tracing::error!(%error, "the task that asks the Network Node ended by a panic");
            }
            if let Err(error) = advising.await {
                tracing::error!(%error, "the task that looks after the proofs ended by a panic");
            }
        })
    }
}

/// The file's promises and Gonka's.
fn all_commitments(site: &Site, gonka: Vec<Commitment>) -> Vec<Commitment> {
    site.commitments.iter().cloned().chain(gonka).collect()
}

struct Concluding {
    site: Site,
    desk: Desk,
    telling: Telling,
    keeper: Arc<dyn Keeper>,
    /// The promises as last kept.
    kept: String,
}

impl Concluding {
    async fn run(
        mut self,
        mut facts: watch::Receiver<Arc<GonkaFacts>>,
        views: watch::Receiver<FarmView>,
        events: mpsc::Sender<FarmEvent>,
        cancel: CancellationToken,
    ) {
        let clock: FarmClock = self.site.clock;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = facts.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(clock.wall_span(LOOK_EVERY)) => {}
            }
            let known = Arc::clone(&facts.borrow_and_update());
            let rigs = sights(&views.borrow());
            let now = clock.now();
            let outcome = self.desk.look(&known, &rigs, now);
            self.keep(now).await;
            let all = all_commitments(&self.site, outcome.commitments);
            self.telling.commitments.send_if_modified(|told| {
                let is_new = **told != all;
                if is_new {
                    *told = Arc::new(all);
                }
                is_new
            });
            self.telling.view.send_replace(Some(Arc::new(outcome.view)));
            for alert in outcome.alerts {
                if events.send(FarmEvent::Noticed(alert)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// A promise is kept before the farm acts on it.
    async fn keep(&mut self, now: roadbed_protocol::UnixMillis) {
        let document = self.desk.document();
        if document == self.kept {
            return;
        }
        let body = document.clone();
        let record = Record::Gonka { key: PROMISES_KEY.to_owned(), at: now, body };
        match self.keeper.keep(vec![record]).await {
            Ok(()) => self.kept = document,
            Err(error) => tracing::warn!(%error, "promises outlive no restart"),
        }
    }
}
