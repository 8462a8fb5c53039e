//! Power and heat of a GPU rig: hardware sensors where there are any, the rig's profile where there are none.
//!
//! Reading hardware blocks, so it has a thread of its own and what it saw last is looked at from there. The best source
//! of power wins (meter, PDU, firmware, profile); a figure of the profile is always marked as one.

mod board;
mod model;
mod nvml;
mod thermal;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use roadbed_protocol::{MilliCelsius, PowerReading, RigProfile, UnixMillis, Workload};
use tokio::sync::watch;

use crate::config::SensorChoice;

pub use board::{BoardFacts, Boards, DriverFacts};
use model::PowerModel;
use nvml::NvmlSensor;
use thermal::ThermalSensor;

/// Time between two looks at the hardware; NVML itself averages over about a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look older than this is no reading any more: the driver hangs, or the thread died.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// What a sensor shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SensorReading {
    /// Power with its source.
    pub power: Option<PowerReading>,
    /// Hottest point.
    pub temperature: Option<MilliCelsius>,
}

/// A sensor that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sensor}: {reason}")]
pub struct SensorAbsent {
    /// Which one.
    pub sensor: &'static str,
    /// Why, and what would bring it.
    pub reason: String,
}

/// A hardware sensor. Reading may block.
trait HardwareSensor: Send {
    fn name(&self) -> &'static str;
    fn read(&mut self) -> SensorReading;
}

/// The sensors of one GPU rig.
pub struct Sensors {
    model: PowerModel,
    /// No hardware at all: heat is modelled too.
    simulated: bool,
    hardware: Option<Hardware>,
}

/// A hardware sensor on its thread.
struct Hardware {
    name: &'static str,
    seen: watch::Receiver<(Instant, SensorReading)>,
    /// Dropped with the sensors, which ends the thread.
    _alive: mpsc::Sender<()>,
}

impl Sensors {
    /// The sensors of a rig.
    ///
    /// # Errors
    /// [`SensorAbsent`] when a sensor was asked for by name and is not there; `auto` takes what there is.
    pub fn open(choice: SensorChoice, profile: &RigProfile) -> Result<Self, SensorAbsent> {
        let hardware: Option<Box<dyn HardwareSensor>> = match choice {
            SensorChoice::Simulated => None,
            SensorChoice::Nvml => Some(Box::new(NvmlSensor::open()?)),
            SensorChoice::Sysinfo => Some(Box::new(ThermalSensor::open()?)),
            SensorChoice::Auto => match NvmlSensor::open() {
                Ok(sensor) => Some(Box::new(sensor)),
                Err(absent) => {
                    tracing::info!("no GPU sensor ({absent}); power is the profile's");
                    match ThermalSensor::open() {
                        Ok(sensor) => Some(Box::new(sensor)),
                        Err(absent) => {
                            tracing::warn!(
                                "no heat sensor either ({absent}): the heat trip is blind"
                            );
                            None
                        }
                    }
                }
            },
        };
        let hardware = hardware.map(Hardware::start).transpose()?;
        let simulated = choice == SensorChoice::Simulated;
        Ok(Self { model: PowerModel::new(profile), simulated, hardware })
    }

    /// What is known now, given what runs.
    pub fn read(&mut self, now: UnixMillis, running: Option<&Workload>) -> SensorReading {
        let modelled = self.model.read(now, running);
        let seen = self.hardware.as_ref().map(Hardware::read).unwrap_or_default();
        let power = best_power([seen.power, modelled.power]);
        let temperature = if self.simulated { modelled.temperature } else { seen.temperature };
        SensorReading { power, temperature }
    }

    /// Names what is read.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.hardware
            .as_ref()
            .map_or(if self.simulated { "simulated" } else { "profile" }, |hardware| hardware.name)
    }
}

impl Hardware {
    fn start(mut sensor: Box<dyn HardwareSensor>) -> Result<Self, SensorAbsent> {
        let name = sensor.name();
        let (sender, seen) = watch::channel((Instant::now(), sensor.read()));
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::Builder::new()
            .name("sensor".into())
            .spawn(move || {
                // Nothing is ever sent; the wait ends early when the sensors are dropped.
                while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK_EVERY) {
                    sender.send_replace((Instant::now(), sensor.read()));
                }
            })
            .map_err(|error| SensorAbsent { sensor: name, reason: error.to_string() })?;
        Ok(Self { name, seen, _alive: alive })
    }

    fn read(&self) -> SensorReading {
        let (at, reading) = *self.seen.borrow();
        if at.elapsed() > STALE_AFTER { SensorReading::default() } else { reading }
    }
}

/// The reading from the best source.
fn best_power(readings: impl IntoIterator<Item = Option<PowerReading>>) -> Option<PowerReading> {
    readings.into_iter().flatten().min_by_key(|reading| reading.source)
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::{PowerSource, Watts};

    use super::*;

    #[test]
    fn the_best_source_wins() {
        let reading = |source| Some(PowerReading { watts: Watts(1), source });
        let sources = [PowerSource::Profile, PowerSource::Firmware, PowerSource::Pdu];
        assert_eq!(best_power(sources.map(reading)), reading(PowerSource::Pdu));
        assert_eq!(
            best_power([None, reading(PowerSource::Profile)]),
            reading(PowerSource::Profile)
        );
        assert_eq!(best_power([None, None]), None);
    }

    #[test]
    fn what_is_absent_says_so() {
        // This machine may have either sensor or none; a refusal must name the sensor and the reason.
        for absent in [NvmlSensor::open().err(), ThermalSensor::open().err()].into_iter().flatten()
        {
            assert!(!absent.sensor.is_empty() && absent.to_string().contains(": "));
        }
    }
}
