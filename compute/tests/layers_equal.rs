//! The small kernels that only some families have, against their twins, on every adapter.

use roadbed_compute::Gpu;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::dequant::dequantise;
use roadbed_compute::kernels::llm::{self, ExpertTiles, Method};
use roadbed_compute::llm::packing::{self, Packed};
use roadbed_compute::llm::params::{
    ExpertsShape, HeadNormShape, MatrixShape, NormShape, RouteShape, RowShape, ScaleShape, Step,
};
use roadbed_compute::reference::ops;

use crate::adapters;
use crate::kernels_equal::{METHODS, check, floats, row_groups, run};
use crate::random::Random;

fn step(gpu: &Gpu, rows: usize) -> wgpu::Buffer {
    // Selected rows and all rows are the same number here.
    let step = Step { rows: rows as u32, selected: rows as u32, ..Step::default() };
    gpu.uniform("step", &step).unwrap()
}

fn row_shape(gpu: &Gpu, columns: usize) -> wgpu::Buffer {
    gpu.uniform("shape", &RowShape { columns: columns as u32, ..RowShape::default() }).unwrap()
}

#[test]
fn gelu_gates_match_from_tiny_to_huge() {
    for gpu in adapters::all() {
        let mut random = Random::new(21);
        for (rows, columns) in [(1, 32), (7, 160), (3, 1536)] {
            // Up to 1000: the cube inside tanh must not overflow.
            let size = [0.01, 3.0, 1000.0][rows % 3];
            let gate_up: Vec<f32> =
                random.floats(rows * 2 * columns).iter().map(|v| v * size).collect();
            let buffers = [
                &step(gpu, rows),
                &row_shape(gpu, columns),
                &floats(gpu, &gate_up),
                &floats(gpu, &vec![0.0; rows * columns]),
            ];
            let groups = [(columns as u32 / 4).div_ceil(64), rows as u32, 1];
            let found = run(gpu, &llm::GELU_MUL, &[], &buffers, groups);
            check(&llm::GELU_MUL, &found, &ops::gelu_mul(&gate_up, columns), "gate");
        }
    }
}

#[test]
fn biases_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(22);
        for (rows, columns) in [(1, 4), (7, 164), (3, 1536)] {
            let (x, bias) = (random.floats(rows * columns), random.floats(columns));
            let buffers =
                [&step(gpu, rows), &row_shape(gpu, columns), &floats(gpu, &bias), &floats(gpu, &x)];
            let groups = [(columns as u32 / 4).div_ceil(64), rows as u32, 1];
            let found = run(gpu, &llm::BIAS, &[], &buffers, groups);
            let mut expected = x.clone();
            ops::bias(&mut expected, &bias);
            check(&llm::BIAS, &found, &expected, "bias");
        }
    }
}

#[test]
fn scales_and_softcaps_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(23);
        for (rows, columns, factor) in [(1, 61, 30.0), (7, 64, 5.0), (3, 1531, 0.5)] {
            let x: Vec<f32> = random.floats(rows * columns).iter().map(|v| v * 100.0).collect();
            let shape = ScaleShape { columns: columns as u32, factor, padding: [0; 2] };
            let shape = gpu.uniform("shape", &shape).unwrap();
            let groups = [(columns as u32).div_ceil(64), rows as u32, 1];
            let on_gpu = |kernel| {
                run(gpu, kernel, &[], &[&step(gpu, rows), &shape, &floats(gpu, &x)], groups)
            };
            let mut expected = x.clone();
            ops::scale(&mut expected, factor);
            check(&llm::SCALE, &on_gpu(&llm::SCALE), &expected, "scale");
            let mut expected = x.clone();
            ops::softcap(&mut expected, factor);
            check(&llm::SOFTCAP, &on_gpu(&llm::SOFTCAP), &expected, "softcap");
        }
    }
}

#[test]
fn post_norms_match() {
    for gpu in adapters::all() {
        let mut random = Random::new(24);
        for (rows, columns) in [(1, 32), (9, 96), (70, 1024)] {
            let (branch, x) = (random.floats(rows * columns), random.floats(rows * columns));
            let weight = random.floats(columns);
            let mut expected = x.clone();
            ops::add(&mut expected, &ops::rms_norm(&branch, &weight, 1e-6));
            let shape =
                NormShape { columns: columns as u32, selecting: 0, epsilon: 1e-6, padding: 0 };
            for method in METHODS {
                let buffers = [
                    &step(gpu, rows),
                    &gpu.uniform("shape", &shape).unwrap(),
                    &floats(gpu, &branch),
                    &floats(gpu, &weight),
                    &floats(gpu, &x),
                ];
                let kernel = llm::post_norm(method);
                let found = run(gpu, kernel, &[], &buffers, row_groups(method, rows));
                check(kernel, &found, &expected, &format!("{rows}x{columns}"));
            }
        }
    }
}

#[test]
fn head_norms_match_and_leave_values_alone() {
    for gpu in adapters::all() {
        let mut random = Random::new(25);
        for (rows, heads, kv_heads, head) in [(1, 1, 1, 4), (5, 6, 3, 24), (3, 8, 2, 128)] {
            let width = (heads + 2 * kv_heads) * head;
            let (qkv, weights) = (random.floats(rows * width), random.floats(2 * head));
            let (of_q, of_k) = weights.split_at(head);
            let mut expected = Vec::new();
            for row in qkv.chunks_exact(width) {
                let (q, rest) = row.split_at(heads * head);
                let (k, v) = rest.split_at(kv_heads * head);
                expected.extend(ops::rms_norm(q, of_q, 1e-6));
                expected.extend(ops::rms_norm(k, of_k, 1e-6));
                expected.extend(v);
            }
            let shape = HeadNormShape {
                heads: heads as u32,
                kv_heads: kv_heads as u32,
                head: head as u32,
                epsilon: 1e-6,
            };
            for method in METHODS {
                let buffers = [
                    &step(gpu, rows),
                    &gpu.uniform("shape", &shape).unwrap(),
                    &floats(gpu, &weights),
                    &floats(gpu, &qkv),
                ];
                let kernel = llm::head_norm(method);
                let groups = row_groups(method, rows * (heads + kv_heads));
                let found = run(gpu, kernel, &[], &buffers, groups);
                check(kernel, &found, &expected, &format!("{rows} {heads}/{kv_heads} {head}"));
            }
        }
    }
}

/// (expert, bits of the share), as the kernels pass it on.
fn packed_routes(routes: &[Vec<(usize, f32)>]) -> Vec<u32> {
    routes.iter().flatten().flat_map(|(expert, share)| [*expert as u32, share.to_bits()]).collect()
}

#[test]
fn routes_match_and_ties_go_to_the_first() {
    for gpu in adapters::all() {
        let mut random = Random::new(26);
        for (rows, experts, used) in [(1, 1, 1), (70, 8, 2), (5, 128, 8), (3, 4, 4)] {
            // Few distinct logits, so that many are equal.
            let logits: Vec<f32> =
                random.floats(rows * experts).iter().map(|l| (l * 8.0).round() / 2.0).collect();
            let shape =
                RouteShape { experts: experts as u32, used: used as u32, ..RouteShape::default() };
            let chosen = floats(gpu, &vec![0.0; rows * used * 2]);
            let buffers = [
                &step(gpu, rows),
                &gpu.uniform("shape", &shape).unwrap(),
                &floats(gpu, &logits),
                &floats(gpu, &[0.0]),
                &chosen,
            ];
            let groups = [(rows as u32).div_ceil(64), 1, 1];
            let found = run(gpu, &llm::ROUTE_EXPERTS, &[], &buffers, groups);
            let expected = ops::route_experts(&logits, experts, used);
            for (found, (expert, share)) in found.chunks_exact(2).zip(expected.iter().flatten()) {
                assert_eq!(found[0].to_bits() as usize, *expert);
                check(&llm::ROUTE_EXPERTS, &found[1..], &[*share], "share");
            }
        }
    }
}

#[test]
fn given_experts_are_taken_from_the_rows_own_layer() {
    for gpu in adapters::all() {
        let mut random = Random::new(27);
        // The layers of a card, and which of them it is.
        for (rows, experts, used, layers, layer) in [
            (1, 1, 1, 1, 0),
            (70, 8, 2, 3, 1),
            (5, 128, 8, 2, 1),
            (3, 4, 4, 1, 0),
            (65, 7, 5, 4, 3),
        ] {
            let firsts: Vec<u32> = (0..rows * layers)
                .map(|_| (random.floats(1)[0].abs() * 1e6) as u32 % experts as u32)
                .collect();
            let shape = RouteShape {
                experts: experts as u32,
                used: used as u32,
                layer: layer as u32,
                layers: layers as u32,
                ..RouteShape::default()
            };
            let step = Step { rows: rows as u32, forced: 1, ..Step::default() };
            let buffers = [
                &gpu.uniform("step", &step).unwrap(),
                &gpu.uniform("shape", &shape).unwrap(),
                // What the router says does not matter.
                &floats(gpu, &vec![f32::NAN; rows * experts]),
                &gpu.storage_with("firsts", bytemuck::cast_slice(&firsts)).unwrap(),
                &floats(gpu, &vec![0.0; rows * used * 2]),
            ];
            let groups = [(rows as u32).div_ceil(64), 1, 1];
            let found = run(gpu, &llm::ROUTE_EXPERTS, &[], &buffers, groups);
            let own: Vec<u32> = firsts.chunks_exact(layers).map(|row| row[layer]).collect();
            let expected = ops::forced_routes(&own, experts, used);
            assert_eq!(found.len(), 2 * rows * used);
            for (found, (expert, share)) in found.chunks_exact(2).zip(expected.iter().flatten()) {
                assert_eq!(found[0].to_bits() as usize, *expert);
                check(&llm::ROUTE_EXPERTS, &found[1..], &[*share], "share");
            }
        }
    }
}

/// Slots by expert, and tiles of them, as the kernels pass them on.
fn packed_groups(routes: &[Vec<(usize, f32)>], experts: usize, tile: usize) -> [Vec<u32>; 2] {
    let (mut pairs, mut tiles) = (Vec::new(), Vec::new());
    for (expert, slots) in ops::group_experts(routes, experts, tile) {
        tiles.extend([expert as u32, pairs.len() as u32, slots.len() as u32, 0]);
        pairs.extend(slots.iter().map(|slot| *slot as u32));
    }
    tiles.splice(0..0, [tiles.len() as u32 / 4, 0, 0, 0]);
    [pairs, tiles]
}

#[test]
fn slots_are_grouped_by_expert() {
    for gpu in adapters::all() {
        let mut random = Random::new(28);
        for (rows, experts, used, tile) in
            [(1, 1, 1, 8), (70, 8, 2, 16), (9, 128, 8, 8), (33, 70, 1, 8), (40, 3, 3, 16)]
        {
            let routes = ops::route_experts(&random.floats(rows * experts), experts, used);
            let [pairs, tiles] = packed_groups(&routes, experts, tile);
            let chosen =
                gpu.storage_with("chosen", bytemuck::cast_slice(&packed_routes(&routes))).unwrap();
            let shape =
                RouteShape { experts: experts as u32, used: used as u32, ..RouteShape::default() };
            let most = ExpertTiles::tiles_max((rows * used) as u32, experts as u32, tile as u32);
            let found_pairs = gpu.storage("pairs", (rows * used * 4) as u64).unwrap();
            let found_tiles = gpu.storage("tiles", u64::from(1 + most) * 16).unwrap();
            let buffers = [
                &step(gpu, rows),
                &gpu.uniform("shape", &shape).unwrap(),
                &chosen,
                &found_pairs,
                &found_tiles,
            ];
            let constants = [("EXPERTS", experts as f64), ("TILE", tile as f64)];
            run(gpu, &llm::GROUP_EXPERTS, &constants, &buffers, [1, 1, 1]);
            let words = |buffer: &wgpu::Buffer| -> Vec<u32> {
                bytemuck::pod_collect_to_vec(&gpu.read(buffer, buffer.size(), "words").unwrap())
            };
            assert_eq!(words(&found_pairs), pairs);
            // There is room for all tiles there may be.
            assert_eq!(words(&found_tiles)[..tiles.len()], tiles);
        }
    }
}

#[test]
fn experts_are_combined_in_order() {
    for gpu in adapters::all() {
        let mut random = Random::new(29);
        for (rows, columns, used) in [(1, 4, 1), (7, 164, 3), (3, 1536, 8)] {
            let routes = ops::route_experts(&random.floats(rows * 9), 9, used);
            let (x, parts) = (random.floats(rows * columns), random.floats(rows * used * columns));
            let mut expected = x.clone();
            ops::combine_experts(&mut expected, &parts, &routes, columns);
            let shape = RouteShape {
                experts: 9,
                used: used as u32,
                columns: columns as u32,
                ..RouteShape::default()
            };
            let buffers = [
                &step(gpu, rows),
                &gpu.uniform("shape", &shape).unwrap(),
                &gpu.storage_with("chosen", bytemuck::cast_slice(&packed_routes(&routes))).unwrap(),
                &floats(gpu, &parts),
                &floats(gpu, &x),
            ];
            let groups = [(columns as u32 / 4).div_ceil(64), rows as u32, 1];
            let found = run(gpu, &llm::COMBINE_EXPERTS, &[], &buffers, groups);
            check(&llm::COMBINE_EXPERTS, &found, &expected, "combined");
        }
    }
}

/// How rows meet their experts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Alone, a result for every slot, all multiplied with the row.
    Spread,
    /// Alone, the slots' results added up by share, each slot having a row of its own.
    Gather,
    /// In tiles, a result for every slot; slots alike, or apart.
    Tiles { apart: bool },
}

/// A stack of experts and rows that each have some of them.
struct ExpertsCase {
    kind: TensorType,
    experts: usize,
    used: usize,
    expert_rows: usize,
    columns: usize,
    rows: usize,
}

impl ExpertsCase {
    /// The results that are wanted, on top of `before`.
    fn expected(
        &self,
        way: Way,
        before: &[f32],
        weights: &[f32],
        routes: &[Vec<(usize, f32)>],
        x: &[f32],
    ) -> Vec<f32> {
        let Self { used, expert_rows, columns, .. } = *self;
        let apart = way != Way::Spread && way != Way::Tiles { apart: false };
        let width = before.len() / routes.len();
        let mut expected = before.to_vec();
        for (row, route) in routes.iter().enumerate() {
            for (slot, (expert, share)) in route.iter().enumerate() {
                let matrix = &weights[expert * expert_rows * columns..][..expert_rows * columns];
                let x_row = if apart { row * used + slot } else { row };
                let result = ops::matmul(matrix, columns, &x[x_row * columns..][..columns]);
                if way == Way::Gather {
                    for (e, r) in expected[row * width..][..width].iter_mut().zip(&result) {
                        *e += share * r;
                    }
                } else {
                    expected[row * width + slot * expert_rows..][..expert_rows]
                        .copy_from_slice(&result);
                }
            }
        }
        expected
    }

    fn run(&self, gpu: &Gpu, method: Method, way: Way) {
        let Self { kind, experts, used, expert_rows, columns, rows } = *self;
        let mut random = Random::new(27);
        let data = random.weights(kind, experts * expert_rows * columns);
        let weights = dequantise(kind, &data);
        let routes = ops::route_experts(&random.floats(rows * experts), experts, used);
        let apart = way != Way::Spread && way != Way::Tiles { apart: false };
        let x = random.floats(rows * columns * if apart { used } else { 1 });
        let width = if way == Way::Gather { expert_rows } else { used * expert_rows };
        let before = random.floats(rows * width);
        let expected = self.expected(way, &before, &weights, &routes, &x);

        let format = packing::format_of(kind);
        let shape = ExpertsShape {
            expert_rows: expert_rows as u32,
            used: used as u32,
            gathering: u32::from(apart),
            padding: 0,
        };
        let (workgroup, lanes) = match method {
            Method::Lane => (8, 1),
            Method::Group => (64, 16),
        };
        let constants = [("WORKGROUP", f64::from(workgroup)), ("LANES", f64::from(lanes))];
        let alone = (expert_rows as u32).div_ceil(workgroup / lanes);
        let tiles = ExpertTiles::of(method, format);
        let most = ExpertTiles::tiles_max((rows * used) as u32, experts as u32, tiles.pairs);
        let across = (expert_rows as u32).div_ceil(tiles.rows);
        let (kernel, constants, groups) = match way {
            Way::Spread => (llm::experts(format), &constants[..], [alone, (rows * used) as u32, 1]),
            Way::Gather => (llm::experts(format), &constants[..], [alone, rows as u32, 1]),
            Way::Tiles { .. } => (tiles.kernel, &[][..], [across, most, 1]),
        };
        let words = |words: &[u32]| gpu.storage_with("words", bytemuck::cast_slice(words)).unwrap();
        let routing = match way {
            Way::Spread | Way::Gather => vec![words(&packed_routes(&routes))],
            Way::Tiles { .. } => {
                let grouped = packed_groups(&routes, experts, tiles.pairs as usize);
                grouped.iter().map(|list| words(list)).collect()
            }
        };
        let out = floats(gpu, &before);
        let row_bytes = data.len() / (experts * expert_rows);
        // Two shards, cut inside an expert.
        let cut = expert_rows + expert_rows / 2;
        let mut found = Vec::new();
        for shard in [0..cut, cut..experts * expert_rows] {
            let mut packed = Packed::default();
            for row in data.chunks_exact(row_bytes).skip(shard.start).take(shard.len()) {
                packing::pack_row(kind, "test", row, &mut packed).unwrap();
            }
            packed.scales.resize(packed.scales.len().max(8), 0);
            let matrix = MatrixShape {
                columns: columns as u32,
                rows: shard.len() as u32,
                row_first: shard.start as u32,
                out_stride: width as u32,
                ..MatrixShape::default()
            };
            let step = step(gpu, rows);
            let uniforms =
                [gpu.uniform("matrix", &matrix).unwrap(), gpu.uniform("experts", &shape).unwrap()];
            let quants = gpu.storage_with("quants", &packed.quants).unwrap();
            let scales = gpu.storage_with("scales", &packed.scales).unwrap();
            let x = floats(gpu, &x);
            let mut buffers = vec![&step, &uniforms[0], &quants, &scales, &uniforms[1]];
            buffers.extend(&routing);
            buffers.extend([&x, &out]);
            found = run(gpu, kernel, constants, &buffers, groups);
        }
        check(kernel, &found, &expected, &format!("{kind} {method:?} {way:?}"));
    }
}

#[test]
fn products_with_experts_match_over_shards() {
    let case = |kind, columns, expert_rows, rows| ExpertsCase {
        kind,
        experts: 5,
        used: 3,
        expert_rows,
        columns,
        rows,
    };
    let cases = [
        case(TensorType::F32, 32, 5, 1),
        // Tiles that are full, and some that are not.
        case(TensorType::Q4_1, 96, 33, 31),
        case(TensorType::Q6K, 512, 20, 7),
    ];
    for gpu in adapters::all() {
        for case in &cases {
            for method in METHODS {
                let tiles = [false, true].map(|apart| Way::Tiles { apart });
                for way in [Way::Spread, Way::Gather].into_iter().chain(tiles) {
                    case.run(gpu, method, way);
                }
            }
        }
    }
}
