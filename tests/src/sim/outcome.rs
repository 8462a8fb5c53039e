//! What a run ends with.

use std::fmt;

use super::checkers::Broken;

/// A run in which every rule held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that happened.
    pub steps: u64,
    /// Plans made.
    pub plans: u64,
    /// Choices the guard took away.
    pub sheds: u64,
    /// Generations issued.
    pub generations: u64,
    /// Switches booked.
    pub switches: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Artifacts booked.
    pub artifacts: u64,
    /// Watt-hours booked.
    pub watt_hours: u64,
    /// Breaches the controller itself saw.
    pub breaches: u64,
    /// Milliseconds feeders spent above their limit, each time within the grace.
    pub over_millis: u64,
    /// The events, when a trace was asked for.
    pub trace: Vec<String>,
}

/// A broken rule, and how to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// After this many events.
    pub step: u64,
    /// What was broken.
    pub broken: Broken,
    /// The last events, when a trace was asked for.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let Self { seed, step, broken, .. } = self;
        write!(f, "seed {seed}, step {step}: {}: {}", broken.checker, broken.what)?;
        write!(f, " (replay: ROADBED_SIM_SEED={seed})")
    }
}
