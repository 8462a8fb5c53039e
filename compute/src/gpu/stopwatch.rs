//! How long work takes on the GPU: by its own clock where it offers one, else by ours around a submission.

use std::time::{Duration, Instant};

use super::{Gpu, GpuError, Readback};

/// Two moments of eight bytes each.
const MOMENTS_BYTES: u64 = 16;

/// Times passes of one GPU.
pub struct Stopwatch {
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: Readback,
    nanoseconds_per_tick: f64,
}

impl Stopwatch {
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let offered = gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let timestamps = offered.then(|| Timestamps::new(gpu)).transpose()?;
        Ok(Self { timestamps })
    }

    /// Runs what `encode` puts into a pass and says how long the pass took.
    pub fn time(
        &self,
        gpu: &Gpu,
        what: &str,
        encode: impl FnOnce(&mut wgpu::ComputePass<'_>),
    ) -> Result<Duration, GpuError> {
        let mut encoder = gpu.encoder(what);
        let writes = self.timestamps.as_ref().map(|own| wgpu::ComputePassTimestampWrites {
            query_set: &own.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
        encode(&mut encoder.begin_compute_pass(&descriptor));
        let Some(own) = &self.timestamps else {
            let began = Instant::now();
            gpu.run(encoder, what)?;
            return Ok(began.elapsed());
        };
        encoder.resolve_query_set(&own.queries, 0..2, &own.resolved, 0);
        let began = Instant::now();
        let data =
            gpu.run_and_read(encoder, &own.resolved, 0, MOMENTS_BYTES, &own.readback, what)?;
        let around = began.elapsed();
        // A driver whose clock stands still, or runs backwards between two cores, is no help.
        let [begin, end]: [u64; 2] =
            bytemuck::pod_collect_to_vec(&data).try_into().unwrap_or_default();
        let ticks = end.saturating_sub(begin);
        let own = Duration::from_nanos((ticks as f64 * own.nanoseconds_per_tick) as u64);
        Ok(if own.is_zero() || own > around { around } else { own })
    }
}

impl Timestamps {
    fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let queries = gpu.scoped("timestamps", || {
            gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        })?;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Self {
            queries,
            resolved: gpu.buffer("timestamps", MOMENTS_BYTES, usage)?,
            readback: gpu.readback("timestamps", MOMENTS_BYTES)?,
            nanoseconds_per_tick: f64::from(gpu.queue().get_timestamp_period()),
        })
    }
}
