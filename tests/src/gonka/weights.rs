//! What an epoch's proofs are worth: weights, confirmed weights, rewards and the claim.
//!
//! weight of a node = its accepted nonces x the model's coefficient, or the last epoch's when it was preserved; rewarded is
//! the smaller of weight and confirmed weight, and nothing below half of it (`alpha_threshold`).

use std::collections::BTreeMap;

use serde::Serialize;

use super::stage::StageKind;
use super::world::World;

/// Share of the weight that must be confirmed, in percent.
const ALPHA_PERCENT: u64 = 50;

/// One epoch's outcome for our Host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EpochBook {
    /// Nonces by node: what the chain's documents call `poc_weight`, before the coefficient. Read in a public audit of
    /// mainnet's epochs 245-255, which multiplies the sum by the coefficient.
    pub node_nonces: BTreeMap<String, u64>,
    /// Weight by node.
    pub node_weights: BTreeMap<String, u64>,
    /// Their sum.
    pub weight: u64,
    /// Of all participants.
    pub total_weight: u64,
    /// Least weight that the confirmation PoCs confirmed so far, scaled to the length of a PoC.
    pub confirmation_weight: u64,
    /// Confirmation PoCs that are over.
    pub confirmations: u64,
    /// Ngonka that the epoch gave, once it is over.
    pub reward_ngonka: Option<u64>,
    /// Height at which that was claimed.
    pub claimed_at: Option<i64>,
}

impl EpochBook {
    /// What is rewarded: nothing when too little was confirmed.
    #[must_use]
    pub fn rewarded_weight(&self) -> u64 {
        if self.confirmation_weight * 100 < self.weight * ALPHA_PERCENT {
            return 0;
        }
        self.weight.min(self.confirmation_weight)
    }
}

impl World {
    /// `amount` times the coefficient of a model.
    fn scaled(&self, amount: u64) -> u64 {
        let Some(model) = self.config.models.first() else { return 0 };
        let value = u128::from(amount) * u128::from(model.coefficient.value.unsigned_abs());
        let power = 10_u128.pow(model.coefficient.exponent.unsigned_abs().min(18));
        let product = if model.coefficient.exponent < 0 {
            value / power
        } else {
            value.saturating_mul(power)
        };
        u64::try_from(product).unwrap_or(u64::MAX)
    }

    /// At `set_new_validators`: the weights of the epoch that has just proved.
    pub fn set_new_validators(&mut self) {
        let stages = self.chain.stages();
        let before = self.books.get(&(stages.epoch_index - 1)).cloned().unwrap_or_default();
        let stage = self.stages.iter().rfind(|stage| stage.height == stages.poc_start);
        let (mut weights, mut nonces) = (BTreeMap::new(), BTreeMap::new());
        let mut porous = false;
        for node in self.registry.iter() {
            let id = &node.config.id;
            let proved = if node.preserved {
                before.node_nonces.get(id).copied().unwrap_or(0)
            } else {
                stage.map_or(0, |stage| stage.accepted_of(id))
            };
            nonces.insert(id.clone(), proved);
            porous |= stage.is_some_and(super::stage::Stage::is_porous);
            weights.insert(id.clone(), self.scaled(proved));
        }
        let weight = weights.values().sum();
        let others: u64 = self.config.strangers.iter().map(|stranger| stranger.weight).sum();
        let book = EpochBook {
            node_nonces: nonces,
            node_weights: weights,
            weight,
            total_weight: weight + others,
            // What nobody doubted is confirmed.
            confirmation_weight: weight,
            ..EpochBook::default()
        };
        self.books.insert(stages.epoch_index, book);
        if porous {
            self.complain("the nonces skip so many that the commit was rejected".to_owned());
        }
        self.draw_preserved();
    }

    /// At the end of a confirmation PoC: what it confirmed, scaled to the length of a PoC.
    pub fn confirm(&mut self, trigger_height: i64) {
        let params = self.chain.params;
        let Some(stage) = self.stages.iter().rfind(|stage| stage.height == trigger_height) else {
            return;
        };
        let (epoch, is_confirmation) =
            (stage.epoch, matches!(stage.kind, StageKind::Confirmation(_)));
        let proved: u64 = stage.orders.keys().map(|id| stage.accepted_of(id)).sum::<u64>();
        let by_length = u128::from(self.scaled(proved))
            * params.poc_stage_duration.unsigned_abs() as u128
            / params.confirmation_generation.unsigned_abs().max(1) as u128;
        let kept: u64 = {
            let preserved = self.registry.iter().filter(|node| node.preserved);
            let weight_of = |id: &str| {
                self.books.get(&epoch).and_then(|book| book.node_weights.get(id)).copied()
            };
            preserved.filter_map(|node| weight_of(&node.config.id)).sum()
        };
        let confirmed = u64::try_from(by_length).unwrap_or(u64::MAX).saturating_add(kept);
        if let Some(book) = self.books.get_mut(&epoch)
            && is_confirmation
        {
            book.confirmation_weight = book.confirmation_weight.min(confirmed);
            book.confirmations += 1;
        }
    }

    /// At `claim_money`: the rewards of the epoch before, if the API process is there to claim them.
    pub fn claim(&mut self) {
        let epoch = self.chain.stages().epoch_index - 1;
        let (mint, height, down) = (self.config.epoch_mint_ngonka, self.chain.height, self.down);
        if let Some(book) = self.books.get_mut(&epoch)
            && !down
        {
            let share = u128::from(mint) * u128::from(book.rewarded_weight())
                / u128::from(book.total_weight.max(1));
            book.reward_ngonka = Some(u64::try_from(share).unwrap_or(u64::MAX));
            book.claimed_at = Some(height);
        }
    }

    /// Which nodes serve on during the next PoC: as many as the config says, by the chain's seed.
    fn draw_preserved(&mut self) {
        let epoch = self.chain.stages().epoch_index;
        let mut ids: Vec<String> =
            self.registry.iter().map(|node| node.config.id.clone()).collect();
        ids.sort_by_key(|id| self.chain.draw(&format!("preserved:{epoch}:{id}")));
        ids.truncate(self.config.preserved_nodes);
        for node in self.registry.iter_mut() {
            node.preserved = ids.contains(&node.config.id);
        }
    }
}
