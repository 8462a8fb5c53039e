//! What each circuit may carry in each slot, and which rigs hang on it.

use std::collections::{BTreeMap, BTreeSet};

use roadbed_protocol::{FeederId, Watts};

use super::{Note, NoteKind, PlanInput};

/// Whom a cap may shed. Ordered: each also sheds what those before it shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Only what the planner itself chose.
    Flexible,
    /// Also commitments.
    Commitments,
    /// Also what operators hold: a wire does not negotiate.
    Everything,
}

/// A limit of one feeder in one slot.
#[derive(Debug, Clone)]
pub(super) struct Cap {
    /// Index of the feeder.
    pub feeder: usize,
    /// Power allowed under it.
    pub limit: Watts,
    /// Whom it sheds.
    pub reach: Reach,
    /// What it is, for reasons.
    pub why: String,
}

/// All limits of a horizon.
pub(super) struct Limits {
    /// The caps of each slot.
    pub caps: Vec<Vec<Cap>>,
    /// Feeders above each rig, nearest first; `None` when the rig hangs on nothing that is known.
    pub chains: Vec<Option<Vec<usize>>>,
}

impl Limits {
    pub(super) fn new(input: &PlanInput, notes: &mut Vec<Note>) -> Self {
        let index: BTreeMap<&FeederId, usize> =
            input.feeders.iter().enumerate().map(|(index, feeder)| (&feeder.id, index)).collect();
        let chains = input
            .rigs
            .iter()
            .map(|rig| {
                let chain = chain(input, &index, &rig.spec.feeder);
                if chain.is_none() {
                    notes.push(Note {
                        kind: NoteKind::Input,
                        rig: Some(rig.spec.id.clone()),
                        text: format!(
                            "feeder {} does not lead to the site's connection: no work is given",
                            rig.spec.feeder
                        ),
                    });
                }
                chain
            })
            .collect();
        for order in &input.orders {
            if !index.contains_key(&order.feeder) {
                notes.push(Note {
                    kind: NoteKind::Input,
                    rig: None,
                    text: format!("order {} names unknown feeder {}", order.id, order.feeder),
                });
            }
        }
        let caps = (0..input.slots.len()).map(|slot| caps(input, &index, slot)).collect();
        Self { caps, chains }
    }

    /// True when `feeder` is above `rig`.
    pub(super) fn is_under(&self, rig: usize, feeder: usize) -> bool {
        self.chains[rig].as_ref().is_some_and(|chain| chain.contains(&feeder))
    }
}

/// The feeders from `from` up to one without a parent; `None` when a name is unknown or the way leads in a circle.
fn chain(
    input: &PlanInput,
    index: &BTreeMap<&FeederId, usize>,
    from: &FeederId,
) -> Option<Vec<usize>> {
    let (mut chain, mut seen, mut at) = (Vec::new(), BTreeSet::new(), Some(from));
    while let Some(id) = at {
        let feeder = *index.get(id)?;
        if !seen.insert(feeder) {
            return None;
        }
        chain.push(feeder);
        at = input.feeders[feeder].parent.as_ref();
    }
    Some(chain)
}

fn caps(input: &PlanInput, index: &BTreeMap<&FeederId, usize>, slot: usize) -> Vec<Cap> {
    let slot = &input.slots[slot];
    let soft = |breaks| if breaks { Reach::Commitments } else { Reach::Flexible };
    let physical = input.feeders.iter().enumerate().map(|(feeder, circuit)| Cap {
        feeder,
        limit: circuit.limit,
        reach: Reach::Everything,
        why: format!("feeder {} carries {}", circuit.id, circuit.limit),
    });
    let orders = input
        .orders
        .iter()
        .filter(|order| order.from < slot.end() && slot.start < order.until)
        .filter_map(|order| {
            Some(Cap {
                feeder: *index.get(&order.feeder)?,
                limit: order.limit,
                reach: soft(order.breaks_commitments),
                why: format!("order {} allows {} under {}", order.id, order.limit, order.feeder),
            })
        });
    let windows = input
        .rules
        .curtail_windows
        .iter()
        .filter(|window| window.overlaps(slot.start, slot.length))
        .filter_map(|window| {
            Some(Cap {
                feeder: *index.get(&window.feeder)?,
                limit: window.limit,
                reach: soft(input.rules.curtailment_breaks_poc),
                why: format!(
                    "window {} allows {} under {}",
                    window.name, window.limit, window.feeder
                ),
            })
        });
    physical.chain(orders).chain(windows).collect()
}
