//! Answers of a Network Node into the chain's own words.
//!
//! Pure: a JSON value in, typed facts or the name of the field that cannot be read out. Shapes are those of the chain's
//! own messages (`inference-chain/proto` of gonka-ai/gonka, releases v0.2.10 to v0.2.16); where releases differ, all known
//! spellings are taken.

mod account;
mod epoch;
mod registered;
mod rules;

pub use account::{
    coefficients, collateral, comet_status, delegations, epoch_group, epoch_result, hardware,
    models, prices, settlement, versions, vesting,
};
pub use epoch::{active_confirmation, chain_epoch, confirmations, participants};
pub use registered::registered;
pub use rules::chain_params;
