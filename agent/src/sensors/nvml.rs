//! NVIDIA's management library, loaded at run time: a machine without it is a machine without this sensor.
//!
//! NVML measures the boards, not the wall: the host's own draw is missing. So the source is `firmware`, and a meter or a
//! PDU, where there is one, ranks above it.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use roadbed_protocol::{MilliCelsius, PowerReading, PowerSource, Watts};

use super::{HardwareSensor, SensorAbsent, SensorReading};

pub(super) struct NvmlSensor {
    nvml: Nvml,
    count: u32,
}

impl NvmlSensor {
    /// Loads the library and finds its devices.
    ///
    /// # Errors
    /// [`SensorAbsent`] without the library or without a device.
    pub(super) fn open() -> Result<Self, SensorAbsent> {
        let absent = |reason: String| SensorAbsent { sensor: "NVML", reason };
        let nvml = Nvml::init().map_err(|error| absent(error.to_string()))?;
        let count = nvml.device_count().map_err(|error| absent(error.to_string()))?;
        if count == 0 {
            return Err(absent("the driver knows no GPU".into()));
        }
        Ok(Self { nvml, count })
    }
}

impl HardwareSensor for NvmlSensor {
    fn name(&self) -> &'static str {
        "nvml"
    }

    /// Sum of all boards, hottest of all boards. A board that does not answer takes the whole power figure with it: a
    /// sum that misses a part would look like a rig at rest.
    fn read(&mut self) -> SensorReading {
        let mut milliwatts = Some(0_u64);
        let mut hottest = None;
        for index in 0..self.count {
            let device = self.nvml.device_by_index(index);
            let power = device.as_ref().ok().and_then(|device| device.power_usage().ok());
            milliwatts = milliwatts.zip(power).map(|(sum, power)| sum + u64::from(power));
            let heat =
                device.ok().and_then(|device| device.temperature(TemperatureSensor::Gpu).ok());
            hottest = hottest.max(heat);
        }
        SensorReading {
            power: milliwatts.map(|sum| PowerReading {
                watts: Watts(sum.div_ceil(1_000)),
                source: PowerSource::Firmware,
            }),
            temperature: hottest
                .and_then(|degrees| i32::try_from(degrees).ok())
                .map(|degrees| MilliCelsius(degrees.saturating_mul(1_000))),
        }
    }
}
