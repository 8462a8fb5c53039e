//! LuxOS: one JSON request per TCP connection on port 4028, writes under a session.
//!
//! The session is a lock between well-behaved tools, not security: one exists per miner, and it
//! dies 60 s after its last use. We take one for an order and give it back. When another tool holds
//! it we wait; the `kill` command and the trick of reading the other tool's id with `session` and
//! using it (two public client libraries do that) are not for us: both break the other tool's work.
//! Facts and sources: `firmware-notes/luxos.md`.

mod reply;
mod wire;

use std::net::SocketAddr;

use roadbed_protocol::Watts;
use serde_json::Value;

use super::firmware::{
    Depth, Firmware, FirmwareError, Identity, Reading, Step, no_step, step_at_most,
};
use wire::Wire;

pub use reply::Atm;

/// A LuxOS miner.
pub struct Luxos {
    wire: Wire,
    /// A session that could not be given back; used again before asking for another.
    session: Option<String>,
    /// Thermal management was on and is switched off by us, to be switched on again.
    atm_owed: bool,
}

impl Luxos {
    /// A miner at `address`; nothing is sent yet.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { wire: Wire::new(address), session: None, atm_owed: false }
    }

    async fn ask(&self, command: &'static str) -> Result<Value, FirmwareError> {
        self.wire.request(command, None).await
    }

    /// A session of our own.
    async fn log_on(&mut self) -> Result<String, FirmwareError> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        match self.ask("logon").await {
            Ok(value) => reply::session(&value),
            // The vendor documents one reason for which logon fails: there is a session already.
            Err(FirmwareError::Refused { reason, .. }) => Err(FirmwareError::SessionHeld {
                address: self.wire.address().to_string(),
                why: reason,
            }),
            Err(other) => Err(other),
        }
    }

    /// Gives the session back, or keeps it for the next order where that failed.
    async fn log_off(&mut self, session: String) {
        match self.wire.request("logoff", Some(&session)).await {
            // A refused log-off means that the session had died already.
            Ok(_) | Err(FirmwareError::Refused { .. }) => {}
            Err(_) => self.session = Some(session),
        }
    }

    /// A write under `session`, which is replaced once if it has expired.
    async fn write(
        &mut self,
        session: &mut String,
        command: &'static str,
        parameter: &str,
    ) -> Result<Value, FirmwareError> {
        let joined = |session: &str| format!("{session},{parameter}");
        match self.wire.request(command, Some(&joined(session))).await {
            Err(FirmwareError::Refused { reason, .. }) if reply::names_session(&reason) => {
                *session = self.log_on().await?;
                self.wire.request(command, Some(&joined(session))).await
            }
            other => other,
        }
    }

    async fn curtail(&mut self, action: &str) -> Result<(), FirmwareError> {
        let mut session = self.log_on().await?;
        let outcome = self.write(&mut session, "curtail", action).await;
        self.log_off(session).await;
        outcome.map(|_| ())
    }

    /// Chooses a profile. Thermal management refuses that while it is on, so it is switched off for
    /// the moment and on again with the profile as its ceiling: it may cool the miner, and it may
    /// not raise it above the power it was told.
    async fn choose(&mut self, session: &mut String, name: &str) -> Result<(), FirmwareError> {
        let atm = match self.ask("atm").await {
            Ok(value) => reply::atm(&value),
            // Versions without the command have no thermal management to switch.
            Err(FirmwareError::Refused { .. } | FirmwareError::Unsupported { .. }) => Atm::Off,
            Err(other) => return Err(other),
        };
        if atm == Atm::On {
            self.write(session, "atmset", "enabled=false").await?;
            self.atm_owed = true;
        }
        let outcome = self.write(session, "profileset", name).await;
        if self.atm_owed {
            self.restore_atm(session, outcome.is_ok().then_some(name)).await?;
        }
        outcome.map(|_| ())
    }

    async fn restore_atm(
        &mut self,
        session: &mut String,
        ceiling: Option<&str>,
    ) -> Result<(), FirmwareError> {
        if let Some(name) = ceiling {
            let both = format!("enabled=true,max_profile={name}");
            if self.write(session, "atmset", &both).await.is_ok() {
                self.atm_owed = false;
                return Ok(());
            }
        }
        self.write(session, "atmset", "enabled=true").await?;
        self.atm_owed = false;
        Ok(())
    }
}

impl Firmware for Luxos {
    async fn identify(&mut self) -> Result<Identity, FirmwareError> {
        reply::identity(&self.ask("version").await?)
    }

    async fn read(&mut self, depth: Depth) -> Result<Reading, FirmwareError> {
        // Three requests of 1 kB each; the chip reports (3 x 28 kB) are left alone.
        let power = self.ask("power").await?;
        let summary = self.ask("summary").await?;
        let temps = self.ask("temps").await;
        let config = match depth {
            Depth::Narrow => None,
            Depth::Full => Some(self.ask("config").await?),
        };
        Ok(reply::reading(&power, &summary, temps.as_ref().ok(), config.as_ref()))
    }

    async fn steps(&mut self) -> Result<Vec<Step>, FirmwareError> {
        reply::steps(&self.ask("profiles").await?)
    }

    async fn sleep(&mut self) -> Result<(), FirmwareError> {
        self.curtail("sleep").await
    }

    async fn wake(&mut self) -> Result<(), FirmwareError> {
        // Plain wakeup: it ramps as after a reboot. `mode=unsafe` is faster and wears the chips.
        self.curtail("wakeup").await
    }

    async fn set_step(&mut self, cap: Watts, _asleep: bool) -> Result<Step, FirmwareError> {
        let steps = self.steps().await?;
        let step = step_at_most(&steps, cap).cloned().ok_or_else(|| no_step(&steps, cap))?;
        let config = self.ask("config").await?;
        if reply::profile(&config) == Some(step.name.as_str()) && !self.atm_owed {
            return Ok(step);
        }
        let mut session = self.log_on().await?;
        let outcome = self.choose(&mut session, &step.name).await;
        self.log_off(session).await;
        outcome.map(|()| step)
    }
}
