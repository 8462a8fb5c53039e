//! Whether a rig can earn with a model, and every reason why not: never dressed up, never only the first one.
//!
//! A fact that is not known bars like one that is bad: a farm must not promise an epoch on a guess. What only lowers the
//! weight is told beside it.

use std::fmt;

use roadbed_protocol::{Millis, ProofRate, RigId, UnixMillis};

use super::{Fact, GonkaFacts, ModelParams};

/// Bytes in a GB, as the chain and card makers count.
const BYTES_PER_GB: u64 = 1_000_000_000;
/// Thousandths of the needed VRAM that are enough: a "24 GB" card shows a little less.
const VRAM_ENOUGH_PERMILLE: u64 = 970;

/// How the rig's copy of the weights came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// As the model's authors published them.
    AsPublished,
    /// Made smaller or otherwise changed; with the type, like `Q4_K`.
    Requantised(String),
    /// Nobody looked.
    Unknown,
}

/// What the Network Node knows of the rig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// It was not asked, or did not answer.
    Unknown,
    /// No node of the rig's name.
    Absent,
    /// Registered.
    Present {
        /// The operator has not disabled it.
        is_enabled: bool,
        /// This model is among its models.
        has_model: bool,
    },
}

/// What the rig's engine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineHealth {
    /// It answers with the model.
    Answering,
    /// It would have to load the model first.
    NotLoaded,
    /// It fails.
    Failing(String),
    /// The rig does not report.
    Silent,
}

/// What is known of one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The rig.
    pub rig: RigId,
    /// The model it would prove; `None` when none is set for it.
    pub model: Option<String>,
    /// Memory of its cards together, in bytes; `None` when it was not told.
    pub vram_bytes: Option<u64>,
    /// How its weights came about.
    pub weights: Weights,
    /// What the Network Node knows of it.
    pub registration: Registration,
    /// How fast it proves.
    pub proof_rate: Option<ProofRate>,
    /// What its engine is doing.
    pub engine: EngineHealth,
    /// Longest context it can hold, in tokens; `None` when it was not told.
    pub context_max: Option<u32>,
}

/// What the Network Node said, and what of it counts as fresh.
#[derive(Debug, Clone, Copy)]
pub struct ChainView<'a> {
    /// Everything it said.
    pub facts: &'a GonkaFacts,
    /// The host's weight that counts and the one it proved, in the newest epoch, if known.
    pub backed_of_proved: Option<(u64, u64)>,
    /// Now.
    pub now: UnixMillis,
    /// Older answers are stale.
    pub age_max: Millis,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No model is set for the rig.
    NoModel,
    /// What the chain said is old, or it never said anything.
    StaleChain {
        /// What is stale.
        what: &'static str,
        /// Since when nothing came; `None` for never.
        since: Option<UnixMillis>,
        /// What the last read failed with.
        why: Option<String>,
    },
    /// Governance has not approved the model.
    NotApproved {
        /// The model.
        model: String,
        /// One that differs only in case or the organisation's name, if there is one.
        close: Option<String>,
    },
    /// The chain does not say how much memory the model needs, or the rig not how much it has: it is told, not barred.
    VramUnknown,
    /// Too little memory.
    VramShort {
        /// What an instance needs, in GB.
        needed_gb: u64,
        /// What the rig has, in GB.
        has_gb: u64,
    },
    /// The weights are not those of the approved model.
    Requantised {
        /// What they are.
        kind: String,
    },
    /// Nobody knows whether they are.
    WeightsUnknown,
    /// The Network Node was not asked, or did not answer.
    RegistrationUnknown,
    /// It knows no such node.
    NotRegistered,
    /// It does not list the model for the node.
    ModelNotRegistered,
    /// The node is disabled.
    Disabled,
    /// How fast it proves was never measured for this model and length.
    NoProofRate {
        /// What was measured instead, if anything.
        measured: Option<String>,
    },
    /// Part of the weight does not count, for want of collateral.
    CollateralShort {
        /// Weight that counts.
        backed: u64,
        /// Weight proved.
        proved: u64,
    },
    /// The engine does not do its work.
    Engine {
        /// What it says.
        why: String,
    },
    /// The model is not loaded: it must be before the PoC starts. Told, not barred.
    NotLoaded,
    /// A nonce is longer than the rig's context.
    ContextShort {
        /// Tokens of a nonce.
        needed: u32,
        /// Tokens the rig holds.
        has: u32,
    },
}

impl Reason {
    /// True when it keeps the rig from earning, not only from earning all.
    #[must_use]
    pub const fn bars(&self) -> bool {
        match self {
            Self::CollateralShort { .. } | Self::NotLoaded | Self::VramUnknown => false,
            Self::NoModel
            | Self::StaleChain { .. }
            | Self::NotApproved { .. }
            | Self::VramShort { .. }
            | Self::Requantised { .. }
            | Self::WeightsUnknown
            | Self::RegistrationUnknown
            | Self::NotRegistered
            | Self::ModelNotRegistered
            | Self::Disabled
            | Self::NoProofRate { .. }
            | Self::Engine { .. }
            | Self::ContextShort { .. } => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModel => write!(f, "no model is set for the rig"),
            Self::StaleChain { what, since, why } => {
                match since {
                    Some(since) => write!(f, "{what}: last read at {since} UTC")?,
                    None => write!(f, "{what}: never read from the Network Node")?,
                }
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            Self::NotApproved { model, close: None } => {
                write!(f, "{model} is not among the models governance approved")
            }
            Self::NotApproved { model, close: Some(close) } => {
                write!(f, "{model} is not approved; the approved id is {close}, exactly so")
            }
            Self::VramUnknown => {
                write!(f, "how much memory the model needs or the rig has is not known")
            }
            Self::VramShort { needed_gb, has_gb } => {
                write!(f, "the model needs {needed_gb} GB of VRAM, the rig has {has_gb} GB")
            }
            Self::Requantised { kind } => write!(
                f,
                "its weights are {kind}, not the published ones: validators treat that as fraud"
            ),
            Self::WeightsUnknown => {
                write!(f, "whether its weights are the published ones is not known")
            }
            Self::RegistrationUnknown => {
                write!(
                    f,
                    "whether it is registered is not known: the Network Node's admin API gave no answer"
                )
            }
            Self::NotRegistered => {
                write!(f, "the Network Node does not know it: roadbed gonka register")
            }
            Self::ModelNotRegistered => {
                write!(
                    f,
                    "the Network Node lists the rig without this model: roadbed gonka register"
                )
            }
            Self::Disabled => write!(f, "the node is disabled at the Network Node"),
            Self::NoProofRate { measured: None } => {
                write!(f, "its nonces per minute were never measured: roadbed-agent bench-poc")
            }
            Self::NoProofRate { measured: Some(measured) } => {
                write!(f, "its nonces per minute were measured for {measured} only")
            }
            Self::CollateralShort { backed, proved } => write!(
                f,
                "only {backed} of the host's proved weight {proved} counts: the rest lacks collateral"
            ),
            Self::Engine { why } => write!(f, "its engine does not do its work: {why}"),
            Self::NotLoaded => {
                write!(f, "the model is not loaded; it must be before the PoC starts")
            }
            Self::ContextShort { needed, has } => {
                write!(f, "a nonce has {needed} tokens, the rig holds {has}")
            }
        }
    }
}

/// What came out for one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rig.
    pub rig: RigId,
    /// The model asked about.
    pub model: Option<String>,
    /// All reasons against it, and what lowers its weight.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// True when nothing bars it.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        !self.reasons.iter().any(Reason::bars)
    }
}

/// Looks at everything and stops at nothing.
#[must_use]
pub fn verdict(rig: &Candidate, chain: &ChainView<'_>) -> Verdict {
    let mut reasons = Vec::new();
    reasons.extend(stale(&chain.facts.epoch, "where the chain stands", chain));
    reasons.extend(stale(&chain.facts.params, "the chain's rules", chain));
    if rig.model.is_none() {
        reasons.push(Reason::NoModel);
    }
    let listed = chain.facts.params.last().map(|(params, _)| &params.models);
    let approved = rig.model.as_ref().zip(listed).and_then(|(model, models)| {
        let found = models.iter().find(|params| params.model == *model);
        if found.is_none() {
            let close = models.iter().find(|params| tail(&params.model) == tail(model));
            let close = close.map(|params| params.model.clone());
            reasons.push(Reason::NotApproved { model: model.clone(), close });
        }
        found
    });
    if let Some(params) = approved {
        reasons.extend(fits(rig, params, vram_gb(chain.facts, params)));
    }
    match &rig.weights {
        Weights::AsPublished => {}
        Weights::Requantised(kind) => reasons.push(Reason::Requantised { kind: kind.clone() }),
        Weights::Unknown => reasons.push(Reason::WeightsUnknown),
    }
    match rig.registration {
        Registration::Unknown => reasons.push(Reason::RegistrationUnknown),
        Registration::Absent => reasons.push(Reason::NotRegistered),
        Registration::Present { is_enabled, has_model } => {
            if !is_enabled {
                reasons.push(Reason::Disabled);
            }
            if !has_model {
                reasons.push(Reason::ModelNotRegistered);
            }
        }
    }
    match &rig.engine {
        EngineHealth::Answering => {}
        EngineHealth::NotLoaded => reasons.push(Reason::NotLoaded),
        EngineHealth::Failing(why) => reasons.push(Reason::Engine { why: why.clone() }),
        EngineHealth::Silent => reasons.push(Reason::Engine { why: "the rig is silent".into() }),
    }
    if let Some((backed, proved)) =
        chain.backed_of_proved.filter(|(backed, proved)| backed < proved)
    {
        reasons.push(Reason::CollateralShort { backed, proved });
    }
    Verdict { rig: rig.rig.clone(), model: rig.model.clone(), reasons }
}

/// What the model's params ask of the rig.
fn fits(rig: &Candidate, params: &ModelParams, vram_gb: Option<u64>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match vram_gb.zip(rig.vram_bytes) {
        None => reasons.push(Reason::VramUnknown),
        Some((needed_gb, has)) => {
            let enough = needed_gb.saturating_mul(BYTES_PER_GB / 1_000 * VRAM_ENOUGH_PERMILLE);
            if has < enough {
                reasons.push(Reason::VramShort { needed_gb, has_gb: has / BYTES_PER_GB });
            }
        }
    }
    if let Some(has) = rig.context_max.filter(|has| *has < params.seq_len) {
        reasons.push(Reason::ContextShort { needed: params.seq_len, has });
    }
    match &rig.proof_rate {
        Some(rate) if rate.model == params.model && rate.seq_len == params.seq_len => {}
        Some(rate) => {
            let measured = Some(format!("{} at {} tokens", rate.model, rate.seq_len));
            reasons.push(Reason::NoProofRate { measured });
        }
        None => reasons.push(Reason::NoProofRate { measured: None }),
    }
    reasons
}

/// VRAM of an instance by the proving rules, else by the list of models.
fn vram_gb(facts: &GonkaFacts, params: &ModelParams) -> Option<u64> {
    let by_list = || {
        let (models, _) = facts.models.last()?;
        models.iter().find(|model| model.id == params.model)?.vram_gb
    };
    params.vram_gb.or_else(by_list)
}

fn stale<T>(fact: &Fact<T>, what: &'static str, chain: &ChainView<'_>) -> Option<Reason> {
    let why = fact.failing().map(|failing| failing.reason.clone());
    let since = fact.last().map(|(_, at)| at);
    let is_stale = fact.fresh(chain.now, chain.age_max).is_none();
    is_stale.then_some(Reason::StaleChain { what, since, why })
}

/// The model's own name, by which a slip in case or organisation is found.
fn tail(model: &str) -> String {
    model.rsplit('/').next().unwrap_or(model).to_lowercase()
}

#[cfg(test)]
mod tests;
