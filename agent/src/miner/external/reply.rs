//! From a miner's answers to figures, by the rules of its profile.
//!
//! What a miner says is a claim of a stranger's program: a figure that is no number, below zero, or more than any machine
//! does counts as not said.

use roadbed_protocol::HashesPerSecond;
use serde_json::Value;

use crate::config::miner_profile::{MATCHES_MAX, MinerProfile, Rule};

/// More than any GPU rig hashes with any algorithm: an exahash.
const RATE_MAX: f64 = 1e18;
/// More than any miner counts; whole numbers are exact below it.
const COUNT_MAX: f64 = 9e15;
/// Longest version shown.
const VERSION_CHARS_MAX: usize = 40;

/// What a miner says of itself at one look; what it does not say is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Of all GPUs.
    pub hashrate: Option<HashesPerSecond>,
    /// Shares since its start.
    pub accepted: Option<u64>,
    /// Refused ones.
    pub rejected: Option<u64>,
    /// Late ones.
    pub stale: Option<u64>,
    /// Since its start.
    pub uptime_seconds: Option<u64>,
    /// Each GPU.
    pub gpus: Vec<GpuFigures>,
    /// Its version.
    pub version: Option<String>,
}

/// One GPU, by a miner's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuFigures {
    /// Its rate.
    pub hashrate: Option<HashesPerSecond>,
    /// Its power.
    pub watts: Option<u64>,
    /// Its temperature.
    pub celsius: Option<u64>,
}

impl Figures {
    /// Reads the answers of one look: an object with one member for each question.
    #[must_use]
    pub fn read(profile: &MinerProfile, answers: &Value) -> Self {
        let read = &profile.read;
        let sum = |rule: &Rule, most| total(rule, answers, most);
        let some = |rule: &Option<Rule>| rule.as_ref().and_then(|rule| sum(rule, COUNT_MAX));
        let each = |rule: &Option<Rule>, most| {
            rule.as_ref().map(|rule| list(rule, answers, most)).unwrap_or_default()
        };
        let (rates, watts, heats) = (
            each(&read.gpu_hashrates, RATE_MAX),
            each(&read.gpu_watts, COUNT_MAX),
            each(&read.gpu_celsius, COUNT_MAX),
        );
        let count = rates.len().max(watts.len()).max(heats.len());
        let at = |figures: &[Option<u64>], gpu: usize| figures.get(gpu).copied().flatten();
        let gpu = |gpu| GpuFigures {
            hashrate: at(&rates, gpu).map(HashesPerSecond),
            watts: at(&watts, gpu),
            celsius: at(&heats, gpu),
        };
        let version = profile.api.version.as_ref().and_then(|place| {
            let found = place.find(answers).first().copied()?;
            Some(
                found
                    .as_str()?
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(VERSION_CHARS_MAX)
                    .collect(),
            )
        });
        Self {
            hashrate: sum(&read.hashrate, RATE_MAX).map(HashesPerSecond),
            accepted: sum(&read.accepted, COUNT_MAX),
            rejected: some(&read.rejected),
            stale: some(&read.stale),
            uptime_seconds: some(&read.uptime_seconds),
            gpus: (0..count).map(gpu).collect(),
            version,
        }
    }
}

/// The sum of what a rule finds; nothing when it finds no number.
fn total(rule: &Rule, answers: &Value, most: f64) -> Option<u64> {
    let factor = factor(rule, answers)?;
    let mut sum = None;
    for number in found(rule, answers).filter_map(number) {
        sum = Some(sum.unwrap_or(0.0) + number);
    }
    whole(sum? * factor, most)
}

/// What a rule finds, one by one.
fn list(rule: &Rule, answers: &Value, most: f64) -> Vec<Option<u64>> {
    let Some(factor) = factor(rule, answers) else { return Vec::new() };
    found(rule, answers).map(|value| whole(number(value)? * factor, most)).collect()
}

fn found<'v>(rule: &'v Rule, answers: &'v Value) -> impl Iterator<Item = &'v Value> {
    rule.at.iter().flat_map(|place| place.find(answers)).take(MATCHES_MAX)
}

fn factor(rule: &Rule, answers: &Value) -> Option<f64> {
    let times = rule.times as f64;
    match &rule.times_at {
        None => Some(times),
        Some(place) => Some(times * number(place.find(answers).first()?)?),
    }
}

/// A number, or a text that is one: several miners write `"98.7"`.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) if text.len() <= 32 => text.trim().parse().ok()?,
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return None;
        }
    };
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn whole(number: f64, most: f64) -> Option<u64> {
    (number.is_finite() && (0.0..=most).contains(&number)).then(|| number.round() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::miner_profiles;

    fn profile(name: &str) -> MinerProfile {
        miner_profiles(None).unwrap().into_iter().find(|profile| profile.name == name).unwrap()
    }

    #[test]
    fn what_is_no_figure_is_not_said() {
        let t_rex = profile("t-rex");
        let read =
            |rate: Value| Figures::read(&t_rex, &json!({"summary": {"hashrate": rate}})).hashrate;
        assert_eq!(read(json!(91_189_394.4)), Some(HashesPerSecond(91_189_394)));
        assert_eq!(read(json!("12")), Some(HashesPerSecond(12)));
        for nonsense in [
            json!(null),
            json!(-1),
            json!("fast"),
            json!("NaN"),
            json!("inf"),
            json!(1e300),
            json!([1]),
            json!({}),
        ] {
            assert_eq!(read(nonsense.clone()), None, "{nonsense}");
        }
        assert_eq!(Figures::read(&t_rex, &json!([])), Figures::default());
        // Without its unit a number is none.
        let lol = json!({"summary": {"Algorithms": [{"Total_Performance": 31.5}]}});
        assert_eq!(Figures::read(&profile("lolminer"), &lol).hashrate, None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let keys = "hashrate|gpus|power|total|0|SUMMARY|MHS 30s|Algorithms|pools|devices|shares|accepted|version";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((keys, inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_answer_panics_or_grows(summary in any_json(), other in any_json()) {
            let answers = json!({"summary": summary, "status": other.clone(), "devs": other});
            for profile in miner_profiles(None).unwrap() {
                let figures = Figures::read(&profile, &answers);
                prop_assert!(figures.gpus.len() <= MATCHES_MAX);
                prop_assert!(figures.hashrate.is_none_or(|rate| rate.0 as f64 <= RATE_MAX));
            }
        }
    }
}
