//! The operating system's heat sensors: enough for the trip of a rig whose GPU tells nothing.

use roadbed_protocol::MilliCelsius;
use sysinfo::Components;

use super::{HardwareSensor, SensorAbsent, SensorReading};

/// Readings outside this range are a broken sensor, not a rig: several boards report 0 or 127 for "not connected".
const PLAUSIBLE_CELSIUS: std::ops::Range<f32> = 1.0..126.0;

pub(super) struct ThermalSensor {
    components: Components,
}

impl ThermalSensor {
    /// Finds the sensors.
    ///
    /// # Errors
    /// [`SensorAbsent`] when none shows a plausible temperature, as in most virtual machines.
    pub(super) fn open() -> Result<Self, SensorAbsent> {
        let absent = |reason: String| SensorAbsent { sensor: "sysinfo", reason };
        let components =
            Components::new_with_refreshed_list().map_err(|error| absent(error.to_string()))?;
        let mut sensor = Self { components };
        match sensor.read().temperature {
            Some(_) => Ok(sensor),
            None => Err(absent("the system shows no temperature".into())),
        }
    }
}

impl HardwareSensor for ThermalSensor {
    fn name(&self) -> &'static str {
        "sysinfo"
    }

    fn read(&mut self) -> SensorReading {
        self.components.refresh(false);
        let hottest = self
            .components
            .iter()
            .filter_map(sysinfo::Component::temperature)
            .filter(|celsius| PLAUSIBLE_CELSIUS.contains(celsius))
            .fold(None, |hottest: Option<f32>, celsius| {
                Some(hottest.map_or(celsius, |hottest| hottest.max(celsius)))
            });
        SensorReading {
            power: None,
            temperature: hottest.map(|celsius| MilliCelsius((celsius * 1_000.0) as i32)),
        }
    }
}
