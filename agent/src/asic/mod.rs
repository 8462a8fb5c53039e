//! ASIC rigs: miners behind a firmware API, put to sleep, woken and stepped by power.
//!
//! One task a rig talks to its firmware ([`task`]); calls of the runtime only leave an order for it,
//! the latest of which counts. What came of an order is said when watts and hashrate show it
//! ([`order`], [`evidence`]), because the answers of firmwares do not ([`firmware`]).
//!
//! ```text
//! runtime --(order, latest wins)--> task --> Firmware (luxos | vnish) --> miner
//!    ^                               |
//!    +--(events) <- order <- evidence <- reading
//! ```

pub mod evidence;
pub mod field;
pub mod firmware;
pub mod luxos;
pub mod order;
pub mod secret;
pub mod vnish;

#[cfg(test)]
mod recording;
mod task;

use roadbed_protocol::{RigId, RigProfile, Watts, Workload};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::FarmClock;
use crate::config::{AsicConfig, AsicDriverKind};
use crate::driver::{DriverEvent, DriverEvents, Observation, RigDriver};
use firmware::{Firmware, FirmwareError};
use luxos::Luxos;
use order::Goal;
use secret::Secret;
use task::Task;
use vnish::Vnish;

/// VNish's factory password, where the config names none.
const VNISH_FACTORY_PASSWORD: &str = "admin";

/// What to say when an order is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Started(Workload),
    HandedOver(Workload),
    Stopped,
    /// Holding the floor and cutting power are answered by the readings alone.
    Nothing,
}

/// An order of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    goal: Goal,
    answer: Answer,
    /// Rises with every order, so that the same order given again is answered again.
    number: u64,
}

/// All the runtime wants now; a newer one replaces it, so nothing queues up behind a slow miner.
#[derive(Debug, Clone, Default)]
struct Wishes {
    order: Option<Wish>,
    /// How often it asked whether the miner is there.
    probes: u64,
}

/// The hands of one ASIC rig.
pub struct AsicDriver {
    rig: RigId,
    wishes: watch::Sender<Wishes>,
    observed: watch::Receiver<Observation>,
    events: DriverEvents,
    profile: RigProfile,
    task: JoinHandle<()>,
}

impl AsicDriver {
    /// Starts the task of a rig on the current tokio runtime. Nothing is written to the miner
    /// before the first order; reading begins at once.
    ///
    /// # Errors
    /// When this machine cannot talk to any miner of the family.
    pub fn spawn(
        rig: &RigId,
        config: &AsicConfig,
        profile: &RigProfile,
        clock: FarmClock,
        events: DriverEvents,
    ) -> Result<Self, FirmwareError> {
        match config.driver {
            AsicDriverKind::Luxos => {
                let firmware = Luxos::new(config.address);
                Ok(Self::with_firmware(rig, firmware, config.driver, profile, clock, events))
            }
            AsicDriverKind::Vnish => {
                let password = config.password.as_deref().unwrap_or(VNISH_FACTORY_PASSWORD);
                let firmware = Vnish::new(config.address, Secret::new(password.to_owned()))?;
                Ok(Self::with_firmware(rig, firmware, config.driver, profile, clock, events))
            }
        }
    }

    fn with_firmware<F: Firmware>(
        rig: &RigId,
        firmware: F,
        kind: AsicDriverKind,
        profile: &RigProfile,
        clock: FarmClock,
        events: DriverEvents,
    ) -> Self {
        let (wishes, wanted) = watch::channel(Wishes::default());
        let first = Observation { engine: kind.word().into(), ..Observation::default() };
        let (seen, observed) = watch::channel(first);
        let task = Task::new(rig.clone(), firmware, profile, clock, seen, events.clone());
        Self {
            rig: rig.clone(),
            wishes,
            observed,
            events,
            profile: profile.clone(),
            task: tokio::spawn(task.run(wanted)),
        }
    }

    fn wish(&self, goal: Goal, answer: Answer) {
        self.wishes.send_modify(|wishes| {
            let number = wishes.order.as_ref().map_or(1, |before| before.number + 1);
            wishes.order = Some(Wish { goal, answer, number });
        });
    }

    fn mine(&self, workload: Workload, answer: Answer) {
        match (&workload, self.profile.normal_mining()) {
            (Workload::Mine { power_target: Some(cap) }, _) => {
                self.wish(Goal::Mine { cap: *cap, normal: false }, answer);
            }
            (Workload::Mine { power_target: None }, Some(step)) => {
                self.wish(Goal::Mine { cap: step.watts, normal: true }, answer);
            }
            (Workload::Mine { power_target: None }, None) => {
                // Profiles of ASICs have a step by rule; the nameplate is the limit of any.
                let cap: Watts = self.profile.nameplate_watts;
                self.wish(Goal::Mine { cap, normal: true }, answer);
            }
            (Workload::Idle | Workload::Curtailed, _) => self.wish(Goal::Sleep, answer),
            (Workload::Serve { .. } | Workload::Prove { .. }, _) => {
                self.say(DriverEvent::Failed {
                    reason: format!("an ASIC cannot {workload}; it mines or sleeps"),
                });
            }
        }
    }

    /// Says something that needs no hardware. A full channel means a stuck runtime, which will find
    /// out by its own deadline.
    fn say(&self, event: DriverEvent) {
        if let Err(error) = self.events.try_send(event) {
            tracing::warn!(rig = %self.rig, "event lost: {error}");
        }
    }
}

impl RigDriver for AsicDriver {
    fn probe(&mut self) {
        self.wishes.send_modify(|wishes| wishes.probes += 1);
    }

    fn start(&mut self, workload: Workload) {
        self.mine(workload.clone(), Answer::Started(workload));
    }

    fn hand_over(&mut self, to: Workload) {
        self.mine(to.clone(), Answer::HandedOver(to));
    }

    fn begin_drain(&mut self) {
        // A share lost is worth nothing; hashing has no open jobs.
        self.say(DriverEvent::Drained);
    }

    fn cancel_drain(&mut self) {}

    fn stop(&mut self, _force: bool) {
        self.wish(Goal::Sleep, Answer::Stopped);
    }

    fn hold_floor(&mut self) {
        // After a stop it is held already, and a write more would wake nobody but the log.
        let held = self.wishes.borrow().order.as_ref().is_some_and(|wish| wish.goal == Goal::Sleep);
        if !held {
            self.wish(Goal::Sleep, Answer::Nothing);
        }
    }

    fn cut_power(&mut self) {
        self.wish(Goal::Sleep, Answer::Nothing);
    }

    fn observe(&mut self) -> Observation {
        self.observed.borrow().clone()
    }
}

impl Drop for AsicDriver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
