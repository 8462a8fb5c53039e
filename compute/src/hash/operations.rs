//! How many instructions a double hash is, counted by running it.
//!
//! The text of the hash runs over words that are either known or vary with the nonce, and what touches a varying word is
//! counted. Logic of three operands and rotations count once, additions two at a time: the fewest instructions that a card
//! with three-operand instructions needs. A card without them needs more, so its share of its limit is at least what
//! this count says.

use std::cell::Cell;

/// A word: known, or varying with the nonce.
type V = Option<u32>;
const LANES: u32 = 1;

thread_local! {
    static LOGIC: Cell<u64> = const { Cell::new(0) };
    static ADDITIONS: Cell<u64> = const { Cell::new(0) };
}

super::lanes::lanes!();

/// Instructions of one double hash.
#[must_use]
pub fn per_hash() -> u64 {
    let job = super::ScanJob::new(&[0x5A; 76], super::Target([0; 32]));
    LOGIC.set(0);
    ADDITIONS.set(0);
    scan(&job.prepared, u32::MAX, 0, 1, &mut |_| ());
    LOGIC.get() + ADDITIONS.get().div_ceil(2)
}

/// One instruction if any of its operands varies.
fn logic<const N: usize>(words: [V; N], known: impl FnOnce([u32; N]) -> u32) -> V {
    let mut values = [0; N];
    for (value, word) in values.iter_mut().zip(words) {
        match word {
            Some(word) => *value = word,
            None => {
                LOGIC.set(LOGIC.get() + 1);
                return None;
            }
        }
    }
    Some(known(values))
}

fn splat(word: u32) -> V {
    Some(word)
}

fn iota() -> V {
    None
}

fn add(a: V, b: V) -> V {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.wrapping_add(b)),
        (Some(0), None) | (None, Some(0)) => None,
        (Some(_) | None, None) | (None, Some(_)) => {
            ADDITIONS.set(ADDITIONS.get() + 1);
            None
        }
    }
}

fn rotate<const R: u32, const L: u32>(x: V) -> V {
    logic([x], |[x]| x.rotate_right(R))
}

fn shift<const R: u32>(x: V) -> V {
    logic([x], |[x]| x >> R)
}

fn xor3(a: V, b: V, c: V) -> V {
    logic([a, b, c], |[a, b, c]| a ^ b ^ c)
}

fn choose(e: V, f: V, g: V) -> V {
    logic([e, f, g], |[e, f, g]| g ^ (e & (f ^ g)))
}

fn majority(a: V, b: V, c: V) -> V {
    logic([a, b, c], |[a, b, c]| (a & b) | (c & (a | b)))
}

fn clear_of(x: V, mask: V) -> u32 {
    logic([x, mask], |[x, mask]| x & mask).map_or(0, |left| u32::from(left == 0))
}

#[cfg(test)]
mod tests {
    /// 64 + 61 rounds of 10 instructions and 4 pairs of additions, and 48 + 45 message words of 8 and 1.5, without anything
    /// worked out before, are 2634; what is prepared or constant saves some.
    #[test]
    fn a_hash_is_a_little_less_than_two_plain_ones() {
        let counted = super::per_hash();
        assert!((2_300..2_634).contains(&counted), "{counted}");
        assert_eq!(counted, super::per_hash());
    }
}
