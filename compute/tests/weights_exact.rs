//! A packed weight is the f32 of ggml's formula, to the last bit, on every adapter.
//!
//! The `embed` kernel hands weights out as they are, so it shows what every kernel computes with.

use half::{bf16, f16};
use proptest::prelude::*;
use roadbed_compute::Gpu;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::dequant::dequantise;
use roadbed_compute::gpu::GpuError;
use roadbed_compute::kernels::llm;
use roadbed_compute::llm::packing::{self, Packed};
use roadbed_compute::llm::params::{MatrixShape, Step};

use crate::adapters;
use crate::random::Random;

/// Scales as a hostile or odd file may have them: nothing, signs, the smallest, large, ordinary ones.
const SCALES: [f32; 8] = [0.0, -0.0, 6e-8, -3e-5, 4000.0, -1.5, 0.01, 0.33];

/// Random bits, with sane numbers where the type has floats.
fn random_rows(random: &mut Random, kind: TensorType, rows: usize, columns: usize) -> Vec<u8> {
    let count = rows * columns / kind.block_weights();
    let floats_at: &[usize] = match kind {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
            let floats = random.floats(count);
            let edges = [0.0, -0.0, 6e-8, -6e4, 1e-20, 65504.0];
            let floats = floats.into_iter().chain(edges).skip(edges.len());
            return match kind {
                TensorType::F16 => floats.flat_map(|f| f16::from_f32(f).to_le_bytes()).collect(),
                TensorType::Bf16 => floats.flat_map(|f| bf16::from_f32(f).to_le_bytes()).collect(),
                _ => floats.flat_map(f32::to_le_bytes).collect(),
            };
        }
        TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => &[0],
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
        TensorType::Q6K => &[208],
        TensorType::Mxfp4 => &[],
    };
    let mut data = Vec::new();
    for _ in 0..count {
        let mut block: Vec<u8> = (0..kind.block_bytes()).map(|_| random.word() as u8).collect();
        for at in floats_at {
            let scale = match random.word() % 3 {
                0 => SCALES[random.word() as usize % SCALES.len()],
                _ => random.float(),
            };
            block[*at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
        if kind == TensorType::Mxfp4 && block[0] > 250 {
            // 12 times 2^127 is no f32.
            block[0] = 250;
        }
        data.extend(block);
    }
    data
}

/// Every row of a packed table, decoded by the GPU.
fn decoded(
    gpu: &Gpu,
    kind: TensorType,
    packed: &Packed,
    rows: usize,
    columns: usize,
) -> Result<Vec<f32>, GpuError> {
    let pipeline = gpu.pipeline(llm::embed(packing::format_of(kind)), &[])?;
    let ids: Vec<u32> = (0..rows as u32).collect();
    let step = Step { rows: rows as u32, ..Step::default() };
    let shape =
        MatrixShape { columns: columns as u32, rows: rows as u32, ..MatrixShape::default() };
    let mut scales = packed.scales.clone();
    scales.resize(scales.len().max(16), 0);
    let out = gpu.storage("out", (rows * columns * 4) as u64)?;
    let bind_group = gpu.bind(
        &pipeline,
        &[
            &gpu.uniform("step", &step)?,
            &gpu.uniform("shape", &shape)?,
            &gpu.storage_with("quants", &packed.quants)?,
            &gpu.storage_with("scales", &scales)?,
            &gpu.storage_with("ids", bytemuck::cast_slice(&ids))?,
            &out,
        ],
    )?;
    let mut encoder = gpu.encoder("decode");
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let groups = [(columns as u32 / 8).div_ceil(64), rows as u32, 1];
        Gpu::dispatch(&mut pass, &pipeline, &bind_group, groups);
    }
    gpu.run(encoder, "decode")?;
    Ok(bytemuck::pod_collect_to_vec(&gpu.read(&out, out.size(), "decode")?))
}

#[test]
fn packed_weights_decode_to_the_last_bit() {
    let (rows, mut random) = (7, Random::new(11));
    for kind in TensorType::ALL {
        // Odd numbers of blocks, so that padding matters; K types come in eights.
        for columns in
            [32, 96, 32 * 5, 256, 768].map(|c: usize| c.next_multiple_of(kind.block_weights()))
        {
            let data = random_rows(&mut random, kind, rows, columns);
            let expected = dequantise(kind, &data);
            let mut packed = Packed::default();
            for row in data.chunks_exact(data.len() / rows) {
                packing::pack_row(kind, "test", row, &mut packed).unwrap();
            }
            let (quants, scales) = packing::row_bytes(packing::format_of(kind), columns);
            assert_eq!((packed.quants.len(), packed.scales.len()), (quants * rows, scales * rows));
            for gpu in adapters::all() {
                let found = decoded(gpu, kind, &packed, rows, columns).unwrap();
                assert_eq!(found.len(), expected.len());
                for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
                    // Numbers below the smallest normal one may be flushed to zero by a GPU.
                    let flushed = e.abs() < f32::MIN_POSITIVE && *f == 0.0;
                    let what = format!("{kind} {rows}x{columns} on {}", gpu.summary());
                    assert!(f == e || flushed, "{what}: [{i}] is {f:e}, not {e:e}");
                }
            }
        }
    }
}

#[test]
fn packing_widens_nothing() {
    for kind in TensorType::ALL {
        let columns = 4096;
        let (quants, scales) = packing::row_bytes(packing::format_of(kind), columns);
        let file = columns / kind.block_weights() * kind.block_bytes();
        // Q4_0 and Q5_0 gain an f16 offset (half a bit per weight), Q6_K half a word per 256.
        let gained = match kind {
            TensorType::Q4_0 | TensorType::Q5_0 => columns / 16,
            TensorType::Q6K => columns / 128,
            _ => 0,
        };
        assert_eq!(quants + scales, file + gained, "{kind}");
        assert_eq!(quants % 16, 0, "{kind}: rows start at whole vectors");
    }
}

proptest! {
    #[test]
    fn any_bytes_pack_or_are_refused(seed in any::<u64>(), blocks in 1_usize..4) {
        let mut random = Random::new(seed);
        for kind in TensorType::ALL {
            let columns = blocks * kind.block_weights().max(32);
            let bytes = columns / kind.block_weights() * kind.block_bytes();
            let data: Vec<u8> = (0..bytes).map(|_| random.word() as u8).collect();
            let mut packed = Packed::default();
            if packing::pack_row(kind, "noise", &data, &mut packed).is_ok() {
                let wanted = packing::row_bytes(packing::format_of(kind), columns);
                prop_assert_eq!((packed.quants.len(), packed.scales.len()), wanted);
            }
        }
    }
}
