//! The farm's decisions, as values in and values out.
//!
//! Nothing in here reads a clock, opens a socket or draws a random number: time, reports and prices enter as events and
//! orders leave as effects. So the code that runs a hall of machines is the code that a seeded simulation runs a
//! thousand times an hour, and the event log of a failure replays it.
//!
//! ```text
//! prices -> forecast -> plan -> guard -> farm --(assignment)--> rig -> (effects for drivers)
//!                                         ^                      |
//!                                         +------(report)--------+--> ledger
//! ```
//!
//! Money, energy and power are integers throughout, so that a sum never depends on the order of its parts.

pub mod coins;
pub mod farm;
pub mod forecast;
pub mod gonka;
pub mod guard;
pub mod hashprice;
pub mod journal;
pub mod ledger;
pub mod plan;
pub mod policy;
pub mod rig;

pub use farm::{Farm, FarmEffect, FarmEvent, FarmSettings};
pub use guard::Guarded;
pub use plan::{Plan, PlanInput};
pub use policy::PolicyRules;
pub use rig::{Rig, RigEffect, RigEvent, RigSettings};
