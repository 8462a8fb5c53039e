//! What the chain says about hosts and their results: groups, confirmed weights, rewards, collateral, delegations.

use super::{Decimal, MlNodeWeight, Ngonka};

/// The hosts of an epoch with what was confirmed of their weight (`epoch_group_data`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochGroup {
    /// Which epoch.
    pub epoch_index: u64,
    /// The model of a group of one model; `None` for all together.
    pub model: Option<String>,
    /// Weight of all hosts.
    pub total_weight: u128,
    /// Models that have a group of their own.
    pub models: Vec<String>,
    /// The hosts.
    pub members: Vec<GroupMember>,
    /// Coefficients that were frozen for this epoch.
    pub coefficients: Vec<ModelCoefficient>,
}

impl EpochGroup {
    /// One host of it.
    #[must_use]
    pub fn member(&self, address: &str) -> Option<&GroupMember> {
        self.members.iter().find(|member| member.address == address)
    }
}

/// One host of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// `gonka1..`.
    pub address: String,
    /// Weight in the epoch.
    pub weight: u64,
    /// What confirmation PoCs left of it; it caps what is rewarded.
    pub confirmation_weight: Option<u64>,
    /// Its MLNodes.
    pub nodes: Vec<MlNodeWeight>,
}

/// The coefficient of a model in an epoch (`dynamic_coefficients`, `confirmation_weight_scales`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCoefficient {
    /// The model's id.
    pub model: String,
    /// What a nonce's weight is multiplied by.
    pub effective: Decimal,
    /// Before it is thinned because too much is offered.
    pub base: Option<Decimal>,
    /// The bounds it moves in.
    pub bounds: Option<(Decimal, Decimal)>,
}

/// What a host did and got in an epoch (`epoch_performance_summary`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochResult {
    /// Which epoch.
    pub epoch_index: u64,
    /// Inferences served.
    pub inferences: u64,
    /// Inferences not answered.
    pub missed: u64,
    /// Inferences found wrong.
    pub invalidated: u64,
    /// Fees.
    pub earned: Ngonka,
    /// Share of the mint.
    pub rewarded: Ngonka,
    /// Lost by not claiming in time.
    pub burned: Ngonka,
    /// Whether it was claimed.
    pub claimed: bool,
    /// Weight that was rewarded, if the chain says so.
    pub reward_weight: Option<u64>,
}

/// What waits to be claimed (`settle_amount`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settlement {
    /// Of which epoch.
    pub epoch_index: u64,
    /// Share of the mint.
    pub reward: Ngonka,
    /// Fees.
    pub work: Ngonka,
}

/// What a host said about models it does not serve (`poc_delegation`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delegations {
    /// Model, and to whom.
    pub delegated: Vec<(String, String)>,
    /// Refused.
    pub refused: Vec<String>,
    /// It means to serve them.
    pub intended: Vec<String>,
}

/// A model by governance (`/v1/models`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovedModel {
    /// Its id.
    pub id: String,
    /// VRAM an instance needs, in GB, if the chain says so.
    pub vram_gb: Option<u64>,
    /// Arguments the engine is started with.
    pub args: Vec<String>,
}

/// What a token of a model costs now (`/v1/pricing`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPrice {
    /// The model's id.
    pub model: String,
    /// Per token.
    pub price: Option<Ngonka>,
}

/// What runs on a Network Node (`/v1/versions`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versions {
    /// The API process.
    pub api: String,
    /// The chain node.
    pub node: String,
}

/// GPUs that a host declared (`hardware_nodes`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredHardware {
    /// The operator's name of the MLNode.
    pub node_id: String,
    /// Type and count.
    pub cards: Vec<(String, u64)>,
}
