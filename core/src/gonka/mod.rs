//! What Gonka's chain says and what follows from it for the farm: stages, income, eligibility, advice.
//!
//! Nothing here talks to a Network Node: the controller's feed reads one, keeps what it last said with its age, and hands
//! it in. So every figure can be asked how old its ground is, and a chain that says nothing gives no figure.

mod chain;
mod decimal;
mod fact;

pub use chain::{
    BlockMoment, ChainEpoch, ConfirmationEvent, EpochStages, Height, MlNodeWeight, ModelParams,
    Ngonka, Participant, Participants, Phase, StageWindow,
};
pub use decimal::Decimal;
pub use fact::{Fact, Failing};
