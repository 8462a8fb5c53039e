//! Merging of neighbouring symbols by rank: the common core of byte-pair encoding and of
//! SentencePiece's merging by score.
//!
//! A heap of candidate pairs over a linked list of symbols: n log n even for a hostile word of a
//! megabyte without a space, where the obvious loop would be quadratic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A piece of the word: where it ends, and its token if the vocabulary has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub id: Option<u32>,
    /// Byte after its last one; it begins where its left neighbour ends.
    pub end: usize,
}

/// What two neighbours become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// Lower ranks merge first.
    pub rank: u32,
    pub id: u32,
}

struct Link {
    symbol: Symbol,
    start: usize,
    previous: usize,
    next: usize,
    alive: bool,
}

const NONE: usize = usize::MAX;

/// Rank, left symbol, end of the right symbol, result. Symbols only grow, so a pair whose left half
/// is alive and whose right half still ends there is the pair that was offered.
type Candidate = Reverse<(u32, usize, usize, u32)>;

/// Merges neighbours in the order of rank, leftmost first among equals. `find` is asked about two
/// neighbours and the bytes (start, end) they cover.
pub(super) fn merge(
    symbols: &[Symbol],
    find: impl Fn(Symbol, Symbol, (usize, usize)) -> Option<Merged>,
) -> Vec<Symbol> {
    let last = symbols.len().saturating_sub(1);
    let mut start = 0;
    let mut links = Vec::with_capacity(symbols.len());
    for (i, symbol) in symbols.iter().enumerate() {
        links.push(Link {
            symbol: *symbol,
            start,
            previous: if i == 0 { NONE } else { i - 1 },
            next: if i == last { NONE } else { i + 1 },
            alive: true,
        });
        start = symbol.end;
    }
    let offer = |links: &[Link], left: usize, queue: &mut BinaryHeap<Candidate>| {
        let Some(right) = links.get(links[left].next) else {
            return;
        };
        let (left_symbol, right_symbol) = (links[left].symbol, right.symbol);
        let span = (links[left].start, right_symbol.end);
        if let Some(merged) = find(left_symbol, right_symbol, span) {
            queue.push(Reverse((merged.rank, left, right_symbol.end, merged.id)));
        }
    };
    let mut queue = BinaryHeap::new();
    for left in 0..last {
        offer(&links, left, &mut queue);
    }
    while let Some(Reverse((_, left, end, id))) = queue.pop() {
        let right = links[left].next;
        if !links[left].alive || right == NONE || links[right].symbol.end != end {
            continue;
        }
        let after = links[right].next;
        links[right].alive = false;
        links[left].symbol = Symbol { id: Some(id), end };
        links[left].next = after;
        if after != NONE {
            links[after].previous = left;
        }
        offer(&links, left, &mut queue);
        if links[left].previous != NONE {
            offer(&links, links[left].previous, &mut queue);
        }
    }
    links.iter().filter(|link| link.alive).map(|link| link.symbol).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge_ids(ids: &[u32]) -> Vec<u32> {
        // a=0 b=1 c=2; ab=3 (rank 1), bc=4 (rank 0), aa=5 (rank 2), abc=6 (rank 3)
        let rules = [((0, 1), (1, 3)), ((1, 2), (0, 4)), ((0, 0), (2, 5)), ((0, 4), (3, 6))];
        let symbols: Vec<Symbol> =
            (1..).zip(ids).map(|(end, id)| Symbol { id: Some(*id), end }).collect();
        let merged = merge(&symbols, |left, right, _| {
            let pair = (left.id?, right.id?);
            let (_, (rank, id)) = rules.iter().find(|rule| rule.0 == pair)?;
            Some(Merged { rank: *rank, id: *id })
        });
        assert_eq!(merged.last().map_or(0, |s| s.end), ids.len());
        merged.iter().filter_map(|s| s.id).collect()
    }

    #[test]
    fn ranks_decide_then_position() {
        assert_eq!(merge_ids(&[0, 1, 2]), [6]);
        assert_eq!(merge_ids(&[0, 1]), [3]);
        assert_eq!(merge_ids(&[0, 0, 0]), [5, 0]);
        assert_eq!(merge_ids(&[]), Vec::<u32>::new());
        assert_eq!(merge_ids(&[2]), [2]);
    }
}
