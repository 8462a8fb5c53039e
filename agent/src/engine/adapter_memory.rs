//! How much memory an adapter has, as far as the system tells: wgpu says nothing of it.

use std::path::Path;

use nvml_wrapper::Nvml;
use roadbed_compute::{AdapterKind, AdapterSummary};
use sysinfo::System;

/// Bytes of an adapter's own memory; of the machine's free memory for one that has none of its own. Nothing if nobody
/// tells.
#[must_use]
pub fn adapter_memory(adapter: &AdapterSummary) -> Option<u64> {
    match adapter.kind {
        AdapterKind::Software | AdapterKind::Integrated => {
            let mut system = System::new().ok()?;
            system.refresh_memory();
            Some(system.available_memory()).filter(|bytes| *bytes > 0)
        }
        AdapterKind::Discrete | AdapterKind::Virtual | AdapterKind::Unknown => {
            let pci = adapter.pci_bus_id.as_deref()?;
            of_amdgpu(pci).or_else(|| of_nvml(pci))
        }
    }
}

/// A card's driver and screen want some of its memory too.
const USABLE_PERCENT: u64 = 90;

/// Of so many bytes of an adapter's memory, those a model may take.
#[must_use]
pub const fn usable(bytes: u64) -> u64 {
    bytes / 100 * USABLE_PERCENT
}

/// Bytes of an adapter's memory that a model may take, if anybody tells.
#[must_use]
pub fn usable_memory(adapter: &AdapterSummary) -> Option<u64> {
    adapter_memory(adapter).map(usable)
}

/// The amdgpu driver's own file (Linux `Documentation/gpu/amdgpu/driver-misc.rst`).
fn of_amdgpu(pci: &str) -> Option<u64> {
    let file = Path::new("/sys/bus/pci/devices").join(pci).join("mem_info_vram_total");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn of_nvml(pci: &str) -> Option<u64> {
    let nvml = Nvml::init().ok()?;
    let device = nvml.device_by_pci_bus_id(pci).ok()?;
    Some(device.memory_info().ok()?.total)
}
