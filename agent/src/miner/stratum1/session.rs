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

use roadbed_compute::hash::{Extranonce, Job, Target};
use roadbed_protocol::Millis;
use serde_json::{Value, json};

use super::line::{Line, LineBuffer};
use super::message::{self, Refusal, ServerLine};
use crate::config::{Difficulty, PoolConfig};
use crate::miner::dialect::{Action, Cause, Dialect, DialectReport, close};
use crate::miner::share::{REFUSED_MAX, Reason, ShareBook};
use crate::miner::work::{Find, Source, Work, WorkNumbers};

/// Version bits we can roll, BIP 320.
const VERSION_MASK_WANTED: u32 = 0x1FFF_E000;
/// Fewest of them that are worth asking for.
const VERSION_BITS_MIN: u32 = 2;
/// Jobs whose shares are still sent. Pools keep a few; a job that is older is stale anyway.
const JOBS_MAX: usize = 16;
/// Lines of one connection that may be no Stratum before it counts as none.
const GARBAGE_MAX: u32 = 50;
/// A pool that has sent pings itself is pinged after this silence; others may hang up on what they do not know.
const PING_AFTER: Millis = Millis::from_secs(60);
/// A connection on which a share was sent and nothing at all heard for this long is dead.
const UNHEARD_AFTER: Millis = Millis::from_secs(45);
/// After this silence the connection is dead. Pools send a job every 30 to 60 s.
const STALL_AFTER: Millis = Millis::from_secs(180);
/// How long the pool may take to let us in.
const LOGIN_WITHIN: Millis = Millis::from_secs(30);
/// Longest wait that a `client.reconnect` can impose.
const RECONNECT_WAIT_MAX: Millis = Millis::from_secs(300);
/// Difficulty of a pool that never says one, by Stratum's custom.
const DIFFICULTY_DEFAULT: f64 = 1.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Offline,
    Subscribing,
    Authorizing,
    Mining,
}

/// The state of the conversation, and the books over all connections.
pub struct Session {
    pool: PoolConfig,
    stage: Stage,
    since: Millis,
    heard: Millis,
    pinged: bool,
    /// The pool has sent a ping itself, so it knows what one is.
    knows_ping: bool,
    requests: u64,
    configure: Option<u64>,
    subscribe: Option<u64>,
    authorize: Option<u64>,
    /// Set when a pool hung up on `mining.configure`.
    without_configure: bool,
    extranonce: Option<Extranonce>,
    version_mask: u32,
    difficulty: f64,
    lines: LineBuffer,
    jobs: VecDeque<Arc<Work>>,
    jobs_ever: u64,
    numbers: WorkNumbers,
    book: ShareBook,
    garbage: u32,
    garbage_ever: u64,
    told: String,
}

impl Session {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(pool: PoolConfig, numbers: WorkNumbers) -> Self {
        Self {
            pool,
            stage: Stage::Offline,
            since: Millis::ZERO,
            heard: Millis::ZERO,
            pinged: false,
            knows_ping: false,
            requests: 0,
            configure: None,
            subscribe: None,
            authorize: None,
            without_configure: false,
            extranonce: None,
            version_mask: 0,
            difficulty: DIFFICULTY_DEFAULT,
            lines: LineBuffer::default(),
            jobs: VecDeque::new(),
            jobs_ever: 0,
            numbers,
            book: ShareBook::default(),
            garbage: 0,
            garbage_ever: 0,
            told: String::new(),
        }
    }
}

impl Dialect for Session {
    fn connected(&mut self, now: Millis) -> Vec<Action> {
        self.stage = Stage::Subscribing;
        (self.since, self.heard, self.pinged) = (now, now, false);
        self.garbage = 0;
        self.version_mask = 0;
        self.difficulty = DIFFICULTY_DEFAULT;
        self.lines = LineBuffer::default();
        (self.extranonce, self.authorize) = (None, None);
        let mut actions = Vec::new();
        self.configure = None;
        if !self.without_configure {
            let wishes = self.wishes();
            self.configure = Some(self.request("mining.configure", wishes, &mut actions));
        }
        let agent = concat!("roadbed-agent/", env!("CARGO_PKG_VERSION"));
        self.subscribe = Some(self.request("mining.subscribe", json!([agent]), &mut actions));
        actions
    }

    fn disconnected(&mut self) {
        // A pool that hangs up before it has answered anything may dislike `configure`.
        if self.stage == Stage::Subscribing {
            self.without_configure = !self.without_configure;
        }
        self.stage = Stage::Offline;
        self.jobs.clear();
        self.book.disconnected();
    }

    fn bytes(&mut self, now: Millis, bytes: &[u8]) -> Vec<Action> {
        let mut actions = Vec::new();
        for line in self.lines.take(bytes) {
            actions.extend(match line {
                Line::Whole(text) => self.line(now, &text),
                Line::TooLong => self.line_too_long(now),
            });
        }
        actions
    }

    fn tick(&mut self, now: Millis) -> Vec<Action> {
        let silence = Millis(now.0.saturating_sub(self.heard.0));
        let waited = now.0.saturating_sub(self.since.0);
        let unheard = self.book.oldest_wait(now).min(silence);
        self.book.expire(now);
        match self.stage {
            Stage::Offline => Vec::new(),
            Stage::Subscribing | Stage::Authorizing if waited > LOGIN_WITHIN.0 => {
                close(Cause::NotLetIn, "it did not let us in in time")
            }
            Stage::Subscribing | Stage::Authorizing | Stage::Mining => {
                if unheard >= UNHEARD_AFTER {
                    return close(Cause::Silent, "it is silent although shares were sent");
                }
                if silence > STALL_AFTER {
                    return close(Cause::Silent, "it has been silent for too long");
                }
                let mut actions = Vec::new();
                if silence > PING_AFTER && self.knows_ping && !self.pinged {
                    self.pinged = true;
                    self.request("mining.ping", json!([]), &mut actions);
                }
                actions
            }
        }
    }

    fn found(&mut self, now: Millis, find: &Find) -> Vec<Action> {
        let work = self.jobs.iter().find(|work| work.number == find.work).cloned();
        let (Stage::Mining, Some(work)) = (self.stage, work) else {
            self.book.missed();
            return Vec::new();
        };
        let Source::Coinbase { job, extranonce: _ } = &work.source else { return Vec::new() };
        let params = job.submit_params(&self.pool.user, &find.roll, find.nonce);
        if !self.book.admits(params.join(" ").into_bytes()) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        let request = self.request("mining.submit", json!(params), &mut actions);
        self.book.sent(now, request, work.difficulty);
        actions
    }

    fn report(&self) -> DialectReport {
        DialectReport {
            mining: self.is_mining(),
            difficulty: self.jobs.back().map_or(0.0, |work| work.difficulty),
            jobs: self.jobs_ever,
            garbage: self.garbage_ever,
            shares: self.book.tally(),
            told: self.told.clone(),
            answer_after: self.book.answer_after(),
        }
    }
}

impl Session {
    fn is_mining(&self) -> bool {
        self.stage == Stage::Mining
    }

    /// The extensions of BIP 310 that we can use.
    fn wishes(&self) -> Value {
        let mut names = vec!["version-rolling", "subscribe-extranonce"];
        let mut options = json!({
            "version-rolling.mask": format!("{VERSION_MASK_WANTED:08x}"),
            "version-rolling.min-bit-count": VERSION_BITS_MIN,
        });
        if let Some(difficulty) = self.pool.minimum_difficulty.map(Difficulty::get) {
            names.push("minimum-difficulty");
            options["minimum-difficulty.value"] = json!(difficulty);
        }
        json!([names, options])
    }

    fn line(&mut self, now: Millis, line: &str) -> Vec<Action> {
        (self.heard, self.pinged) = (now, false);
        match message::read(line) {
            Ok(ServerLine::Answer { id, outcome }) => self.answered(now, id, outcome),
            Ok(ServerLine::Call { id, method, params }) => self.called(id, &method, &params),
            Err(error) => {
                tracing::debug!("pool: {error}");
                self.noise()
            }
        }
    }

    fn line_too_long(&mut self, now: Millis) -> Vec<Action> {
        self.heard = now;
        self.noise()
    }

    fn request(&mut self, method: &str, params: Value, actions: &mut Vec<Action>) -> u64 {
        self.requests += 1;
        let line = json!({ "id": self.requests, "method": method, "params": params });
        actions.push(send(&line));
        self.requests
    }

    fn answered(&mut self, now: Millis, id: u64, outcome: Result<Value, Refusal>) -> Vec<Action> {
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
        let outcome = match outcome {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(_) => Err((Reason::Other, String::new())),
            Err(refusal) => Err((reason(&refusal), refusal.text)),
        };
        let known = match &outcome {
            Ok(()) => self.book.accepted(now, id),
            Err((reason, _)) => self.book.rejected(now, id, *reason),
        };
        if known && self.book.is_always_late() {
            return close(Cause::SharesRefused, "every share of ours comes too late for it");
        }
        if known && self.book.is_always_refused() {
            let last = outcome.err().map(|(_, text)| text).unwrap_or_default();
            return close(
                Cause::SharesRefused,
                format!("{REFUSED_MAX} shares refused in a row: {last}"),
            );
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
            Err(refusal) => {
                let reason = format!("it refused to subscribe us: {}", refusal.text);
                return close(Cause::NotLetIn, reason);
            }
        };
        match Extranonce::from_subscribe(&result) {
            Ok(extranonce) => self.extranonce = Some(extranonce),
            Err(error) => {
                let reason = format!("its subscription cannot be used: {error}");
                return close(Cause::NotLetIn, reason);
            }
        }
        self.stage = Stage::Authorizing;
        let mut actions = Vec::new();
        let params = json!([self.pool.user, self.pool.password]);
        self.authorize = Some(self.request("mining.authorize", params, &mut actions));
        actions
    }

    fn authorized(&mut self, outcome: Result<Value, Refusal>) -> Vec<Action> {
        match outcome {
            Ok(Value::Bool(false)) => {
                close(Cause::NotLetIn, format!("it does not know {}", self.pool.user))
            }
            Err(refusal) => close(
                Cause::NotLetIn,
                format!("it does not let {} in: {}", self.pool.user, refusal.text),
            ),
            // Some pools answer null; only an error or false is a no.
            Ok(_) => {
                self.stage = Stage::Mining;
                let mut actions = Vec::new();
                if self.pool.subscribe_extranonce {
                    self.request("mining.extranonce.subscribe", json!([]), &mut actions);
                }
                if let Some(difficulty) = self.pool.suggest_difficulty.map(Difficulty::get) {
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
                // One that no hash could ever meet is a mistake of the pool's; the last one stays.
                Some(difficulty) if is_mineable(difficulty) => {
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
            "mining.ping" | "client.ping" => {
                self.knows_ping = true;
                reply(id, &json!("pong"))
            }
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
        self.jobs.retain(|work| match &work.source {
            Source::Coinbase { job: known, extranonce: _ } => known.id != job.id,
            Source::Header { .. } => true,
        });
        if self.jobs.len() >= JOBS_MAX {
            self.jobs.pop_front();
        }
        self.jobs_ever += 1;
        let work = Arc::new(Work {
            source: Source::Coinbase { job, extranonce },
            version_mask: self.version_mask,
            target,
            difficulty: self.difficulty,
            number: self.numbers.next(),
        });
        self.jobs.push_back(work.clone());
        if self.is_mining() { vec![Action::Hash(work)] } else { Vec::new() }
    }

    /// `client.reconnect`: followed on the same host only, because whoever can write into this
    /// connection could otherwise take the farm's hashrate away.
    fn sent_away(&mut self, params: &Value) -> Vec<Action> {
        let host = params.get(0).and_then(Value::as_str).unwrap_or("");
        let own = &self.pool.address;
        let is_other = !host.is_empty() && !host.eq_ignore_ascii_case(&own.host);
        if is_other && !self.pool.follow_to_other_hosts {
            tracing::warn!(
                "pool wants us at {:?}: refused, it is another host",
                message::clean(host)
            );
            return Vec::new();
        }
        let number = |index| params.get(index).and_then(message::number);
        let port = number(1).map(|port| port as u16).filter(|port| *port != 0);
        let wait = number(2).map_or(0, |seconds| (seconds * 1_000.0) as u64);
        let to = (is_other || port.is_some()).then(|| {
            let host = if is_other { message::clean(host) } else { own.host.clone() };
            (host, port.unwrap_or(own.port))
        });
        vec![
            Action::Rest,
            Action::Close {
                reason: "the pool asks us to come back".into(),
                cause: Cause::Asked,
                to,
                wait: Millis(wait).min(RECONNECT_WAIT_MAX),
            },
        ]
    }

    fn noise(&mut self) -> Vec<Action> {
        self.garbage_ever += 1;
        self.garbage += 1;
        if self.garbage >= GARBAGE_MAX {
            return close(Cause::NotLetIn, "it does not speak Stratum");
        }
        Vec::new()
    }
}

fn is_mineable(difficulty: f64) -> bool {
    Target::from_difficulty(difficulty).is_ok_and(|target| target.0 != [0; 32])
}

fn send(line: &Value) -> Action {
    Action::Send(format!("{line}\n").into_bytes())
}

fn reply(id: Option<Value>, result: &Value) -> Vec<Action> {
    id.map(|id| send(&json!({ "id": id, "result": result, "error": null }))).into_iter().collect()
}

/// Why a share was refused, by Stratum's code; pools with codes of their own are known by their words.
fn reason(refusal: &Refusal) -> Reason {
    match refusal.code {
        Some(21) => return Reason::Stale,
        Some(22) => return Reason::Duplicate,
        Some(23) => return Reason::LowDifficulty,
        Some(_) | None => {}
    }
    let text = refusal.text.to_ascii_lowercase();
    if text.contains("stale") || text.contains("job not found") || text.contains("old job") {
        Reason::Stale
    } else if text.contains("duplicate") {
        Reason::Duplicate
    } else if text.contains("low diff") || text.contains("above target") {
        Reason::LowDifficulty
    } else {
        Reason::Other
    }
}

/// A word of hex text, with or without `0x`.
fn hex_word(value: &Value) -> Option<u32> {
    let text = value.as_str()?.trim();
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
