//! The likeliest tokens of rows of logits, on every adapter, against their CPU twin: ragged vocabularies,
//! ties, and logits that are no numbers.

use roadbed_compute::Gpu;
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::kernels::top::{
    CAPACITY, RECORD_FLOATS, STRANDS, TOP_K, TOP_STRANDS, Wish, constants, strand_groups,
};
use roadbed_compute::llm::params::{RowShape, Step};
use roadbed_compute::reference::top::record;

use crate::adapters;
use crate::kernels_equal::{floats, read, run};
use crate::random::Random;

fn records(gpu: &Gpu, method: Method, rows: &[Vec<f32>], wishes: &[Wish]) -> Vec<Vec<f32>> {
    let count = rows.len() as u32;
    let step = Step { rows: 9999, selected: count, ..Step::default() };
    let step = gpu.uniform("step", &step).unwrap();
    let shape = RowShape { columns: rows[0].len() as u32, ..RowShape::default() };
    let shape = gpu.uniform("top", &shape).unwrap();
    let logits = floats(gpu, &rows.concat());
    let wishes = gpu.storage_with("wishes", bytemuck::cast_slice(wishes)).unwrap();
    let strands = gpu.storage("strands", (rows.len() * STRANDS * 16) as u64).unwrap();
    let out = floats(gpu, &vec![7.0; rows.len() * RECORD_FLOATS]);
    let buffers = [&step, &shape, &logits, &wishes, &strands];
    run(gpu, &TOP_STRANDS, &[], &buffers, [strand_groups(), count, 1]);
    let buffers = [&step, &shape, &logits, &wishes, &strands, &out];
    run(gpu, &TOP_K, constants(method), &buffers, [1, count, 1]);
    read(gpu, &out).chunks_exact(RECORD_FLOATS).map(<[f32]>::to_vec).collect()
}

fn pairs(record: &[f32]) -> Vec<(u32, u32)> {
    let kept = record[8..].chunks_exact(2).take(record[0] as usize);
    let mut pairs: Vec<(u32, u32)> = kept.map(|pair| (pair[1] as u32, pair[0].to_bits())).collect();
    pairs.sort_unstable();
    pairs
}

fn check(found: &[f32], wanted: &[f32], what: &str) {
    if wanted[0] < 0.0 || wanted[0] > CAPACITY as f32 {
        // The row is to be read whole; nothing else counts.
        assert_eq!(found[0], wanted[0], "{what}");
        return;
    }
    assert_eq!(pairs(found), pairs(wanted), "{what}");
    assert_eq!(found[1], wanted[1], "the largest of {what}");
    for at in [2, 3] {
        let (found, wanted) = (found[at], wanted[at]);
        assert!(TOP_K.accepts(found, wanted, wanted), "{found} for {wanted}: sum {at} of {what}");
    }
    assert_eq!(found[4].to_bits(), wanted[4].to_bits(), "the wanted of {what}");
}

#[test]
fn likeliest_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(11);
        for vocabulary in [1, 3, 63, 64, 65, 300, 1023, 1025, 5000, 49_152] {
            let smooth = |random: &mut Random| -> Vec<f32> {
                random.floats(vocabulary).iter().map(|f| f * 20.0 - 3.0).collect()
            };
            let mut rows: Vec<Vec<f32>> = (0..6).map(|_| smooth(&mut random)).collect();
            // Many equals, some of them the largest.
            rows[1].iter_mut().for_each(|logit| *logit = logit.round());
            rows[2].iter_mut().for_each(|logit| *logit = if *logit < 10.0 { -0.0 } else { 0.0 });
            for logit in rows[3].iter_mut().skip(1).step_by(3) {
                *logit = f32::NEG_INFINITY;
            }
            let last = vocabulary - 1;
            rows[4][last] = f32::NAN;
            rows[5][last / 2] = f32::INFINITY;
            let wishes: Vec<Wish> = [1.0, 0.5, 4.0, 100.0, 1.0, 1.0]
                .map(|inverse_temperature| Wish { token: last as u32 / 3, inverse_temperature })
                .to_vec();
            for method in [Method::Lane, Method::Group] {
                let found = records(gpu, method, &rows, &wishes);
                for (row, found) in found.iter().enumerate() {
                    let wanted = record(&rows[row], wishes[row]);
                    let what = format!("row {row} of {vocabulary}, {method:?}, {}", gpu.summary());
                    check(found, &wanted, &what);
                }
            }
        }
    }
}
