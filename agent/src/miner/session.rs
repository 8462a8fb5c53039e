//! A Stratum V1 conversation as a state machine: lines in, actions out. No socket, no clock.
//!
//! ```text
//! connected -> configure (optional), subscribe -> authorize -> jobs <-> shares
//! ```
//! Rules of the field (specs, hash-mining section 5): a new difficulty, extranonce or version mask
//! holds from the next job on; `clean_jobs` drops all older work at once; an answer may come after
//! any number of notifications; `mining.configure` is refused or ignored by old pools.

use std::collections::VecDeque;
use std::sync::Arc;

use roadbed_compute::hash::{Extranonce, Job, Roll, Target};
use roadbed_protocol::Millis;
use serde_json::{Value, json};

use super::message::{self, Refusal, ServerLine};
use super::share::{ShareBook, ShareTally};

/// Version bits we can roll, BIP 320.
const VERSION_MASK_WANTED: u32 = 0x1FFF_E000;
/// Jobs whose shares are still sent. Pools keep a few; a job that is older is stale anyway.
const JOBS_MAX: usize = 16;
/// Lines of one connection that may be no Stratum before it counts as none.
const GARBAGE_MAX: u32 = 50;
/// Refused shares in a row after which the connection is made anew: our idea of the extranonce or
/// of the difficulty and the pool's have parted.
const REFUSED_MAX: u32 = 20;
/// After this silence the pool is asked for a sign of life.
const PING_AFTER: Millis = Millis::from_secs(60);
/// After this silence the connection is dead. Pools send a job every 30 to 60 s.
const STALL_AFTER: Millis = Millis::from_secs(180);
/// How long the pool may take to let us in.
const LOGIN_WITHIN: Millis = Millis::from_secs(30);
/// Longest wait that a `client.reconnect` can impose.
const RECONNECT_WAIT_MAX: Millis = Millis::from_secs(300);
/// Difficulty of a pool that never says one, by Stratum's custom.
const DIFFICULTY_DEFAULT: f64 = 1.0;

/// Who we are to the pool.
#[derive(Clone)]
pub struct Login {
    /// Host we connected to; a reconnect to any other is refused.
    pub host: String,
    /// Worker name.
    pub user: String,
    /// Its password, often just `x`.
    pub password: String,
    /// Difficulty asked for, as a hint that the pool may ignore.
    pub suggest_difficulty: Option<f64>,
}

/// A job with everything a hash thread needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// The job.
    pub job: Job,
    /// Our corner of its search space.
    pub extranonce: Extranonce,
    /// Version bits that may be rolled.
    pub version_mask: u32,
    /// What a hash must meet to be a share.
    pub target: Target,
    /// The same as the pool counts it.
    pub difficulty: f64,
    /// Rises with every job of this miner, so that a late find is told from a fresh one.
    pub number: u64,
}

/// A hash that meets the target of its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find {
    /// Number of the work.
    pub work: u64,
    /// What was rolled.
    pub roll: Roll,
    /// The nonce.
    pub nonce: u32,
}

/// What the shell must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this line; its end is not in it.
    Send(String),
    /// Hash this from now on.
    Hash(Arc<Work>),
    /// Stop hashing until there is work again.
    Rest,
    /// Close the connection and come back.
    Close {
        /// Why, for people.
        reason: String,
        /// Another port of the same host, if the pool said so.
        port: Option<u16>,
        /// Wait at least this long.
        wait: Millis,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Offline,
    Subscribing,
    Authorizing,
    Mining,
}

/// The state of the conversation, and the books over all connections.
pub struct Session {
    login: Login,
    stage: Stage,
    since: Millis,
    heard: Millis,
    pinged: bool,
    requests: u64,
    configure: Option<u64>,
    subscribe: Option<u64>,
    authorize: Option<u64>,
    /// Set when a pool hung up on `mining.configure`.
    without_configure: bool,
    extranonce: Option<Extranonce>,
    version_mask: u32,
    difficulty: f64,
    jobs: VecDeque<Arc<Work>>,
    works: u64,
    book: ShareBook,
    garbage: u32,
    garbage_ever: u64,
    told: String,
}

impl Session {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(login: Login) -> Self {
        Self {
            login,
            stage: Stage::Offline,
            since: Millis::ZERO,
            heard: Millis::ZERO,
            pinged: false,
            requests: 0,
            configure: None,
            subscribe: None,
            authorize: None,
            without_configure: false,
            extranonce: None,
            version_mask: 0,
            difficulty: DIFFICULTY_DEFAULT,
            jobs: VecDeque::new(),
            works: 0,
            book: ShareBook::default(),
            garbage: 0,
            garbage_ever: 0,
            told: String::new(),
        }
    }

    /// Totals of shares over all connections.
    #[must_use]
    pub const fn tally(&self) -> ShareTally {
        self.book.tally()
    }

    /// Whether the pool has let us in.
    #[must_use]
    pub fn is_mining(&self) -> bool {
        self.stage == Stage::Mining
    }

    /// Difficulty of the newest work; zero before the first.
    #[must_use]
    pub fn difficulty(&self) -> f64 {
        self.jobs.back().map_or(0.0, |work| work.difficulty)
    }

    /// Jobs received over all connections.
    #[must_use]
    pub const fn works(&self) -> u64 {
        self.works
    }

    /// Lines that were no Stratum, over all connections.
    #[must_use]
    pub const fn garbage(&self) -> u64 {
        self.garbage_ever
    }

    /// The pool's last message for people; empty when there was none.
    #[must_use]
    pub fn told(&self) -> &str {
        &self.told
    }

    /// The socket is open.
    pub fn connected(&mut self, now: Millis) -> Vec<Action> {
        self.stage = Stage::Subscribing;
        (self.since, self.heard, self.pinged) = (now, now, false);
        self.garbage = 0;
        self.version_mask = 0;
        self.difficulty = DIFFICULTY_DEFAULT;
        (self.extranonce, self.authorize) = (None, None);
        let mut actions = Vec::new();
        self.configure = None;
        if !self.without_configure {
            let options = json!([["version-rolling"], {
                "version-rolling.mask": format!("{VERSION_MASK_WANTED:08x}"),
                "version-rolling.min-bit-count": 2,
            }]);
            self.configure = Some(self.request("mining.configure", options, &mut actions));
        }
        let agent = concat!("roadbed-agent/", env!("CARGO_PKG_VERSION"));
        self.subscribe = Some(self.request("mining.subscribe", json!([agent]), &mut actions));
        actions
    }

    /// The socket is closed, by whomever.
    pub fn disconnected(&mut self) -> Vec<Action> {
        // A pool that hangs up before it has answered anything may dislike `configure`.
        if self.stage == Stage::Subscribing {
            self.without_configure = !self.without_configure;
        }
        self.stage = Stage::Offline;
        self.jobs.clear();
        self.book.disconnected();
        vec![Action::Rest]
    }

    /// A line arrived.
    pub fn line(&mut self, now: Millis, line: &str) -> Vec<Action> {
        (self.heard, self.pinged) = (now, false);
        match message::read(line) {
            Ok(ServerLine::Answer { id, outcome }) => self.answered(id, outcome),
            Ok(ServerLine::Call { id, method, params }) => self.called(id, &method, &params),
            Err(error) => {
                tracing::debug!("pool: {error}");
                self.noise()
            }
        }
    }

    /// A line arrived that was too long to be read.
    pub fn line_too_long(&mut self, now: Millis) -> Vec<Action> {
        self.heard = now;
        self.noise()
    }

    /// Time passes; call about once a second.
    pub fn tick(&mut self, now: Millis) -> Vec<Action> {
        self.book.expire(now);
        let silence = now.0.saturating_sub(self.heard.0);
        let waited = now.0.saturating_sub(self.since.0);
        match self.stage {
            Stage::Offline => Vec::new(),
            Stage::Subscribing | Stage::Authorizing if waited > LOGIN_WITHIN.0 => {
                close("it did not let us in in time")
            }
            Stage::Subscribing | Stage::Authorizing | Stage::Mining => {
                if silence > STALL_AFTER.0 {
                    return close("it has been silent for too long");
                }
                let mut actions = Vec::new();
                if silence > PING_AFTER.0 && !self.pinged {
                    self.pinged = true;
                    // Known to some pools; an error from the others is a sign of life as well.
                    self.request("mining.ping", json!([]), &mut actions);
                }
                actions
            }
        }
    }

    /// A hash thread found a share.
    pub fn found(&mut self, now: Millis, find: &Find) -> Vec<Action> {
        let work = self.jobs.iter().find(|work| work.number == find.work).cloned();
        let (Stage::Mining, Some(work)) = (self.stage, work) else {
            self.book.missed();
            return Vec::new();
        };
        let params = work.job.submit_params(&self.login.user, &find.roll, find.nonce);
        if !self.book.is_new(&params) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        let request = self.request("mining.submit", json!(params), &mut actions);
        self.book.sent(now, request, work.difficulty);
        actions
    }

    fn request(&mut self, method: &str, params: Value, actions: &mut Vec<Action>) -> u64 {
        self.requests += 1;
        let line = json!({ "id": self.requests, "method": method, "params": params });
        actions.push(Action::Send(line.to_string()));
        self.requests
    }

    fn answered(&mut self, id: u64, outcome: Result<Value, Refusal>) -> Vec<Action> {
        let is = |request: Option<u64>| request == Some(id);
        if is(self.configure) {
            self.configure = None;
            self.configured(&outcome);
            return Vec::new();
        }
        if is(self.subscribe) {
            self.subscribe = None;
            return self.subscribed(outcome);
        }
        if is(self.authorize) {
            self.authorize = None;
            return self.authorized(outcome);
        }
        let outcome = outcome.map(|result| result.as_bool().unwrap_or(false));
        if self.book.answered(id, outcome.as_ref().copied())
            && self.book.refused_in_a_row() >= REFUSED_MAX
        {
            let last = outcome.err().map(|refusal| refusal.text).unwrap_or_default();
            return close(&format!("{REFUSED_MAX} shares refused in a row: {last}"));
        }
        // Anything else answers a ping, or a share that was given up.
        Vec::new()
    }

    fn configured(&mut self, outcome: &Result<Value, Refusal>) {
        let Ok(result) = outcome else { return };
        if result.get("version-rolling") == Some(&Value::Bool(true)) {
            let mask = result.get("version-rolling.mask").and_then(hex_word);
            self.version_mask = mask.unwrap_or(0) & VERSION_MASK_WANTED;
        }
    }

    fn subscribed(&mut self, outcome: Result<Value, Refusal>) -> Vec<Action> {
        let result = match outcome {
            Ok(result) => result,
            Err(refusal) => return close(&format!("it refused to subscribe us: {}", refusal.text)),
        };
        match Extranonce::from_subscribe(&result) {
            Ok(extranonce) => self.extranonce = Some(extranonce),
            Err(error) => return close(&format!("its subscription cannot be used: {error}")),
        }
        self.stage = Stage::Authorizing;
        let mut actions = Vec::new();
        let params = json!([self.login.user, self.login.password]);
        self.authorize = Some(self.request("mining.authorize", params, &mut actions));
        actions
    }

    fn authorized(&mut self, outcome: Result<Value, Refusal>) -> Vec<Action> {
        match outcome {
            Ok(Value::Bool(false)) => close(&format!("it does not know {}", self.login.user)),
            Err(refusal) => {
                close(&format!("it does not let {} in: {}", self.login.user, refusal.text))
            }
            // Some pools answer null; only an error or false is a no.
            Ok(_) => {
                self.stage = Stage::Mining;
                let mut actions = Vec::new();
                if let Some(difficulty) = self.login.suggest_difficulty {
                    // As a request with an id: some pools drop notifications. No answer is awaited.
                    self.request("mining.suggest_difficulty", json!([difficulty]), &mut actions);
                }
                // Most pools send the first job before this answer.
                actions.extend(self.jobs.back().cloned().map(Action::Hash));
                actions
            }
        }
    }

    fn called(&mut self, id: Option<Value>, method: &str, params: &Value) -> Vec<Action> {
        match method {
            "mining.notify" => self.notified(params),
            "mining.set_difficulty" => match params.get(0).and_then(message::number) {
                Some(difficulty) if difficulty > 0.0 => {
                    self.difficulty = difficulty;
                    Vec::new()
                }
                Some(_) | None => self.noise(),
            },
            "mining.set_extranonce" => {
                let as_subscribed = json!([[], params.get(0), params.get(1)]);
                match Extranonce::from_subscribe(&as_subscribed) {
                    Ok(extranonce) => {
                        self.extranonce = Some(extranonce);
                        Vec::new()
                    }
                    Err(_) => self.noise(),
                }
            }
            "mining.set_version_mask" => match params.get(0).and_then(hex_word) {
                Some(mask) => {
                    self.version_mask = mask & VERSION_MASK_WANTED;
                    Vec::new()
                }
                None => self.noise(),
            },
            "client.reconnect" => self.sent_away(params),
            "client.show_message" => {
                self.told = message::clean(params.get(0).and_then(Value::as_str).unwrap_or(""));
                tracing::info!("the pool says: {}", self.told);
                Vec::new()
            }
            "client.get_version" => {
                reply(id, &json!(concat!("roadbed-agent/", env!("CARGO_PKG_VERSION"))))
            }
            "mining.ping" | "client.ping" => reply(id, &json!("pong")),
            other => {
                tracing::debug!("pool calls {:?}, which is not known", message::clean(other));
                Vec::new()
            }
        }
    }

    fn notified(&mut self, params: &Value) -> Vec<Action> {
        let job = match Job::from_notify(params) {
            Ok(job) => job,
            Err(error) => {
                tracing::debug!("pool sends a job that cannot be used: {error}");
                return self.noise();
            }
        };
        let (Some(extranonce), Ok(target)) =
            (self.extranonce.clone(), Target::from_difficulty(self.difficulty))
        else {
            return self.noise();
        };
        if job.clean {
            self.jobs.clear();
        }
        // A job sent again replaces the one of that name.
        self.jobs.retain(|work| work.job.id != job.id);
        if self.jobs.len() >= JOBS_MAX {
            self.jobs.pop_front();
        }
        self.works += 1;
        let work = Arc::new(Work {
            job,
            extranonce,
            version_mask: self.version_mask,
            target,
            difficulty: self.difficulty,
            number: self.works,
        });
        self.jobs.push_back(work.clone());
        if self.is_mining() { vec![Action::Hash(work)] } else { Vec::new() }
    }

    /// `client.reconnect`: followed on the same host only, because whoever can write into this
    /// connection could otherwise take the farm's hashrate away.
    fn sent_away(&mut self, params: &Value) -> Vec<Action> {
        let host = params.get(0).and_then(Value::as_str).unwrap_or("");
        if !host.is_empty() && !host.eq_ignore_ascii_case(&self.login.host) {
            tracing::warn!(
                "pool wants us at {:?}: refused, it is another host",
                message::clean(host)
            );
            return Vec::new();
        }
        let number = |index| params.get(index).and_then(message::number);
        let port = number(1).map(|port| port as u16).filter(|port| *port != 0);
        let wait = number(2).map_or(0, |seconds| (seconds * 1_000.0) as u64);
        vec![
            Action::Rest,
            Action::Close {
                reason: "the pool asks us to come back".into(),
                port,
                wait: Millis(wait).min(RECONNECT_WAIT_MAX),
            },
        ]
    }

    fn noise(&mut self) -> Vec<Action> {
        self.garbage_ever += 1;
        self.garbage += 1;
        if self.garbage >= GARBAGE_MAX {
            return close("it does not speak Stratum");
        }
        Vec::new()
    }
}

fn close(reason: &str) -> Vec<Action> {
    vec![Action::Rest, Action::Close { reason: reason.to_owned(), port: None, wait: Millis::ZERO }]
}

fn reply(id: Option<Value>, result: &Value) -> Vec<Action> {
    id.map(|id| Action::Send(json!({ "id": id, "result": result, "error": null }).to_string()))
        .into_iter()
        .collect()
}

/// A word of hex text, with or without `0x`.
fn hex_word(value: &Value) -> Option<u32> {
    let text = value.as_str()?.trim();
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
mod tests;
