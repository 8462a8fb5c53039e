//! Which layers of a model go on which of several cards: plain arithmetic, no GPU.
//!
//! A stage is one card with a run of consecutive layers; the first also has the embedding table, the last
//! the final norm and the output matrix. What a stage leaves free holds pages of keys and values of its
//! own layers, and the stage with the fewest pages decides for all; so layers are dealt out such that
//! every card is filled to the same share of what it may take.

use std::ops::Range;

/// The layers of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub layers: Range<usize>,
    /// Layers of the whole model.
    pub of: usize,
}

impl Span {
    /// A model on one card.
    pub fn whole(layers: usize) -> Self {
        Self { layers: 0..layers, of: layers }
    }

    /// Token ids enter here.
    pub fn is_first(&self) -> bool {
        self.layers.start == 0
    }

    /// Logits leave here.
    pub fn is_last(&self) -> bool {
        self.layers.end == self.of
    }
}

/// What the parts of a model take, in bytes: weights, and the least of keys and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Costs {
    /// The embedding table, on the first stage.
    pub first: u64,
    pub layers: Vec<u64>,
    /// Final norm, output matrix, logits, on the last stage.
    pub last: u64,
    /// Activations, on every stage.
    pub every: u64,
}

/// By how much a model is too large for the cards it was to be split over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortfall {
    pub missing_bytes: u64,
}

/// Parts of a card that its share is counted in.
const SHARES: u128 = 1 << 20;

impl Costs {
    /// Bytes of a stage.
    pub fn of(&self, layers: &Range<usize>) -> u64 {
        let first = if layers.start == 0 { self.first } else { 0 };
        let last = if layers.end == self.layers.len() { self.last } else { 0 };
        let own: u64 = self.layers[layers.clone()].iter().sum();
        self.every + first + own + last
    }

    /// Deals the layers out over cards that may take `budgets` bytes each, at least one layer to a card.
    /// There are no more cards than layers.
    pub fn split(&self, budgets: &[u64]) -> Result<Vec<Range<usize>>, Shortfall> {
        let spans = self.deal(budgets);
        let missing_bytes: u64 =
            spans.iter().zip(budgets).map(|(span, most)| self.of(span).saturating_sub(*most)).sum();
        if missing_bytes > 0 { Err(Shortfall { missing_bytes }) } else { Ok(spans) }
    }

    /// The cut whose fullest card is least full: for every number of layers and card, the best way to put so
    /// many on the cards up to this one follows from the best ways of the card before.
    fn deal(&self, budgets: &[u64]) -> Vec<Range<usize>> {
        let count = self.layers.len();
        let mut below = vec![0_u64; count + 1];
        for (layer, bytes) in self.layers.iter().enumerate() {
            below[layer + 1] = below[layer] + bytes;
        }
        let share = |start: usize, end: usize, budget: u64| {
            let first = if start == 0 { self.first } else { 0 };
            let last = if end == count { self.last } else { 0 };
            let bytes = self.every + first + last + below[end] - below[start];
            (u128::from(bytes) * SHARES).div_ceil(u128::from(budget.max(1)))
        };
        let mut least: Vec<Option<u128>> = vec![None; count + 1];
        least[0] = Some(0);
        let mut starts = Vec::with_capacity(budgets.len());
        for budget in budgets {
            let best = |end: usize| {
                let before = least.iter().enumerate().take(end);
                let ways = before.filter_map(|(start, before)| {
                    before.map(|before| (before.max(share(start, end, *budget)), start))
                });
                ways.min().map_or((None, 0), |(fullest, start)| (Some(fullest), start))
            };
            let (next, from): (Vec<Option<u128>>, Vec<usize>) = (0..=count).map(best).unzip();
            least = next;
            starts.push(from);
        }
        let mut end = count;
        let mut spans: Vec<Range<usize>> = starts
            .iter()
            .rev()
            .map(|from| {
                let span = from[end]..end;
                end = span.start;
                span
            })
            .collect();
        spans.reverse();
        spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn costs() -> impl Strategy<Value = Costs> {
        let layers = prop::collection::vec(1_u64..1000, 1..12);
        (0_u64..3000, layers, 0_u64..3000, 0_u64..100)
            .prop_map(|(first, layers, last, every)| Costs { first, layers, last, every })
    }

    /// The least of the largest share of any card, over all ways to cut.
    fn best(costs: &Costs, budgets: &[u64], from: usize) -> f64 {
        let count = costs.layers.len();
        let share = |span: &Range<usize>| costs.of(span) as f64 / budgets[0] as f64;
        if budgets.len() == 1 {
            return share(&(from..count));
        }
        (from + 1..=count - (budgets.len() - 1))
            .map(|end| share(&(from..end)).max(best(costs, &budgets[1..], end)))
            .fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn every_layer_is_on_one_card_and_no_card_is_overfull(
            costs in costs(),
            budgets in prop::collection::vec(1_u64..9000, 1..5),
        ) {
            let budgets = &budgets[..budgets.len().min(costs.layers.len())];
            let best = best(&costs, budgets, 0);
            match costs.split(budgets) {
                Ok(spans) => {
                    prop_assert_eq!(spans.len(), budgets.len());
                    let mut next = 0;
                    for (span, budget) in spans.iter().zip(budgets) {
                        prop_assert_eq!(span.start, next);
                        prop_assert!(span.end > span.start);
                        prop_assert!(costs.of(span) <= *budget);
                        next = span.end;
                    }
                    prop_assert_eq!(next, costs.layers.len());
                    let fullest = spans
                        .iter()
                        .zip(budgets)
                        .map(|(span, budget)| costs.of(span) as f64 / *budget as f64)
                        .fold(0.0, f64::max);
                    // Shares are whole.
                    let step = 2.0 / SHARES as f64;
                    prop_assert!(fullest <= best + step, "{fullest} {best}");
                }
                Err(Shortfall { missing_bytes }) => {
                    prop_assert!(best > 1.0);
                    // That much more on every card is always enough.
                    let more: Vec<u64> = budgets.iter().map(|b| b + missing_bytes).collect();
                    prop_assert!(costs.split(&more).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_large_card_takes_more_and_the_tables_count() {
        let costs = Costs { first: 20, layers: vec![10; 8], last: 0, every: 0 };
        assert_eq!(costs.split(&[100, 100]).unwrap(), [0..3, 3..8]);
        assert_eq!(costs.split(&[100, 50]).unwrap(), [0..5, 5..8]);
        assert_eq!(costs.split(&[40, 40]), Err(Shortfall { missing_bytes: 20 }));
    }
}
