//! Everything that is known of the chain and of our place in it, each with its age: what the controller's feed gives out.

use std::collections::BTreeMap;

use roadbed_protocol::{Millis, UnixMillis};

use super::{
    ApprovedModel, BlockMoment, ChainEpoch, ChainParams, ConfirmationEvent, DeclaredHardware,
    Delegations, EpochGroup, EpochResult, Fact, Height, ModelCoefficient, Ngonka, Participants,
    RegisteredNode, Settlement, TokenPrice, Versions,
};

/// What one Network Node, or several in turn, said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GonkaFacts {
    /// The host these facts are asked for, `gonka1..`.
    pub address: String,
    /// Which Network Node answers now.
    pub answering: Option<String>,
    /// Where the chain stands.
    pub epoch: Fact<ChainEpoch>,
    /// The newest block with the measured pace; none until two blocks were seen.
    pub block: Option<BlockMoment>,
    /// The highest block seen, and when it was seen first: a chain that stands still shows here.
    pub highest: Option<(Height, UnixMillis)>,
    /// Hosts of this epoch.
    pub participants: Fact<Participants>,
    /// Hosts of the epoch before, for comparison.
    pub former_participants: Fact<Participants>,
    /// The chain's rules.
    pub params: Fact<ChainParams>,
    /// This epoch's group with confirmed weights.
    pub group: Fact<EpochGroup>,
    /// The group of the epoch before, with what was confirmed in the end.
    pub former_group: Fact<EpochGroup>,
    /// Groups of single models, by model.
    pub model_groups: BTreeMap<String, Fact<EpochGroup>>,
    /// Coefficients of this epoch.
    pub coefficients: Fact<Vec<ModelCoefficient>>,
    /// The confirmation PoC under way, if one is.
    pub confirmation: Fact<Option<ConfirmationEvent>>,
    /// Confirmation PoCs of this epoch.
    pub confirmations: Fact<Vec<ConfirmationEvent>>,
    /// What the epoch before this one gave.
    pub result: Fact<EpochResult>,
    /// What waits to be claimed.
    pub settlement: Fact<Settlement>,
    /// Declared delegations.
    pub delegations: Fact<Delegations>,
    /// Collateral deposited.
    pub collateral: Fact<Ngonka>,
    /// Rewards not yet paid out.
    pub vesting: Fact<Ngonka>,
    /// Models by governance.
    pub models: Fact<Vec<ApprovedModel>>,
    /// Prices of tokens.
    pub prices: Fact<Vec<TokenPrice>>,
    /// What runs on the Network Node.
    pub versions: Fact<Versions>,
    /// Hardware declared on chain.
    pub hardware: Fact<Vec<DeclaredHardware>>,
    /// Whether the chain node still catches up with the chain.
    pub catching_up: Fact<bool>,
    /// MLNodes as the admin API lists them.
    pub nodes: Fact<Vec<RegisteredNode>>,
    /// What two Network Nodes say differently, in one line.
    pub disagreement: Option<String>,
}

impl GonkaFacts {
    /// The coefficient of a model: this epoch's, else that of the rules, which newer chains leave empty.
    #[must_use]
    pub fn coefficient(&self, model: &str) -> Option<super::Decimal> {
        let of = |list: &[ModelCoefficient]| {
            list.iter().find(|one| one.model == model).map(|one| one.effective)
        };
        let dynamic = self.coefficients.last().and_then(|(list, _)| of(list));
        let frozen = || self.group.last().and_then(|(group, _)| of(&group.coefficients));
        let laid_down =
            || self.params.last().and_then(|(params, _)| params.model(model)?.coefficient);
        dynamic.or_else(frozen).or_else(laid_down)
    }

    /// Share of our weight that confirmation PoCs bore out this epoch, in thousandths; `None` while nothing says so.
    ///
    /// What is confirmed is counted before collateral, so it is held against the proved weight of our nodes (nonces by
    /// coefficient, cut per model, as the chain does it) where the models' groups were read, else against the host's weight.
    #[must_use]
    pub fn confirmed_permille(&self) -> Option<u32> {
        let (group, _) = self.group.last()?;
        let member = group.member(&self.address)?;
        let confirmed = u128::from(member.confirmation_weight?);
        let proved: u128 = self
            .model_groups
            .iter()
            .filter_map(|(model, fact)| {
                let (of_model, _) = fact.last()?;
                let nodes = &of_model.member(&self.address)?.nodes;
                let nonces: u64 =
                    nodes.iter().map(|node| node.poc_weight).fold(0, u64::saturating_add);
                let weight = self.coefficient(model)?.of(i128::from(nonces));
                u128::try_from(weight).ok()
            })
            .fold(0, u128::saturating_add);
        let whole = if proved > 0 { proved } else { u128::from(member.weight) };
        let share = confirmed.saturating_mul(1_000).checked_div(whole)?;
        u32::try_from(share.min(1_000)).ok()
    }

    /// How long no new block was seen.
    #[must_use]
    pub fn block_age(&self, now: UnixMillis) -> Option<Millis> {
        self.highest.map(|(_, at)| now.since(at))
    }

    /// The MLNode of that name, as the Network Node knows it.
    #[must_use]
    pub fn node(&self, id: &str) -> Option<&RegisteredNode> {
        self.nodes.last().and_then(|(nodes, _)| nodes.iter().find(|node| node.id == id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gonka::{Decimal, GroupMember, MlNodeWeight};

    #[test]
    fn the_confirmed_share_is_that_of_the_proved_weight() {
        let node = |poc_weight| MlNodeWeight {
            node_id: "gpu-1".into(),
            poc_weight,
            timeslots: [true, false],
        };
        let group = |weight, confirmation_weight, nodes| EpochGroup {
            epoch_index: 410,
            model: None,
            total_weight: 10_000,
            models: Vec::new(),
            members: vec![GroupMember {
                address: "gonka1a".into(),
                weight,
                confirmation_weight,
                nodes,
            }],
            coefficients: vec![ModelCoefficient {
                model: "org/m".into(),
                effective: Decimal::new(5, -1).unwrap(),
                base: None,
                bounds: None,
            }],
        };
        let mut facts = GonkaFacts { address: "gonka1a".into(), ..GonkaFacts::default() };
        assert_eq!(facts.confirmed_permille(), None);
        // A fifth of the weight counts, for want of collateral; half of what was proved is confirmed.
        facts.group.answered(group(200, Some(500), Vec::new()), UnixMillis(0));
        assert_eq!(facts.confirmed_permille(), Some(1_000));
        let mut of_model = Fact::default();
        of_model.answered(group(1_000, None, vec![node(1_500), node(500)]), UnixMillis(0));
        facts.model_groups.insert("org/m".into(), of_model);
        assert_eq!(facts.confirmed_permille(), Some(500));
    }
}
