//! VNish: REST over HTTP on port 80, writes with a bearer token got for the password.
//!
//! A token dies with the miner's web server, so a 401 means "unlock again", once; a second one means
//! that the password is wrong. A preset that was never tuned starts a tuning run of hours when it is
//! chosen, so only tuned ones are. Facts and sources: `firmware-notes/vnish.md`.

mod reply;
mod wire;

use std::net::SocketAddr;

use roadbed_protocol::Watts;
use serde_json::{Value, json};

use super::firmware::{
    Depth, Firmware, FirmwareError, Identity, Reading, Step, no_step, step_at_most,
};
use super::secret::Secret;
use reply::Unit;
use wire::Wire;

/// A VNish miner.
pub struct Vnish {
    wire: Wire,
    /// Unit of its hashrates; told by `info`, GH/s until then.
    unit: Unit,
}

impl Vnish {
    /// A miner at `address`; nothing is sent yet.
    ///
    /// # Errors
    /// When no HTTP client can be built on this machine.
    pub fn new(address: SocketAddr, password: Secret) -> Result<Self, FirmwareError> {
        Ok(Self { wire: Wire::new(address, password)?, unit: Unit::GIGA })
    }

    /// Writes the chosen preset into the miner's own overclock settings, the rest unchanged: a
    /// partial object would reset what it leaves out.
    async fn choose(&mut self, name: &str, asleep: bool) -> Result<(), FirmwareError> {
        let settings = self.wire.get("settings").await?;
        if reply::preset(&settings) == Some(name) && !reply::switcher_above(&settings, name) {
            return Ok(());
        }
        let overclock = reply::overclock_with(&settings, name)?;
        let body = json!({ "miner": { "overclock": overclock } });
        let answer = self.wire.post("settings", Some(&body)).await?;
        let settings = self.wire.get("settings").await?;
        if reply::preset(&settings) != Some(name) {
            return Err(FirmwareError::Refused {
                what: format!("preset {name}"),
                reason: "it was accepted, and the settings do not hold it".into(),
            });
        }
        // A stopped miner takes the preset when it starts.
        if !asleep && answer.get("restart_required") == Some(&Value::Bool(true)) {
            self.wire.post("mining/restart", None).await?;
        }
        Ok(())
    }
}

impl Firmware for Vnish {
    async fn identify(&mut self) -> Result<Identity, FirmwareError> {
        let info = self.wire.get("info").await?;
        let identity = reply::identity(&info)?;
        self.unit = reply::unit(&info)?;
        Ok(identity)
    }

    async fn read(&mut self, _depth: Depth) -> Result<Reading, FirmwareError> {
        reply::reading(&self.wire.get("summary").await?, self.unit)
    }

    async fn steps(&mut self) -> Result<Vec<Step>, FirmwareError> {
        reply::steps(&self.wire.get("autotune/presets").await?)
    }

    async fn sleep(&mut self) -> Result<(), FirmwareError> {
        self.wire.post("mining/stop", None).await.map(|_| ())
    }

    async fn wake(&mut self) -> Result<(), FirmwareError> {
        self.wire.post("mining/start", None).await.map(|_| ())
    }

    async fn set_step(&mut self, cap: Watts, asleep: bool) -> Result<Step, FirmwareError> {
        let steps = self.steps().await?;
        let step = step_at_most(&steps, cap).cloned().ok_or_else(|| no_step(&steps, cap))?;
        self.choose(&step.name, asleep).await?;
        Ok(step)
    }
}
