//! The check list before a PoC: measurements in, a grade with advice for every point out.
//!
//! Each point rests on something that was done, not on a route that says it would work: a token that came out of the model,
//! a connection to the callback, a rate that was measured. The list only advises. It never orders a stop, because a stopped
//! node at a PoC start has lost what a doubtful one may still earn.

use std::fmt;

use roadbed_protocol::{FeederId, Millis, ProofRate, RigId, UnixMillis, Watts};

use super::{Estimate, Height};

/// When the list is gone through before the earliest start: first with time enough to load a model again (a Network Node
/// grants a load 20 minutes), then with time for a restart of a process.
pub const PREFLIGHT_LEADS: [Millis; 2] = [Millis::from_mins(35), Millis::from_mins(10)];
/// A first token within this long is a rig at work; a prefill of a nonce takes no longer.
const FORWARD_FINE: Millis = Millis::from_secs(20);
/// A skew that callbacks and leases bear, and one that they do not (a lease's life is minutes).
const SKEW_FINE: Millis = Millis(2_000);
const SKEW_BAD: Millis = Millis::from_secs(30);
/// Share of the usual rate that is usual, and below which something is broken, in thousandths.
const RATE_FINE_PERMILLE: u128 = 900;
const RATE_BAD_PERMILLE: u128 = 500;
/// A rate older than this says little about today.
const RATE_AGE_MAX: Millis = Millis::from_hours(7 * 24);
/// Part of a feeder's limit that should stay free, in thousandths, for what else starts then.
const HEADROOM_PERMILLE: u64 = 50;

/// What became of one real completion of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// A token came.
    Answered {
        /// After this long.
        took: Millis,
        /// The model that the answer names.
        model: String,
    },
    /// None came.
    Failed {
        /// Why.
        why: String,
    },
    /// It was not tried.
    Untried {
        /// Why.
        why: String,
    },
}

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It answered, with whatever status.
    Answered {
        /// After this long.
        took: Millis,
    },
    /// It did not.
    Failed {
        /// Why.
        why: String,
    },
    /// Nobody knows the address; the Network Node tells it when a PoC begins.
    NoAddress,
}

/// What `pow/status` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowStatus {
    /// Nothing is computed.
    Idle,
    /// Nonces are, for the PoC that began at this block.
    Generating(Height),
    /// Others' nonces are recomputed.
    Validating,
    /// It could not be read.
    Unread {
        /// Why.
        why: String,
    },
}

/// A circuit above the rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeederRoom {
    /// Which.
    pub feeder: FeederId,
    /// What it is counted with, this rig's present power included.
    pub load: Watts,
    /// What it may carry.
    pub limit: Watts,
}

/// Everything that was measured for one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The rig.
    pub rig: RigId,
    /// When.
    pub at: UnixMillis,
    /// Id of the model by governance.
    pub model: String,
    /// First model of `GET /v1/models`; `None` when it was not read.
    pub listed: Option<String>,
    /// One real token.
    pub forward: Forward,
    /// The Network Node's address for artifacts.
    pub callback: Reach,
    /// Clock of the Network Node less the rig's (ours, where the rig does not tell its own), in milliseconds; `None` when it
    /// was not read.
    pub skew: Option<i64>,
    /// Newest measured rate.
    pub rate: Option<ProofRate>,
    /// Its usual level (the median of former measurements), in thousandths of a nonce per minute.
    pub usual_rate: Option<u64>,
    /// What proving takes beyond what the rig draws now.
    pub draws_more: Watts,
    /// Circuits above the rig.
    pub feeders: Vec<FeederRoom>,
    /// `pow/status`.
    pub pow: PowStatus,
    /// A confirmation PoC is under way: then generating is right.
    pub is_confirming: bool,
    /// Start of the PoC the list is for.
    pub poc_start: Height,
}

/// A point of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The model answers.
    Forward,
    /// Under exactly the right name.
    Model,
    /// Artifacts will get through.
    Callback,
    /// Clocks agree.
    Clock,
    /// It proves as fast as usual.
    Rate,
    /// The circuits bear it.
    Power,
    /// No old generation stands in the way.
    Status,
}

impl Check {
    /// The word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Forward => "forward pass",
            Self::Model => "model id",
            Self::Callback => "callback",
            Self::Clock => "clock",
            Self::Rate => "nonces/min",
            Self::Power => "power",
            Self::Status => "pow status",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// How a point stands; ordered, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Ready,
    /// It may go well, or nobody knows.
    Doubtful,
    /// The PoC will be lost, in whole or in part, if this stays.
    NotReady,
}

impl Grade {
    /// The word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Doubtful => "doubtful",
            Self::NotReady => "not ready",
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One point with its finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Which.
    pub check: Check,
    /// How it stands.
    pub grade: Grade,
    /// What was measured.
    pub finding: String,
    /// What to do; `None` when nothing is to be done.
    pub advice: Option<String>,
}

/// The list of one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The rig.
    pub rig: RigId,
    /// When it was gone through.
    pub at: UnixMillis,
    /// For the PoC that starts here.
    pub poc_start: Height,
    /// All points, always all of them.
    pub points: Vec<Point>,
}

impl Preflight {
    /// The worst grade.
    #[must_use]
    pub fn grade(&self) -> Grade {
        self.points.iter().map(|point| point.grade).max().unwrap_or(Grade::Doubtful)
    }
}

/// When the list is due next for a PoC that starts at `poc_start`, and was last gone through at `last` (for that PoC).
/// `None` when the last of [`PREFLIGHT_LEADS`] has been used or the start has come.
#[must_use]
pub fn preflight_due(
    poc_start: Estimate,
    last: Option<UnixMillis>,
    now: UnixMillis,
) -> Option<UnixMillis> {
    let start = poc_start.earliest();
    if now >= start {
        return None;
    }
    let moments = PREFLIGHT_LEADS.map(|lead| start - lead);
    // As a start comes nearer its estimate moves: one that was made a little early for it was made.
    let used =
        |moment: &UnixMillis| last.is_some_and(|last| last + Millis::from_mins(2) >= *moment);
    moments.into_iter().find(|moment| !used(moment)).map(|moment| moment.max(now))
}

/// Grades every point.
#[must_use]
pub fn preflight(measured: &Measured) -> Preflight {
    let points = vec![
        forward(measured),
        model(measured),
        callback(measured),
        clock(measured),
        rate(measured),
        power(measured),
        status(measured),
    ];
    let (rig, at, poc_start) = (measured.rig.clone(), measured.at, measured.poc_start);
    Preflight { rig, at, poc_start, points }
}

fn ready(check: Check, finding: String) -> Point {
    Point { check, grade: Grade::Ready, finding, advice: None }
}

fn point(check: Check, grade: Grade, finding: impl Into<String>, advice: &str) -> Point {
    Point { check, grade, finding: finding.into(), advice: Some(advice.into()) }
}

fn forward(measured: &Measured) -> Point {
    let check = Check::Forward;
    match &measured.forward {
        Forward::Answered { took, .. } if *took <= FORWARD_FINE => {
            ready(check, format!("one token in {} ms", took.0))
        }
        Forward::Answered { took, .. } => point(
            check,
            Grade::Doubtful,
            format!("one token in {} ms", took.0),
            "slow for one token: look at the rig's load, heat and memory",
        ),
        Forward::Failed { why } => point(
            check,
            Grade::NotReady,
            why.clone(),
            "load the model now: the Network Node asks for it before it starts the proof, and loading takes minutes",
        ),
        Forward::Untried { why } => {
            point(check, Grade::Doubtful, why.clone(), "ask the rig for one token by hand")
        }
    }
}

fn model(measured: &Measured) -> Point {
    let check = Check::Model;
    let answered = match &measured.forward {
        Forward::Answered { model, .. } => Some(model),
        Forward::Failed { .. } | Forward::Untried { .. } => None,
    };
    let advice = "the Network Node compares ids letter by letter and restarts the engine when they differ: serve it \
                  under the governance id";
    let named = measured.listed.as_ref().or(answered);
    match named {
        Some(named) if *named == measured.model => ready(check, named.clone()),
        Some(named) => {
            let finding = format!("{named} instead of {}", measured.model);
            point(check, Grade::NotReady, finding, advice)
        }
        None => point(check, Grade::Doubtful, "not read", "ask the rig for GET /v1/models"),
    }
}

fn callback(measured: &Measured) -> Point {
    let check = Check::Callback;
    match &measured.callback {
        Reach::Answered { took } => ready(check, format!("answers in {} ms", took.0)),
        Reach::Failed { why } => point(
            check,
            Grade::NotReady,
            why.clone(),
            "artifacts would wait and be lost at the end of the stage: check the Network Node's callback port and the way \
             to it",
        ),
        Reach::NoAddress => point(
            check,
            Grade::Doubtful,
            "no address is known",
            "set the callback address in the site file, so that it can be tried beforehand",
        ),
    }
}

fn clock(measured: &Measured) -> Point {
    let check = Check::Clock;
    let Some(skew) = measured.skew else {
        return point(check, Grade::Doubtful, "not read", "compare the clocks by hand");
    };
    let size = Millis(skew.unsigned_abs());
    let finding = format!(
        "the Network Node's is {} ms {}",
        size.0,
        if skew < 0 { "behind" } else { "ahead" }
    );
    let advice = "let one time server set both clocks (chrony, systemd-timesyncd)";
    if size <= SKEW_FINE {
        ready(check, finding)
    } else if size < SKEW_BAD {
        point(check, Grade::Doubtful, finding, advice)
    } else {
        point(check, Grade::NotReady, finding, advice)
    }
}

fn rate(measured: &Measured) -> Point {
    let check = Check::Rate;
    let word = |millis: u64| format!("{}.{}", millis / 1_000, millis % 1_000 / 100);
    let rate = measured.rate.as_ref().filter(|rate| rate.model == measured.model);
    let Some(rate) = rate else {
        return point(
            check,
            Grade::Doubtful,
            "never measured with this model",
            "roadbed-agent bench-poc, well before the PoC",
        );
    };
    let now = rate.millinonces_per_minute;
    if now == 0 {
        return point(
            check,
            Grade::NotReady,
            "0 nonces/min",
            "look at the engine's log: it proves nothing",
        );
    }
    let Some(usual) = measured.usual_rate.filter(|usual| *usual > 0) else {
        return point(
            check,
            Grade::Doubtful,
            format!("{}, measured once", word(now)),
            "there is nothing to hold it against yet",
        );
    };
    let share = u128::from(now) * 1_000 / u128::from(usual);
    let finding = format!("{} of usually {}", word(now), word(usual));
    let advice = "look for throttling, another job on the cards, or another driver";
    if share < RATE_BAD_PERMILLE {
        point(check, Grade::NotReady, finding, advice)
    } else if share < RATE_FINE_PERMILLE {
        point(check, Grade::Doubtful, finding, advice)
    } else if measured.at.since(rate.measured_at) > RATE_AGE_MAX {
        point(check, Grade::Doubtful, format!("{finding}, measured long ago"), "measure it again")
    } else {
        ready(check, finding)
    }
}

fn power(measured: &Measured) -> Point {
    let check = Check::Power;
    let after = |room: &FeederRoom| room.load + measured.draws_more;
    let tightest = measured
        .feeders
        .iter()
        .min_by_key(|room| i128::from(room.limit.0) - i128::from(after(room).0));
    let Some(room) = tightest else {
        return point(
            check,
            Grade::Doubtful,
            "no circuit above the rig is known",
            "see the site file",
        );
    };
    let (load, limit) = (after(room), room.limit);
    let finding = format!("{load} of {limit} on {}", room.feeder);
    let spare = limit.saturating_sub(load);
    if load > limit {
        point(
            check,
            Grade::NotReady,
            finding,
            "step flexible rigs under it down before the start: the guard would shed this one",
        )
    } else if spare.0 < limit.0 / 1_000 * HEADROOM_PERMILLE {
        point(check, Grade::Doubtful, finding, "little is left for anything else that starts then")
    } else {
        ready(check, finding)
    }
}

fn status(measured: &Measured) -> Point {
    let check = Check::Status;
    match &measured.pow {
        PowStatus::Idle => ready(check, "IDLE".into()),
        PowStatus::Validating => ready(check, "VALIDATING".into()),
        PowStatus::Generating(block) if *block >= measured.poc_start => {
            ready(check, format!("GENERATING from block {block}"))
        }
        PowStatus::Generating(block) if measured.is_confirming => point(
            check,
            Grade::Doubtful,
            format!("GENERATING from block {block} for a confirmation PoC"),
            "let it finish; the Network Node ends it",
        ),
        PowStatus::Generating(block) => point(
            check,
            Grade::NotReady,
            format!("still GENERATING from block {block}"),
            "end this old generation (POST pow/stop): the Network Node skips the start while it reads GENERATING",
        ),
        PowStatus::Unread { why } => point(
            check,
            Grade::Doubtful,
            why.clone(),
            "read GET /api/v1/inference/pow/status by hand",
        ),
    }
}

#[cfg(test)]
mod tests;
