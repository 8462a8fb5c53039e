//! When the engine opens a lost device, or starts a lost server, again by itself, and when it leaves that to whoever
//! watches the rig.
//!
//! A driver that resets once in a while costs its customers a pause. A card that is lost again and again must not spend
//! its life loading: it is reported instead, and the rig machine backs off.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Losses mended within [`WINDOW`]; the next one is reported.
const RECOVERIES_MAX: usize = 2;
/// A driver reset by a passing fault does not come again that soon.
const WINDOW: Duration = Duration::from_secs(600);

/// The recent recoveries of one engine.
#[derive(Debug, Default)]
pub(crate) struct Recoveries {
    recent: VecDeque<Instant>,
}

impl Recoveries {
    /// When one more will be due.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let full = self.recent.len() >= RECOVERIES_MAX;
        // Strictly after the window.
        let due = |oldest: &Instant| *oldest + WINDOW + Duration::from_millis(1);
        self.recent.front().filter(|_| full).map_or(now, due)
    }

    /// True if one more is due; then it counts.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let old = |at: &Instant| now.saturating_duration_since(*at) > WINDOW;
        while self.recent.front().is_some_and(old) {
            self.recent.pop_front();
        }
        if self.recent.len() >= RECOVERIES_MAX {
            return false;
        }
        self.recent.push_back(now);
        true
    }

    /// How many count now.
    pub(super) fn recent(&self) -> usize {
        self.recent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_in_ten_minutes() {
        let start = Instant::now();
        let mut recoveries = Recoveries::default();
        let mut at = |seconds| recoveries.allow(start + Duration::from_secs(seconds));
        assert!(at(0));
        assert!(at(500));
        assert!(!at(599));
        assert!(at(601));
        assert!(!at(1100));
        assert!(at(1102));
        let now = start + Duration::from_secs(1103);
        let next = recoveries.next(now);
        assert!(next > start + Duration::from_secs(1201) && recoveries.allow(next));
        assert_eq!(Recoveries::default().next(now), now);
    }
}
