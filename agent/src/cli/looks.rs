//! When a command in the foreground looks at what it started: again and again, until somebody or its time ends it.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::runtime;

/// How often such a command looks, and how long.
#[derive(Debug, Args)]
pub struct LooksArgs {
    /// End after so many seconds; without it, when interrupted.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Seconds between two lines of status.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub every: u64,
}

/// The looks of one command.
pub(super) struct Looks {
    stop: CancellationToken,
    ends: Option<Instant>,
    ticks: Interval,
}

impl Looks {
    /// As is asked for; the first after one pause.
    pub(super) fn new(args: &LooksArgs) -> Self {
        let (now, pause) = (Instant::now(), Duration::from_secs(args.every));
        let mut ticks = interval_at(now + pause, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A time beyond what the clock can tell is none.
        let ends = args.seconds.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
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
        let looks = |seconds| Looks::new(&LooksArgs { every: 3_600, seconds });
        assert!(!looks(Some(0)).next().await);
        for seconds in [None, Some(u64::MAX)] {
            let mut looks = looks(seconds);
            looks.stop.cancel();
            assert!(!looks.next().await);
        }
    }
}
