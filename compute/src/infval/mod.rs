//! Inference validation: was this answer made by this model, and drawn as was promised?
//!
//! An executor answers with the likeliest tokens of every position. A validator has the same model
//! score the same tokens and compares the two sets of lists ([`similarity`], judged in [`judgement`]):
//! another model, or a coarser copy of it, lists other numbers. That does not show *how* the token was
//! chosen from the list. Where a request asks for it, the executor draws by the deterministic sampling
//! contract ([`contract`]), whose draws anyone repeats exactly ([`replay`]) from the list, the request's
//! wishes and a seed that the executor cannot choose ([`seed`]).
//!
//! ```text
//! executor  logits -> list of logprobs -> weights (decimal) -> draw (SHA-256 of seed) -> token
//! validator             the same list  -> the same weights  -> the same draw          -> the token?
//!           same tokens through the model -> own lists -> similar to the executor's?
//! ```
//! All of it is host work without a GPU. The facts are those of Gonka's contract 1.0.0 and of its
//! validators; `tests/data/poc` holds their vectors.

pub mod contract;
pub mod decimal;
mod exponential;
pub mod judgement;
pub mod replay;
pub mod rng;
pub mod seed;
pub mod similarity;
pub mod threshold;

pub use contract::{ContractError, Filters};
pub use decimal::Decimal;
pub use judgement::{Claimed, Judgement, Position, Reason, Sides, judge};
pub use replay::{Replayed, SampledAnswer, SampledPosition, SamplingVerdict, replay};
pub use similarity::Listed;
