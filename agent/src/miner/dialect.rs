//! What every pool's language looks like from the link: bytes and finds in, actions out. No socket, no clock.
//!
//! A dialect keeps its conversation and its books over all connections to its pool. `now` rises and counts from the
//! miner's start; a dialect never asks for the time.

use std::sync::Arc;

use roadbed_protocol::{HashesPerSecond, Millis};

use super::share::ShareTally;
use super::work::{Find, Work};

/// What the link must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Hash this from now on.
    Hash(Arc<Work>),
    /// Stop hashing until there is work again.
    Rest,
    /// Close the connection and come back.
    Close {
        /// Why, for people.
        reason: String,
        /// What it says about the pool.
        cause: Cause,
        /// Where to come back to, once, if the pool said so.
        to: Option<(String, u16)>,
        /// Wait at least this long.
        wait: Millis,
    },
}

/// Why a dialect ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The pool asked for it; it is well.
    Asked,
    /// It says nothing any more.
    Silent,
    /// It does not let us in, or cannot be understood.
    NotLetIn,
    /// It takes none of our shares.
    SharesRefused,
}

/// What a dialect tells of itself; totals are over all connections.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DialectReport {
    /// The pool has let us in.
    pub mining: bool,
    /// Difficulty of the newest work; zero before the first.
    pub difficulty: f64,
    /// Jobs received.
    pub jobs: u64,
    /// Lines or frames that could not be understood.
    pub garbage: u64,
    /// Shares by what became of them.
    pub shares: ShareTally,
    /// The pool's last message for people; empty when there was none.
    pub told: String,
    /// How long shares waited for their answers, mean of about the last eight; none before the first.
    pub answer_after: Option<Millis>,
}

/// A pool's language.
pub trait Dialect: Send {
    /// The socket is open.
    fn connected(&mut self, now: Millis) -> Vec<Action>;
    /// Bytes arrived, cut anywhere.
    fn bytes(&mut self, now: Millis, bytes: &[u8]) -> Vec<Action>;
    /// A hash thread found a share, possibly of a work that is over.
    fn found(&mut self, now: Millis, find: &Find) -> Vec<Action>;
    /// Time passes; called about twice a second while connected.
    fn tick(&mut self, now: Millis) -> Vec<Action>;
    /// We leave a pool that is well: what to say before the socket is closed.
    fn leaving(&mut self) -> Vec<Action> {
        Vec::new()
    }
    /// How fast the threads hash for this pool now; a dialect may tell the pool with its next actions.
    fn measured(&mut self, _rate: HashesPerSecond) {}
    /// The socket is closed, by whomever.
    fn disconnected(&mut self);
    /// What it does and has done.
    fn report(&self) -> DialectReport;
}

/// The actions that end a connection for a reason of ours.
#[must_use]
pub fn close(cause: Cause, reason: impl Into<String>) -> Vec<Action> {
    vec![Action::Rest, Action::Close { reason: reason.into(), cause, to: None, wait: Millis::ZERO }]
}
