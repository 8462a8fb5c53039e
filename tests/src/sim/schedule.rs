//! Virtual time: what happens next, in order of time and, at one time, in order of asking.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use roadbed_protocol::{Millis, UnixMillis};

/// Things that will happen.
#[derive(Debug)]
pub struct Schedule<T> {
    now: UnixMillis,
    next: u64,
    order: BinaryHeap<Reverse<(UnixMillis, u64)>>,
    waiting: BTreeMap<u64, T>,
}

impl<T> Schedule<T> {
    /// An empty schedule.
    #[must_use]
    pub fn new(now: UnixMillis) -> Self {
        Self { now, next: 0, order: BinaryHeap::new(), waiting: BTreeMap::new() }
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// Lets `thing` happen at `at`, or now if that is past.
    pub fn at(&mut self, at: UnixMillis, thing: T) {
        self.order.push(Reverse((at.max(self.now), self.next)));
        self.waiting.insert(self.next, thing);
        self.next += 1;
    }

    /// Lets `thing` happen after `span`.
    pub fn after(&mut self, span: Millis, thing: T) {
        self.at(self.now + span, thing);
    }

    /// Goes on to the next thing.
    pub fn pop(&mut self) -> Option<T> {
        let Reverse((at, number)) = self.order.pop()?;
        self.now = at;
        self.waiting.remove(&number)
    }
}
