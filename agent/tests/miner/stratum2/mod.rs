//! The Stratum V2 client against a stand-in of a pool, byte by byte in memory; once over a socket.
//!
//! The stand-in (`farm_tests::stratum2::pool`) rebuilds the header of every share with code of its own, so an accepted
//! share is work. It uses the server halves of the crates the client is built on; `tests/peers/run_pool_sv2` does the
//! same with a pool that no one here wrote.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod bytes;
mod login;
mod mining;
mod socket;

use std::sync::Arc;

use farm_tests::stratum2::pool::{Manners, PoolDouble};
use farm_tests::stratum2::wire::Authority;
use roadbed_agent::config::{PoolAddress, PoolConfig, PoolProtocol};
use roadbed_agent::miner::dialect::{Action, Cause, Dialect, DialectReport};
use roadbed_agent::miner::stratum2::Session;
use roadbed_agent::miner::work::{Find, Work, WorkNumbers};
use roadbed_protocol::Millis;

/// 2030: within every certificate made by these tests' clock or not, as a test wants.
const LATER: u32 = 1_900_000_000;

pub(super) fn authority() -> Authority {
    Authority::new([7; 32]).unwrap()
}

fn unix() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u32::try_from(since.as_secs()).unwrap()
}

/// A client, a pool, and what passed between them.
struct Pair {
    session: Session,
    pool: PoolDouble,
    now: Millis,
    /// What the client wants done besides sending.
    asked: Vec<Action>,
}

impl Pair {
    /// Both ends of a connection that has not begun. `path` follows host and port in the pool's address.
    fn new(path: &str, manners: Manners, clock: fn() -> u32) -> Self {
        let address: PoolAddress = format!("stratum2+tcp://pool:1/{path}").parse().unwrap();
        let PoolProtocol::StratumV2 { identity, channel } = address.protocol.clone() else {
            panic!("another protocol")
        };
        let login = PoolConfig::new(address, "farm.rig", "");
        let session = Session::new(login, identity, channel, WorkNumbers::of_pool(0), clock);
        let pool = PoolDouble::new(&authority(), manners).unwrap();
        Self { session, pool, now: Millis(0), asked: Vec::new() }
    }

    /// A connection whose channel of this kind is open and has work.
    fn mining(channel: &str, manners: Manners) -> (Self, Arc<Work>) {
        let path = format!("{}?channel={channel}", authority().address_key());
        let mut pair = Self::new(&path, manners, unix);
        pair.connect();
        let work = pair.work();
        (pair, work)
    }

    fn connect(&mut self) {
        let actions = self.session.connected(self.now);
        self.pass(actions);
    }

    /// A new connection to the same pool after this one ended.
    fn reconnect(&mut self) {
        self.session.disconnected();
        self.pool = PoolDouble::new(&authority(), self.pool.manners.clone()).unwrap();
        self.asked.clear();
        self.connect();
    }

    /// Carries out actions until nobody has anything to say.
    fn pass(&mut self, actions: Vec<Action>) {
        let mut open = std::collections::VecDeque::from(actions);
        while let Some(action) = open.pop_front() {
            match action {
                Action::Send(bytes) => {
                    let answer = self.pool.take(&bytes).unwrap();
                    if !answer.is_empty() {
                        open.extend(self.session.bytes(self.now, &answer));
                    }
                }
                other => self.asked.push(other),
            }
        }
    }

    /// The pool says something.
    fn hear(&mut self, bytes: &[u8]) {
        let actions = self.session.bytes(self.now, bytes);
        self.pass(actions);
    }

    fn tick(&mut self, seconds: u64) {
        self.now = Millis(self.now.0 + seconds * 1_000);
        let actions = self.session.tick(self.now);
        self.pass(actions);
    }

    fn found(&mut self, find: &Find) {
        let actions = self.session.found(self.now, find);
        self.pass(actions);
    }

    /// The work that was asked for last; everything asked before is forgotten.
    fn work(&mut self) -> Arc<Work> {
        let asked = std::mem::take(&mut self.asked);
        match asked.last() {
            Some(Action::Hash(work)) => work.clone(),
            _ => panic!("no work: {asked:?}"),
        }
    }

    fn report(&self) -> DialectReport {
        self.session.report()
    }

    /// How the client ended the connection.
    fn end(&self) -> (Cause, String) {
        match self.asked.last() {
            Some(Action::Close { cause, reason, .. }) => (*cause, reason.clone()),
            _ => panic!("not closed: {:?}", self.asked),
        }
    }
}

/// The `skip`-th share of header `index` of a work.
fn find(work: &Work, index: u64, skip: usize) -> Find {
    let roll = work.roll(index).unwrap();
    let header = work.header(&roll);
    let admits = |nonce: &u32| {
        let hash = roadbed_compute::hash::header::double_sha256(&header.with_nonce(*nonce));
        work.target.admits(&hash)
    };
    let nonce = (0..u32::MAX).filter(admits).nth(skip).unwrap();
    Find { work: work.number, roll, nonce }
}

/// Target that one hash in 2^`bits` meets, least significant byte first.
pub(super) fn target(bits: usize) -> [u8; 32] {
    let mut target = [0xFF; 32];
    for byte in 0..bits / 8 {
        target[31 - byte] = 0;
    }
    target
}
