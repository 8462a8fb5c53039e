//! Every form of the hash kernel against the double hash in plain code, on every adapter, and the measure of integer
//! instructions against its twin.

use std::sync::atomic::AtomicBool;

use roadbed_compute::hash::{
    GpuBackend, HashBackend, HashError, HashVariant, Hit, ScanJob, Target,
};
use roadbed_compute::kernels::hash::INTEGER_RATE;
use roadbed_compute::{Gpu, hash};

use crate::adapters;

/// Each nonce in turn.
fn twin(job: &ScanJob, start: u32, count: u32) -> Vec<Hit> {
    (0..count).filter_map(|offset| job.check(start.wrapping_add(offset))).collect()
}

#[test]
fn every_form_of_the_search_finds_what_the_twin_finds() {
    let easy = |top: u8| {
        let mut target = [0xFF; 32];
        target[0] = top;
        ScanJob::new(&std::array::from_fn(|i| (i * 7 + 3) as u8), Target(target))
    };
    let exact = easy(0).check(hit_of(&easy(0))).unwrap();
    let equal =
        ScanJob::new(&std::array::from_fn(|i| (i * 7 + 3) as u8), Target::of_hash(&exact.hash));
    for gpu in adapters::all() {
        for variant in HashVariant::kernels() {
            let mut backend = GpuBackend::with_variant(gpu.clone(), variant).unwrap();
            let mut agree = |job: &ScanJob, start: u32, count: u32| {
                let mut hits = Vec::new();
                backend.scan_chunk(job, start, count, &mut hits).unwrap();
                assert_eq!(hits, twin(job, start, count), "{variant} from {start} over {count}");
                hits.len()
            };
            for count in [0, 1, 2, 3, 4, 5, 7, 63, 65, 255, 257, 1023] {
                agree(&easy(0xFF), u32::MAX - 6, count);
                agree(&easy(0x7F), 11, count);
            }
            // Past the wrap, and more candidates than one list holds.
            assert!(agree(&easy(3), u32::MAX - 2_000, 5_001) > 0);
            assert!(agree(&easy(0xFF), u32::MAX - 50, 1_500) == 1_500);
            // A hash equal to the target is work.
            assert_eq!(agree(&equal, exact.nonce, 1), 1);
        }
    }
}

fn hit_of(job: &ScanJob) -> u32 {
    (0..u32::MAX).find(|nonce| job.check(*nonce).is_some()).unwrap()
}

#[test]
fn the_published_scans_are_found_by_the_form_that_was_tried_out() {
    for gpu in adapters::all() {
        let stopped = hash::tuner::try_out(gpu, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(HashError::Stopped)), "a raised flag ends it");
        let tuning = hash::tuner::try_out(gpu, &AtomicBool::new(false)).unwrap();
        assert!(tuning.trials.iter().any(|trial| trial.variant == tuning.chosen));
        for trial in &tuning.trials {
            assert_eq!(trial.dropped, None, "{}", trial.variant);
        }
        println!("{}: {}", gpu.summary(), tuning.chosen);
    }
}

#[test]
fn the_measure_of_integer_instructions_does_them() {
    const WORDS: usize = 256;
    let twin = |invocation: u32, turns: u32, seed: u32| {
        let k: [u32; 4] = std::array::from_fn(|i| seed.wrapping_add(i as u32));
        let mut a = k.map(|k| k.wrapping_add(invocation));
        let mut b = k.map(|k| k ^ invocation);
        for _ in 0..turns {
            (a, b) = (
                std::array::from_fn(|i| a[i].wrapping_add(b[i]).rotate_right(7) ^ k[i]),
                std::array::from_fn(|i| b[i].wrapping_add(k[i]).rotate_right(7) ^ a[i]),
            );
        }
        (0..4).fold(0, |all, i| all ^ a[i] ^ b[i])
    };
    for gpu in adapters::all() {
        let (turns, seed) = (24, 0x9E37_79B9);
        let pipeline = gpu.pipeline(&INTEGER_RATE, &[]).unwrap();
        let params = gpu.uniform("turns", &[turns, seed, 0, 0]).unwrap();
        let sums = gpu.storage("sums", WORDS as u64 * 4).unwrap();
        let bound = gpu.bind(&pipeline, &[&params, &sums]).unwrap();
        let mut encoder = gpu.encoder("integer rate");
        let descriptor = wgpu::ComputePassDescriptor::default();
        Gpu::dispatch(
            &mut encoder.begin_compute_pass(&descriptor),
            &pipeline,
            &bound,
            [WORDS as u32 / 64, 1, 1],
        );
        gpu.run(encoder, "integer rate").unwrap();
        let sums: Vec<u32> =
            bytemuck::pod_collect_to_vec(&gpu.read(&sums, WORDS as u64 * 4, "sums").unwrap());
        let expected: Vec<u32> = (0..WORDS as u32).map(|i| twin(i, turns, seed)).collect();
        assert_eq!(sums, expected);
    }
}
