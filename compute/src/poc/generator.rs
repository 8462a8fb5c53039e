//! Input embeddings made where they are needed: by a kernel on the GPU, or on the host.
//!
//! A nonce needs `seq_len * hidden` normals, up to tens of megabytes that a mining card on a PCIe
//! x1 riser would wait for; the kernel needs eight seeds. Before it is trusted, its output for one
//! stream is held against the host's: a driver that gets the arithmetic wrong costs speed, not a
//! strike for fraud.

use std::sync::Arc;

use super::PocError;
use super::inputs::{INPUT_VALUES_MAX, InputStreams};
use super::normal::NormalStream;
use super::seed::Seed;
use crate::gpu::{Gpu, Pipeline};
use crate::kernels::poc::NORMALS;

const WORKGROUP: u32 = 64;
/// Workgroups along a segment: enough to fill a large GPU, few enough for any adapter's limit. An
/// invocation strides over what is left.
const COLUMNS_MAX: u32 = 4096;
/// Segments of one nonce with the stronger generator.
const SEGMENTS_PER_NONCE: usize = 8;
/// Stream of the self-test: odd, and not a multiple of the workgroup.
const PROBE: NormalStream = NormalStream { seed: Seed(0x5EED_0001), count: 4097 };

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Segment {
    seed: u32,
    count: u32,
    offset: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    row: u32,
    segments: u32,
    padding: [u32; 2],
}

/// Generates input embeddings into one buffer that is reused for every batch of nonces.
pub struct InputGenerator {
    gpu: Arc<Gpu>,
    output: wgpu::Buffer,
    /// Values of one nonce.
    count: u32,
    /// Nonces the buffer holds, one tensor after the other.
    batch_max: usize,
    kernel: Option<Generation>,
}

/// What a dispatch of the kernel needs.
struct Generation {
    pipeline: Arc<Pipeline>,
    params: wgpu::Buffer,
    segments: wgpu::Buffer,
}

impl InputGenerator {
    /// For up to `batch_max` tensors of `count` values each; falls back to the host if the kernel
    /// fails its self-test.
    ///
    /// # Errors
    /// When the adapter has no room for the tensors or refuses the kernel's buffers.
    pub fn new(gpu: Arc<Gpu>, count: u32, batch_max: usize) -> Result<Self, PocError> {
        let mut generator = Self::on_host(gpu, count, batch_max)?;
        let gpu = &generator.gpu;
        let params = Params { row: 0, segments: 0, padding: [0; 2] };
        let segments_bytes = SEGMENTS_PER_NONCE * batch_max.max(1) * size_of::<Segment>();
        generator.kernel = Some(Generation {
            pipeline: gpu.pipeline(&NORMALS, &[("WORKGROUP", f64::from(WORKGROUP))])?,
            params: gpu.uniform("proof input parameters", &params)?,
            segments: gpu.storage("proof input segments", segments_bytes as u64)?,
        });
        let error = generator.probe()?;
        if error > NORMALS.tolerance {
            tracing::warn!(
                adapter = generator.gpu.summary().name,
                error,
                "the GPU's normals are off: proof inputs are made on the host"
            );
            generator.kernel = None;
        }
        Ok(generator)
    }

    /// The same, always on the host.
    ///
    /// # Errors
    /// When the adapter has no room for the tensors.
    pub fn on_host(gpu: Arc<Gpu>, count: u32, batch_max: usize) -> Result<Self, PocError> {
        let values = u64::from(count).saturating_mul(batch_max as u64);
        // Offsets within the buffer are u32 in the kernel.
        if values > u64::from(INPUT_VALUES_MAX) {
            return Err(PocError::Request(format!("{values} input values at once are too many")));
        }
        let output = gpu.storage("proof inputs", 4 * values.max(u64::from(PROBE.count)))?;
        Ok(Self { gpu, output, count, batch_max, kernel: None })
    }

    /// Whether the kernel is used.
    #[must_use]
    pub fn is_on_gpu(&self) -> bool {
        self.kernel.is_some()
    }

    /// Makes the tensors of a batch of nonces, one after the other; the buffer holds them until the
    /// next call.
    ///
    /// # Errors
    /// More nonces or longer streams than this generator was made for, or a failure of the GPU.
    pub fn generate(&self, batch: &[InputStreams]) -> Result<&wgpu::Buffer, PocError> {
        if batch.len() > self.batch_max || batch.iter().any(|nonce| nonce.count != self.count) {
            let why = format!("inputs are prepared for {} x {}", self.batch_max, self.count);
            return Err(PocError::Request(why));
        }
        match &self.kernel {
            Some(kernel) => {
                let streams: Vec<NormalStream> =
                    batch.iter().flat_map(|nonce| nonce.segments.iter().copied()).collect();
                self.dispatch(kernel, &streams)?;
            }
            None => {
                for (place, nonce) in (0u64..).zip(batch) {
                    let offset_bytes = 4 * u64::from(self.count) * place;
                    let values = nonce.generate();
                    self.gpu.write(&self.output, offset_bytes, bytemuck::cast_slice(&values));
                }
            }
        }
        Ok(&self.output)
    }

    fn dispatch(&self, kernel: &Generation, streams: &[NormalStream]) -> Result<(), PocError> {
        let mut segments = Vec::with_capacity(streams.len());
        let (mut offset, mut longest) = (0, 0);
        for stream in streams {
            let NormalStream { seed, count } = *stream;
            segments.push(Segment { seed: seed.0, count, offset, padding: 0 });
            offset += count;
            longest = count.max(longest);
        }
        let columns = longest.div_ceil(2).div_ceil(WORKGROUP).clamp(1, COLUMNS_MAX);
        let rows = segments.len() as u32;
        let params = Params { row: columns * WORKGROUP, segments: rows, padding: [0; 2] };
        self.gpu.write(&kernel.params, 0, bytemuck::bytes_of(&params));
        self.gpu.write(&kernel.segments, 0, bytemuck::cast_slice(&segments));
        let buffers = [&kernel.params, &kernel.segments, &self.output];
        let bind_group = self.gpu.bind(&kernel.pipeline, &buffers)?;
        let mut encoder = self.gpu.encoder("proof inputs");
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            Gpu::dispatch(&mut pass, &kernel.pipeline, &bind_group, [columns, rows, 1]);
        }
        self.gpu.submit(encoder, "proof inputs")?;
        Ok(())
    }

    /// Largest difference between kernel and host over one stream; infinite if not a number.
    fn probe(&self) -> Result<f32, PocError> {
        let Some(kernel) = &self.kernel else { return Ok(0.0) };
        self.dispatch(kernel, &[PROBE])?;
        let bytes = self.gpu.read(&self.output, 4 * u64::from(PROBE.count), "proof input probe")?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        let mut expected = vec![0f32; values.len()];
        PROBE.fill(&mut expected);
        let differences = values.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        Ok(differences.fold(
            0.0,
            |worst: f32, error| {
                if error.is_nan() { f32::INFINITY } else { worst.max(error) }
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{AdapterChoice, list_adapters};
    use crate::poc::{Identity, vectors};

    /// Every adapter of this machine; none is a skip that says so, or a failure where one is promised.
    fn gpus() -> Vec<Arc<Gpu>> {
        let open = |index| Gpu::open(&AdapterChoice::Index(index)).unwrap();
        let gpus: Vec<Arc<Gpu>> = (0..list_adapters().len()).map(open).collect();
        if gpus.is_empty() {
            let promised = std::env::var_os("ROADBED_REQUIRE_GPU").is_some();
            assert!(!promised, "ROADBED_REQUIRE_GPU is set and there is no adapter");
            println!("SKIPPED: no adapter");
        }
        gpus
    }

    fn read(gpu: &Gpu, buffer: &wgpu::Buffer, count: u32) -> Vec<f32> {
        bytemuck::pod_collect_to_vec(&gpu.read(buffer, 4 * u64::from(count), "test").unwrap())
    }

    #[test]
    fn the_kernel_makes_the_published_tensors() {
        for gpu in gpus() {
            let adapter = &gpu.summary().name;
            for case in vectors::cases("inputs.json") {
                let count = vectors::word(&case["dim"]) * vectors::word(&case["seq_len"]);
                let stronger = case["poc_stronger_rng"].as_bool().unwrap();
                let nonce = vectors::word(&case["nonce"]);
                let streams = InputStreams::new(&vectors::identity(&case), nonce, count, stronger);
                let generator = InputGenerator::new(Arc::clone(&gpu), count, 1).unwrap();
                assert!(generator.is_on_gpu(), "{adapter}: the kernel failed its self-test");
                let values =
                    read(&gpu, generator.generate(std::slice::from_ref(&streams)).unwrap(), count);
                let expected = vectors::reals(&case["value_f32"]);
                for (slot, index) in vectors::counts(&case["flat_index"]).into_iter().enumerate() {
                    let error = (f64::from(values[index]) - expected[slot]).abs();
                    assert!(error <= 2e-6, "{adapter}: nonce {nonce} index {index}: {error}");
                }
            }
        }
    }

    #[test]
    fn kernel_and_twin_agree_over_ragged_and_long_streams() {
        gpus().iter().for_each(agrees_with_its_twin);
    }

    fn agrees_with_its_twin(gpu: &Arc<Gpu>) {
        let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
        let mut worst = 0f32;
        for (count, stronger) in
            [(1, false), (1, true), (9, true), (129, false), (1_000_003, false), (1_000_003, true)]
        {
            let streams = InputStreams::new(&identity, 3, count, stronger);
            let generator = InputGenerator::new(Arc::clone(gpu), count, 1).unwrap();
            let values =
                read(gpu, generator.generate(std::slice::from_ref(&streams)).unwrap(), count);
            let host = InputGenerator::on_host(Arc::clone(gpu), count, 1).unwrap();
            assert!(!host.is_on_gpu());
            let twin = read(gpu, host.generate(std::slice::from_ref(&streams)).unwrap(), count);
            for (index, (value, twin)) in values.iter().zip(&twin).enumerate() {
                let error = (value - twin).abs();
                assert!(error <= NORMALS.tolerance, "{count} {stronger} [{index}]: {error}");
                worst = worst.max(error);
            }
        }
        let adapter = &gpu.summary().name;
        println!("{adapter}: largest difference of kernel and twin: {worst:.1e}");
    }

    #[test]
    fn a_batch_is_its_nonces_side_by_side() {
        let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
        for (gpu, stronger) in gpus().iter().flat_map(|gpu| [(gpu, false), (gpu, true)]) {
            let batch: Vec<InputStreams> =
                (0..3).map(|nonce| InputStreams::new(&identity, nonce, 77, stronger)).collect();
            let generator = InputGenerator::new(Arc::clone(gpu), 77, 3).unwrap();
            let together = read(gpu, generator.generate(&batch).unwrap(), 3 * 77);
            for (alone, together) in batch.iter().zip(together.chunks(77)) {
                let alone = generator.generate(std::slice::from_ref(alone)).unwrap();
                assert_eq!(read(gpu, alone, 77), together);
            }
        }
    }

    #[test]
    fn tensors_of_another_size_or_number_are_refused() {
        for gpu in gpus() {
            let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
            let generator = InputGenerator::new(Arc::clone(&gpu), 64, 1).unwrap();
            let of = |count| InputStreams::new(&identity, 0, count, false);
            assert!(generator.generate(&[of(65)]).is_err());
            assert!(generator.generate(&[of(64), of(64)]).is_err());
            assert!(InputGenerator::new(gpu, 1 << 31, 2).is_err());
        }
    }
}
