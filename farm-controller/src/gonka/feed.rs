//! The task that asks: one question at a time, each at its own pace, of the first Network Node that answers.
//!
//! What was answered is kept in the store, so that a restart knows it with its age. Paces are farm time, so that a fast
//! clock gets its epochs; the waits of a connection are the client's and wall time.

use std::sync::Arc;
use std::time::Duration;

use farm_core::gonka::{BlockMoment, GonkaFacts, Height};
use roadbed_protocol::{Millis, UnixMillis};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::{ClientError, NodeClient};
use super::question::Question;
use super::reader::{Answered, Reader};
use crate::clock::FarmClock;
use crate::config::GonkaSite;
use crate::control::{Answer, Keeper, Record};

/// Shortest wall time between two questions: a fast clock must not make the feed a flood.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest wall time without looking at the timetable.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The epoch's answer changes with every block; it is kept at most this often.
const EPOCH_KEPT_EVERY: Millis = Millis::from_mins(5);
/// Where the pace of blocks is kept.
const BLOCK_KEY: &str = "block";

/// The asking side of the feed.
pub struct Feed {
    nodes: Vec<NodeClient>,
    admin: Option<NodeClient>,
    /// The one that answered last.
    current: usize,
    reader: Reader,
    clock: FarmClock,
    keeper: Option<Arc<dyn Keeper>>,
    epoch_kept_at: Option<UnixMillis>,
}

impl Feed {
    /// A feed that knows what `kept` says. Without a keeper nothing outlives it.
    #[must_use]
    pub fn new(
        site: &GonkaSite,
        clock: FarmClock,
        kept: &[Answer],
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Self {
        let models = site.models();
        let questions: Vec<Question> = Question::all(models.len()).collect();
        let mut reader =
            Reader::new(&site.address, models, site.admin_url.is_some(), site.nodes.len() > 1);
        for answer in kept {
            let Ok(body) = serde_json::from_str::<Value>(&answer.body) else { continue };
            if answer.key == BLOCK_KEY
                && let Some(moment) = block_moment(&body)
            {
                reader.restore_block(moment);
            }
        }
        // In the order of questions: some answers are read with the help of others.
        for question in questions {
            let key = question.key();
            if let Some(answer) = kept.iter().find(|answer| answer.key == key)
                && let Ok(body) = serde_json::from_str(&answer.body)
            {
                reader.restore(question, &body, answer.at);
            }
        }
        let authorities = site.authorities.as_ref();
        Self {
            nodes: site.nodes.iter().map(|node| NodeClient::new(node, authorities)).collect(),
            admin: site.admin_url.as_deref().map(|url| NodeClient::new(url, authorities)),
            current: 0,
            reader,
            clock,
            keeper,
            epoch_kept_at: None,
        }
    }

    /// The same with another patience for one answer, wall time.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        let patient = |client: NodeClient| client.waiting(wait);
        self.nodes = self.nodes.into_iter().map(patient).collect();
        self.admin = self.admin.map(patient);
        self
    }

    /// What is known now.
    #[must_use]
    pub fn facts(&self) -> &GonkaFacts {
        self.reader.facts()
    }

    /// Asks everything that can be asked once: for a command that runs without a controller.
    pub async fn ask_all_once(&mut self) {
        let started = self.clock.now();
        // Some questions become askable by the answers to others, so this ends when none is overdue.
        for _ in 0..Question::all(self.reader.models().len()).count() * 2 {
            match self.reader.next() {
                Some((question, path, due)) if due <= started => self.ask(question, &path).await,
                Some(_) | None => return,
            }
        }
    }

    /// Asks until `cancel` fires, and tells of every answer.
    pub async fn run(mut self, facts: watch::Sender<Arc<GonkaFacts>>, cancel: CancellationToken) {
        loop {
            facts.send_replace(Arc::new(self.facts().clone()));
            let next = self.reader.next();
            let now = self.clock.now();
            let pause = next.as_ref().map_or(PAUSE_MAX, |(_, _, due)| {
                self.clock.wall_span(due.since(now)).clamp(PAUSE_MIN, PAUSE_MAX)
            });
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let Some((question, path, due)) = next else { continue };
            if due > self.clock.now() {
                continue;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.ask(question, &path) => {}
            }
        }
    }

    async fn ask(&mut self, question: Question, path: &str) {
        if question == Question::Comparison {
            self.compare(path).await;
            return;
        }
        let admin = self.admin.as_ref().filter(|_| question == Question::Nodes);
        let answered = match admin {
            Some(admin) => admin.get(path).await,
            None => self.ask_in_turn(path).await,
        };
        if let Err(error) = &answered {
            tracing::debug!(%error, "a Network Node gave no answer");
        }
        let now = self.clock.now();
        if self.reader.take(question, &answered, now)
            && let Ok(body) = answered
        {
            self.keep(question, &body, now).await;
        }
    }

    /// Asks the Network Node that answered last, then the others. Only silence leads on: a refusal is an answer, which the
    /// others, being in the same chain, would repeat.
    async fn ask_in_turn(&mut self, path: &str) -> Answered {
        let count = self.nodes.len();
        let mut last = None;
        for offset in 0..count {
            let place = (self.current + offset) % count;
            let node = &self.nodes[place];
            match node.get(path).await {
                Err(error @ (ClientError::Unreachable { .. } | ClientError::Unreadable { .. })) => {
                    last = last.or(Some(error));
                }
                answered => {
                    self.reader.answers(node.base());
                    self.current = place;
                    return answered;
                }
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Unreachable {
            url: path.to_owned(),
            reason: "no Network Node is configured".to_owned(),
        }))
    }

    async fn compare(&mut self, path: &str) {
        let mut said = Vec::new();
        for (place, node) in self.nodes.iter().enumerate() {
            if place != self.current {
                said.push((node.base().to_owned(), node.get(path).await));
            }
        }
        self.reader.compare(&said, self.clock.now());
    }

    async fn keep(&mut self, question: Question, body: &Value, now: UnixMillis) {
        let Some(keeper) = &self.keeper else { return };
        let mut records = Vec::new();
        if question == Question::Epoch {
            if self.epoch_kept_at.is_some_and(|at| now.since(at) < EPOCH_KEPT_EVERY) {
                return;
            }
            self.epoch_kept_at = Some(now);
            records.extend(self.reader.facts().block.map(|moment| Record::Gonka {
                key: BLOCK_KEY.to_owned(),
                at: moment.at,
                body: block_document(&moment).to_string(),
            }));
        }
        records.push(Record::Gonka { key: question.key(), at: now, body: body.to_string() });
        if let Err(error) = keeper.keep(records).await {
            tracing::warn!(%error, "what the Network Node said outlives no restart");
        }
    }
}

fn block_document(moment: &BlockMoment) -> Value {
    json!({ "height": moment.height.0, "at": moment.at.0, "block_time_ms": moment.block_time.0 })
}

fn block_moment(document: &Value) -> Option<BlockMoment> {
    Some(BlockMoment {
        height: Height(document["height"].as_i64()?),
        at: UnixMillis(document["at"].as_i64()?),
        block_time: Millis(document["block_time_ms"].as_u64().filter(|time| *time > 0)?),
    })
}
