//! The end of an agent: its rigs go to what their lease says they may do alone.
//!
//! Nobody will watch the lease any more, so the fallback applies at once instead of when it lapses. A fallback that is
//! what runs already is left alone: an ASIC need not sleep because its agent is being updated.

use std::time::Duration;

use farm_core::Rig;
use roadbed_protocol::{RigState, Workload};
use tokio::sync::mpsc;

use crate::driver::{DriverEvent, RigDriver};

/// Open jobs may end within this; systemd kills after 90 seconds, a demo waits for us.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// A stop is confirmed within this, or the last word was the order.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What the end of an agent asks of a rig.
#[derive(Debug, PartialEq, Eq)]
enum LastOrder {
    /// Nothing runs, or what runs may go on.
    Leave,
    /// Step down to this.
    HandOver(Workload),
    /// End it.
    Stop,
}

fn last_order(state: RigState, running: Option<&Workload>, fallback: &Workload) -> LastOrder {
    let Some(running) = running else { return LastOrder::Leave };
    if running == fallback && state == RigState::Running {
        LastOrder::Leave
    } else if running.hands_over_to(fallback) && state == RigState::Running {
        LastOrder::HandOver(fallback.clone())
    } else {
        LastOrder::Stop
    }
}

/// Brings a rig to its fallback.
pub(super) async fn wind_down(
    rig: &Rig,
    driver: &mut dyn RigDriver,
    events: &mut mpsc::Receiver<DriverEvent>,
) {
    let fallback = rig.assignment().map_or(&Workload::Idle, |assignment| &assignment.fallback);
    match last_order(rig.state(), rig.workload(), fallback) {
        LastOrder::Leave => {}
        LastOrder::HandOver(to) => {
            driver.hand_over(to);
            wait_for(events, STOP_MAX, |event| matches!(event, DriverEvent::HandedOver { .. }))
                .await;
        }
        LastOrder::Stop => {
            if rig.state() == RigState::Running
                && rig.workload().is_some_and(|w| w.model().is_some())
            {
                driver.begin_drain();
                wait_for(events, DRAIN_MAX, |event| matches!(event, DriverEvent::Drained)).await;
            }
            driver.stop(true);
            if !wait_for(events, STOP_MAX, |event| matches!(event, DriverEvent::Stopped)).await {
                tracing::warn!(rig = %rig.id(), "told to stop, not confirmed when the agent ended");
            }
        }
    }
}

/// True when the awaited event came in time.
async fn wait_for(
    events: &mut mpsc::Receiver<DriverEvent>,
    most: Duration,
    awaited: impl Fn(&DriverEvent) -> bool,
) -> bool {
    let arrival = async {
        while let Some(event) = events.recv().await {
            if awaited(&event) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(most, arrival).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::Watts;

    use super::*;

    #[test]
    fn only_what_the_fallback_allows_goes_on() {
        let full = Workload::Mine { power_target: None };
        let less = Workload::Mine { power_target: Some(Watts(1_000)) };
        let order =
            |running: Option<&Workload>, fallback| last_order(RigState::Running, running, fallback);
        assert_eq!(order(Some(&full), &full), LastOrder::Leave);
        assert_eq!(order(Some(&full), &less), LastOrder::HandOver(less.clone()));
        assert_eq!(order(Some(&full), &Workload::Curtailed), LastOrder::Stop);
        assert_eq!(order(None, &Workload::Curtailed), LastOrder::Leave);
        assert_eq!(last_order(RigState::Starting, Some(&full), &full), LastOrder::Stop);
    }
}
