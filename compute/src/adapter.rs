//! Which GPU to run on: list every adapter, choose one, never guess silently.
//!
//! The default is the best real GPU, because rigs also carry an integrated one that enumerates first;
//! a software adapter is taken only when nothing else is there, so that a developer without a GPU
//! runs the same kernels. Pinning by PCI bus id is the only choice that survives a reboot of a rig
//! with several equal cards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::gpu::GpuError;

/// What an adapter is made of, from best to worst for our kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// A card with its own memory.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU passed through by a hypervisor.
    Virtual,
    /// The driver does not say.
    Unknown,
    /// A CPU that speaks Vulkan (lavapipe, SwiftShader).
    Software,
}

impl AdapterKind {
    fn from_wgpu(device_type: wgpu::DeviceType) -> Self {
        match device_type {
            wgpu::DeviceType::DiscreteGpu => Self::Discrete,
            wgpu::DeviceType::IntegratedGpu => Self::Integrated,
            wgpu::DeviceType::VirtualGpu => Self::Virtual,
            wgpu::DeviceType::Other => Self::Unknown,
            wgpu::DeviceType::Cpu => Self::Software,
        }
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Unknown => "unknown",
            Self::Software => "software",
        })
    }
}

/// One adapter as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterSummary {
    /// Position in this enumeration; stable only while the machine's hardware stays the same.
    pub index: usize,
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    pub kind: AdapterKind,
    /// `0000:01:00.0`, or nothing for software adapters and backends that do not tell.
    pub pci_bus_id: Option<String>,
    /// Driver name and version in the driver's own words.
    pub driver: String,
}

impl AdapterSummary {
    pub(crate) fn from_wgpu(index: usize, info: &wgpu::AdapterInfo) -> Self {
        Self {
            index,
            name: info.name.clone(),
            backend: info.backend.to_string(),
            kind: AdapterKind::from_wgpu(info.device_type),
            pci_bus_id: (!info.device_pci_bus_id.is_empty())
                .then(|| info.device_pci_bus_id.clone()),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        }
    }
}

impl fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}, {}", self.index, self.name, self.kind, self.backend)?;
        if let Some(pci) = &self.pci_bus_id {
            write!(f, ", {pci}")?;
        }
        f.write_str(")")
    }
}

/// The operator's choice of adapter, as `--adapter` and the agent's config spell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The best real GPU, or a software adapter if there is no other.
    #[default]
    Best,
    /// The software adapter even if there is a GPU.
    Software,
    /// Position in the list.
    Index(usize),
    /// PCI bus id, with or without the domain: `01:00.0` or `0000:01:00.0`.
    Pci(String),
    /// Part of the adapter's name, case ignored.
    Name(String),
}

impl FromStr for AdapterChoice {
    type Err = std::convert::Infallible;

    /// Reads `best`, `software`, a list position, a PCI bus id, or else a part of a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        Ok(match text {
            "" | "best" | "auto" => Self::Best,
            "software" | "cpu" => Self::Software,
            _ if is_pci_bus_id(text) => Self::Pci(text.to_ascii_lowercase()),
            _ => match text.parse() {
                Ok(index) => Self::Index(index),
                Err(_) => Self::Name(text.to_owned()),
            },
        })
    }
}

impl fmt::Display for AdapterChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best => f.write_str("best"),
            Self::Software => f.write_str("software"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Pci(id) => f.write_str(id),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// True for `bb:dd.f` and `dddd:bb:dd.f`, hexadecimal.
fn is_pci_bus_id(text: &str) -> bool {
    let Some((bus_and_device, function)) = text.rsplit_once('.') else {
        return false;
    };
    let parts: Vec<&str> = bus_and_device.split(':').collect();
    (parts.len() == 2 || parts.len() == 3)
        && parts
            .iter()
            .chain([&function])
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn same_pci_bus_id(adapter_id: &str, wanted: &str) -> bool {
    let full = adapter_id.to_ascii_lowercase();
    let wanted = wanted.to_ascii_lowercase();
    full == wanted || full.strip_prefix("0000:") == Some(wanted.as_str())
}

/// Chooses one of `adapters`. Pure, so that every farm's mixture can be tested without its cards.
pub fn choose<'a>(
    adapters: &'a [AdapterSummary],
    choice: &AdapterChoice,
) -> Result<&'a AdapterSummary, GpuError> {
    let best = |software: bool| {
        adapters
            .iter()
            .filter(move |a| software || a.kind != AdapterKind::Software)
            .min_by_key(|a| (a.kind, a.index))
    };
    let found = match choice {
        AdapterChoice::Best => best(true),
        AdapterChoice::Software => adapters.iter().find(|a| a.kind == AdapterKind::Software),
        AdapterChoice::Index(index) => adapters.iter().find(|a| a.index == *index),
        AdapterChoice::Pci(id) => adapters
            .iter()
            .find(|a| a.pci_bus_id.as_deref().is_some_and(|p| same_pci_bus_id(p, id))),
        AdapterChoice::Name(name) => {
            let name = name.to_lowercase();
            adapters
                .iter()
                .filter(|a| a.name.to_lowercase().contains(&name))
                .min_by_key(|a| (a.kind, a.index))
        }
    };
    found.ok_or_else(|| {
        if adapters.is_empty() {
            GpuError::NoAdapter
        } else {
            GpuError::AdapterNotFound {
                wanted: choice.to_string(),
                available: adapters.iter().map(ToString::to_string).collect(),
            }
        }
    })
}

pub(crate) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // Validation layers of the driver are a developer's tool; wgpu's own validation stays on.
    descriptor.flags = wgpu::InstanceFlags::empty();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    wgpu::Instance::new(descriptor)
}

pub(crate) fn enumerate(instance: &wgpu::Instance) -> Vec<(AdapterSummary, wgpu::Adapter)> {
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| (AdapterSummary::from_wgpu(index, &adapter.get_info()), adapter))
        .collect()
}

/// Lists every adapter of this machine; empty when there is no driver at all.
#[must_use]
pub fn list_adapters() -> Vec<AdapterSummary> {
    enumerate(&instance()).into_iter().map(|(summary, _)| summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, name: &str, kind: AdapterKind, pci: &str) -> AdapterSummary {
        AdapterSummary {
            index,
            name: name.to_owned(),
            backend: "vulkan".to_owned(),
            kind,
            pci_bus_id: (!pci.is_empty()).then(|| pci.to_owned()),
            driver: String::new(),
        }
    }

    fn rig() -> Vec<AdapterSummary> {
        vec![
            adapter(0, "llvmpipe (LLVM 15)", AdapterKind::Software, ""),
            adapter(1, "Intel UHD 770", AdapterKind::Integrated, "0000:00:02.0"),
            adapter(2, "Radeon RX 6800", AdapterKind::Discrete, "0000:03:00.0"),
            adapter(3, "Radeon RX 6800", AdapterKind::Discrete, "0000:0a:00.0"),
        ]
    }

    #[track_caller]
    fn check(text: &str, expected: Option<usize>) {
        let choice: AdapterChoice = text.parse().unwrap();
        let rig = rig();
        assert_eq!(choose(&rig, &choice).ok().map(|a| a.index), expected, "{text}");
    }

    #[test]
    fn choices() {
        check("", Some(2));
        check("best", Some(2));
        check("software", Some(0));
        check("3", Some(3));
        check("4", None);
        check("0A:00.0", Some(3));
        check("0000:00:02.0", Some(1));
        check("04:00.0", None);
        check("radeon", Some(2));
        check("rtx", None);
    }

    #[test]
    fn software_is_the_last_resort() {
        let only = vec![adapter(0, "llvmpipe", AdapterKind::Software, "")];
        assert_eq!(choose(&only, &AdapterChoice::Best).unwrap().index, 0);
        assert!(matches!(choose(&[], &AdapterChoice::Best), Err(GpuError::NoAdapter)));
    }

    #[test]
    fn a_missing_adapter_names_what_there_is() {
        let error = choose(&rig(), &AdapterChoice::Name("rtx".into())).unwrap_err();
        assert!(error.to_string().contains("Intel UHD 770"), "{error}");
    }
}
