//! Which of a rig's GPUs work together on a model: plain arithmetic.
//!
//! A model that fits one card gets a replica on each: they share nothing, so a rig of six cards answers six times as
//! much. One that does not is split by layers over as few cards as hold it, and if that leaves enough cards for another
//! replica, there is one.

use crate::config::Split;

/// Whether a model fits some GPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    Missing { bytes: u64 },
}

/// Places in the list of GPUs, one list for each replica. `memory_bytes` is what the model may take on each, if known;
/// `fit` says whether it fits cards with so much, in that order.
///
/// # Errors
/// The bytes missing even on all GPUs together.
pub(super) fn share_out<E>(
    memory_bytes: &[Option<u64>],
    split: Split,
    mut fit: impl FnMut(&[u64]) -> Result<Fit, E>,
) -> Result<Result<Vec<Vec<usize>>, u64>, E> {
    let all = 0..memory_bytes.len();
    let each = || all.clone().map(|gpu| vec![gpu]).collect();
    let known: Option<Vec<u64>> = memory_bytes.iter().copied().collect();
    let known = match (split, known) {
        (Split::Layers, _) => return Ok(Ok(vec![all.collect()])),
        // Where nobody knows what fits, a card that is too small says so when it is loaded.
        (Split::Replicas, _) | (Split::Auto, None) => return Ok(Ok(each())),
        (Split::Auto, Some(known)) => known,
    };
    let mut largest_first: Vec<usize> = all.collect();
    largest_first.sort_by_key(|gpu| std::cmp::Reverse(known[*gpu]));
    let (mut groups, mut group) = (Vec::new(), Vec::new());
    let mut missing = 0;
    for gpu in largest_first {
        group.push(gpu);
        let budgets: Vec<u64> = group.iter().map(|gpu| known[*gpu]).collect();
        match fit(&budgets)? {
            Fit::Fits => groups.push(std::mem::take(&mut group)),
            Fit::Missing { bytes } => missing = bytes,
        }
    }
    Ok(if groups.is_empty() { Err(missing) } else { Ok(groups) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// A model that costs half a GiB more on every further card.
    fn needs(gib: u64) -> impl FnMut(&[u64]) -> Result<Fit, String> {
        move |budgets: &[u64]| {
            let need = gib * GIB + (budgets.len() as u64 - 1) * GIB / 2;
            let missing = need.saturating_sub(budgets.iter().sum());
            Ok(if missing == 0 { Fit::Fits } else { Fit::Missing { bytes: missing } })
        }
    }

    #[track_caller]
    fn check(gib: u64, cards: &[u64], expected: &[&[usize]]) {
        let cards: Vec<Option<u64>> = cards.iter().map(|card| Some(card * GIB)).collect();
        let found = share_out(&cards, Split::Auto, needs(gib)).unwrap().unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn replicas_first_then_layers_over_as_few_as_hold_it() {
        check(4, &[6, 6, 6], &[&[0], &[1], &[2]]);
        check(9, &[6, 6, 6], &[&[0, 1]]);
        check(9, &[6, 6, 6, 6], &[&[0, 1], &[2, 3]]);
        check(13, &[6, 6, 6], &[&[0, 1, 2]]);
        // The large card alone, two small ones together.
        check(9, &[6, 6, 12], &[&[2], &[0, 1]]);
        let cards = [Some(6 * GIB); 2];
        let found = share_out(&cards, Split::Auto, needs(20)).unwrap();
        assert_eq!(found, Err(8 * GIB + GIB / 2));
        let alone = share_out(&[Some(GIB), None], Split::Auto, needs(20)).unwrap();
        assert_eq!(alone, Ok(vec![vec![0], vec![1]]));
        let all = share_out(&cards, Split::Layers, needs(1)).unwrap();
        assert_eq!(all, Ok(vec![vec![0, 1]]));
    }

    proptest! {
        #[test]
        fn no_card_works_twice_and_every_replica_fits(
            gib in 1_u64..40,
            cards in prop::collection::vec(1_u64..24, 1..13),
        ) {
            let memory: Vec<Option<u64>> = cards.iter().map(|card| Some(card * GIB)).collect();
            match share_out(&memory, Split::Auto, needs(gib)).unwrap() {
                Ok(groups) => {
                    let mut used: Vec<usize> = groups.concat();
                    used.sort_unstable();
                    prop_assert!(used.windows(2).all(|pair| pair[0] != pair[1]));
                    for group in groups {
                        let fits = |group: &[usize]| {
                            let budgets: Vec<u64> = group.iter().map(|g| cards[*g] * GIB).collect();
                            needs(gib)(&budgets).unwrap() == Fit::Fits
                        };
                        prop_assert!(fits(&group));
                        prop_assert!(group.len() == 1 || !fits(&group[..group.len() - 1]));
                    }
                }
                Err(missing) => prop_assert!(missing > 0),
            }
        }
    }
}
