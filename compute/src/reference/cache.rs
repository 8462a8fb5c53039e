//! Twin of the caches' formats: what `shaders/lib/cache_write_*.wgsl` makes of keys and values, and what
//! `shaders/lib/cache_read_*.wgsl` reads in it.

use half::f16;

use crate::kernels::attention::{KvFormat, Q8_BLOCK};

/// The largest level of [`KvFormat::Q8`].
const LEVEL_MAX: f32 = 127.0;

/// Heads of `head` floats as words, record behind record.
#[must_use]
pub fn file(format: KvFormat, head: usize, floats: &[f32]) -> Vec<u32> {
    match format {
        KvFormat::F32 => floats.iter().map(|v| v.to_bits()).collect(),
        KvFormat::F16 => {
            let half = |v: f32| f16::from_f32(v.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
            let word =
                |v: &[f32]| u32::from(half(v[0]).to_bits()) | u32::from(half(v[1]).to_bits()) << 16;
            floats.chunks_exact(2).map(word).collect()
        }
        KvFormat::Q8 => floats.chunks_exact(head).flat_map(file_q8).collect(),
    }
}

/// One head: its levels, four to a word, then its scales, two to a word.
fn file_q8(head: &[f32]) -> Vec<u32> {
    let (mut words, mut scales) = (Vec::new(), Vec::new());
    for block in head.chunks(Q8_BLOCK) {
        let exact = block.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / LEVEL_MAX;
        // Rounded up to the upper half of a float.
        let bits = (exact.to_bits() + 0xffff) & 0xffff_0000;
        let inverse = if bits > 0 { 1.0 / f32::from_bits(bits) } else { 0.0 };
        let level = |v: f32| (v * inverse).round_ties_even().clamp(-LEVEL_MAX, LEVEL_MAX) as i8;
        let word = |four: &[f32]| {
            u32::from_le_bytes(std::array::from_fn(|i| level(four[i]).to_le_bytes()[0]))
        };
        words.extend(block.chunks_exact(4).map(word));
        scales.push(bits);
    }
    words.extend(scales.chunks(2).map(|two| two[0] >> 16 | two.get(1).unwrap_or(&0)));
    words
}

/// The floats that records stand for.
#[must_use]
pub fn read(format: KvFormat, head: usize, words: &[u32]) -> Vec<f32> {
    match format {
        KvFormat::F32 => words.iter().map(|w| f32::from_bits(*w)).collect(),
        KvFormat::F16 => words
            .iter()
            .flat_map(|w| [*w as u16, (*w >> 16) as u16])
            .map(|bits| f16::from_bits(bits).to_f32())
            .collect(),
        KvFormat::Q8 => {
            let records = words.chunks_exact(format.record_words(head));
            records.flat_map(|record| read_q8(record, head)).collect()
        }
    }
}

fn read_q8(record: &[u32], head: usize) -> Vec<f32> {
    let (words, scales) = record.split_at(head / 4);
    let levels = words.iter().flat_map(|w| w.to_le_bytes()).map(|byte| f32::from(byte as i8));
    let scale = |i: usize| {
        let word = scales[i / (2 * Q8_BLOCK)];
        let low = (i / Q8_BLOCK).is_multiple_of(2);
        f32::from_bits(if low { word << 16 } else { word & 0xffff_0000 })
    };
    levels.enumerate().map(|(i, level)| level * scale(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_what_was_filed() {
        // Six blocks, the last of them short.
        let head = 84;
        let floats: Vec<f32> = (0..2 * head).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        for (format, error) in [(KvFormat::F32, 0.0), (KvFormat::F16, 1e-3), (KvFormat::Q8, 0.012)]
        {
            let words = file(format, head, &floats);
            assert_eq!(words.len(), 2 * format.record_words(head));
            let found = read(format, head, &words);
            assert_eq!(found.len(), floats.len());
            for (found, wanted) in found.iter().zip(&floats) {
                assert!((found - wanted).abs() <= error, "{format:?}: {found}, not {wanted}");
            }
        }
    }

    #[test]
    fn zeros_and_giants_stay_finite() {
        for format in KvFormat::ALL {
            assert_eq!(read(format, 8, &file(format, 8, &[0.0; 8])), [0.0; 8]);
            let giants = read(format, 8, &file(format, 8, &[1e30; 8]));
            assert!(giants.iter().all(|v| v.is_finite()), "{format:?}: {giants:?}");
        }
    }
}
