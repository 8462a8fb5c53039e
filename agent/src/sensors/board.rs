//! What a management library or the kernel tells of each GPU: memory, load, heat. What nobody tells stays unknown.
//!
//! NVIDIA's boards are asked through NVML, AMD's through the amdgpu driver's files; the graphics API, which lists the
//! adapters, knows none of it.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use roadbed_compute::AdapterSummary;

/// How long a reading serves: as the network's own nodes keep theirs, so that probes cost nothing.
const READING_KEPT: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

/// One GPU now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoardFacts {
    /// Memory of the board in MiB.
    pub total_mib: Option<u64>,
    /// Of that, in use.
    pub used_mib: Option<u64>,
    /// Percent of the last moments in which it worked.
    pub utilization_percent: Option<u32>,
    /// Degrees Celsius.
    pub temperature_c: Option<u32>,
}

impl BoardFacts {
    /// Memory nobody uses, in MiB.
    #[must_use]
    pub fn free_mib(&self) -> Option<u64> {
        self.total_mib.zip(self.used_mib).map(|(total, used)| total.saturating_sub(used))
    }
}

/// The driver's versions, as free words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFacts {
    /// Of the kernel driver.
    pub driver: String,
    /// Of CUDA that the driver offers, empty where there is none.
    pub cuda: String,
    /// Of NVML, empty where there is none.
    pub nvml: String,
}

/// The boards of this machine.
#[derive(Default)]
pub struct Boards {
    /// Loaded when it is first asked.
    nvml: OnceLock<Option<Nvml>>,
    kept: Mutex<Option<(Instant, Vec<BoardFacts>)>>,
}

impl Boards {
    /// Facts of each adapter, in order; at most [`READING_KEPT`] old. May take some milliseconds.
    #[must_use]
    pub fn facts(&self, adapters: &[AdapterSummary]) -> Vec<BoardFacts> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, facts)) = &*kept
            && at.elapsed() < READING_KEPT
            && facts.len() == adapters.len()
        {
            return facts.clone();
        }
        let facts: Vec<BoardFacts> = adapters.iter().map(|adapter| self.read(adapter)).collect();
        *kept = Some((Instant::now(), facts.clone()));
        facts
    }

    /// What a card draws now, as NVML measures it.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn milliwatts(&self, adapter: &AdapterSummary) -> Result<u32, String> {
        let nvml = self.nvml().ok_or("this machine has no NVML")?;
        let pci = adapter.pci_bus_id.as_deref().ok_or("the adapter has no PCI slot")?;
        let device = nvml.device_by_pci_bus_id(pci).map_err(|error| format!("NVML: {error}"))?;
        device.power_usage().map_err(|error| format!("NVML: {error}"))
    }

    /// NVML's versions, if this machine has NVML.
    #[must_use]
    pub fn driver(&self) -> Option<DriverFacts> {
        let nvml = self.nvml()?;
        Some(DriverFacts {
            driver: nvml.sys_driver_version().ok()?,
            cuda: nvml.sys_cuda_driver_version().map_or_else(|_| String::new(), cuda_words),
            nvml: nvml.sys_nvml_version().unwrap_or_default(),
        })
    }

    fn nvml(&self) -> Option<&Nvml> {
        self.nvml.get_or_init(|| Nvml::init().ok()).as_ref()
    }

    fn read(&self, adapter: &AdapterSummary) -> BoardFacts {
        let Some(pci) = adapter.pci_bus_id.as_deref() else { return BoardFacts::default() };
        let of_amdgpu = of_amdgpu(&Path::new("/sys/bus/pci/devices").join(pci));
        if of_amdgpu.total_mib.is_some() {
            return of_amdgpu;
        }
        self.of_nvml(pci).unwrap_or_default()
    }

    fn of_nvml(&self, pci: &str) -> Option<BoardFacts> {
        let device = self.nvml()?.device_by_pci_bus_id(pci).ok()?;
        let memory = device.memory_info().ok();
        Some(BoardFacts {
            total_mib: memory.as_ref().map(|memory| memory.total / MIB),
            used_mib: memory.as_ref().map(|memory| memory.used / MIB),
            utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
        })
    }
}

/// 12020 is 12.2.
fn cuda_words(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Files of the amdgpu driver (Linux `Documentation/gpu/amdgpu/driver-misc.rst` and `thermal.rst`).
fn of_amdgpu(device: &Path) -> BoardFacts {
    let number =
        |path: &Path| -> Option<u64> { std::fs::read_to_string(path).ok()?.trim().parse().ok() };
    let of = |file: &str| number(&device.join(file));
    let heat = std::fs::read_dir(device.join("hwmon")).into_iter().flatten().flatten();
    let millidegrees = heat.into_iter().find_map(|entry| number(&entry.path().join("temp1_input")));
    BoardFacts {
        total_mib: of("mem_info_vram_total").map(|bytes| bytes / MIB),
        used_mib: of("mem_info_vram_used").map(|bytes| bytes / MIB),
        utilization_percent: of("gpu_busy_percent").and_then(|percent| percent.try_into().ok()),
        temperature_c: millidegrees.and_then(|degrees| (degrees / 1_000).try_into().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_amdgpu_are_read_and_what_is_missing_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_amdgpu(folder.path()), BoardFacts::default());
        std::fs::create_dir_all(folder.path().join("hwmon/hwmon3")).unwrap();
        for (file, text) in [
            ("mem_info_vram_total", "17163091968\n"),
            ("mem_info_vram_used", "1073741824\n"),
            ("gpu_busy_percent", "97\n"),
            ("hwmon/hwmon3/temp1_input", "61000\n"),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let facts = of_amdgpu(folder.path());
        let expected = BoardFacts {
            total_mib: Some(16_368),
            used_mib: Some(1_024),
            utilization_percent: Some(97),
            temperature_c: Some(61),
        };
        assert_eq!((facts.free_mib(), facts), (Some(15_344), expected));
        assert_eq!(cuda_words(12_020), "12.2");
    }
}
