//! When a command in the foreground looks at what it started: again and again, until somebody or its time ends it.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::runtime;

/// The looks of one command.
pub(super) struct Looks {
    stop: CancellationToken,
    ends: Option<Instant>,
    ticks: Interval,
}

impl Looks {
    /// One `every` so many seconds, the first after as many; for `seconds` together, if that is wanted.
    pub(super) fn new(every: u64, seconds: Option<u64>) -> Self {
        let (now, pause) = (Instant::now(), Duration::from_secs(every));
        let mut ticks = interval_at(now + pause, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A time beyond what the clock can tell is none.
        let ends = seconds.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
        Self { stop: runtime::ended_from_outside(), ends, ticks }
    }

    /// Waits for the next look; false when there is none. May be dropped and called again.
    pub(super) async fn next(&mut self) -> bool {
        let over = async {
            match self.ends {
                Some(ends) => sleep_until(ends).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = over => false,
            _ = self.ticks.tick() => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_end_with_their_time_and_when_somebody_ends_them() {
        assert!(!Looks::new(3_600, Some(0)).next().await);
        for seconds in [None, Some(u64::MAX)] {
            let mut looks = Looks::new(3_600, seconds);
            looks.stop.cancel();
            assert!(!looks.next().await);
        }
    }
}
