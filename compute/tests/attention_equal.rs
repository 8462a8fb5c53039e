//! Attention against its CPU twins: several sequences in one pass, pages scattered over the caches.

use roadbed_compute::Gpu;
use roadbed_compute::kernels::attention::{
    self, ATTENTION_REDUCE, Attending, KvFormat, SPAN_DECODE, SPAN_PREFILL,
};
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::llm::params::{AttentionShape, PAGE, Row, Step};
use roadbed_compute::reference::cache;
use roadbed_compute::reference::ops::{self, Heads, Scoring};

use crate::adapters;
use crate::kernels_equal::{METHODS, check, floats, read, run};
use crate::random::Random;

/// One attention layer. Each sequence brings `rows` new tokens after `position` old ones.
struct Case {
    heads: Heads,
    rope: usize,
    half_split: bool,
    scoring: Scoring,
    /// (position, rows)
    sequences: Vec<(usize, usize)>,
}

/// What the caches hold, by sequence and position, and where.
struct Layout {
    rows: Vec<Row>,
    /// Sequence of each row.
    owners: Vec<usize>,
    tables: Vec<u32>,
    /// First word of each sequence's table.
    starts: Vec<usize>,
    pages: usize,
}

impl Layout {
    fn new(sequences: &[(usize, usize)]) -> Self {
        let needed = |(position, rows): (usize, usize)| (position + rows).div_ceil(PAGE);
        let pages = sequences.iter().map(|s| needed(*s)).sum::<usize>() + 3;
        // Pages in an order that is no neighbour's: a stride coprime to their number.
        let stride = (2..).find(|n| (1..=*n).filter(|d| n % d == 0 && pages % d == 0).count() == 1);
        let stride = stride.unwrap();
        let mut layout =
            Self { rows: vec![], owners: vec![], tables: vec![9999], starts: vec![], pages };
        for (owner, sequence) in sequences.iter().enumerate() {
            let start = layout.tables.len();
            layout.starts.push(start);
            for position in sequence.0..sequence.0 + sequence.1 {
                let position = position as u32;
                layout.rows.push(Row { position, pages_at: start as u32 });
                layout.owners.push(owner);
            }
            for _ in 0..needed(*sequence) {
                layout.tables.push((layout.tables.len() * stride % pages) as u32);
            }
        }
        layout
    }

    fn slot(&self, owner: usize, position: usize) -> usize {
        self.tables[self.starts[owner] + position / PAGE] as usize * PAGE + position % PAGE
    }

    /// What a sequence's first `count` positions hold, in order.
    fn gather(&self, cache: &[f32], width: usize, owner: usize, count: usize) -> Vec<f32> {
        let slots = (0..count).map(|position| self.slot(owner, position));
        slots.flat_map(|slot| &cache[slot * width..][..width]).copied().collect()
    }
}

impl Case {
    fn run(&self, gpu: &Gpu, attending: Attending, format: KvFormat) {
        let Heads { heads, kv_heads, head } = self.heads;
        let mut random = Random::new(6);
        let layout = Layout::new(&self.sequences);
        let total = layout.rows.len();
        let length = layout.rows.iter().map(|row| row.position + 1).max().unwrap();
        let width = (heads + 2 * kv_heads) * head;
        let qkv = random.floats(total * width);
        let old = random.floats(layout.pages * PAGE * kv_heads * head);
        let pairs = length as usize * self.rope / 2;
        let angles: Vec<[f32; 2]> =
            (0..pairs).map(|i| [(i as f32).cos(), (i as f32).sin()]).collect();

        let step = Step { rows: total as u32, selected: 0, kv_length: length, forced: 0 };
        let shape = AttentionShape {
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head: head as u32,
            rope: self.rope as u32,
            half_split: u32::from(self.half_split),
            score_scale: self.scoring.scale,
            window: self.scoring.window as u32,
            softcap: self.scoring.softcap,
        };
        let step = gpu.uniform("step", &step).unwrap();
        let shape = gpu.uniform("shape", &shape).unwrap();
        let rows = gpu.storage_with("rows", bytemuck::cast_slice(&layout.rows)).unwrap();
        let pages = gpu.storage_with("pages", bytemuck::cast_slice(&layout.tables)).unwrap();
        let q = floats(gpu, &vec![0.0; total * heads * head]);
        let old = cache::file(format, head, &old);
        let caches =
            [(); 2].map(|()| gpu.storage_with("cache", bytemuck::cast_slice(&old)).unwrap());
        let [keys, values] = &caches;
        let old = cache::read(format, head, &old);
        let flat: Vec<f32> = angles.iter().flatten().copied().collect();
        let pieces = (heads + 2 * kv_heads) * head.div_ceil(format.piece());
        let groups = [(pieces as u32).div_ceil(64), total as u32, 1];
        let (qkv_buffer, angles_buffer) = (floats(gpu, &qkv), floats(gpu, &flat));
        let buffers = [&step, &shape, &rows, &pages, &qkv_buffer, &angles_buffer, &q, keys, values];
        let rope = attention::rope(format);
        run(gpu, rope, &[], &buffers, groups);

        let (want_q, want_keys, want_values) = self.expected_rope(&layout, &qkv, &old, &angles);
        check(attention::rope(KvFormat::F32), &read(gpu, &q), &want_q, "queries");
        // What the caches hold from here on, rounded as the kernel rounded it.
        let [got_keys, got_values] = caches.each_ref().map(|buffer| {
            let data = gpu.read(buffer, buffer.size(), "cache").unwrap();
            cache::read(format, head, &bytemuck::pod_collect_to_vec::<u8, u32>(&data))
        });
        check(rope, &got_keys, &want_keys, "keys");
        check(rope, &got_values, &want_values, "values");
        for (got, want) in [(&got_keys, &want_keys), (&got_values, &want_values)] {
            let twin = cache::read(format, head, &cache::file(format, head, want));
            let filed = want.iter().zip(&old).map(|(want, old)| want != old);
            let differs = |((g, t), filed): ((&f32, &f32), bool)| filed && (g - t).abs() > 1e-5;
            let other = got.iter().zip(&twin).zip(filed).filter(|c| differs(*c)).count();
            // A driver rounds as the twin does, except on the edge.
            let all = total * kv_heads * head;
            assert!(other * 20 <= all, "{format:?}: {other} of {all} differ");
            let kept = got.iter().zip(&old).filter(|(g, o)| g == o).count();
            assert!(kept >= got.len() - all, "what others filed has changed");
        }

        let mut expected = Vec::new();
        for ((row, owner), q) in
            layout.rows.iter().zip(&layout.owners).zip(want_q.chunks_exact(heads * head))
        {
            let seen = |cache: &[f32]| {
                layout.gather(cache, kv_heads * head, *owner, row.position as usize + 1)
            };
            let (keys, values) = (seen(&got_keys), seen(&got_values));
            expected.extend(ops::attention(q, &keys, &values, self.heads, self.scoring));
        }

        // How positions are cut into spans does not depend on how they are kept.
        let spans: &[u32] = match format {
            KvFormat::F32 => &[32, SPAN_DECODE, SPAN_PREFILL],
            KvFormat::F16 | KvFormat::Q8 => &[32],
        };
        for span in spans.iter().copied() {
            let spans = length.div_ceil(span);
            let found = floats(gpu, &vec![7.0; total * spans as usize * heads * (head + 4)]);
            let constants = attending.constants(head as u32, span);
            let across = attention::head_blocks(heads as u32, kv_heads as u32);
            let buffers = [&step, &shape, &rows, &pages, &q, keys, values, &found];
            let kernel = attending.kernel(format);
            run(gpu, kernel, &constants, &buffers, [across, total as u32, spans]);
            let out = floats(gpu, &vec![0.0; total * heads * head]);
            let across = ((heads * head / 4) as u32).div_ceil(64);
            let buffers = [&step, &shape, &rows, &found, &out];
            let constants = [("SPAN", f64::from(span))];
            let groups = [across, total as u32, 1];
            let found = run(gpu, &ATTENTION_REDUCE, &constants, &buffers, groups);
            check(kernel, &found, &expected, &format!("{attending:?}, spans of {span}"));
        }
    }

    /// Queries, keys and values after the twin has turned and filed them.
    fn expected_rope(
        &self,
        layout: &Layout,
        qkv: &[f32],
        old: &[f32],
        angles: &[[f32; 2]],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Heads { heads, kv_heads, head } = self.heads;
        let (q_width, kv_width) = (heads * head, kv_heads * head);
        let (mut q, mut keys, mut values) = (Vec::new(), old.to_vec(), old.to_vec());
        let rows = layout.rows.iter().zip(&layout.owners);
        for ((row, owner), qkv) in rows.zip(qkv.chunks_exact(q_width + 2 * kv_width)) {
            let position = row.position as usize;
            let angles = &angles[position * self.rope / 2..][..self.rope / 2];
            let mut turned = qkv[..q_width + kv_width].to_vec();
            ops::rope(&mut turned, head, angles, self.half_split);
            q.extend(&turned[..q_width]);
            let slot = layout.slot(*owner, position) * kv_width;
            keys[slot..slot + kv_width].copy_from_slice(&turned[q_width..]);
            values[slot..slot + kv_width].copy_from_slice(&qkv[q_width + kv_width..]);
        }
        (q, keys, values)
    }
}

#[test]
fn attention_matches() {
    let small = Heads { heads: 4, kv_heads: 2, head: 16 };
    let smollm = Heads { heads: 9, kv_heads: 3, head: 64 };
    // Six vectors a head do not divide a workgroup.
    let odd = Heads { heads: 6, kv_heads: 3, head: 24 };
    let single = Heads { heads: 1, kv_heads: 1, head: 8 };
    // The last block of a head has 16 floats.
    let short = Heads { heads: 5, kv_heads: 1, head: 80 };
    let wide = Heads { heads: 8, kv_heads: 1, head: 256 };
    let case = |heads: Heads, rope, half_split, sequences: &[(usize, usize)]| Case {
        heads,
        rope,
        half_split,
        scoring: Scoring::of_head(heads.head),
        sequences: sequences.to_vec(),
    };
    let windowed = |case: Case, window, softcap| Case {
        scoring: Scoring { scale: 0.3, window, softcap },
        ..case
    };
    let cases = [
        case(single, 8, false, &[(0, 1)]),
        case(small, 16, false, &[(0, 5)]),
        case(small, 16, true, &[(7, 5), (0, 3), (31, 2)]),
        case(small, 8, true, &[(70, 1), (15, 1), (16, 1), (0, 1)]),
        case(small, 8, false, &[(130, 9)]),
        case(odd, 24, false, &[(40, 3), (47, 3)]),
        case(smollm, 64, false, &[(100, 1)]),
        case(smollm, 64, false, &[(3, 17), (260, 2), (511, 2)]),
        // Six query heads to a KV head: a block of four and one of two.
        case(Heads { heads: 12, kv_heads: 2, head: 32 }, 32, true, &[(44, 2), (0, 1)]),
        case(wide, 256, true, &[(33, 2), (5, 1)]),
        case(short, 80, true, &[(16, 1), (31, 2)]),
        case(short, 20, false, &[(14, 3)]),
        case(Heads { heads: 3, kv_heads: 3, head: 96 }, 96, true, &[(15, 2)]),
        case(Heads { heads: 4, kv_heads: 2, head: 128 }, 128, true, &[(17, 1), (0, 2)]),
        windowed(case(small, 16, true, &[(0, 9), (70, 2)]), 5, 0.0),
        windowed(case(smollm, 64, true, &[(90, 3), (1, 1)]), 17, 2.0),
        windowed(case(odd, 24, true, &[(19, 1)]), 0, 1.5),
    ];
    for gpu in adapters::all() {
        for case in &cases {
            for format in KvFormat::ALL {
                let mut ways: Vec<Attending> = METHODS.map(Attending::Together).to_vec();
                let (lanes, head) = (gpu.subgroup_lanes(), case.heads.head as u32);
                if Attending::of(Method::Lane, lanes, head) == Attending::Spread {
                    ways.push(Attending::Spread);
                }
                ways.into_iter().for_each(|way| case.run(gpu, way, format));
            }
        }
    }
}
