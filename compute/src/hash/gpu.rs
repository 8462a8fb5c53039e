//! Hashing on a GPU: the WGSL kernels behind the same interface as the CPU.
//!
//! A dispatch reports candidates through an atomic counter and a bounded list. If more were found
//! than the list holds, the range is halved and asked again, so no hit is ever lost, however easy
//! the target. The size of a dispatch follows the measured rate: long enough to keep the device
//! busy, short enough that a rig is free for other work at once and no driver watchdog wakes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::scan::{HashBackend, Hit, ScanJob};
use super::{HashError, Target, tuner};
use crate::gpu::{Gpu, GpuError, Pipeline, Readback, Stopwatch};
use crate::kernels::hash::HashVariant;

/// Aimed length of one dispatch.
const DISPATCH_TARGET: Duration = Duration::from_millis(25);
/// Nonces of the first dispatch, before anything was measured.
const CHUNK_FIRST: u32 = 1 << 14;
/// Smallest dispatch: less would not fill even a small device.
const CHUNK_MIN: u32 = 1 << 10;
/// Largest dispatch: 10 GH/s for the aimed time.
const CHUNK_MAX: u32 = 1 << 28;
/// Candidates one dispatch can report. Real targets give far less than one.
const FOUND_MAX: u32 = 1024;

/// The kernel's uniform block, in its layout.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    middle: [u32; 8],
    third_abc: [u32; 3],
    fourth_a: u32,
    third_efg: [u32; 3],
    fourth_e: u32,
    words: [u32; 4],
    w31: u32,
    mask: u32,
    start: u32,
    count: u32,
    row: u32,
    padding: [u32; 3],
}

impl Params {
    fn new(job: &ScanJob, start: u32, count: u32, row: u32) -> Self {
        let p = &job.prepared;
        let [a, b, c, _, e, f, g, _] = p.third;
        let [fourth_a, fourth_e] = p.fourth;
        Self {
            middle: p.middle,
            third_abc: [a, b, c],
            fourth_a,
            third_efg: [e, f, g],
            fourth_e,
            words: [p.w16, p.w17, p.w18, p.w19],
            w31: p.w31,
            mask: job.mask,
            start,
            count,
            row,
            padding: [0; 3],
        }
    }
}

/// SHA-256d on one open GPU.
pub struct GpuBackend {
    name: String,
    gpu: Arc<Gpu>,
    variant: HashVariant,
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    params: wgpu::Buffer,
    found: wgpu::Buffer,
    readback: Readback,
    chunk: u32,
}

impl GpuBackend {
    /// The form of the kernel that was found fastest on this adapter and driver, or is found now, some seconds.
    ///
    /// # Errors
    /// When the GPU refuses a buffer or every form of the kernel.
    pub fn new(gpu: Arc<Gpu>, stop: &AtomicBool) -> Result<Self, HashError> {
        let variant = tuner::choose(&gpu, stop)?.chosen;
        Self::with_variant(gpu, variant)
    }

    /// Compiles this form and runs it once, so that the first real chunk meets a warm device.
    ///
    /// # Errors
    /// When the GPU refuses a buffer or the kernel.
    pub fn with_variant(gpu: Arc<Gpu>, variant: HashVariant) -> Result<Self, HashError> {
        let constants = [("WORKGROUP", f64::from(variant.workgroup))];
        let pipeline = gpu.pipeline(variant.kernel(), &constants)?;
        let params = gpu.uniform("sha256d parameters", &Params::default())?;
        let found = gpu.storage("sha256d candidates", found_bytes())?;
        let bind_group = gpu.bind(&pipeline, &[&params, &found])?;
        let readback = gpu.readback("sha256d candidates", found_bytes())?;
        let name = format!("wgsl {variant} on {}", gpu.summary().name);
        let chunk = CHUNK_FIRST;
        let mut backend =
            Self { name, gpu, variant, pipeline, bind_group, params, found, readback, chunk };
        backend.candidates(&ScanJob::new(&[0; 76], Target::MAX), 0, 1)?;
        Ok(backend)
    }

    /// The form of the kernel.
    #[must_use]
    pub fn variant(&self) -> HashVariant {
        self.variant
    }

    /// Time on the device of one dispatch that finds nothing.
    pub(super) fn time(&self, stopwatch: &Stopwatch, count: u32) -> Result<Duration, GpuError> {
        let job = ScanJob::new(&[0; 76], Target([0; 32]));
        let grid = self.prepare(&job, 0, count);
        stopwatch.time(&self.gpu, "sha256d", |pass| {
            Gpu::dispatch(pass, &self.pipeline, &self.bind_group, grid);
        })
    }

    /// Appends the checked hits of a range, halving it while it has too many candidates.
    fn hits(
        &mut self,
        job: &ScanJob,
        start: u32,
        count: u32,
        hits: &mut Vec<Hit>,
    ) -> Result<(), HashError> {
        match self.candidates(job, start, count)? {
            Some(mut nonces) => {
                nonces.sort_unstable_by_key(|nonce| nonce.wrapping_sub(start));
                hits.extend(nonces.into_iter().filter_map(|nonce| job.check(nonce)));
                Ok(())
            }
            // At most FOUND_MAX nonces always fit, so the halving ends.
            None => {
                let half = count / 2;
                self.hits(job, start, half, hits)?;
                self.hits(job, start.wrapping_add(half), count - half, hits)
            }
        }
    }

    /// Writes the parameters of a dispatch and gives its grid.
    fn prepare(&self, job: &ScanJob, start: u32, count: u32) -> [u32; 3] {
        let invocations = count.div_ceil(self.variant.width.lanes());
        let groups = invocations.div_ceil(self.variant.workgroup);
        let columns = groups.min(self.gpu.limits().max_compute_workgroups_per_dimension);
        let params = Params::new(job, start, count, columns * self.variant.workgroup);
        self.gpu.write(&self.params, 0, bytemuck::bytes_of(&params));
        self.gpu.write(&self.found, 0, &[0; 4]);
        [columns, groups.div_ceil(columns), 1]
    }

    /// One dispatch; `None` if there were more candidates than the list holds.
    pub(super) fn candidates(
        &mut self,
        job: &ScanJob,
        start: u32,
        count: u32,
    ) -> Result<Option<Vec<u32>>, HashError> {
        if count == 0 {
            return Ok(Some(Vec::new()));
        }
        let grid = self.prepare(job, start, count);
        let mut encoder = self.gpu.encoder("sha256d");
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            Gpu::dispatch(&mut pass, &self.pipeline, &self.bind_group, grid);
        }
        let bytes = self.gpu.run_and_read(
            encoder,
            &self.found,
            0,
            found_bytes(),
            &self.readback,
            "sha256d",
        )?;
        let mut words = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let found = words.next().unwrap_or(0);
        Ok((found <= FOUND_MAX).then(|| words.take(found as usize).collect()))
    }
}

impl HashBackend for GpuBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn chunk(&self) -> u32 {
        self.chunk
    }

    fn scan_chunk(
        &mut self,
        job: &ScanJob,
        start: u32,
        count: u32,
        hits: &mut Vec<Hit>,
    ) -> Result<(), HashError> {
        let begun = Instant::now();
        self.hits(job, start, count, hits)?;
        // A short last chunk says nothing about the rate.
        if count == self.chunk {
            self.chunk = next_chunk(self.chunk, begun.elapsed());
        }
        Ok(())
    }
}

fn found_bytes() -> u64 {
    4 * (1 + u64::from(FOUND_MAX))
}

/// Size of the next dispatch after one of `chunk` nonces took `elapsed`; changes by at most a
/// factor of two, because one slow dispatch on a busy machine proves little.
fn next_chunk(chunk: u32, elapsed: Duration) -> u32 {
    let ratio = DISPATCH_TARGET.as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
    let next = f64::from(chunk) * ratio.clamp(0.5, 2.0);
    (next as u32).clamp(CHUNK_MIN, CHUNK_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::AdapterChoice;
    use crate::hash::{CpuBackend, ScanRequest, collect, vectors};

    fn gpu() -> Option<Arc<Gpu>> {
        match Gpu::open(&AdapterChoice::Best) {
            Ok(gpu) => Some(gpu),
            Err(error) if std::env::var_os("ROADBED_REQUIRE_GPU").is_none() => {
                println!("SKIPPED: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn backend() -> Option<GpuBackend> {
        gpu().map(|gpu| GpuBackend::with_variant(gpu, HashVariant::UNTRIED).unwrap())
    }

    #[test]
    fn the_kernel_finds_every_published_hit() {
        if let Some(mut backend) = backend() {
            vectors::check_scans(&mut backend);
        }
    }

    #[test]
    fn more_candidates_than_the_list_holds_are_all_reported() {
        let Some(mut backend) = backend() else { return };
        let job = ScanJob::new(&[3; 76], Target::MAX);
        let mut hits = Vec::new();
        let count = 3 * FOUND_MAX + 77;
        backend.scan_chunk(&job, u32::MAX - 100, count, &mut hits).unwrap();
        let nonces: Vec<u32> = hits.iter().map(|hit| hit.nonce).collect();
        let expected: Vec<u32> = (0..count).map(|i| (u32::MAX - 100).wrapping_add(i)).collect();
        assert_eq!(nonces, expected);
    }

    #[test]
    fn every_backend_finds_the_same() {
        let request = ScanRequest {
            header: std::array::from_fn(|i| i as u8),
            target: Target::from_difficulty(2f64.powi(-16)).unwrap(),
            start: 0x1234_5678,
            count: 1 << 17,
        };
        let cpu = |backend| Box::new(backend) as Box<dyn HashBackend>;
        let mut backends: Vec<Box<dyn HashBackend>> =
            CpuBackend::all().into_iter().map(cpu).collect();
        backends.extend(backend().map(|b| Box::new(b) as Box<dyn HashBackend>));
        let mut expected = None;
        for backend in &mut backends {
            let (hits, _) = collect(backend.as_mut(), &request, &AtomicBool::new(false)).unwrap();
            assert!(!hits.is_empty());
            assert_eq!(&hits, expected.get_or_insert(hits.clone()), "{}", backend.name());
        }
    }

    /// A real search at full length; seconds on a GPU, many minutes on a CPU driver.
    #[test]
    fn the_first_block_is_found_in_the_whole_nonce_space() {
        if std::env::var_os("ROADBED_HASH_ALL").is_none() {
            println!("SKIPPED: set ROADBED_HASH_ALL=1 to scan 2^32 nonces");
            return;
        }
        let Some(gpu) = gpu() else { return };
        let mut backend = GpuBackend::new(gpu, &AtomicBool::new(false)).unwrap();
        let genesis = &vectors::list("headers.json")[0];
        let header: [u8; 80] = vectors::bytes(&genesis["header_hex"]);
        let request = ScanRequest {
            header: std::array::from_fn(|i| header[i]),
            target: vectors::target(&genesis["target_hex"]),
            start: 0,
            count: 1 << 32,
        };
        let begun = Instant::now();
        let (hits, summary) = collect(&mut backend, &request, &AtomicBool::new(false)).unwrap();
        let rate_mhs = summary.hashes as f64 / begun.elapsed().as_secs_f64() / 1e6;
        println!("{}: {rate_mhs:.0} MH/s over 2^32 nonces", backend.name());
        assert!(hits.iter().any(|hit| u64::from(hit.nonce) == genesis["nonce"].as_u64().unwrap()));
    }

    #[test]
    fn the_dispatch_size_follows_the_rate_in_bounded_steps() {
        assert_eq!(next_chunk(1 << 20, DISPATCH_TARGET), 1 << 20);
        assert_eq!(next_chunk(1 << 20, Duration::ZERO), 1 << 21);
        assert_eq!(next_chunk(1 << 20, Duration::from_secs(9)), 1 << 19);
        assert_eq!(next_chunk(CHUNK_MIN, Duration::from_secs(9)), CHUNK_MIN);
        assert_eq!(next_chunk(CHUNK_MAX, Duration::ZERO), CHUNK_MAX);
    }
}
