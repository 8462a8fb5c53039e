//! What is asked of a Network Node, where, and how often.
//!
//! Each question has a pace of its own: the height every few seconds around a stage, the rules every ten minutes, results
//! when an epoch begins. A new epoch makes everything due that belongs to one.

use farm_core::gonka::{GonkaFacts, Phase};
use roadbed_protocol::Millis;

/// Where the chain's own queries are.
const CHAIN: &str = "/chain-api/productscience/inference/inference";
/// Blocks before a stage from which the height is asked for often: two minutes.
const NEAR_BLOCKS: i64 = 24;

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Height, phase, stages.
    Epoch,
    /// Hosts of this epoch.
    Participants,
    /// Hosts of the epoch before.
    FormerParticipants,
    /// The chain's rules.
    Params,
    /// This epoch's group.
    Group,
    /// The group of the epoch before, with what was confirmed in the end.
    FormerGroup,
    /// This epoch's group of the model at this place of the site's list.
    ModelGroup(usize),
    /// Coefficients of this epoch.
    Coefficients,
    /// The confirmation PoC under way.
    ActiveConfirmation,
    /// Confirmation PoCs of this epoch.
    Confirmations,
    /// What the epoch before gave.
    Result,
    /// What waits to be claimed.
    Settlement,
    /// Declared delegations.
    Delegations,
    /// Collateral.
    Collateral,
    /// Rewards not yet paid out.
    Vesting,
    /// Models by governance.
    Models,
    /// Prices of tokens.
    Prices,
    /// What runs there.
    Versions,
    /// Hardware declared on chain.
    Hardware,
    /// The chain node's own newest block.
    Comet,
    /// MLNodes, by the admin API.
    Nodes,
    /// Heights of the other Network Nodes.
    Comparison,
}

impl Question {
    /// All questions for a site with `models` models, the most urgent first.
    pub fn all(models: usize) -> impl Iterator<Item = Self> {
        let first = [Self::Epoch, Self::Params, Self::Participants, Self::Nodes, Self::Group];
        let rest = [
            Self::Coefficients,
            Self::FormerParticipants,
            Self::FormerGroup,
            Self::ActiveConfirmation,
            Self::Confirmations,
            Self::Result,
            Self::Settlement,
            Self::Delegations,
            Self::Collateral,
            Self::Vesting,
            Self::Models,
            Self::Prices,
            Self::Versions,
            Self::Hardware,
            Self::Comet,
            Self::Comparison,
        ];
        first.into_iter().chain(rest).chain((0..models).map(Self::ModelGroup))
    }

    /// Its name in the store. Never changed: it is what a restart finds.
    #[must_use]
    pub fn key(self) -> String {
        let word = match self {
            Self::Epoch => "epoch",
            Self::Participants => "participants",
            Self::FormerParticipants => "former_participants",
            Self::Params => "params",
            Self::Group => "group",
            Self::FormerGroup => "former_group",
            Self::ModelGroup(place) => return format!("model_group:{place}"),
            Self::Coefficients => "coefficients",
            Self::ActiveConfirmation => "active_confirmation",
            Self::Confirmations => "confirmations",
            Self::Result => "result",
            Self::Settlement => "settlement",
            Self::Delegations => "delegations",
            Self::Collateral => "collateral",
            Self::Vesting => "vesting",
            Self::Models => "models",
            Self::Prices => "prices",
            Self::Versions => "versions",
            Self::Hardware => "hardware",
            Self::Comet => "comet",
            Self::Nodes => "nodes",
            Self::Comparison => "comparison",
        };
        word.to_owned()
    }

    /// Where it is asked. `None` while it cannot be asked: the epoch is not known yet.
    #[must_use]
    pub fn path(self, facts: &GonkaFacts, models: &[String]) -> Option<String> {
        let address = &facts.address;
        // The epoch in force; while a new one is proved, the chain still pays the one before.
        let epoch = facts.group.last().map(|(group, _)| group.epoch_index);
        let former = epoch.and_then(|epoch| epoch.checked_sub(1));
        Some(match self {
            Self::Epoch | Self::Comparison => "/v1/epochs/latest".to_owned(),
            Self::Participants => "/v1/epochs/current/participants".to_owned(),
            Self::FormerParticipants => format!("/v1/epochs/{}/participants", former?),
            Self::Params => format!("{CHAIN}/params"),
            Self::Group => format!("{CHAIN}/current_epoch_group_data"),
            Self::FormerGroup => format!("{CHAIN}/epoch_group_data/{}", former?),
            Self::ModelGroup(place) => {
                let model = encoded(models.get(place)?);
                format!("{CHAIN}/epoch_group_data/{}?model_id={model}", epoch?)
            }
            // 0 is the epoch in force.
            Self::Coefficients => format!("{CHAIN}/dynamic_coefficients/0"),
            Self::ActiveConfirmation => format!("{CHAIN}/active_confirmation_poc_event"),
            Self::Confirmations => format!("{CHAIN}/confirmation_poc_events"),
            Self::Result => format!("{CHAIN}/epoch_performance_summary/{}/{address}", former?),
            Self::Settlement => format!("{CHAIN}/settle_amount/{address}"),
            Self::Delegations => format!("{CHAIN}/poc_delegation/{address}"),
            Self::Collateral => {
                format!("/chain-api/productscience/inference/collateral/collateral/{address}")
            }
            Self::Vesting => {
                format!("/chain-api/productscience/inference/streamvesting/total_vesting/{address}")
            }
            Self::Models => "/v1/models".to_owned(),
            Self::Prices => "/v1/pricing".to_owned(),
            Self::Versions => "/v1/versions".to_owned(),
            Self::Hardware => format!("{CHAIN}/hardware_nodes/{address}"),
            Self::Comet => "/chain-rpc/status".to_owned(),
            Self::Nodes => "/admin/v1/nodes".to_owned(),
        })
    }

    /// How long an answer is good for.
    #[must_use]
    pub fn pace(self, facts: &GonkaFacts) -> Millis {
        match self {
            Self::Epoch | Self::ActiveConfirmation => {
                if is_busy(facts) {
                    Millis::from_secs(5)
                } else {
                    Millis::from_secs(30)
                }
            }
            // The broker itself asks its MLNodes once a minute.
            Self::Nodes => {
                if is_busy(facts) {
                    Millis::from_secs(15)
                } else {
                    Millis::from_mins(1)
                }
            }
            Self::Comet => Millis::from_mins(1),
            // Confirmed weight falls during the epoch, and an alarm about it is worth little late.
            Self::Group | Self::ModelGroup(_) | Self::Confirmations => Millis::from_mins(5),
            Self::Params
            | Self::Coefficients
            | Self::Settlement
            | Self::Delegations
            | Self::Collateral
            | Self::Versions
            | Self::Models
            | Self::Prices
            | Self::Comparison => Millis::from_mins(10),
            Self::Result | Self::Vesting | Self::Hardware => Millis::from_mins(30),
            // They change with the epoch, and a new epoch makes them due.
            Self::Participants | Self::FormerParticipants | Self::FormerGroup => {
                Millis::from_hours(2)
            }
        }
    }

    /// How long to wait after a failure: never longer than its pace.
    #[must_use]
    pub fn retry(self, facts: &GonkaFacts) -> Millis {
        self.pace(facts).min(Millis::from_mins(1))
    }

    /// Whether a new epoch makes the last answer worthless.
    #[must_use]
    pub const fn belongs_to_an_epoch(self) -> bool {
        match self {
            Self::Participants
            | Self::FormerParticipants
            | Self::Params
            | Self::Group
            | Self::FormerGroup
            | Self::ModelGroup(_)
            | Self::Coefficients
            | Self::Confirmations
            | Self::Result
            | Self::Settlement
            | Self::Models
            | Self::Versions => true,
            Self::Epoch
            | Self::ActiveConfirmation
            | Self::Delegations
            | Self::Collateral
            | Self::Vesting
            | Self::Prices
            | Self::Hardware
            | Self::Comet
            | Self::Nodes
            | Self::Comparison => false,
        }
    }
}

/// Around a stage, and while a confirmation PoC runs, everything happens within minutes.
fn is_busy(facts: &GonkaFacts) -> bool {
    let Some((epoch, _)) = facts.epoch.last() else { return true };
    let proving = match epoch.phase {
        Phase::PocGenerate
        | Phase::PocGenerateWindDown
        | Phase::PocValidate
        | Phase::PocValidateWindDown => true,
        Phase::Inference => false,
    };
    let stages = &epoch.stages;
    let next =
        [stages.poc_start, stages.set_new_validators, stages.claim_money, stages.next_poc_start];
    let is_near = next.iter().any(|height| {
        let blocks = height.0.saturating_sub(epoch.height.0);
        (0..=NEAR_BLOCKS).contains(&blocks)
    });
    proving || is_near || epoch.confirmation.is_some()
}

/// A model's id inside a query: its slash must be escaped.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
