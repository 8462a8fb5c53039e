//! Choosing what hashes, by the name an operator gives it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use super::{CpuBackend, GpuBackend, HashBackend, HashError};
use crate::adapter::AdapterChoice;
use crate::gpu::Gpu;

/// What to hash with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// The fastest code the CPU runs, one thread.
    Cpu,
    /// The WGSL kernel on an adapter.
    Gpu,
}

impl BackendKind {
    /// Makes the backend ready; `adapter` matters to [`Self::Gpu`] alone, as does the folder in which is kept what was
    /// found out about it. Making a GPU ready can take seconds the first time; a raised `stop` ends it.
    ///
    /// # Errors
    /// When no adapter matches, the GPU refuses the kernel, or it was told to stop.
    pub fn open(
        self,
        adapter: &AdapterChoice,
        kept: Option<&Path>,
        stop: &AtomicBool,
    ) -> Result<Box<dyn HashBackend>, HashError> {
        match self {
            Self::Cpu => Ok(Box::new(CpuBackend::best())),
            Self::Gpu => Ok(Box::new(GpuBackend::new(Gpu::open_keeping(adapter, kept)?, stop)?)),
        }
    }
}

impl FromStr for BackendKind {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "gpu" => Ok(Self::Gpu),
            other => Err(HashError::Field {
                field: "backend".into(),
                why: format!("'{other}' is neither cpu nor gpu"),
            }),
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for kind in [BackendKind::Cpu, BackendKind::Gpu] {
            assert_eq!(kind.to_string().parse::<BackendKind>().unwrap(), kind);
        }
        assert!("asic".parse::<BackendKind>().is_err());
        assert!(
            BackendKind::Cpu
                .open(&AdapterChoice::Best, None, &AtomicBool::new(false))
                .unwrap()
                .name()
                .starts_with("cpu")
        );
    }
}
