//! What people see of Gonka: one plain snapshot with the age of everything, for the console and `roadbed gonka status`.

use roadbed_protocol::{MicrosPerHour, Millis, Money, RigId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The chain and our place in it at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GonkaView {
    /// When this was put together.
    pub at: UnixMillis,
    /// Our host.
    pub address: String,
    /// The Network Node that answers.
    pub answering: Option<String>,
    /// What two Network Nodes say differently.
    pub disagreement: Option<String>,
    /// Newest block, and when it was seen first.
    pub height: Option<(i64, UnixMillis)>,
    /// Measured time from block to block.
    pub block_time: Option<Millis>,
    /// The epoch under way.
    pub epoch: Option<u64>,
    /// Its phase, in the chain's word.
    pub phase: Option<String>,
    /// Stages that are not over, with their times.
    pub windows: Vec<WindowView>,
    /// Our weight, what is confirmed of it, and all weight.
    pub weight: Option<WeightView>,
    /// Money on chain, by name, in GNK.
    pub funds: Vec<(String, String)>,
    /// Versions there.
    pub versions: String,
    /// Our MLNodes.
    pub rigs: Vec<GonkaRigView>,
    /// What stands wrong.
    pub alerts: Vec<String>,
    /// How old what is known is.
    pub ages: Vec<AgeView>,
}

/// A stage as times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// Which.
    pub name: String,
    /// First block.
    pub block: i64,
    /// When it begins, most likely.
    pub from: UnixMillis,
    /// It may be this much earlier or later.
    pub error: Millis,
    /// When it ends, most likely.
    pub until: UnixMillis,
}

/// Weights of the epoch in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightView {
    /// Ours.
    pub own: u64,
    /// Thousandths of it that are confirmed.
    pub confirmed_permille: Option<u32>,
    /// Everybody's.
    pub total: u64,
}

/// One MLNode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GonkaRigView {
    /// The rig.
    pub rig: RigId,
    /// Its name at the Network Node.
    pub node_id: String,
    /// Other rigs that are the same node: what it earns is reckoned by measured rates then.
    #[serde(default)]
    pub shares_node_with: Vec<RigId>,
    /// The model.
    pub model: String,
    /// What the Network Node says of it.
    pub registered: String,
    /// Whether it can earn.
    pub eligible: bool,
    /// Why not, and what lowers its weight.
    pub reasons: Vec<String>,
    /// What an epoch would bring if it could.
    pub income: IncomeView,
    /// Epochs it is promised for.
    pub promises: Vec<PromiseView>,
}

/// Expected income with its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IncomeView {
    /// By the epoch; absent when a part is missing or the rig cannot earn.
    pub by_epoch: Option<Money>,
    /// By the hour.
    pub by_hour: Option<MicrosPerHour>,
    /// True when a part is an assumption.
    pub assumed: bool,
    /// Time of the oldest part.
    pub oldest: Option<UnixMillis>,
    /// The steps from nonces to the reward, in order.
    pub steps: Vec<(String, String)>,
    /// What it rests on: part, and data with its time or assumption.
    pub parts: Vec<(String, String)>,
    /// What is missing for a sum.
    pub missing: Vec<String>,
}

/// A promised epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseView {
    /// Its name.
    pub id: String,
    /// The rig must be loaded by then.
    pub ready_by: UnixMillis,
    /// It begins.
    pub from: UnixMillis,
    /// It ends.
    pub until: UnixMillis,
    /// What it pays.
    pub income: Money,
    /// What is lost besides when it is broken.
    pub penalty: Money,
    /// True when that rests on an assumption.
    pub assumed: bool,
}

impl PromiseView {
    /// What breaking it costs.
    #[must_use]
    pub fn stake(&self) -> Money {
        self.income + self.penalty
    }
}

/// A hold is asked about when a promise is under way or must be loaded for within this: a hold has no end, and nobody
/// remembers to lift it an hour later.
const RISK_AHEAD: Millis = Millis::from_hours(1);

/// What standing still from now on would break of a rig's promises, in one line with its cost.
#[must_use]
pub fn risk(promises: &[PromiseView], now: UnixMillis) -> Option<String> {
    let broken: Vec<&PromiseView> = promises
        .iter()
        .filter(|promise| promise.until > now && promise.ready_by <= now + RISK_AHEAD)
        .collect();
    let first = broken.first()?;
    let stake: Money = broken.iter().map(|promise| promise.stake()).sum();
    let ids: Vec<&str> = broken.iter().map(|promise| promise.id.as_str()).collect();
    let when = if first.from <= now {
        format!("under way until {} UTC", first.until)
    } else {
        format!("loaded from {} UTC, begins at {} UTC", first.ready_by, first.from)
    };
    let assumed = if broken.iter().any(|promise| promise.assumed) { " (assumption)" } else { "" };
    let ids = ids.join(", ");
    Some(format!("breaks {ids} ({when}), which would cost {stake}{assumed} in income and penalty"))
}

/// How old one thing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeView {
    /// What.
    pub what: String,
    /// When it was last said.
    pub at: Option<UnixMillis>,
    /// What stands in the way of a newer answer.
    pub problem: Option<String>,
}
