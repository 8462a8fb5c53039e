//! What a rig's miner says of each pool of its list.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Millis;

/// Most pools told of in one report; no rig's list is longer.
pub const POOLS_REPORTED_MAX: usize = 16;
/// Longest address and longest trouble told, in characters: sixteen of both are a sixth of what an envelope holds.
const TEXT_CHARS_MAX: usize = 160;

/// What a pool is to the rig now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolStanding {
    /// It is hashed for.
    Hashing,
    /// It lets us mine, but another one is hashed for.
    StandingBy,
    /// Connected, but not let in yet.
    Connecting,
    /// Not connected; `trouble` may say why.
    Away,
}

impl fmt::Display for PoolStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hashing => "hashing",
            Self::StandingBy => "standing by",
            Self::Connecting => "connecting",
            Self::Away => "away",
        })
    }
}

/// Shares sent to a pool, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolShares {
    /// Taken.
    pub accepted: u64,
    /// Refused as too late.
    pub stale: u64,
    /// Refused as sent before.
    pub duplicate: u64,
    /// Refused as too easy.
    pub low_difficulty: u64,
    /// Refused for any other reason.
    pub other: u64,
    /// Never answered.
    pub unanswered: u64,
}

impl PoolShares {
    /// All refusals.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.stale + self.duplicate + self.low_difficulty + self.other
    }
}

impl fmt::Display for PoolShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, stale, duplicate, low_difficulty, other, unanswered } = self;
        let refused = self.refused();
        write!(
            f,
            "{accepted} accepted, {refused} refused ({stale} stale, {duplicate} duplicate, {low_difficulty} too easy, \
             {other} other), {unanswered} unanswered"
        )
    }
}

/// A pool of a rig's list; sums are since the rig began to mine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Its address, without the worker's name.
    pub url: String,
    /// What it is to the rig now.
    pub standing: PoolStanding,
    /// Hashes done for it.
    pub hashes: u64,
    /// Difficulty of its newest job, in millionths; zero before the first.
    pub difficulty_millionths: u64,
    /// Shares sent to it.
    #[serde(default)]
    pub shares: PoolShares,
    /// How long shares wait for its answers, a mean of the last ones; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_after: Option<Millis>,
    /// Why it does not let us mine; empty while it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

impl PoolReport {
    /// The same with texts cut to what a report holds.
    #[must_use]
    pub fn bounded(self) -> Self {
        let cut = |text: String| match text.char_indices().nth(TEXT_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        Self { url: cut(self.url), trouble: cut(self.trouble), ..self }
    }

    /// Its part of `all` hashes, in percent.
    #[must_use]
    pub fn hash_percent(&self, all: u64) -> u64 {
        let part = u128::from(self.hashes) * 100 / u128::from(all.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// The difficulty as a number for people.
    #[must_use]
    pub fn difficulty(&self) -> String {
        let (whole, part) =
            (self.difficulty_millionths / 1_000_000, self.difficulty_millionths % 1_000_000);
        match (whole, part) {
            (_, 0) => whole.to_string(),
            (0..1_000, _) => format!("{whole}.{part:06}").trim_end_matches('0').to_owned(),
            _ => whole.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(difficulty_millionths: u64) -> PoolReport {
        PoolReport {
            url: "stratum+tcp://pool:1".into(),
            standing: PoolStanding::Hashing,
            hashes: 250,
            difficulty_millionths,
            shares: PoolShares::default(),
            answer_after: None,
            trouble: "é".repeat(500),
        }
    }

    #[test]
    fn difficulties_and_shares_of_the_hashes_are_written_for_people() {
        for (millionths, text) in [
            (0, "0"),
            (1, "0.000001"),
            (500_000, "0.5"),
            (16_384_500_000, "16384"),
            (2_000_000, "2"),
        ] {
            assert_eq!(report(millionths).difficulty(), text);
        }
        assert_eq!(report(0).hash_percent(1_000), 25);
        assert_eq!(report(0).hash_percent(0), 25_000, "nothing is divided by zero");
    }

    #[test]
    fn a_full_list_fits_an_envelope_many_times() {
        let list = vec![report(u64::MAX).bounded(); POOLS_REPORTED_MAX];
        let wire = serde_json::to_vec(&list).unwrap();
        assert!(wire.len() < crate::envelope::ENVELOPE_BYTES_MAX / 4, "{}", wire.len());
        let back: Vec<PoolReport> = serde_json::from_slice(&wire).unwrap();
        assert_eq!(back, list);
    }
}
