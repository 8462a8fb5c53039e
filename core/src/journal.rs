//! Which rows of a journal have been taken: each once, and acknowledged only without gaps.

use std::collections::BTreeSet;

/// Rows kept in mind ahead of a gap. An agent resends from its oldest unacknowledged row, so what does not fit comes
/// again; 4096 rows are more than an hour of a hall of machines.
pub const AHEAD_MAX: usize = 4_096;

/// How far one journal has been read. Rows are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    contiguous: u64,
    ahead: BTreeSet<u64>,
}

/// What to do with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New: count it.
    Take,
    /// Taken before: drop it.
    Duplicate,
    /// Too far ahead of a gap: drop it, it will come again.
    TooFar,
}

impl Cursor {
    /// A journal of which every row up to `contiguous` was taken.
    #[must_use]
    pub fn at(contiguous: u64) -> Self {
        Self { contiguous, ahead: BTreeSet::new() }
    }

    /// Every row up to this one was taken; 0 is none.
    #[must_use]
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// The first row missing and the first one present after it, if there is a gap.
    #[must_use]
    pub fn gap(&self) -> Option<(u64, u64)> {
        self.ahead.first().map(|first| (self.contiguous.saturating_add(1), *first))
    }

    /// Judges the row `seq` and, if it is new, marks it as taken.
    pub fn take(&mut self, seq: u64) -> Verdict {
        if seq <= self.contiguous || self.ahead.contains(&seq) {
            return Verdict::Duplicate;
        }
        if seq != self.contiguous.saturating_add(1) && self.ahead.len() >= AHEAD_MAX {
            return Verdict::TooFar;
        }
        self.ahead.insert(seq);
        self.close();
        Verdict::Take
    }

    /// Gives up the rows of the first gap. Returns how many.
    pub fn skip_gap(&mut self) -> u64 {
        let Some((from, until)) = self.gap() else { return 0 };
        self.contiguous = until - 1;
        self.close();
        until - from
    }

    fn close(&mut self) {
        while self.ahead.first() == Some(&self.contiguous.saturating_add(1)) {
            self.contiguous += 1;
            self.ahead.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_once_in_any_order() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.take(2), Verdict::Take);
        assert_eq!(cursor.contiguous(), 0);
        assert_eq!(cursor.gap(), Some((1, 2)));
        assert_eq!(cursor.take(1), Verdict::Take);
        assert_eq!(cursor.contiguous(), 2);
        assert_eq!(cursor.take(1), Verdict::Duplicate);
        assert_eq!(cursor.take(2), Verdict::Duplicate);
        assert_eq!(cursor.take(0), Verdict::Duplicate);
        assert_eq!(cursor.gap(), None);
    }

    #[test]
    fn a_gap_can_be_given_up() {
        let mut cursor = Cursor::at(4);
        cursor.take(8);
        cursor.take(9);
        assert_eq!(cursor.skip_gap(), 3);
        assert_eq!(cursor.contiguous(), 9);
        assert_eq!(cursor.skip_gap(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut cursor = Cursor::default();
        let far =
            (0..AHEAD_MAX as u64 + 10).filter(|i| cursor.take(i + 2) == Verdict::TooFar).count();
        assert_eq!(far, 10);
        assert_eq!(cursor.take(1), Verdict::Take);
        assert_eq!(cursor.contiguous(), AHEAD_MAX as u64 + 1);
    }
}
