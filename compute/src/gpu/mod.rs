//! One open GPU: buffers, pipelines from the kernel table, submission and read-back.
//!
//! wgpu reports most failures after the fact, through callbacks. This wrapper turns them into values:
//! creation runs inside error scopes, everything else is caught by two callbacks whose findings
//! [`Gpu::check`] hands out, and no wait is without a timeout. So a driver reset on a rig becomes
//! [`GpuError::Lost`] in the call that noticed it, never a panic and never a hang.

mod buffers;
mod compile;
mod error;
mod pipeline_cache;
mod pipelines;
mod stopwatch;
mod store;
mod submit;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use error::GpuError;
pub use pipelines::Pipeline;
pub use stopwatch::Stopwatch;
pub use store::AdapterStore;
pub use submit::{PendingRead, Readback};

use self::pipeline_cache::PipelineCache;
use crate::adapter::{self, AdapterChoice, AdapterKind, AdapterSummary};
use crate::kernels::Binding;

/// How long one submission may take before the device counts as hung. Our dispatches are cut to tens
/// of milliseconds on a GPU; a software adapter on a busy machine may need seconds for a chunk.
pub const SUBMIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Taken where offered; nothing depends on them. Subgroups and timestamps serve the tuner.
const FEATURES_WANTED: wgpu::Features = wgpu::Features::SUBGROUP
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::PIPELINE_CACHE);

#[derive(Default)]
struct Health {
    lost: Option<String>,
    uncaptured: Option<wgpu::Error>,
}

/// An open device with its queue and pipeline cache. Cheap to share behind an [`Arc`].
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    summary: AdapterSummary,
    limits: wgpu::Limits,
    subgroup_lanes: Option<u32>,
    health: Arc<Mutex<Health>>,
    store: Option<AdapterStore>,
    cache: Mutex<Option<PipelineCache>>,
    pipelines: Mutex<HashMap<pipelines::Key, Arc<Pipeline>>>,
    layouts: Mutex<HashMap<Vec<Binding>, wgpu::BindGroupLayout>>,
    /// Uniform buffers by what they hold.
    constants: Mutex<HashMap<Vec<u8>, wgpu::Buffer>>,
}

impl Gpu {
    /// Opens the chosen adapter with all of its limits (the defaults would cap a binding at 128 MiB).
    pub fn open(choice: &AdapterChoice) -> Result<Arc<Self>, GpuError> {
        Self::open_keeping(choice, None)
    }

    /// As [`Self::open`], keeping in `folder` what makes the next start faster: compiled pipelines and
    /// measurements. It must belong to this user alone; it is created when absent.
    pub fn open_keeping(
        choice: &AdapterChoice,
        folder: Option<&Path>,
    ) -> Result<Arc<Self>, GpuError> {
        let instance = adapter::instance();
        let mut adapters = adapter::enumerate(&instance);
        let summaries: Vec<AdapterSummary> = adapters.iter().map(|(s, _)| s.clone()).collect();
        let summary = adapter::choose(&summaries, choice)?.clone();
        let (_, chosen) = adapters.swap_remove(summary.index);

        let limits = chosen.limits();
        let features = chosen.features() & FEATURES_WANTED;
        let subgroup_lanes = features
            .contains(wgpu::Features::SUBGROUP)
            .then(|| chosen.get_info().subgroup_min_size);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("roadbed"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(chosen.request_device(&descriptor)).map_err(|error| {
                GpuError::Device { adapter: summary.to_string(), reason: error.to_string() }
            })?;

        let health = Arc::new(Mutex::new(Health::default()));
        let on_lost = Arc::clone(&health);
        device.set_device_lost_callback(move |reason, message| {
            lock(&on_lost).lost.get_or_insert_with(|| format!("{reason:?} {message}"));
        });
        let on_error = Arc::clone(&health);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            tracing::error!(%error, "uncaptured GPU error");
            lock(&on_error).uncaptured.get_or_insert(error);
        }));
        let store = folder.map(|folder| AdapterStore::new(folder, &summary));
        let cache = store.as_ref().and_then(|store| PipelineCache::open(&device, store));
        Ok(Arc::new(Self {
            device,
            queue,
            summary,
            limits,
            subgroup_lanes,
            health,
            store,
            cache: Mutex::new(cache),
            pipelines: Mutex::default(),
            layouts: Mutex::default(),
            constants: Mutex::default(),
        }))
    }

    /// The adapter this device runs on.
    #[must_use]
    pub fn summary(&self) -> &AdapterSummary {
        &self.summary
    }

    /// Files about this adapter and driver, if a folder for them was given.
    #[must_use]
    pub fn store(&self) -> Option<&AdapterStore> {
        self.store.as_ref()
    }

    /// Writes what was compiled since the start to the folder, if there is one.
    pub fn keep_pipelines(&self) {
        if let Some(cache) = &mut *lock(&self.cache) {
            cache.keep();
        }
    }

    /// True on a CPU driver, where barriers and shared memory are dear and lanes are few.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.summary.kind == AdapterKind::Software
    }

    #[must_use]
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// Most bytes of a buffer that a kernel reads or writes.
    #[must_use]
    pub fn binding_bytes_max(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size)
    }

    /// Smallest number of invocations that may exchange registers; `None` if they may not.
    #[must_use]
    pub fn subgroup_lanes(&self) -> Option<u32> {
        self.subgroup_lanes
    }

    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Fails if the device was lost or reported an error since the last check.
    pub fn check(&self, what: &str) -> Result<(), GpuError> {
        let mut health = lock(&self.health);
        if let Some(reason) = &health.lost {
            return Err(GpuError::Lost { what: what.to_owned(), reason: reason.clone() });
        }
        match health.uncaptured.take() {
            Some(error) => Err(from_wgpu(error, what)),
            None => Ok(()),
        }
    }

    /// Runs `create` in error scopes, so that a refusal becomes an error of this very call.
    fn scoped<T>(&self, what: &str, create: impl FnOnce() -> T) -> Result<T, GpuError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let value = create();
        for scope in [internal, validation, memory] {
            if let Some(error) = pollster::block_on(scope.pop()) {
                return Err(from_wgpu(error, what));
            }
        }
        self.check(what)?;
        Ok(value)
    }
}

fn from_wgpu(error: wgpu::Error, what: &str) -> GpuError {
    let what = what.to_owned();
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { what },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            GpuError::Refused { what, reason: description }
        }
    }
}

/// Takes a lock that no panic of ours can leave half-written (every critical section is one store).
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
