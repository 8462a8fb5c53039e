//! A Stratum V2 conversation as a state machine: bytes in, actions out. No socket, no clock.
//!
//! ```text
//! connected -> handshake -> setup -> open a channel -> jobs <-> shares
//! ```
//! Shares are acknowledged in batches, so silence after a share means nothing; a refusal comes at once and names the
//! share by its sequence number. The protocol has no ping: after a long silence we tell our rate once more, which many
//! pools answer with a target. Messages that are not known, or not for our channel, are counted and passed over.

mod mining;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use roadbed_protocol::{HashesPerSecond, Millis};
use stratum_core::common_messages_sv2::{ReconnectOwned, SetupConnectionSuccess};
use stratum_core::parsers_sv2::{AnyMessageOwned, CommonMessagesOwned, MiningOwned};

use super::channel::Channel;
use super::noise::{Incoming, Noise, NoiseError};
use super::setup::{self, Grant, SetupError, Wishes};
use crate::config::{ChannelKind, Identity, PoolConfig};
use crate::miner::dialect::{Action, Cause, Dialect, DialectReport};
use crate::miner::share::ShareBook;
use crate::miner::work::{Find, Work, WorkNumbers};

/// How long the pool may take for the handshake. One that has no template yet accepts the socket and stays mute.
const HANDSHAKE_WITHIN: Millis = Millis::from_secs(15);
/// How long it may take from there to an open channel.
const LOGIN_WITHIN: Millis = Millis::from_secs(30);
/// After this silence we tell our rate again, to hear anything.
const ASK_AFTER: Millis = Millis::from_secs(120);
/// After this silence the connection is dead. Templates change every half minute; ten minutes without one, and without
/// an answer to our question, is no quiet pool.
const STALL_AFTER: Millis = Millis::from_secs(600);
/// How long a share may wait for its batch: a pool that takes ten at a time and wants one every few minutes is slow.
const UNANSWERED_MAX: Millis = Millis::from_hours(1);
/// Messages of one connection that may make no sense before it counts as none.
const GARBAGE_MAX: u32 = 50;
/// Jobs whose shares are still sent; as many as the channel itself remembers.
const JOBS_MAX: usize = 17;
/// Rate told before any was measured: one thread of a processor. Zero would be answered with a target that every hash
/// meets.
const RATE_UNMEASURED: HashesPerSecond = HashesPerSecond(5_000_000);
/// A rate this many times higher or lower than the one told is told; vardiff does the rest.
const RATE_CHANGE: f64 = 1.5;
/// Between two tellings: a pool may answer each with a target.
const RATE_EVERY: Millis = Millis::from_secs(30);
/// Said of our channel when we leave a pool that is well.
const GOOD_BYE: &str = "leaving";
/// The one request of a connection.
const REQUEST: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Offline,
    Handshake,
    Setup,
    /// Waits for the channel it asked for.
    Opening(Grant),
    Mining,
}

/// Why a connection ends, before it is said to the link.
struct End {
    cause: Cause,
    reason: String,
    to: Option<(String, u16)>,
}

impl End {
    fn not_let_in(reason: impl ToString) -> Self {
        Self { cause: Cause::NotLetIn, reason: reason.to_string(), to: None }
    }
}

impl From<NoiseError> for End {
    fn from(error: NoiseError) -> Self {
        Self::not_let_in(error)
    }
}

impl From<SetupError> for End {
    fn from(error: SetupError) -> Self {
        Self::not_let_in(error)
    }
}

/// Time of day in seconds since 1970, for certificates.
pub type UnixTime = fn() -> u32;

/// The state of the conversation, and the books over all connections.
pub struct Session {
    pool: PoolConfig,
    identity: Identity,
    unix: UnixTime,
    numbers: WorkNumbers,
    wishes: Wishes,
    stage: Stage,
    noise: Option<Noise>,
    channel: Option<Channel>,
    since: Millis,
    heard: Millis,
    asked: bool,
    rate: HashesPerSecond,
    told_rate: HashesPerSecond,
    told_rate_at: Millis,
    sequence: u32,
    /// Works given out, with the pool's number of their job, newest last.
    jobs: VecDeque<(u32, Arc<Work>)>,
    sent_lately: mining::Pace,
    book: ShareBook,
    works: u64,
    garbage: u32,
    garbage_ever: u64,
    told: String,
}

impl Session {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(
        pool: PoolConfig,
        identity: Identity,
        channel: ChannelKind,
        numbers: WorkNumbers,
        unix: UnixTime,
    ) -> Self {
        Self {
            pool,
            identity,
            unix,
            numbers,
            wishes: Wishes { channel, version_rolling: true },
            stage: Stage::Offline,
            noise: None,
            channel: None,
            since: Millis::ZERO,
            heard: Millis::ZERO,
            asked: false,
            rate: HashesPerSecond::ZERO,
            told_rate: HashesPerSecond::ZERO,
            told_rate_at: Millis::ZERO,
            sequence: 0,
            jobs: VecDeque::new(),
            sent_lately: mining::Pace::default(),
            book: ShareBook::default(),
            works: 0,
            garbage: 0,
            garbage_ever: 0,
            told: String::new(),
        }
    }

    fn open(&mut self, now: Millis) -> Result<Vec<Action>, End> {
        let (noise, hello) = Noise::hello(self.identity)?;
        self.noise = Some(noise);
        (self.stage, self.since, self.heard) = (Stage::Handshake, now, now);
        (self.asked, self.garbage, self.sequence) = (false, 0, 0);
        Ok(vec![Action::Send(hello)])
    }

    fn read(&mut self, now: Millis, bytes: &[u8], actions: &mut Vec<Action>) -> Result<(), End> {
        let unix = (self.unix)();
        if let Some(noise) = &mut self.noise {
            noise.feed(bytes);
        }
        while let Some(noise) = &mut self.noise {
            let Some(incoming) = noise.next(unix)? else { break };
            // Bytes alone may be a slow trickle that never becomes a message.
            (self.heard, self.asked) = (now, false);
            match incoming {
                Incoming::Open => self.greet(now, actions)?,
                Incoming::Message(message) => self.understood(now, *message, actions)?,
                Incoming::Unknown { kind } => {
                    tracing::debug!("pool: message of unknown kind {kind:#04x} passed over");
                    self.garbage_ever += 1;
                }
                Incoming::Malformed { kind, why } => {
                    self.nonsense(&format_args!("message of kind {kind:#04x}: {why}"))?;
                }
            }
        }
        Ok(())
    }

    fn greet(&mut self, now: Millis, actions: &mut Vec<Action>) -> Result<(), End> {
        (self.stage, self.since) = (Stage::Setup, now);
        let (host, port) = (&self.pool.address.host, self.pool.address.port);
        let message = setup::setup(self.wishes, host, port)
            .map_err(|error| End::not_let_in(format!("its host name cannot be sent: {error}")))?;
        self.send(message, actions)
    }

    fn understood(
        &mut self,
        now: Millis,
        message: AnyMessageOwned,
        actions: &mut Vec<Action>,
    ) -> Result<(), End> {
        match (message, self.stage) {
            (AnyMessageOwned::Common(message), _) => self.common(now, message, actions),
            (AnyMessageOwned::Mining(message), Stage::Opening(grant)) => {
                self.opened(now, message, grant)
            }
            (AnyMessageOwned::Mining(message), Stage::Mining) => self.mining(now, message, actions),
            (message, _) => self.nonsense(&format_args!("at the wrong time: {message}")),
        }
    }

    fn common(
        &mut self,
        now: Millis,
        message: CommonMessagesOwned,
        actions: &mut Vec<Action>,
    ) -> Result<(), End> {
        match (message, self.stage) {
            (CommonMessagesOwned::SetupConnectionSuccess(answer), Stage::Setup) => {
                self.let_in(now, answer, actions)
            }
            (CommonMessagesOwned::SetupConnectionError(answer), Stage::Setup) => {
                Err(self.wishes.refused(answer.flags, &answer.error_code.as_utf8_or_hex()).into())
            }
            (CommonMessagesOwned::Reconnect(order), _) => Err(self.sent_away(&order)),
            // It matters to those who negotiated extensions; we have none.
            (CommonMessagesOwned::ChannelEndpointChanged(_), Stage::Mining) => Ok(()),
            (message, _) => self.nonsense(&format_args!("at the wrong time: {message}")),
        }
    }

    fn let_in(
        &mut self,
        now: Millis,
        answer: SetupConnectionSuccess,
        actions: &mut Vec<Action>,
    ) -> Result<(), End> {
        let grant = self.wishes.granted(answer)?;
        self.stage = Stage::Opening(grant);
        let rate = if self.rate == HashesPerSecond::ZERO { RATE_UNMEASURED } else { self.rate };
        (self.told_rate, self.told_rate_at) = (rate, now);
        let message = setup::open(grant.channel, REQUEST, &self.pool.user, rate.0 as f32)
            .map_err(|error| End::not_let_in(format!("our user name cannot be sent: {error}")))?;
        self.send(message, actions)
    }

    fn opened(&mut self, now: Millis, message: MiningOwned, grant: Grant) -> Result<(), End> {
        let (user, rate, rolling) =
            (self.pool.user.clone(), self.told_rate.0 as f32, grant.version_rolling);
        let channel = match message {
            MiningOwned::OpenStandardMiningChannelSuccess(opened)
                if grant.channel != ChannelKind::Extended && opened.request_id == REQUEST =>
            {
                Channel::standard(opened, &user, rate, rolling)
            }
            MiningOwned::OpenExtendedMiningChannelSuccess(opened)
                if grant.channel == ChannelKind::Extended && opened.request_id == REQUEST =>
            {
                Channel::extended(opened, &user, rate, rolling)
            }
            MiningOwned::OpenMiningChannelError(refusal) => {
                self.told = refusal.error_code.as_utf8_or_hex();
                return Err(End::not_let_in(format!("it opens no channel for us: {}", self.told)));
            }
            other => return self.nonsense(&format_args!("before the channel is open: {other}")),
        };
        self.channel = Some(channel.map_err(End::not_let_in)?);
        (self.stage, self.since) = (Stage::Mining, now);
        Ok(())
    }

    /// The pool asks us to another place. Nobody can forge that here, but it is the operator who chose the host, and
    /// the key it must prove there is the same.
    fn sent_away(&self, order: &ReconnectOwned) -> End {
        let own = &self.pool.address;
        let host = order.new_host.as_utf8_or_hex();
        let host = if host.is_empty() { own.host.clone() } else { host };
        if host != own.host && !self.pool.follow_to_other_hosts {
            let reason = format!("it sends us to another host, {host}, which is not allowed");
            return End { cause: Cause::Asked, reason, to: None };
        }
        let port = if order.new_port == 0 { own.port } else { order.new_port };
        let reason = format!("it sends us to {host}:{port}");
        End { cause: Cause::Asked, reason, to: Some((host, port)) }
    }

    fn send(&mut self, message: AnyMessageOwned, actions: &mut Vec<Action>) -> Result<(), End> {
        if let Some(noise) = &mut self.noise {
            actions.push(Action::Send(noise.seal(message)?));
        }
        Ok(())
    }

    /// Something that makes no sense: counted, and forgiven for a while.
    fn nonsense(&mut self, what: &dyn fmt::Display) -> Result<(), End> {
        tracing::debug!("pool: {what}");
        self.garbage_ever += 1;
        self.garbage += 1;
        if self.garbage > GARBAGE_MAX {
            return Err(End::not_let_in("it sends what is no Stratum V2"));
        }
        Ok(())
    }

    /// Tells the pool our rate when it has changed much, or to hear anything after a long silence.
    fn tell_rate(&mut self, now: Millis, actions: &mut Vec<Action>) -> Result<(), End> {
        let Some(channel) = self.channel.as_ref().map(Channel::id) else { return Ok(()) };
        let (told, rate) = (self.told_rate.0 as f64, self.rate.0 as f64);
        let changed = rate > told * RATE_CHANGE || rate < told / RATE_CHANGE;
        let due = rate > 0.0 && changed && elapsed(now, self.told_rate_at) >= RATE_EVERY;
        let ask = !self.asked && elapsed(now, self.heard) >= ASK_AFTER;
        if !due && !ask {
            return Ok(());
        }
        if due {
            self.told_rate = self.rate;
        }
        self.asked |= ask;
        self.told_rate_at = now;
        self.send(setup::update(channel, self.told_rate.0 as f32), actions)
    }

    fn wait(&mut self, now: Millis, actions: &mut Vec<Action>) -> Result<(), End> {
        let waited = elapsed(now, self.since);
        let late =
            |reason: &str| Err(End { cause: Cause::Silent, reason: reason.to_owned(), to: None });
        match self.stage {
            Stage::Offline => Ok(()),
            Stage::Handshake if waited > HANDSHAKE_WITHIN => {
                late("it does not answer the handshake; it may have no template yet")
            }
            Stage::Setup | Stage::Opening(_) if waited > LOGIN_WITHIN => {
                late("it did not open a channel in time")
            }
            Stage::Mining if elapsed(now, self.heard) > STALL_AFTER => {
                late("it has been silent for too long")
            }
            Stage::Mining if self.book.oldest_wait(now) > UNANSWERED_MAX => {
                late("it has not answered a share for an hour")
            }
            Stage::Mining => self.tell_rate(now, actions),
            Stage::Handshake | Stage::Setup | Stage::Opening(_) => Ok(()),
        }
    }

    fn ended(&mut self, mut actions: Vec<Action>, outcome: Result<(), End>) -> Vec<Action> {
        if let Err(End { cause, reason, to }) = outcome {
            self.noise = None;
            actions.push(Action::Rest);
            actions.push(Action::Close { reason, cause, to, wait: Millis::ZERO });
        }
        actions
    }
}

const fn elapsed(now: Millis, since: Millis) -> Millis {
    Millis(now.0.saturating_sub(since.0))
}

impl Dialect for Session {
    fn connected(&mut self, now: Millis) -> Vec<Action> {
        self.open(now).unwrap_or_else(|end| self.ended(Vec::new(), Err(end)))
    }

    fn bytes(&mut self, now: Millis, bytes: &[u8]) -> Vec<Action> {
        let mut actions = Vec::new();
        let outcome = self.read(now, bytes, &mut actions);
        self.ended(actions, outcome)
    }

    fn found(&mut self, now: Millis, find: &Find) -> Vec<Action> {
        let mut actions = Vec::new();
        let outcome = self.hand_in(now, find, &mut actions);
        self.ended(actions, outcome)
    }

    fn tick(&mut self, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        let outcome = self.wait(now, &mut actions);
        self.ended(actions, outcome)
    }

    fn leaving(&mut self) -> Vec<Action> {
        let (mut actions, channel) = (Vec::new(), self.channel.as_ref().map(Channel::id));
        let message = channel.and_then(|channel| setup::close(channel, GOOD_BYE).ok());
        let outcome = message.map_or(Ok(()), |message| self.send(message, &mut actions));
        self.ended(actions, outcome)
    }

    fn measured(&mut self, rate: HashesPerSecond) {
        self.rate = rate;
    }

    fn disconnected(&mut self) {
        self.stage = Stage::Offline;
        (self.noise, self.channel) = (None, None);
        self.jobs.clear();
        self.book.disconnected();
    }

    fn report(&self) -> DialectReport {
        DialectReport {
            mining: self.stage == Stage::Mining,
            difficulty: self.jobs.back().map_or(0.0, |(_, work)| work.difficulty),
            jobs: self.works,
            garbage: self.garbage_ever,
            shares: self.book.tally(),
            told: self.told.clone(),
            answer_after: self.book.answer_after(),
        }
    }
}
