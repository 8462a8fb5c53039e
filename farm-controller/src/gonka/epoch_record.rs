//! What was seen of one epoch while it went by: the ground of its post-mortem, kept because nobody can ask for it later.
//!
//! Written once at the first look, added to through the generate stage, and completed by what the chain tells afterwards.
//! The store holds the newest few, in a ring of keys.

use std::collections::BTreeMap;

use farm_core::gonka::{
    Cause, Culprit, Decimal, HostStory, PostMortem, RigStory, Stretch, post_mortem,
};
use roadbed_protocol::{JobCounters, Millis, RigId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::control::Answer;

/// Epochs kept: two weeks of mainnet's.
pub const RECORDS_MAX: u64 = 16;
/// Stretches kept of one rig and epoch: a generate stage lasts minutes, and equal neighbours are one.
const STRETCHES_MAX: usize = 256;
/// How the keys in the store begin.
const KEY: &str = "epoch-record-";

/// One epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Which.
    pub epoch_index: u64,
    /// First moment of the generate stage.
    pub from: UnixMillis,
    /// Its end.
    pub until: UnixMillis,
    /// The rigs something was expected of.
    pub rigs: BTreeMap<RigId, RigRecord>,
    /// Weight the epoch began with.
    pub entered: Option<u64>,
    /// Share of it that was confirmed, in thousandths.
    pub confirmed_permille: Option<u32>,
    /// Weight that was rewarded.
    pub rewarded: Option<u64>,
    /// What the chain says of requests missed or answered wrongly.
    pub misses: Option<String>,
    /// The post-mortem has been told.
    pub told: bool,
}

/// One rig in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RigRecord {
    /// Weight expected: rate by length of the stage by coefficient.
    pub expected: u64,
    /// Weight the chain took.
    pub proved: Option<u64>,
    /// Digits and exponent of the coefficient the expectation took.
    pub coefficient: (i64, i32),
    /// And of the one the chain counted with.
    pub coefficient_counted: Option<(i64, i32)>,
    /// The rate the expectation took, in thousandths of a nonce per minute.
    pub usual_rate: u64,
    /// When it did not prove.
    pub stretches: Vec<StretchRecord>,
    /// Artifacts computed and delivered before the stage, by the agent's counters.
    pub before: (u64, u64),
    /// And at the last look.
    pub after: (u64, u64),
    /// What became of the rest, before the stage; nothing in records of versions whose agents did not count it.
    #[serde(default)]
    pub lost_before: LostRecord,
    /// And at the last look.
    #[serde(default)]
    pub lost_after: LostRecord,
}

/// What an agent counts of artifacts that did not arrive, and of nonces that gave none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LostRecord {
    /// Payloads refused with a 4xx.
    pub payloads_refused: u64,
    /// Artifacts set aside because of that.
    pub refused: u64,
    /// Artifacts that fell out of a full buffer.
    pub dropped: u64,
    /// Artifacts that waited when their round was stopped.
    pub discarded: u64,
    /// Nonces that gave no number.
    pub not_a_number: u64,
}

impl LostRecord {
    /// The part of a rig's counters.
    #[must_use]
    pub const fn of(jobs: &JobCounters) -> Self {
        Self {
            payloads_refused: jobs.callbacks_refused,
            refused: jobs.artifacts_refused,
            dropped: jobs.artifacts_dropped,
            discarded: jobs.artifacts_discarded,
            not_a_number: jobs.nonces_nan,
        }
    }

    /// What came since `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            payloads_refused: risen(self.payloads_refused, earlier.payloads_refused),
            refused: risen(self.refused, earlier.refused),
            dropped: risen(self.dropped, earlier.dropped),
            discarded: risen(self.discarded, earlier.discarded),
            not_a_number: risen(self.not_a_number, earlier.not_a_number),
        }
    }
}

/// By how much a counter rose; one that fell began anew.
fn risen(after: u64, before: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}

/// A stretch in which it did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StretchRecord {
    /// Why.
    pub hindrance: Hindrance,
    /// From.
    pub from: UnixMillis,
    /// Until.
    pub until: UnixMillis,
    /// What shows it.
    pub line: String,
}

/// What kept a rig from proving, as far as the controller can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hindrance {
    /// A curtailment.
    Curtailed,
    /// An operator's hold.
    Held,
    /// The Network Node had not asked for nonces.
    NotStarted,
    /// It was away or broken.
    Offline,
    /// Its model was not up.
    NotLoaded,
}

impl Hindrance {
    const fn cause(self) -> Cause {
        match self {
            Self::Curtailed => Cause::Curtailed,
            Self::Held => Cause::Held,
            Self::NotStarted => Cause::LateStart,
            Self::Offline => Cause::Offline,
            Self::NotLoaded => Cause::NotLoaded,
        }
    }
}

impl RigRecord {
    /// Notes what was seen for `from..until`; a stretch that goes on is made longer.
    pub fn hindered(
        &mut self,
        hindrance: Hindrance,
        from: UnixMillis,
        until: UnixMillis,
        line: String,
    ) {
        let is_full = self.stretches.len() >= STRETCHES_MAX;
        let same = |last: &&mut StretchRecord| {
            last.hindrance == hindrance && last.until == from && last.line == line
        };
        if let Some(last) = self.stretches.last_mut().filter(same) {
            last.until = until;
        } else if !is_full {
            self.stretches.push(StretchRecord { hindrance, from, until, line });
        }
    }

    /// Artifacts delivered in the stage.
    pub(super) fn delivered(&self) -> u64 {
        risen(self.after.1, self.before.1)
    }

    fn story(&self, rig: &RigId, record: &EpochRecord) -> RigStory {
        let decimal = |(value, exponent): (i64, i32)| Decimal::new(value, exponent);
        let computed = risen(self.after.0, self.before.0);
        let delivered = self.delivered().min(computed);
        let stage = record.until.since(record.from);
        let idle = self.stretches.iter().map(|stretch| stretch.until.since(stretch.from).0);
        let worked = Millis(stage.0.saturating_sub(idle.fold(0, u64::saturating_add)));
        let rate = (worked > Millis::ZERO && computed > 0).then(|| {
            let rate = u128::from(computed) * 60_000_000 / u128::from(worked.0);
            (u64::try_from(rate).unwrap_or(u64::MAX), self.usual_rate)
        });
        let missing = computed - delivered;
        let lost = self.lost_after.since(&self.lost_before);
        // One that was refused and taken in a later try is no loss.
        let refused = lost.refused.min(missing);
        let late = missing - refused;
        RigStory {
            rig: rig.clone(),
            expected: self.expected,
            proved: self.proved.unwrap_or_default(),
            from: record.from,
            until: record.until,
            stretches: self
                .stretches
                .iter()
                .map(|stretch| Stretch {
                    cause: stretch.hindrance.cause(),
                    from: stretch.from,
                    until: stretch.until,
                    line: format!(
                        "{} s from {} UTC: {}",
                        stretch.until.since(stretch.from).0 / 1_000,
                        stretch.from,
                        stretch.line
                    ),
                })
                .collect(),
            coefficient: decimal(self.coefficient_counted.unwrap_or(self.coefficient)),
            coefficient_expected: decimal(self.coefficient),
            rate,
            refused: (
                refused,
                format!(
                    "{} payloads answered with a 4xx, by the agent's count",
                    lost.payloads_refused
                ),
            ),
            undelivered: (
                late,
                format!(
                    "{computed} computed, {delivered} delivered by the agent's count; {} fell out of a full buffer, {} \
                     waited when the round was stopped",
                    lost.dropped, lost.discarded
                ),
            ),
            not_a_number: lost.not_a_number,
        }
    }
}

impl EpochRecord {
    /// The account, as far as the epoch is known. `None` when no weights were told.
    #[must_use]
    pub fn post_mortem(&self) -> Option<PostMortem> {
        self.entered?;
        let rigs: Vec<RigStory> =
            self.rigs.iter().map(|(rig, record)| record.story(rig, self)).collect();
        let confirmed = self.entered.zip(self.confirmed_permille).map(|(weight, share)| {
            let part = u128::from(weight) * u128::from(share) / 1_000;
            u64::try_from(part).unwrap_or(weight)
        });
        let host = HostStory {
            entered: self.entered,
            confirmed,
            rewarded: self.rewarded,
            confirmation_evidence: Vec::new(),
            forfeit_evidence: self
                .misses
                .iter()
                .filter(|_| self.rewarded == Some(0))
                .map(|line| (Culprit::Unexplained, line.clone()))
                .collect(),
        };
        Some(post_mortem(self.epoch_index, &rigs, &host))
    }

    /// Its key in the store.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{KEY}{:02}", self.epoch_index % RECORDS_MAX)
    }

    /// The records among what was kept, by epoch; what cannot be read is left out.
    #[must_use]
    pub fn among(kept: &[Answer]) -> BTreeMap<u64, Self> {
        kept.iter()
            .filter(|answer| answer.key.starts_with(KEY))
            .filter_map(|answer| serde_json::from_str::<Self>(&answer.body).ok())
            .map(|record| (record.epoch_index, record))
            .collect()
    }
}

/// The account as lines for people.
#[must_use]
pub fn lines(account: &PostMortem) -> Vec<String> {
    let PostMortem { epoch_index, expected, earned, gained, .. } = account;
    let state = if account.is_final { "" } else { " (what is rewarded is not known yet)" };
    let mut lines =
        vec![format!("epoch {epoch_index}: weight {expected} expected, {earned} earned{state}")];
    if *gained > 0 {
        lines.push(format!("  +{gained} more than expected"));
    }
    for loss in &account.losses {
        let who = loss.rig.as_ref().map_or("the host".into(), ToString::to_string);
        lines.push(format!("  -{} {who}: {} ({})", loss.weight, loss.cause, loss.culprit));
        lines.extend(loss.evidence.iter().map(|line| format!("      {line}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> EpochRecord {
        let rig = RigRecord {
            expected: 1_000,
            proved: Some(400),
            coefficient: (5, -1),
            coefficient_counted: Some((50, -2)),
            usual_rate: 400_000,
            stretches: Vec::new(),
            before: (100, 100),
            after: (1_100, 900),
            lost_before: LostRecord::default(),
            lost_after: LostRecord {
                payloads_refused: 3,
                refused: 60,
                dropped: 0,
                discarded: 140,
                not_a_number: 20,
            },
        };
        EpochRecord {
            epoch_index: 410,
            from: UnixMillis(0),
            until: UnixMillis(300_000),
            rigs: [(RigId::new("gpu-1").unwrap(), rig)].into(),
            entered: Some(400),
            confirmed_permille: Some(1_000),
            rewarded: Some(400),
            misses: None,
            told: false,
        }
    }

    #[test]
    fn what_was_seen_becomes_an_account_that_adds_up() {
        let mut record = record();
        let rig = record.rigs.values_mut().next().unwrap();
        for second in 0..60 {
            let at = |second: i64| UnixMillis(second * 1_000);
            rig.hindered(Hindrance::Offline, at(second), at(second + 1), "faulted".into());
        }
        assert_eq!(rig.stretches.len(), 1);
        let account = record.post_mortem().unwrap();
        assert_eq!(account.expected - account.lost(), account.earned);
        let expected = [
            "epoch 410: weight 1000 expected, 400 earned",
            "  -200 gpu-1: rig off line (rig)",
            "      60 s from 00:00 UTC: faulted",
            "  -30 gpu-1: artifacts refused (Network Node)",
            "      60 artifacts: 3 payloads answered with a 4xx, by the agent's count",
            "  -70 gpu-1: artifacts not delivered (network)",
            "      140 artifacts: 1000 computed, 800 delivered by the agent's count; 0 fell out of a full buffer, 140 waited when the round was stopped",
            "  -10 gpu-1: nonces without a number (rig)",
            "      20 nonces gave no number",
            "  -290 gpu-1: slower than usual (rig)",
            "      250.0 nonces/min, usually 400.0",
        ];
        assert_eq!(lines(&account), expected);
    }

    #[test]
    fn a_record_survives_the_store_and_bad_ones_are_left_out() {
        let record = record();
        let answer = |key: &str, body: String| Answer { key: key.into(), at: UnixMillis(0), body };
        let kept = [
            answer(&record.key(), serde_json::to_string(&record).unwrap()),
            answer("epoch-record-03", "{".into()),
            answer("epoch", "{}".into()),
        ];
        assert_eq!(EpochRecord::among(&kept), [(410, record.clone())].into());
        let unknown = EpochRecord { entered: None, ..record };
        assert_eq!(unknown.post_mortem(), None);
    }
}
