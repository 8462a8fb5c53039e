//! What became of every share: sent, taken, refused and why, or never answered.

use std::collections::{HashSet, VecDeque};
use std::ops::AddAssign;

use roadbed_protocol::{JobCounters, Millis, PoolShares};

/// Shares under way at once. At one share a second and a pool that answers within seconds there are a handful; more means
/// a difficulty far too low or a pool that does not answer, and further finds are held back. Small enough that all of them
/// in one packet stay below the 10 KiB at which foundation-stratum takes a miner for a flood and hangs up.
const OPEN_MAX: usize = 64;
/// Refused shares in a row after which a connection is made anew: our idea of the job, the extranonce or the difficulty and
/// the pool's have parted.
pub const REFUSED_MAX: u32 = 20;
/// A share without an answer for this long has none.
const ANSWER_WITHIN: Millis = Millis::from_secs(60);
/// Shares remembered to tell a second find of the same one.
const REMEMBERED_MAX: usize = 4_096;
/// Part of the newest answer in the mean of how long answers take, as a power of two: about the last eight count.
const ANSWER_SHIFT: u32 = 3;
/// Parts of a millisecond in which that mean is kept, so that rounding does not hold it fast.
const ANSWER_PARTS: u64 = 1_000;

/// Running totals of shares; they only rise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ShareTally {
    /// Sent to the pool.
    pub submitted: u64,
    /// Taken.
    pub accepted: u64,
    /// Sum of the difficulties of those taken: what the pool pays by.
    pub accepted_difficulty: f64,
    /// Refused as too late (Stratum code 21).
    pub stale: u64,
    /// Refused as sent before (22).
    pub duplicate: u64,
    /// Refused as too easy (23).
    pub low_difficulty: u64,
    /// Refused for any other reason.
    pub other: u64,
    /// Never answered.
    pub unanswered: u64,
    /// Found for a job that was over by then, and not sent.
    pub stale_unsent: u64,
    /// Found while too many were under way, and not sent.
    pub held_back: u64,
}

impl ShareTally {
    /// All refusals.
    #[must_use]
    pub const fn rejected(&self) -> u64 {
        self.stale + self.duplicate + self.low_difficulty + self.other
    }

    /// What a rig's report tells of a pool's shares.
    #[must_use]
    pub const fn pool_shares(&self) -> PoolShares {
        PoolShares {
            accepted: self.accepted,
            stale: self.stale,
            duplicate: self.duplicate,
            low_difficulty: self.low_difficulty,
            other: self.other,
            unanswered: self.unanswered,
        }
    }

    /// The part of a rig's counters that mining fills.
    #[must_use]
    pub fn counters(&self) -> JobCounters {
        JobCounters {
            shares_submitted: self.submitted,
            shares_accepted: self.accepted,
            shares_rejected: self.rejected(),
            shares_stale: self.stale,
            ..JobCounters::default()
        }
    }
}

impl AddAssign for ShareTally {
    fn add_assign(&mut self, other: Self) {
        let Self {
            submitted,
            accepted,
            accepted_difficulty,
            stale,
            duplicate,
            low_difficulty,
            other: refused,
            unanswered,
            stale_unsent,
            held_back,
        } = other;
        self.submitted += submitted;
        self.accepted += accepted;
        self.accepted_difficulty += accepted_difficulty;
        self.stale += stale;
        self.duplicate += duplicate;
        self.low_difficulty += low_difficulty;
        self.other += refused;
        self.unanswered += unanswered;
        self.stale_unsent += stale_unsent;
        self.held_back += held_back;
    }
}

/// Why a pool refused a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too late.
    Stale,
    /// Sent before.
    Duplicate,
    /// Too easy.
    LowDifficulty,
    /// Anything else.
    Other,
}

#[derive(Debug)]
struct Open {
    request: u64,
    sent: Millis,
    difficulty: f64,
}

/// Shares of one connection, and totals over all.
#[derive(Debug, Default)]
pub struct ShareBook {
    tally: ShareTally,
    open: VecDeque<Open>,
    known: HashSet<Vec<u8>>,
    refused_in_a_row: u32,
    stale_in_a_row: u32,
    /// In thousandths of a millisecond.
    answer_after: Option<u64>,
}

impl ShareBook {
    /// Totals so far.
    #[must_use]
    pub const fn tally(&self) -> ShareTally {
        self.tally
    }

    /// Whether [`REFUSED_MAX`] shares were refused since the last that was taken, without those for their age.
    #[must_use]
    pub const fn is_always_refused(&self) -> bool {
        self.refused_in_a_row >= REFUSED_MAX
    }

    /// Whether more shares in a row came too late than can be under way at a new block: the pool and we have parted.
    #[must_use]
    pub const fn is_always_late(&self) -> bool {
        self.stale_in_a_row as usize > 2 * OPEN_MAX
    }

    /// Whether this share may be sent, by what names it to the pool: a backend that finds a nonce twice is not paid
    /// twice, and a pool that answers too slowly gets no more for now.
    pub fn admits(&mut self, share: Vec<u8>) -> bool {
        if self.known.contains(&share) {
            return false;
        }
        if self.open.len() >= OPEN_MAX {
            self.tally.held_back += 1;
            return false;
        }
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(share)
    }

    /// A share was found while enough had been sent.
    pub const fn held_back(&mut self) {
        self.tally.held_back += 1;
    }

    /// How long the oldest share under way has waited for its answer.
    #[must_use]
    pub fn oldest_wait(&self, now: Millis) -> Millis {
        self.open.front().map_or(Millis::ZERO, |open| Millis(now.0.saturating_sub(open.sent.0)))
    }

    /// A share was found for a job that is over.
    pub const fn missed(&mut self) {
        self.tally.stale_unsent += 1;
    }

    /// A share goes out as request `request`.
    pub fn sent(&mut self, now: Millis, request: u64, difficulty: f64) {
        self.tally.submitted += 1;
        self.open.push_back(Open { request, sent: now, difficulty });
    }

    /// How long shares waited for their answers, mean of about the last eight.
    #[must_use]
    pub fn answer_after(&self) -> Option<Millis> {
        self.answer_after.map(|parts| Millis(parts / ANSWER_PARTS))
    }

    /// Request `request` was taken; false when that was no share, or is answered already.
    pub fn accepted(&mut self, now: Millis, request: u64) -> bool {
        let Some(open) = self.close(now, request) else { return false };
        self.tally.accepted += 1;
        self.tally.accepted_difficulty += open.difficulty;
        (self.refused_in_a_row, self.stale_in_a_row) = (0, 0);
        true
    }

    /// The oldest `count` open requests up to `last` were taken; how many these were, which is fewer when the pool counts
    /// more than it was sent. For pools that answer in batches.
    pub fn accepted_through(&mut self, now: Millis, last: u64, count: u64) -> u64 {
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        let taken: Vec<u64> = self.open.iter().map(|open| open.request).collect();
        let taken = taken.into_iter().filter(|request| *request <= last).take(most);
        taken.filter(|request| self.accepted(now, *request)).count() as u64
    }

    /// Request `request` was refused; false when that was no share, or is answered already.
    pub fn rejected(&mut self, now: Millis, request: u64, reason: Reason) -> bool {
        if self.close(now, request).is_none() {
            return false;
        }
        let (count, row) = match reason {
            Reason::Stale => (&mut self.tally.stale, &mut self.stale_in_a_row),
            Reason::Duplicate => (&mut self.tally.duplicate, &mut self.refused_in_a_row),
            Reason::LowDifficulty => (&mut self.tally.low_difficulty, &mut self.refused_in_a_row),
            Reason::Other => (&mut self.tally.other, &mut self.refused_in_a_row),
        };
        *count += 1;
        *row = row.saturating_add(1);
        true
    }

    fn close(&mut self, now: Millis, request: u64) -> Option<Open> {
        let place = self.open.iter().position(|open| open.request == request)?;
        let open = self.open.remove(place)?;
        let waited = now.0.saturating_sub(open.sent.0).saturating_mul(ANSWER_PARTS);
        let before = self.answer_after.unwrap_or(waited);
        self.answer_after = Some(before - (before >> ANSWER_SHIFT) + (waited >> ANSWER_SHIFT));
        Some(open)
    }

    /// Gives up on answers that are overdue.
    pub fn expire(&mut self, now: Millis) {
        while let Some(oldest) = self.open.front() {
            if now.0.saturating_sub(oldest.sent.0) < ANSWER_WITHIN.0 {
                return;
            }
            self.open.pop_front();
            self.tally.unanswered += 1;
        }
    }

    /// The connection is gone, and with it every answer.
    pub fn disconnected(&mut self) {
        self.tally.unanswered += self.open.len() as u64;
        self.open.clear();
        self.known.clear();
        (self.refused_in_a_row, self.stale_in_a_row) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mean_of_the_answers_follows_them() {
        let mut book = ShareBook::default();
        assert_eq!(book.answer_after(), None);
        let mut answer = |request: u64, waited: u64| {
            book.sent(Millis(request * 1_000), request, 1.0);
            book.accepted(Millis(request * 1_000 + waited), request);
            book.answer_after().unwrap()
        };
        assert_eq!(answer(1, 80), Millis(80));
        assert_eq!(answer(2, 160), Millis(90));
        let slow = (3..60).map(|request| answer(request, 500)).last();
        assert!(slow.is_some_and(|mean| (495..=500).contains(&mean.0)), "{slow:?}");
        // Our clock went back in between.
        book.sent(Millis(9_000), 99, 1.0);
        book.accepted(Millis(5), 99);
        assert!(book.answer_after().is_some_and(|mean| mean.0 < 500));
    }

    proptest! {
        /// Every share ends in exactly one column, whatever is answered, twice or never.
        #[test]
        fn the_books_balance(events in prop::collection::vec((0u8..4, 0u64..40), 0..400)) {
            let mut book = ShareBook::default();
            let (mut now, mut request) = (Millis(0), 0);
            for (what, value) in events {
                match what {
                    0 => {
                        request += 1;
                        book.sent(now, request, 1.0);
                    }
                    1 => {
                        match value % 4 {
                            0 => book.rejected(now, value, Reason::Stale),
                            1 => book.rejected(now, value, Reason::Other),
                            2 => book.accepted(now, value),
                            _ => book.accepted_through(now, value, request % 5) > 0,
                        };
                    }
                    2 => {
                        now = Millis(now.0 + value * 1_000);
                        book.expire(now);
                    }
                    _ if value == 0 => book.disconnected(),
                    _ => {}
                }
                let tally = book.tally();
                let closed = tally.accepted + tally.rejected() + tally.unanswered;
                prop_assert_eq!(tally.submitted, closed + book.open.len() as u64);
            }
        }
    }
}
