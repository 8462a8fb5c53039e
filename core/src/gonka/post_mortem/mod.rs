//! After an epoch: where the weight went that was expected and not earned, each part with whose it is and the evidence.
//!
//! Evidence claims weight in a fixed order, wills before faults and faults before slowness, and never more than was lost:
//! so the parts add up to the loss exactly, and what no evidence claims is called unexplained instead of being laid at the
//! nearest door. Time that two causes share is claimed once, by the first.

use std::fmt;

use roadbed_protocol::{Millis, RigId, UnixMillis};

use super::Decimal;

/// Whose a loss is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Culprit {
    /// The rig: hardware, engine, agent.
    Rig,
    /// The way between rig and Network Node.
    Network,
    /// The Network Node.
    NetworkNode,
    /// The chain's rules and its other hosts.
    Chain,
    /// Someone here decided so.
    Operator,
    /// Nobody knows.
    Unexplained,
}

impl Culprit {
    /// The word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rig => "rig",
            Self::Network => "network",
            Self::NetworkNode => "Network Node",
            Self::Chain => "chain",
            Self::Operator => "operator",
            Self::Unexplained => "unexplained",
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What took weight. The order is that of the claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A curtailment order or window.
    Curtailed,
    /// An operator held the rig elsewhere.
    Held,
    /// The Network Node asked for nonces late, or never.
    LateStart,
    /// The rig was off, silent, faulted or tripped.
    Offline,
    /// It was there, but its model was not.
    NotLoaded,
    /// The Network Node refused artifacts (4xx).
    Refused,
    /// Artifacts did not get through in time.
    Undelivered,
    /// Nonces dropped because the forward pass gave no number.
    NotANumber,
    /// Fewer nonces a minute than usual.
    Slow,
    /// The coefficient is not what the expectation took.
    Coefficient,
    /// Weight without collateral, or over the cap of a host.
    Unbacked,
    /// Confirmation PoCs bore out less.
    Unconfirmed,
    /// Given or taken for models not served.
    Delegation,
    /// The epoch's reward was refused: missed requests, invalid answers, a jail.
    Forfeited,
    /// Nothing was found.
    Unknown,
}

impl Cause {
    /// The words people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Curtailed => "curtailed",
            Self::Held => "held by an operator",
            Self::LateStart => "started late by the Network Node",
            Self::Offline => "rig off line",
            Self::NotLoaded => "model not loaded",
            Self::Refused => "artifacts refused",
            Self::Undelivered => "artifacts not delivered",
            Self::NotANumber => "nonces without a number",
            Self::Slow => "slower than usual",
            Self::Coefficient => "coefficient changed",
            Self::Unbacked => "not backed by collateral, or capped",
            Self::Unconfirmed => "not confirmed",
            Self::Delegation => "delegation and penalties for models not served",
            Self::Forfeited => "reward of the epoch refused",
            Self::Unknown => "no cause found",
        }
    }

    /// Whose it is, where the cause says so by itself.
    #[must_use]
    pub const fn culprit(self) -> Culprit {
        match self {
            Self::Curtailed | Self::Held | Self::Unbacked | Self::Delegation => Culprit::Operator,
            Self::LateStart | Self::Refused => Culprit::NetworkNode,
            Self::Undelivered => Culprit::Network,
            Self::Offline | Self::NotLoaded | Self::NotANumber | Self::Slow => Culprit::Rig,
            Self::Coefficient => Culprit::Chain,
            Self::Unconfirmed | Self::Forfeited | Self::Unknown => Culprit::Unexplained,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A stretch of time in which a rig did not prove, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Why.
    pub cause: Cause,
    /// From.
    pub from: UnixMillis,
    /// Until.
    pub until: UnixMillis,
    /// What shows it.
    pub line: String,
}

/// What is known of one rig's generate stage. A count that was not kept is zero: it then claims nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigStory {
    /// The rig.
    pub rig: RigId,
    /// Weight that was expected of it.
    pub expected: u64,
    /// Weight the chain took from it.
    pub proved: u64,
    /// The generate stage.
    pub from: UnixMillis,
    /// Its end.
    pub until: UnixMillis,
    /// When it did not prove.
    pub stretches: Vec<Stretch>,
    /// Weight of a nonce, as the chain counted.
    pub coefficient: Option<Decimal>,
    /// And as was expected.
    pub coefficient_expected: Option<Decimal>,
    /// Thousandths of a nonce per minute while it proved, and usually.
    pub rate: Option<(u64, u64)>,
    /// Artifacts refused by the Network Node, with what it said.
    pub refused: (u64, String),
    /// Artifacts computed and never delivered, with what went wrong.
    pub undelivered: (u64, String),
    /// Nonces dropped as NaN.
    pub not_a_number: u64,
}

/// What became of the host's weight after the PoC. `None`: not known, and then nothing is said of that step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostStory {
    /// Weight the epoch began with: what was proved, less what was not backed or was capped.
    pub entered: Option<u64>,
    /// Weight after confirmation PoCs.
    pub confirmed: Option<u64>,
    /// Weight that was rewarded.
    pub rewarded: Option<u64>,
    /// Whose the missing confirmations are, as far as that was seen, with what shows it.
    pub confirmation_evidence: Vec<(Culprit, String)>,
    /// Whose a refused reward is, likewise.
    pub forfeit_evidence: Vec<(Culprit, String)>,
}

/// One part of the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The rig; `None` for the host as a whole.
    pub rig: Option<RigId>,
    /// What took it.
    pub cause: Cause,
    /// Whose it is.
    pub culprit: Culprit,
    /// How much.
    pub weight: u64,
    /// What shows it.
    pub evidence: Vec<String>,
}

/// The account of one epoch: `expected + gained - all losses == earned`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostMortem {
    /// Which epoch.
    pub epoch_index: u64,
    /// Weight expected.
    pub expected: u64,
    /// Weight that counted in the end, as far as the chain has told.
    pub earned: u64,
    /// More than expected, where there was more.
    pub gained: u64,
    /// The parts, rigs first, none of them zero.
    pub losses: Vec<Loss>,
    /// True when the chain has told what was rewarded.
    pub is_final: bool,
}

impl PostMortem {
    /// All losses together.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses.iter().fold(0, |sum, loss| sum.saturating_add(loss.weight))
    }

    /// What one of the culprits has to answer for.
    #[must_use]
    pub fn lost_by(&self, culprit: Culprit) -> u64 {
        let of = self.losses.iter().filter(|loss| loss.culprit == culprit);
        of.fold(0, |sum, loss| sum.saturating_add(loss.weight))
    }
}

/// The account of an epoch.
#[must_use]
pub fn post_mortem(epoch_index: u64, rigs: &[RigStory], host: &HostStory) -> PostMortem {
    let (mut losses, mut gained) = (Vec::new(), 0_u64);
    let (mut expected, mut standing) = (0_u64, 0_u64);
    for rig in rigs {
        // Beyond what a u64 holds nothing is added, on either side of the account.
        let room = (u64::MAX - expected).min(u64::MAX - standing);
        let rig = RigStory {
            expected: rig.expected.min(room),
            proved: rig.proved.min(room),
            ..rig.clone()
        };
        expected += rig.expected;
        standing += rig.proved;
        gained = gained.saturating_add(rig.proved.saturating_sub(rig.expected));
        losses.extend(of_rig(&rig));
    }
    let steps = [
        (host.entered, Cause::Unbacked, &[][..]),
        (host.confirmed, Cause::Unconfirmed, &host.confirmation_evidence),
        (host.rewarded, settled(host), &host.forfeit_evidence),
    ];
    for (weight, cause, evidence) in steps {
        let Some(weight) = weight else { continue };
        if weight < standing {
            losses.push(of_host(cause, standing - weight, evidence));
        }
        gained = gained.saturating_add(weight.saturating_sub(standing));
        standing = weight;
    }
    let is_final = host.rewarded.is_some();
    PostMortem { epoch_index, expected, earned: standing, gained, losses, is_final }
}

/// A reward of nothing was refused; one that is only smaller was shared.
fn settled(host: &HostStory) -> Cause {
    if host.rewarded == Some(0) || !host.forfeit_evidence.is_empty() {
        Cause::Forfeited
    } else {
        Cause::Delegation
    }
}

fn of_host(cause: Cause, weight: u64, evidence: &[(Culprit, String)]) -> Loss {
    let culprit = evidence.first().map_or(cause.culprit(), |(culprit, _)| *culprit);
    let evidence = evidence.iter().map(|(_, line)| line.clone()).collect();
    Loss { rig: None, cause, culprit, weight, evidence }
}

fn of_rig(story: &RigStory) -> Vec<Loss> {
    let mut left = story.expected.saturating_sub(story.proved);
    let mut losses = Vec::new();
    let mut claim = |cause: Cause, weight: u64, evidence: Vec<String>| {
        let weight = weight.min(left);
        left -= weight;
        if weight > 0 {
            let (rig, culprit) = (Some(story.rig.clone()), cause.culprit());
            losses.push(Loss { rig, cause, culprit, weight, evidence });
        }
    };
    let (times, idle) = by_time(story);
    for (cause, span, evidence) in times {
        claim(cause, share(story.expected, span.0, story.length().0), evidence);
    }
    let nonces =
        |count: u64| story.coefficient.map_or(0, |coefficient| weight_of(coefficient, count));
    let (count, why) = &story.refused;
    claim(Cause::Refused, nonces(*count), vec![format!("{count} artifacts: {why}")]);
    let (count, why) = &story.undelivered;
    claim(Cause::Undelivered, nonces(*count), vec![format!("{count} artifacts: {why}")]);
    let count = story.not_a_number;
    claim(Cause::NotANumber, nonces(count), vec![format!("{count} nonces gave no number")]);
    if let Some((rate, usual)) = story.rate.filter(|(rate, usual)| rate < usual) {
        let worked = story.length().0.saturating_sub(idle.0);
        let at_work = share(story.expected, worked, story.length().0);
        let line = format!("{} nonces/min, usually {}", thousandths(rate), thousandths(usual));
        claim(Cause::Slow, share(at_work, usual - rate, usual), vec![line]);
    }
    if let Some((now, then)) = story.coefficient.zip(story.coefficient_expected) {
        // In units of the finer of the two, so that two spellings of one number are equal.
        let (fine, coarse) = (now.of(SCALE), then.of(SCALE));
        if fine < coarse && coarse > 0 {
            let lost = i128::from(story.expected).saturating_mul(coarse - fine.max(0)) / coarse;
            let line = format!("{now}, expected {then}");
            claim(Cause::Coefficient, u64::try_from(lost).unwrap_or(u64::MAX), vec![line]);
        }
    }
    claim(Cause::Unknown, u64::MAX, Vec::new());
    losses
}

/// Digits in which two coefficients are compared.
const SCALE: i128 = 1_000_000_000;

/// Time of the stage by cause, in the order of the causes, shared time with the first; and all of it together.
fn by_time(story: &RigStory) -> (Vec<(Cause, Millis, Vec<String>)>, Millis) {
    let clipped = |stretch: &Stretch| {
        let (from, until) = (stretch.from.max(story.from), stretch.until.min(story.until));
        (from < until).then_some((stretch.cause, from, until, stretch.line.clone()))
    };
    let mut stretches: Vec<_> = story.stretches.iter().filter_map(clipped).collect();
    stretches.sort_by_key(|(cause, from, until, _)| (*cause, *from, *until));
    let mut taken: Vec<(UnixMillis, UnixMillis)> = Vec::new();
    let mut times: Vec<(Cause, Millis, Vec<String>)> = Vec::new();
    let mut idle = Millis::ZERO;
    for (cause, from, until, line) in stretches {
        let before = length(&taken);
        taken.push((from, until));
        taken = merged(taken);
        let fresh = Millis(length(&taken).0.saturating_sub(before.0));
        idle = Millis(idle.0.saturating_add(fresh.0));
        match times.last_mut().filter(|(last, ..)| *last == cause) {
            Some((_, span, lines)) => {
                *span = Millis(span.0.saturating_add(fresh.0));
                lines.push(line);
            }
            None => times.push((cause, fresh, vec![line])),
        }
    }
    (times, idle)
}

fn merged(mut spans: Vec<(UnixMillis, UnixMillis)>) -> Vec<(UnixMillis, UnixMillis)> {
    spans.sort();
    let mut merged: Vec<(UnixMillis, UnixMillis)> = Vec::with_capacity(spans.len());
    for (from, until) in spans {
        match merged.last_mut().filter(|(_, end)| from <= *end) {
            Some((_, end)) => *end = until.max(*end),
            None => merged.push((from, until)),
        }
    }
    merged
}

fn length(spans: &[(UnixMillis, UnixMillis)]) -> Millis {
    let each = spans.iter().map(|(from, until)| until.since(*from).0);
    Millis(each.fold(0, u64::saturating_add))
}

impl RigStory {
    fn length(&self) -> Millis {
        self.until.since(self.from)
    }
}

/// `whole * part / of`, nothing where there is no whole.
fn share(whole: u64, part: u64, of: u64) -> u64 {
    let share = (u128::from(whole) * u128::from(part)).checked_div(u128::from(of)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}

fn weight_of(coefficient: Decimal, nonces: u64) -> u64 {
    u64::try_from(coefficient.of(i128::from(nonces)).max(0)).unwrap_or(u64::MAX)
}

fn thousandths(value: u64) -> String {
    format!("{}.{}", value / 1_000, value % 1_000 / 100)
}

#[cfg(test)]
mod tests;
