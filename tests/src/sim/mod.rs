//! A whole farm in virtual time: the real rig and farm machines, on simulated metal, over a bad network.
//!
//! A seed decides everything, so a failure is one number. Nothing sleeps and nothing is asynchronous: the world jumps
//! from one event to the next, and after every event the checkers look at what a perfect meter would see.

pub mod agent;
pub mod checkers;
pub mod dice;
mod driver;
pub mod faults;
pub mod gonka;
pub mod hardware;
pub mod market;
pub mod network;
mod outcome;
pub mod schedule;
pub mod site;
mod trouble;
mod wire;
mod world;

pub use faults::Trouble;
pub use outcome::{Failure, Summary};
pub use world::{Options, run};
