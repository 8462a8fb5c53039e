//! What can go wrong between us and a GPU.

use std::time::Duration;

/// An error of the GPU layer. wgpu's own panics and uncaptured errors all arrive here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    #[error(
        "no GPU adapter found: install a Vulkan driver (on Debian without a GPU: mesa-vulkan-drivers)"
    )]
    NoAdapter,
    #[error("no adapter matches '{wanted}'; there are: {}", available.join("; "))]
    AdapterNotFound { wanted: String, available: Vec<String> },
    #[error("adapter {adapter} gave no device: {reason}")]
    Device { adapter: String, reason: String },
    #[error("{what} needs {needed_bytes} bytes but the adapter allows {limit_bytes} ({limit})")]
    Limit { what: String, needed_bytes: u64, limit_bytes: u64, limit: &'static str },
    #[error("out of GPU memory while {what}")]
    OutOfMemory { what: String },
    #[error("the GPU refused {what}: {reason}")]
    Refused { what: String, reason: String },
    #[error(
        "the GPU did not finish {what} within {waited:?}; it may hang: restart the rig's engine"
    )]
    Timeout { what: String, waited: Duration },
    #[error("the GPU was lost while {what}: {reason}; the model must be loaded again")]
    Lost { what: String, reason: String },
}

impl GpuError {
    /// True if the device is gone and only opening it anew can help.
    #[must_use]
    pub fn is_device_lost(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Timeout { .. } => true,
            Self::NoAdapter
            | Self::AdapterNotFound { .. }
            | Self::Device { .. }
            | Self::Limit { .. }
            | Self::OutOfMemory { .. }
            | Self::Refused { .. } => false,
        }
    }
}
