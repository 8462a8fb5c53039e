//! Ways in which an emulated miner can misbehave, one at a time, chosen by config or by the status server.

use serde::{Deserialize, Serialize};

use super::Family;

/// What is wrong with a miner now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Every order is answered as done and none is carried out.
    OkButNothingHappens,
    /// Every answer takes [`SLOW_ANSWER_MS`] of wall time.
    Slow,
    /// Every answer breaks off in its middle.
    CutReply,
    /// Every answer is a run of bytes that is no JSON.
    Garbage,
    /// LuxOS: another tool holds the one session there is.
    SessionHeld,
    /// A session or token is accepted for one order only, then it counts as expired.
    ExpiredToken,
    /// VNish: no password is right.
    WrongPassword,
    /// Restarts once, now: nothing answers for a while, then the miner comes back as it was. Clears itself.
    Reboot,
    /// Off the network, still hashing: connections are dropped and open ones never answered.
    DropsOffline,
}

/// Wall milliseconds an answer takes under [`Fault::Slow`]: longer than a poll, shorter than a patient time-out.
pub const SLOW_ANSWER_MS: u64 = 3_000;

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 9] = [
        Self::OkButNothingHappens,
        Self::Slow,
        Self::CutReply,
        Self::Garbage,
        Self::SessionHeld,
        Self::ExpiredToken,
        Self::WrongPassword,
        Self::Reboot,
        Self::DropsOffline,
    ];

    /// Whether a miner of this family can have this fault: LuxOS knows no password, VNish no exclusive session.
    #[must_use]
    pub fn applies_to(self, family: Family) -> bool {
        match self {
            Self::SessionHeld => family == Family::Luxos,
            Self::WrongPassword => family == Family::Vnish,
            Self::OkButNothingHappens
            | Self::Slow
            | Self::CutReply
            | Self::Garbage
            | Self::ExpiredToken
            | Self::Reboot
            | Self::DropsOffline => true,
        }
    }
}
