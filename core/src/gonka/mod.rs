//! What Gonka's chain says and what follows from it for the farm: stages, income, eligibility, advice.
//!
//! Nothing here talks to a Network Node: the controller's feed reads one, keeps what it last said with its age, and hands
//! it in. So every figure can be asked how old its ground is, and a chain that says nothing gives no figure.

mod account;
mod alert;
mod calendar;
mod chain;
mod commitment;
mod decimal;
mod eligibility;
mod fact;
mod facts;
#[cfg(test)]
mod fixture;
mod income;
mod maintenance;
mod mint;
mod params;
mod post_mortem;
mod power_cap;
mod preflight;
mod registered;
mod rules;

pub use account::{
    ApprovedModel, DeclaredHardware, Delegations, EpochGroup, EpochResult, GroupMember,
    ModelCoefficient, Settlement, TokenPrice, Versions,
};
pub use alert::{Generating, NodeSight, Sight, Watch};
pub use calendar::{Absence, BLOCK_TIME_DRIFT_PERMILLE, Calendar, Estimate, Span};
pub use chain::{
    BlockMoment, ChainEpoch, ConfirmationEvent, ConfirmationPhase, EpochStages, Height,
    MlNodeWeight, ModelParams, Ngonka, Participant, Participants, Phase, StageWindow,
};
pub use commitment::{Promise, RigPart, Stake, promise_id, promises};
pub use decimal::Decimal;
pub use eligibility::{
    Candidate, ChainView, EngineHealth, Reason, Registration, Verdict, Weights, verdict,
};
pub use fact::{Fact, Failing};
pub use facts::GonkaFacts;
pub use income::{EpochIncome, Income, IncomeParts, Part, Sourced, Steps};
pub use maintenance::{Absent, Advice, Maintenance, Standing, maintenance};
pub use mint::MintParams;
pub use params::{CollateralParams, ConfirmationParams};
pub use post_mortem::{
    Cause, Culprit, HostStory, Loss, PostMortem, RigStory, Stretch, post_mortem,
};
pub use power_cap::power_cap;
pub use preflight::{
    Check, FeederRoom, Forward, Grade, Measured, PREFLIGHT_LEADS, Point, PowStatus, Preflight,
    Reach, preflight, preflight_due,
};
pub use registered::{NodeStatus, RegisteredNode};
pub use rules::{ChainParams, DelegationParams, EpochLengths};
