//! What became of every share: sent, taken, refused and why, or never answered.

use std::collections::{HashSet, VecDeque};

use roadbed_protocol::{JobCounters, Millis};

use super::message::Refusal;

/// Shares under way at once. At one share a second and a pool that answers within seconds there are
/// a handful; more means a pool that does not answer, and the oldest counts as unanswered.
const OPEN_MAX: usize = 256;
/// A share without an answer for this long has none.
const ANSWER_WITHIN: Millis = Millis::from_secs(60);
/// Shares remembered to tell a second find of the same one.
const REMEMBERED_MAX: usize = 4_096;

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
}

impl ShareTally {
    /// All refusals.
    #[must_use]
    pub const fn rejected(&self) -> u64 {
        self.stale + self.duplicate + self.low_difficulty + self.other
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

/// Why a pool refused a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Stale,
    Duplicate,
    LowDifficulty,
    Other,
}

impl Reason {
    /// By Stratum's code; pools with codes of their own are known by their words.
    fn of(refusal: &Refusal) -> Self {
        match refusal.code {
            Some(21) => return Self::Stale,
            Some(22) => return Self::Duplicate,
            Some(23) => return Self::LowDifficulty,
            Some(_) | None => {}
        }
        let text = refusal.text.to_ascii_lowercase();
        if text.contains("stale") || text.contains("job not found") || text.contains("old job") {
            Self::Stale
        } else if text.contains("duplicate") {
            Self::Duplicate
        } else if text.contains("low diff") || text.contains("above target") {
            Self::LowDifficulty
        } else {
            Self::Other
        }
    }
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
    known: HashSet<Vec<String>>,
    refused_in_a_row: u32,
}

impl ShareBook {
    /// Totals so far.
    #[must_use]
    pub const fn tally(&self) -> ShareTally {
        self.tally
    }

    /// Refusals since the last share that was taken.
    #[must_use]
    pub const fn refused_in_a_row(&self) -> u32 {
        self.refused_in_a_row
    }

    /// Whether these parameters are new; a backend that finds a nonce twice is not paid twice.
    pub fn is_new(&mut self, params: &[String]) -> bool {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(params.to_vec())
    }

    /// A share was found for a job that is over.
    pub const fn missed(&mut self) {
        self.tally.stale_unsent += 1;
    }

    /// A share goes out as request `request`.
    pub fn sent(&mut self, now: Millis, request: u64, difficulty: f64) {
        self.tally.submitted += 1;
        if self.open.len() >= OPEN_MAX && self.open.pop_front().is_some() {
            self.tally.unanswered += 1;
        }
        self.open.push_back(Open { request, sent: now, difficulty });
    }

    /// An answer to request `request`; false when that was no share, or is answered already.
    pub fn answered(&mut self, request: u64, outcome: Result<bool, &Refusal>) -> bool {
        let Some(place) = self.open.iter().position(|open| open.request == request) else {
            return false;
        };
        let Some(open) = self.open.remove(place) else { return false };
        let reason = match outcome {
            Ok(true) => {
                self.tally.accepted += 1;
                self.tally.accepted_difficulty += open.difficulty;
                self.refused_in_a_row = 0;
                return true;
            }
            Ok(false) => Reason::Other,
            Err(refusal) => Reason::of(refusal),
        };
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        let count = match reason {
            Reason::Stale => &mut self.tally.stale,
            Reason::Duplicate => &mut self.tally.duplicate,
            Reason::LowDifficulty => &mut self.tally.low_difficulty,
            Reason::Other => &mut self.tally.other,
        };
        *count += 1;
        true
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
        self.refused_in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasons_are_told_apart_by_code_and_by_words() {
        for (code, text, want) in [
            (Some(21), "", Reason::Stale),
            (Some(22), "", Reason::Duplicate),
            (Some(23), "", Reason::LowDifficulty),
            (Some(24), "Unauthorized worker", Reason::Other),
            (None, "Stale share", Reason::Stale),
            (Some(-2), "Duplicate share", Reason::Duplicate),
            (Some(20), "low difficulty share", Reason::LowDifficulty),
        ] {
            assert_eq!(Reason::of(&Refusal { code, text: text.into() }), want, "{code:?} {text}");
        }
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
                        let stale = Refusal { code: Some(21), text: String::new() };
                        let outcome = if value % 3 == 0 { Err(&stale) } else { Ok(value % 3 == 1) };
                        book.answered(value, outcome);
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
