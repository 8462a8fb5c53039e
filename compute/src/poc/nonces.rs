//! Which nonces this back-end works on, so that no two of a participant share one.
//!
//! `nonce(x) = node_id + group_id * node_count + x * n_groups * node_count` for x = 0, 1, 2, ..
//! Duplicates are fraud and gaps cost (a largest nonce above 100 times the count is rejected), so
//! the sequence is walked without skipping.

use super::PocError;

/// Largest nonce: they travel as int32.
pub const NONCE_MAX: u32 = i32::MAX as u32;

/// Place of one back-end in the participant's fleet, as the MLNode protocol gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceShare {
    /// Number of the MLNode; may exceed `node_count` after nodes were removed from a fleet.
    pub node_id: u32,
    pub node_count: u32,
    /// Number of the back-end behind one MLNode.
    pub group_id: u32,
    pub n_groups: u32,
}

/// Iterator over the nonces of one back-end; ends where int32 ends.
#[derive(Debug, Clone)]
pub struct NonceSequence {
    next: u64,
    stride: u64,
}

impl NonceSequence {
    /// # Errors
    /// Refuses a share of nothing: `node_count` or `n_groups` of zero would repeat one nonce.
    pub fn new(share: NonceShare) -> Result<Self, PocError> {
        let (node_count, n_groups) = (u64::from(share.node_count), u64::from(share.n_groups));
        if node_count == 0 || n_groups == 0 {
            return Err(PocError::Request("node_count and n_groups must be at least 1".into()));
        }
        Ok(Self {
            next: u64::from(share.node_id).saturating_add(u64::from(share.group_id) * node_count),
            stride: node_count * n_groups,
        })
    }
}

impl Iterator for NonceSequence {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let nonce = u32::try_from(self.next).ok().filter(|&nonce| nonce <= NONCE_MAX)?;
        self.next = self.next.saturating_add(self.stride);
        Some(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;

    #[test]
    fn sequences_match() {
        for case in vectors::cases("nonces.json") {
            let share = NonceShare {
                node_id: vectors::word(&case["node_id"]),
                node_count: vectors::word(&case["node_count"]),
                group_id: vectors::word(&case["group_id"]),
                n_groups: vectors::word(&case["n_groups"]),
            };
            let first: Vec<u32> =
                case["first"].as_array().unwrap().iter().map(vectors::word).collect();
            let got: Vec<u32> = NonceSequence::new(share).unwrap().take(first.len()).collect();
            assert_eq!(got, first, "{share:?}");
        }
    }

    #[test]
    fn a_sequence_ends_with_int32() {
        let share = NonceShare { node_id: 5, node_count: 1 << 30, group_id: 0, n_groups: 1 };
        let all: Vec<u32> = NonceSequence::new(share).unwrap().collect();
        assert_eq!(all, [5, (1 << 30) + 5]);
        let huge = NonceShare { node_id: 9, node_count: u32::MAX, group_id: u32::MAX, n_groups: 7 };
        assert_eq!(NonceSequence::new(huge).unwrap().next(), None);
        for (node_count, n_groups) in [(0, 1), (1, 0)] {
            let empty = NonceShare { node_id: 0, node_count, group_id: 0, n_groups };
            assert!(NonceSequence::new(empty).is_err());
        }
    }
}
