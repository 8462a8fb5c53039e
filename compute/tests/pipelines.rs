//! Pipelines: planned and compiled together on threads, and kept on disk from one start to the next.

use std::fs;
use std::sync::Arc;

use roadbed_compute::gpu::{Gpu, GpuError, Pipeline};
use roadbed_compute::kernels::llm::{self, WeightFormat};
use roadbed_compute::kernels::{Kernel, Source};
use roadbed_compute::{AdapterChoice, list_adapters};
use sha2::{Digest as _, Sha256};

use crate::adapters;

static REFUSED: Kernel = Kernel {
    name: "refused",
    source: Source { files: &[], text: "@compute @workgroup_size(1) fn other() {}" },
    entry: "main",
    bindings: &[],
    constants: &[],
    tolerance: 0.0,
};

/// Sizes of a workgroup that nothing else asks for, so that other tests compile none of these.
fn planned(gpu: &Gpu, workgroup: f64) -> Vec<Arc<Pipeline>> {
    WeightFormat::ALL
        .map(|format| gpu.planned(llm::embed(format), &[("WORKGROUP", workgroup)]).unwrap())
        .to_vec()
}

#[test]
fn planned_pipelines_are_compiled_once_and_together() {
    for gpu in adapters::all() {
        let pipelines = planned(gpu, 24.0);
        let mut told = Vec::new();
        // Named twice, compiled once.
        let twice = pipelines.iter().chain(&pipelines);
        gpu.compile(twice, &mut |done, all| told.push((done, all))).unwrap();
        let count = pipelines.len();
        assert_eq!(told, (1..=count).map(|done| (done, count)).collect::<Vec<_>>());
        gpu.compile(&pipelines, &mut |_, _| panic!("nothing is left to do")).unwrap();
    }
}

#[test]
fn the_first_refusal_is_the_answer() {
    for gpu in adapters::all() {
        let mut pipelines = planned(gpu, 40.0);
        pipelines.insert(3, gpu.planned(&REFUSED, &[]).unwrap());
        let found = gpu.compile(&pipelines, &mut |_, _| ());
        let Err(GpuError::Refused { what, .. }) = found else { panic!("{found:?}") };
        assert_eq!(what, "kernel refused");
        // It is no worse than that: the others can be had, and it is refused again.
        gpu.compile(&planned(gpu, 40.0), &mut |_, _| ()).unwrap();
        assert!(gpu.pipeline(&REFUSED, &[]).is_err());
        gpu.check("after a refusal").unwrap();
    }
}

#[test]
fn compiled_pipelines_are_kept_and_damage_does_no_harm() {
    for adapter in list_adapters() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("kept");
        let open =
            || Gpu::open_keeping(&AdapterChoice::Index(adapter.index), Some(&folder)).unwrap();
        let start = || {
            let gpu = open();
            gpu.pipeline(llm::embed(WeightFormat::F32), &[]).unwrap();
            gpu.keep_pipelines();
            gpu.store().unwrap().path("pipelines")
        };
        let path = start();
        if !path.exists() {
            eprintln!("SKIPPED: {adapter} keeps no pipelines");
            continue;
        }
        let good = fs::read(&path).unwrap();
        start();
        let mut cut = good.clone();
        cut.pop();
        let foreign = [&Sha256::digest(b"another driver's")[..], b"another driver's"].concat();
        for bad in [Vec::new(), cut, foreign] {
            fs::write(&path, &bad).unwrap();
            start();
            let mended = fs::read(&path).unwrap();
            assert_ne!(mended, bad);
            assert_eq!(mended[..32], Sha256::digest(&mended[32..])[..]);
        }
    }
}
