//! Emulated ASIC miners: a firmware's wire over a body that obeys physics, answering as recorded machines answered.
//!
//! A firmware face ([`luxos`], [`vnish`]) turns requests into orders and readings into recorded answers with live values
//! patched in; the body ([`physics`]) decides what really happens; [`fault`] says how both misbehave on purpose. Address and
//! port are given, so a whole hall fits on 127.0.0.x.
//!
//! Departures from real machines: shares and pools are not simulated (the recorded counters stand still), and answers of a
//! sleeping miner are modelled from documents, because nobody has recorded one. See `tests/data/asic/README.md`.

pub mod cgminer;
pub mod fault;
pub mod luxos;
pub mod physics;
pub mod recording;
pub mod vnish;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadbed_protocol::{Millis, UnixMillis, Watts};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::FarmClock;
use fault::Fault;
use physics::{Physics, PowerStep, Reading};

/// Which firmware's wire a miner speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// LuxOS: JSON over TCP, usually port 4028, one exclusive session for writes.
    Luxos,
    /// VNish: HTTP REST, usually port 80, a token for writes.
    Vnish,
}

/// One emulated miner as the config file gives it, checked by [`crate::config`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsicConfig {
    /// Name in the status document and in the fault address.
    pub id: String,
    /// Firmware.
    pub family: Family,
    /// Where the firmware's control face listens.
    pub listen: SocketAddr,
    /// VNish only: where its read-only cgminer face listens, on real machines port 4028. Foreign tools need it.
    #[serde(default)]
    pub rpc_listen: Option<SocketAddr>,
    /// VNish only: the password that unlocks it.
    #[serde(default = "factory_password")]
    pub password: String,
    /// Wall power asleep.
    pub floor_watts: u64,
    /// Farm seconds from the floor to the highest step.
    pub wake_seconds: u64,
    /// Tuned power steps; the recorded firmware's further steps are there too.
    pub steps: Vec<StepConfig>,
    /// Whether it starts asleep.
    #[serde(default)]
    pub asleep: bool,
    /// What is wrong with it from the start.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// One power step of an [`AsicConfig`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// Wall power when settled.
    pub watts: u64,
    /// Hashrate when settled, TH/s.
    pub terahash: f64,
}

fn factory_password() -> String {
    "admin".to_owned()
}

/// A miner's line in the status document.
#[derive(Debug, Clone, Serialize)]
pub struct AsicStatus {
    /// Name.
    pub id: String,
    /// Firmware.
    pub family: Family,
    /// What it is doing, as [`physics::Activity::word`].
    pub state: &'static str,
    /// Power at the wall.
    pub watts: u64,
    /// Live hashrate, TH/s.
    pub terahash: f64,
    /// Control orders received, obeyed or not.
    pub commands: u64,
    /// What is wrong with it now.
    pub fault: Option<Fault>,
}

/// Why a fault could not be set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("miner {id}: a {family:?} cannot have the fault {fault:?}")]
pub struct FaultError {
    id: String,
    family: Family,
    fault: Fault,
}

/// One emulated miner: its body and what is wrong with it, shared by its faces.
#[derive(Debug)]
pub struct Miner {
    id: String,
    family: Family,
    clock: FarmClock,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    body: Physics,
    fault: Option<Fault>,
    commands: u64,
}

impl Miner {
    /// A miner with the given steps, as config and recordings make them.
    #[must_use]
    pub fn new(config: &AsicConfig, steps: Vec<PowerStep>, clock: FarmClock) -> Arc<Self> {
        let body = Physics::new(
            steps,
            Watts(config.floor_watts),
            Millis::from_secs(config.wake_seconds),
            !config.asleep,
            clock.now(),
        );
        Arc::new(Self {
            id: config.id.clone(),
            family: config.family,
            clock,
            inner: Mutex::new(Inner { body, fault: config.fault, commands: 0 }),
        })
    }

    /// Name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Farm time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// What is wrong with it now.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.lock().fault
    }

    /// Sets or clears what is wrong.
    ///
    /// # Errors
    /// [`FaultError`] when this family cannot have it.
    pub fn set_fault(&self, fault: Option<Fault>) -> Result<(), FaultError> {
        if let Some(fault) = fault
            && !fault.applies_to(self.family)
        {
            return Err(FaultError { id: self.id.clone(), family: self.family, fault });
        }
        let now = self.now();
        let mut inner = self.lock();
        if fault == Some(Fault::Reboot) {
            inner.body.reboot(now);
            inner.fault = None;
        } else {
            inner.fault = fault;
        }
        Ok(())
    }

    /// Whether anything answers at its address.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        let now = self.now();
        let mut inner = self.lock();
        inner.fault != Some(Fault::DropsOffline) && inner.body.is_up(now)
    }

    /// What instruments would show now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let now = self.now();
        self.lock().body.read(now)
    }

    /// Steps by rising power, and the place of the chosen one.
    #[must_use]
    pub fn steps(&self) -> (Vec<PowerStep>, PowerStep) {
        let inner = self.lock();
        (inner.body.steps().to_vec(), inner.body.step().clone())
    }

    /// Whether it is meant to hash.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.lock().body.is_awake()
    }

    /// Counts an order and carries it out, unless [`Fault::OkButNothingHappens`] stands. Returns whether it was carried out.
    pub fn order(&self, act: impl FnOnce(&mut Physics, UnixMillis)) -> bool {
        let now = self.now();
        let mut inner = self.lock();
        inner.commands += 1;
        let obeys = inner.fault != Some(Fault::OkButNothingHappens);
        if obeys {
            act(&mut inner.body, now);
        }
        obeys
    }

    /// Lets the firmware change the body by itself: no order, and no fault keeps it.
    pub fn drift(&self, act: impl FnOnce(&mut Physics, UnixMillis)) {
        let now = self.now();
        act(&mut self.lock().body, now);
    }

    /// Its line in the status document.
    #[must_use]
    pub fn status(&self) -> AsicStatus {
        let reading = self.read();
        let inner = self.lock();
        AsicStatus {
            id: self.id.clone(),
            family: self.family,
            state: reading.activity.word(),
            watts: reading.power.0,
            terahash: (reading.terahash * 100.0).round() / 100.0,
            commands: inner.commands,
            fault: inner.fault,
        }
    }

    /// A poisoned lock means that a test failed elsewhere; the numbers are still whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running emulated miner and where it listens.
#[derive(Debug, Clone)]
pub struct RunningAsic {
    /// The miner itself.
    pub miner: Arc<Miner>,
    /// Bound address of the control face.
    pub address: SocketAddr,
    /// Bound address of the cgminer face of a VNish.
    pub rpc_address: Option<SocketAddr>,
}

/// Binds a miner's faces and serves them until `stop`.
///
/// # Errors
/// What binding an address said.
pub async fn start(
    config: &AsicConfig,
    clock: FarmClock,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<RunningAsic> {
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let mut rpc_address = None;
    let miner = match config.family {
        Family::Luxos => {
            let face = luxos::Luxos::new(config, clock);
            let miner = Arc::clone(face.miner());
            tasks.spawn(cgminer::serve(listener, Arc::new(face), stop.clone()));
            miner
        }
        Family::Vnish => {
            let face = Arc::new(vnish::Vnish::new(config, clock));
            let miner = Arc::clone(face.miner());
            if let Some(rpc) = config.rpc_listen {
                let listener = TcpListener::bind(rpc).await?;
                rpc_address = Some(listener.local_addr()?);
                tasks.spawn(cgminer::serve(listener, Arc::clone(&face), stop.clone()));
            }
            tasks.spawn(vnish::serve(listener, face, stop.clone()));
            miner
        }
    };
    Ok(RunningAsic { miner, address, rpc_address })
}
