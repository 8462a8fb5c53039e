//! Conditions of the chain and the Network Node that a person must hear of: raised once, cleared once, never flapping.
//!
//! A condition that is read every few seconds is noisy, so it must hold for a few reads in a row before it is raised and
//! be gone for a few before it is cleared; a measured one has another threshold on the way back. What is not known changes
//! nothing: silence of the Network Node is a condition of its own.

use std::collections::BTreeMap;

use roadbed_protocol::{Millis, RigId, UnixMillis};

use super::{BlockMoment, ChainEpoch, Decimal, GonkaFacts, Height, ModelParams, Phase};
use crate::farm::Alert;

/// Reads in a row that raise a condition: one odd answer is none.
const RAISE_AFTER: u32 = 2;
/// Reads in a row that clear it.
const CLEAR_AFTER: u32 = 3;
/// Confirmed share below which it is raised, in thousandths: what is lost below it is lost in earnest.
const CONFIRMED_LOW: u32 = 800;
/// And above which it is cleared.
const CONFIRMED_FINE: u32 = 850;
/// A fall from the epoch's best by this much is raised whatever the level.
const CONFIRMED_FALL: u32 = 100;
/// Change of the weight from one epoch to the next that is raised, and below which it is cleared, in thousandths.
const WEIGHT_CHANGED: u64 = 200;
const WEIGHT_STEADY: u64 = 150;
/// Block times without a block that are a halt: mainnet's slowest blocks take three.
const HALT_BLOCKS: u64 = 12;
/// No block time is taken for shorter than this, so that a hectic test chain does not halt between two reads.
const BLOCK_TIME_MIN: Millis = Millis(1_000);

/// What one rig's MLNode shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSight {
    /// The rig.
    pub rig: RigId,
    /// Whether the Network Node knows it; `None` when that was not read.
    pub is_known: Option<bool>,
    /// What its engine says of `pow/status`.
    pub generating: Generating,
    /// Deliveries that the Network Node refused for good (4xx) since the agent's journal began, if it is heard.
    pub callbacks_refused: Option<u64>,
}

/// What an MLNode's engine is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generating {
    /// Nobody hears of it.
    Unknown,
    /// It generates nothing.
    Nothing,
    /// It generates for this start block.
    For(Height),
}

/// One look at everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// When.
    pub now: UnixMillis,
    /// Where the chain stands, if that was read.
    pub chain: Option<ChainEpoch>,
    /// Its newest block, if one was seen.
    pub moment: Option<BlockMoment>,
    /// The Network Node gave no answer since then, if so.
    pub unanswered_since: Option<UnixMillis>,
    /// Our weight and the epoch it stands for.
    pub weight: Option<(u64, u64)>,
    /// Share of it that is confirmed, in thousandths.
    pub confirmed_permille: Option<u32>,
    /// The MLNodes.
    pub nodes: Vec<NodeSight>,
    /// Models with their params.
    pub models: Option<Vec<ModelParams>>,
    /// Version of the chain or an announced upgrade, as the Network Node words it.
    pub version: Option<String>,
}

/// Which condition, and whose.
type Key = (&'static str, Option<RigId>);

/// All conditions and what they need to remember.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    latches: BTreeMap<Key, Latch>,
    /// Newest height and when it was first seen.
    height: Option<(Height, UnixMillis)>,
    /// Best confirmed share of an epoch.
    best_confirmed: Option<(u64, u32)>,
    /// Weights of the epoch before and of this one, with its number.
    weights: Option<(Option<u64>, u64, u64)>,
    models: Option<Vec<ModelParams>>,
    version: Option<String>,
    /// What changed, and the epoch it was seen in: told until that epoch is over.
    news: BTreeMap<&'static str, (u64, String)>,
    refused: BTreeMap<RigId, u64>,
}

impl Watch {
    /// Takes a look and tells what began and what is over.
    pub fn look(&mut self, sight: &Sight) -> Vec<Alert> {
        let mut alerts = Vec::new();
        let mut tell = |latches: &mut BTreeMap<Key, Latch>, key: Key, seen: Seen| {
            let latch = latches.entry(key.clone()).or_default();
            if let Some((active, text)) = latch.take(seen) {
                alerts.push(Alert { key: key.0.into(), rig: key.1, active, text });
            }
        };
        let host: [(&'static str, Seen); 6] = [
            ("gonka-halt", self.halt(sight)),
            ("gonka-silent", silent(sight)),
            ("gonka-confirmation", self.confirmation(sight)),
            ("gonka-weight", self.weight(sight)),
            ("gonka-models", self.models(sight)),
            ("gonka-version", self.version(sight)),
        ];
        for (key, seen) in host {
            tell(&mut self.latches, (key, None), seen);
        }
        for node in &sight.nodes {
            let refused = self.refused(node);
            let rig = || Some(node.rig.clone());
            tell(&mut self.latches, ("gonka-unknown", rig()), unknown(node));
            tell(&mut self.latches, ("gonka-stale-generating", rig()), stale(node, sight));
            tell(&mut self.latches, ("gonka-callback", rig()), refused);
        }
        alerts
    }

    /// Conditions that stand, with their texts.
    pub fn standing(&self) -> impl Iterator<Item = Alert> {
        self.latches.iter().filter(|(_, latch)| latch.is_raised).map(|((key, rig), latch)| Alert {
            key: (*key).into(),
            rig: rig.clone(),
            active: true,
            text: latch.text.clone(),
        })
    }

    fn halt(&mut self, sight: &Sight) -> Seen {
        let Some(moment) = sight.moment else { return Seen::Unknown };
        let risen = self.height.is_none_or(|(height, _)| moment.height > height);
        if risen {
            self.height = Some((moment.height, sight.now));
            return Seen::Fine("the chain makes blocks again".into());
        }
        // What the Network Node does not answer says nothing of the chain.
        if sight.unanswered_since.is_some() {
            return Seen::Unknown;
        }
        let since = self.height.map_or(sight.now, |(_, since)| since);
        let pace = moment.block_time.max(BLOCK_TIME_MIN);
        let still = sight.now.since(since);
        if still.0 / pace.0 < HALT_BLOCKS {
            return Seen::Unknown;
        }
        let blocks = still.0 / pace.0;
        let height = moment.height;
        Seen::Bad(format!(
            "no block after {height} for {} s, {blocks} block times: windows shift, do not switch by the clock",
            still.0 / 1_000
        ))
    }

    fn confirmation(&mut self, sight: &Sight) -> Seen {
        let (Some(now), Some(epoch)) = (sight.confirmed_permille, sight.epoch()) else {
            return Seen::Unknown;
        };
        let best = match self.best_confirmed {
            Some((of, best)) if of == epoch => best.max(now),
            Some(_) | None => now,
        };
        self.best_confirmed = Some((epoch, best));
        let fall = best - now;
        if now < CONFIRMED_LOW || fall >= CONFIRMED_FALL {
            let share = percent(now);
            let text =
                format!("{share} of the weight is confirmed, {} at best this epoch", percent(best));
            return Seen::Bad(format!(
                "{text}: rewards are capped by it, below half of it the host is jailed"
            ));
        }
        if now >= CONFIRMED_FINE && fall < CONFIRMED_FALL / 2 {
            return Seen::Fine(format!("{} of the weight is confirmed", percent(now)));
        }
        Seen::Unknown
    }

    fn weight(&mut self, sight: &Sight) -> Seen {
        let Some((weight, epoch)) = sight.weight else { return Seen::Unknown };
        self.weights = Some(match self.weights {
            Some((before, _, of)) if of == epoch => (before, weight, epoch),
            Some((_, last, _)) => (Some(last), weight, epoch),
            None => (None, weight, epoch),
        });
        let Some((Some(before), ..)) = self.weights else { return Seen::Unknown };
        let changed = u128::from(weight.abs_diff(before)) * 1_000 / u128::from(before.max(1));
        let text = format!("weight {before} in the epoch before, {weight} in epoch {epoch}");
        if changed > u128::from(WEIGHT_CHANGED) {
            Seen::Bad(text)
        } else if changed <= u128::from(WEIGHT_STEADY) {
            Seen::Fine(text)
        } else {
            Seen::Unknown
        }
    }

    fn models(&mut self, sight: &Sight) -> Seen {
        if let Some(models) = &sight.models {
            let before = self.models.replace(models.clone());
            let changes = before.map(|before| differences(&before, models)).unwrap_or_default();
            if !changes.is_empty() {
                self.note("gonka-models", sight, changes.join("; "));
            }
        }
        self.news("gonka-models", sight)
    }

    fn version(&mut self, sight: &Sight) -> Seen {
        if let Some(version) = &sight.version {
            let before = self.version.replace(version.clone());
            if let Some(before) = before.filter(|before| before != version) {
                self.note("gonka-version", sight, format!("version: {before}, now {version}"));
            }
        }
        self.news("gonka-version", sight)
    }

    fn note(&mut self, key: &'static str, sight: &Sight, text: String) {
        self.news.insert(key, (sight.epoch().unwrap_or_default(), text));
    }

    /// News are raised at once, and over with the epoch they came in.
    fn news(&mut self, key: &'static str, sight: &Sight) -> Seen {
        let Some((epoch, text)) = self.news.get(key) else { return Seen::Unknown };
        match sight.epoch() {
            Some(now) if now > *epoch => {
                let text = format!("an epoch ago: {text}");
                self.news.remove(key);
                Seen::Over(text)
            }
            Some(_) | None => Seen::News(text.clone()),
        }
    }

    fn refused(&mut self, node: &NodeSight) -> Seen {
        let Some(count) = node.callbacks_refused else { return Seen::Unknown };
        let before = self.refused.insert(node.rig.clone(), count);
        match before {
            // A counter that fell belongs to a new start: it begins anew.
            Some(before) if count > before => Seen::News(format!(
                "the Network Node refused {} deliveries for good (4xx): artifacts of this rig do not count; is its node \
                 number right?",
                count - before
            )),
            Some(_) | None => Seen::Fine("deliveries are taken".into()),
        }
    }
}

impl Sight {
    /// What the feed knows, with what the rigs show. Coefficients that newer chains keep with the epoch stand in the models'
    /// place for them.
    #[must_use]
    pub fn of(facts: &GonkaFacts, now: UnixMillis, nodes: Vec<NodeSight>) -> Self {
        let weight = facts.group.last().and_then(|(group, _)| {
            group.member(&facts.address).map(|member| (member.weight, group.epoch_index))
        });
        let models = facts.params.last().map(|(params, _)| {
            let known = |model: &ModelParams| {
                let coefficient: Option<Decimal> = facts.coefficient(&model.model);
                ModelParams { coefficient, ..model.clone() }
            };
            params.models.iter().map(known).collect()
        });
        let versions = facts.versions.last();
        Self {
            now,
            chain: facts.epoch.last().map(|(chain, _)| chain.clone()),
            moment: facts.block,
            unanswered_since: facts.epoch.failing().map(|failing| failing.since),
            weight,
            confirmed_permille: facts.confirmed_permille(),
            nodes,
            models,
            version: versions
                .map(|(version, _)| format!("API {}, chain {}", version.api, version.node)),
        }
    }

    fn epoch(&self) -> Option<u64> {
        self.chain.as_ref().map(|chain| chain.stages.epoch_index)
    }
}

fn silent(sight: &Sight) -> Seen {
    sight.unanswered_since.map_or_else(
        || Seen::Fine("the Network Node answers".into()),
        |since| {
            Seen::Bad(format!("the Network Node gives no answer since {since} UTC: what follows from the chain is old"))
        },
    )
}

fn unknown(node: &NodeSight) -> Seen {
    match node.is_known {
        None => Seen::Unknown,
        Some(true) => Seen::Fine("the Network Node knows the rig".into()),
        Some(false) => Seen::Bad(
            "the Network Node does not know the rig: its artifacts would be refused; roadbed gonka register".into(),
        ),
    }
}

/// GENERATING for a block before this PoC's (or confirmation's) start keeps the Network Node from starting the new one.
fn stale(node: &NodeSight, sight: &Sight) -> Seen {
    let Some(chain) = &sight.chain else { return Seen::Unknown };
    let fine = || Seen::Fine("it generates nothing old".into());
    let block = match node.generating {
        Generating::Unknown => return Seen::Unknown,
        Generating::Nothing => return fine(),
        Generating::For(block) => block,
    };
    let started = match chain.phase {
        Phase::PocGenerate
        | Phase::PocGenerateWindDown
        | Phase::PocValidate
        | Phase::PocValidateWindDown => Some(chain.stages.poc_start),
        Phase::Inference => chain.confirmation.as_ref().map(|event| event.trigger),
    };
    match started {
        Some(start) if block >= start => fine(),
        Some(start) => Seen::Bad(format!(
            "GENERATING since block {block}, but the PoC began at {start}: the Network Node skips the start while this \
             stands; POST pow/stop"
        )),
        None => Seen::Bad(format!(
            "GENERATING since block {block} with no PoC under way: the next start would be skipped; POST pow/stop"
        )),
    }
}

fn differences(before: &[ModelParams], now: &[ModelParams]) -> Vec<String> {
    let mut changes = Vec::new();
    for model in now {
        match before.iter().find(|old| old.model == model.model) {
            None => changes.push(format!("{} is new", model.model)),
            Some(old) => {
                if old.coefficient != model.coefficient {
                    let word = |value: Option<Decimal>| {
                        value.map_or("unknown".into(), |value| value.to_string())
                    };
                    let (from, to) = (word(old.coefficient), word(model.coefficient));
                    changes.push(format!("{}: coefficient {from}, now {to}", model.model));
                }
                if old.seq_len != model.seq_len {
                    let (from, to) = (old.seq_len, model.seq_len);
                    changes.push(format!("{}: nonces of {from} tokens, now {to}", model.model));
                }
                if old.dist_threshold != model.dist_threshold {
                    changes.push(format!("{}: another distance threshold", model.model));
                }
            }
        }
    }
    let gone = before.iter().filter(|old| !now.iter().any(|model| model.model == old.model));
    changes.extend(gone.map(|old| format!("{} is no longer listed", old.model)));
    changes
}

fn percent(permille: u32) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

/// What one look says of one condition.
enum Seen {
    /// Nothing either way.
    Unknown,
    /// It is not so.
    Fine(String),
    /// It is so.
    Bad(String),
    /// It is so beyond doubt: raised without waiting.
    News(String),
    /// It is over beyond doubt.
    Over(String),
}

/// One condition with its inertia.
#[derive(Debug, Clone, Default)]
struct Latch {
    is_raised: bool,
    bad: u32,
    fine: u32,
    text: String,
}

impl Latch {
    /// The change to tell, if there is one.
    fn take(&mut self, seen: Seen) -> Option<(bool, String)> {
        let (raise, clear, text) = match seen {
            Seen::Unknown => return None,
            Seen::Bad(text) => {
                (self.bad, self.fine) = (self.bad.saturating_add(1), 0);
                (self.bad >= RAISE_AFTER, false, text)
            }
            Seen::Fine(text) => {
                (self.bad, self.fine) = (0, self.fine.saturating_add(1));
                (false, self.fine >= CLEAR_AFTER, text)
            }
            Seen::News(text) => {
                self.fine = 0;
                (true, false, text)
            }
            Seen::Over(text) => (false, true, text),
        };
        if raise {
            self.text.clone_from(&text);
        }
        if (raise && !self.is_raised) || (clear && self.is_raised) {
            self.is_raised = raise;
            (self.bad, self.fine) = (0, 0);
            return Some((raise, text));
        }
        None
    }
}

#[cfg(test)]
mod tests;
