//! Byte-pair merging of one word.
//!
//! A heap of candidate pairs over a linked list of symbols: n log n even for a hostile word of a
//! megabyte without a space, where the obvious loop would be quadratic.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// (left, right) to (rank, merged): lower ranks merge first.
pub(super) type Merges = HashMap<(u32, u32), (u32, u32)>;

struct Symbol {
    id: u32,
    previous: usize,
    next: usize,
    alive: bool,
}

const NONE: usize = usize::MAX;

/// Merges `ids` in place of rank order, leftmost first among equals.
pub(super) fn merge(ids: &[u32], merges: &Merges) -> Vec<u32> {
    let last = ids.len().saturating_sub(1);
    let mut symbols: Vec<Symbol> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| Symbol {
            id: *id,
            previous: if i == 0 { NONE } else { i - 1 },
            next: if i == last { NONE } else { i + 1 },
            alive: true,
        })
        .collect();
    let mut queue = BinaryHeap::new();
    for left in 0..last {
        offer(&symbols, left, merges, &mut queue);
    }
    while let Some(Reverse((_, left, pair, merged))) = queue.pop() {
        let right = symbols[left].next;
        // A stale candidate: one of its halves was merged with another neighbour meanwhile.
        if !symbols[left].alive || right == NONE || (symbols[left].id, symbols[right].id) != pair {
            continue;
        }
        let after = symbols[right].next;
        symbols[right].alive = false;
        symbols[left].id = merged;
        symbols[left].next = after;
        if after != NONE {
            symbols[after].previous = left;
        }
        offer(&symbols, left, merges, &mut queue);
        if symbols[left].previous != NONE {
            offer(&symbols, symbols[left].previous, merges, &mut queue);
        }
    }
    symbols.iter().filter(|s| s.alive).map(|s| s.id).collect()
}

type Candidate = Reverse<(u32, usize, (u32, u32), u32)>;

fn offer(symbols: &[Symbol], left: usize, merges: &Merges, queue: &mut BinaryHeap<Candidate>) {
    let right = symbols[left].next;
    if right == NONE {
        return;
    }
    let pair = (symbols[left].id, symbols[right].id);
    if let Some((rank, merged)) = merges.get(&pair) {
        queue.push(Reverse((*rank, left, pair, *merged)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_decide_then_position() {
        // a=0 b=1 c=2; ab=3 (rank 1), bc=4 (rank 0), aa=5 (rank 2), abc=6 (rank 3)
        let merges: Merges =
            [((0, 1), (1, 3)), ((1, 2), (0, 4)), ((0, 0), (2, 5)), ((0, 4), (3, 6))].into();
        assert_eq!(merge(&[0, 1, 2], &merges), [6]);
        assert_eq!(merge(&[0, 1], &merges), [3]);
        assert_eq!(merge(&[0, 0, 0], &merges), [5, 0]);
        assert_eq!(merge(&[], &merges), Vec::<u32>::new());
        assert_eq!(merge(&[2], &merges), [2]);
    }
}
