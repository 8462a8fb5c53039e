//! A policy file: the operator's intent, and how patient the controller is with the farm.

use farm_core::farm::FarmTiming;
use farm_core::policy::{CurtailWindow, PolicyRules, PriceLimit, WithoutPrice};
use roadbed_protocol::{FeederId, MicrosPerMwh, Millis, RigKind, Watts, Workload, WorkloadKind};
use serde::Deserialize;

use super::decimal::Decimal;
use super::error::{ConfigError, Problem};
use super::moment::DayTime;
use super::source::{FieldPath, Source};

/// Slots a plan may look ahead: a week of quarter-hours.
const HORIZON_SLOTS_MAX: u64 = 672;

/// A policy that holds together by itself; names of feeders are checked against a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Rules without the curtail windows, which need a site's clock.
    rules: PolicyRules,
    windows: Vec<WindowFile>,
    /// Spans the farm machine works with.
    pub timing: FarmTiming,
    /// How long open jobs may finish.
    pub drain: Millis,
    /// Where an ASIC goes without a lease.
    pub fallback_asic: Workload,
    /// Where a GPU rig goes without a lease.
    pub fallback_gpu: Workload,
}

impl Policy {
    /// Reads and checks a policy file.
    ///
    /// # Errors
    /// [`ConfigError`] with every broken rule.
    pub fn load(source: &Source) -> Result<Self, ConfigError> {
        let file: PolicyFile = source.parse()?;
        let problems = file.problems(source);
        if problems.is_empty() { Ok(file.into_policy()) } else { Err(source.invalid(problems)) }
    }

    /// Where a rig of `kind` goes without a lease.
    #[must_use]
    pub fn fallback(&self, kind: RigKind) -> &Workload {
        match kind {
            RigKind::Asic => &self.fallback_asic,
            RigKind::Gpu => &self.fallback_gpu,
        }
    }

    /// The rules at a site whose clock is `offset_minutes` ahead of UTC.
    #[must_use]
    pub fn rules(&self, offset_minutes: i16) -> PolicyRules {
        let windows = self.windows.iter().map(|window| CurtailWindow {
            name: window.name.clone(),
            from_minute: window.from.utc_minute(offset_minutes),
            until_minute: window.until.utc_minute(offset_minutes),
            feeder: window.feeder.clone(),
            limit: Watts(window.limit_watts),
        });
        PolicyRules { curtail_windows: windows.collect(), ..self.rules.clone() }
    }

    /// Complaints about feeders that the site does not have.
    #[must_use]
    pub fn unknown_feeders(&self, source: &Source, known: &[FeederId]) -> Vec<Problem> {
        let path = FieldPath::of("curtail_windows");
        let names: Vec<_> = known.iter().map(FeederId::as_str).collect();
        self.windows
            .iter()
            .enumerate()
            .filter(|(_, window)| !known.contains(&window.feeder))
            .map(|(index, window)| {
                let text = format!(
                    "unknown feeder \"{}\"; expected one of: {}",
                    window.feeder,
                    names.join(", ")
                );
                source.problem(&path.at(index).key("feeder"), text)
            })
            .collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolicyFile {
    hysteresis_percent: u32,
    min_dwell_minutes: u64,
    price_limits: Vec<PriceLimitFile>,
    curtail_windows: Vec<WindowFile>,
    curtailment_breaks_poc: bool,
    keep_losing_commitments: bool,
    without_price: WithoutPriceWord,
    price_hold_minutes: u64,
    overload_grace_seconds: u64,
    slot_minutes: u64,
    horizon_hours: u64,
    lease_minutes: u64,
    report_stale_minutes: u64,
    resend_seconds: u64,
    stagger_seconds: u64,
    starts_per_stagger: u32,
    journal_gap_minutes: u64,
    fault_alert_attempts: u32,
    drain_seconds: u64,
    fallback: FallbackFile,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceLimitFile {
    workload: WorkloadKind,
    price_per_mwh: Decimal,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowFile {
    name: String,
    from: DayTime,
    until: DayTime,
    feeder: FeederId,
    limit_watts: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct FallbackFile {
    asic: FallbackWord,
    gpu: FallbackWord,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FallbackWord {
    Curtailed,
    Idle,
    Mine,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WithoutPriceWord {
    Curtail,
    Keep,
}

impl FallbackWord {
    fn workload(self) -> Workload {
        match self {
            Self::Curtailed => Workload::Curtailed,
            Self::Idle => Workload::Idle,
            Self::Mine => Workload::Mine { power_target: None },
        }
    }
}

impl Default for PolicyFile {
    /// The defaults of the machines themselves, so that an empty file is the documented policy.
    fn default() -> Self {
        let (rules, timing) = (PolicyRules::default(), FarmTiming::default());
        let minutes = |span: Millis| span.0 / 60_000;
        let seconds = |span: Millis| span.0 / 1_000;
        Self {
            hysteresis_percent: rules.hysteresis_percent,
            min_dwell_minutes: minutes(rules.min_dwell),
            price_limits: Vec::new(),
            curtail_windows: Vec::new(),
            curtailment_breaks_poc: rules.curtailment_breaks_poc,
            keep_losing_commitments: rules.keep_losing_commitments,
            without_price: match rules.without_price {
                WithoutPrice::Curtail => WithoutPriceWord::Curtail,
                WithoutPrice::Keep => WithoutPriceWord::Keep,
            },
            price_hold_minutes: minutes(rules.price_hold),
            overload_grace_seconds: seconds(rules.overload_grace),
            slot_minutes: minutes(timing.slot),
            horizon_hours: minutes(timing.slot) * timing.horizon_slots as u64 / 60,
            lease_minutes: minutes(timing.lease),
            report_stale_minutes: minutes(timing.report_stale),
            resend_seconds: seconds(timing.resend),
            stagger_seconds: seconds(timing.stagger),
            starts_per_stagger: timing.starts_per_stagger,
            journal_gap_minutes: minutes(timing.journal_gap),
            fault_alert_attempts: timing.fault_alert_attempts,
            drain_seconds: 60,
            fallback: FallbackFile { asic: FallbackWord::Curtailed, gpu: FallbackWord::Idle },
        }
    }
}

impl PolicyFile {
    fn problems(&self, source: &Source) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut rule = |holds: bool, key: &'static str, text: String| {
            if !holds {
                problems.push(source.problem(&FieldPath::of(key), text));
            }
        };
        let slot = self.slot_minutes;
        rule(
            slot > 0 && 60 % slot == 0,
            "slot_minutes",
            format!("is {slot}; expected a divisor of 60, so that slots begin on the hour"),
        );
        let slots = self.horizon_hours.saturating_mul(60) / slot.max(1);
        rule(
            (1..=HORIZON_SLOTS_MAX).contains(&slots),
            "horizon_hours",
            format!("gives {slots} slots; expected 1 to {HORIZON_SLOTS_MAX}"),
        );
        rule(
            self.lease_minutes > 0,
            "lease_minutes",
            "is 0; expected at least 1, or no assignment would ever hold".into(),
        );
        rule(
            self.report_stale_minutes > 0,
            "report_stale_minutes",
            "is 0; expected at least 1, or every rig would be silent".into(),
        );
        rule(
            self.starts_per_stagger > 0,
            "starts_per_stagger",
            "is 0; expected at least 1, or no rig would ever start".into(),
        );
        rule(
            self.hysteresis_percent <= 1_000,
            "hysteresis_percent",
            format!("is {}; expected at most 1000", self.hysteresis_percent),
        );
        for (key, value, most) in self.spans() {
            rule(value <= most, key, format!("is {value}; expected at most {most}"));
        }
        let windows = FieldPath::of("curtail_windows");
        for (index, window) in self.curtail_windows.iter().enumerate() {
            let path = windows.at(index);
            if window.from == window.until {
                let text = format!("equals from ({}); expected another time of day", window.from);
                problems.push(source.problem(&path.key("until"), text));
            }
            if window.name.trim().is_empty() {
                problems.push(
                    source.problem(&path.key("name"), "is empty; expected a name for reasons"),
                );
            }
        }
        problems
    }

    /// Every span with its largest sensible value: two weeks, or a day for what is given in seconds.
    fn spans(&self) -> [(&'static str, u64, u64); 10] {
        const MINUTES: u64 = 20_160;
        const SECONDS: u64 = 86_400;
        [
            ("min_dwell_minutes", self.min_dwell_minutes, MINUTES),
            ("price_hold_minutes", self.price_hold_minutes, MINUTES),
            ("horizon_hours", self.horizon_hours, MINUTES / 60),
            ("lease_minutes", self.lease_minutes, MINUTES),
            ("report_stale_minutes", self.report_stale_minutes, MINUTES),
            ("journal_gap_minutes", self.journal_gap_minutes, MINUTES),
            ("overload_grace_seconds", self.overload_grace_seconds, SECONDS),
            ("resend_seconds", self.resend_seconds, SECONDS),
            ("stagger_seconds", self.stagger_seconds, SECONDS),
            ("drain_seconds", self.drain_seconds, SECONDS),
        ]
    }

    fn into_policy(self) -> Policy {
        let limits = self.price_limits.iter().map(|limit| PriceLimit {
            kind: limit.workload,
            price: MicrosPerMwh(limit.price_per_mwh.0),
        });
        let slots = self.horizon_hours * 60 / self.slot_minutes;
        Policy {
            rules: PolicyRules {
                hysteresis_percent: self.hysteresis_percent,
                min_dwell: Millis::from_mins(self.min_dwell_minutes),
                price_limits: limits.collect(),
                curtail_windows: Vec::new(),
                curtailment_breaks_poc: self.curtailment_breaks_poc,
                keep_losing_commitments: self.keep_losing_commitments,
                without_price: match self.without_price {
                    WithoutPriceWord::Curtail => WithoutPrice::Curtail,
                    WithoutPriceWord::Keep => WithoutPrice::Keep,
                },
                price_hold: Millis::from_mins(self.price_hold_minutes),
                overload_grace: Millis::from_secs(self.overload_grace_seconds),
            },
            windows: self.curtail_windows,
            timing: FarmTiming {
                slot: Millis::from_mins(self.slot_minutes),
                horizon_slots: usize::try_from(slots).unwrap_or(usize::MAX),
                lease: Millis::from_mins(self.lease_minutes),
                report_stale: Millis::from_mins(self.report_stale_minutes),
                resend: Millis::from_secs(self.resend_seconds),
                stagger: Millis::from_secs(self.stagger_seconds),
                starts_per_stagger: self.starts_per_stagger,
                journal_gap: Millis::from_mins(self.journal_gap_minutes),
                fault_alert_attempts: self.fault_alert_attempts,
            },
            drain: Millis::from_secs(self.drain_seconds),
            fallback_asic: self.fallback.asic.workload(),
            fallback_gpu: self.fallback.gpu.workload(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_policy_is_the_machines_own() {
        let policy = Policy::load(&Source::from_text("p.yaml", "{}")).unwrap();
        assert_eq!(policy.rules(0), PolicyRules::default());
        assert_eq!(policy.timing, FarmTiming::default());
    }

    #[test]
    fn windows_move_to_utc() {
        let text = "curtail_windows:\n  - {name: peak, from: \"17:00\", until: \"20:00\", feeder: site, limit_watts: 9000}\n";
        let policy = Policy::load(&Source::from_text("p.yaml", text)).unwrap();
        let window = &policy.rules(-300).curtail_windows[0];
        assert_eq!((window.from_minute, window.until_minute), (22 * 60, 60));
    }
}
