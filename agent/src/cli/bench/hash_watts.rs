//! What hashing draws, where a sensor tells: NVML for a card, RAPL for the CPU's package.

use std::path::PathBuf;

use roadbed_compute::AdapterSummary;

use crate::sensors::Boards;

/// The package's counter of energy (Linux `Documentation/power/powercap/powercap.rst`).
const RAPL: &str = "/sys/class/powercap/intel-rapl:0/energy_uj";

/// Counts what the CPU's package draws.
pub(super) struct CpuEnergy(PathBuf);

impl CpuEnergy {
    /// # Errors
    /// Why there is no such counter.
    pub(super) fn open() -> Result<Self, String> {
        let energy = Self(PathBuf::from(RAPL));
        match std::fs::read_to_string(&energy.0) {
            Ok(_) => Ok(energy),
            Err(error) => Err(format!("{RAPL}: {error}")),
        }
    }

    /// Since some moment; it wraps after hours.
    pub(super) fn joules(&self) -> Option<f64> {
        let microjoules: f64 = std::fs::read_to_string(&self.0).ok()?.trim().parse().ok()?;
        Some(microjoules * 1e-6)
    }
}

/// What a card draws now.
///
/// # Errors
/// Why nobody knows.
pub(super) fn card_watts(adapter: &AdapterSummary) -> Result<f64, String> {
    let milliwatts = Boards::default().milliwatts(adapter)?;
    Ok(f64::from(milliwatts) * 1e-3)
}
