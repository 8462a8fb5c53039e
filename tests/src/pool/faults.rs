//! What the pool does wrong on purpose: cut lines, silence, lies about difficulty, doubled, reordered and late answers.
//!
//! All are as pools, or what lies between a pool and its miner, have been seen to do. They can be changed while the pool
//! runs; a change holds from the next thing said on.

use serde::Deserialize;
use serde_json::Value;

/// Faults of the pool; none by default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The next answer to a share is cut in the middle of its line, and the connection closed.
    pub cuts_next_answer: bool,
    /// Nothing is said any more; what was to be said is said in one go when that ends.
    pub mute: bool,
    /// Shares are judged by the announced difficulty times this.
    pub harder_than_said: Option<f64>,
    /// Announced before each job, one after another, in place of the true difficulty, which is judged by all the same;
    /// any JSON.
    pub says_difficulties: Vec<Value>,
    /// Every answer to a share is given twice.
    pub answers_twice: bool,
    /// Answers to shares are held back until there are so many, and given last first. Above one.
    pub answers_reversed: usize,
    /// What was held back when a connection ended is said on the next one.
    pub answers_late: bool,
    /// Each job comes with another extranonce.
    pub changes_extranonce: bool,
    /// Jobs sent before each job, void at once.
    pub floods: u32,
    /// Seconds that the time in jobs is off.
    pub seconds_off: i64,
}

impl Faults {
    /// The first value that makes no sense: its field, and what was expected there.
    #[must_use]
    pub fn first_fault(&self) -> Option<(&'static str, &'static str)> {
        if !self.harder_than_said.is_none_or(|times| times.is_finite() && times > 0.0) {
            return Some(("faults.harder_than_said", "a number above zero expected"));
        }
        if self.floods > FLOOD_MAX {
            return Some(("faults.floods", "at most 10000 expected"));
        }
        if self.answers_reversed > HELD_MAX {
            return Some(("faults.answers_reversed", "at most 1000 expected"));
        }
        None
    }
}

/// Most jobs of a flood: some megabytes a connection.
const FLOOD_MAX: u32 = 10_000;
/// Most answers held back.
pub const HELD_MAX: usize = 1_000;
