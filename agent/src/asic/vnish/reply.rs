//! What VNish replies mean. Pure: JSON in, our words out.

use roadbed_protocol::Watts;
use serde_json::Value;

use super::super::field;
use super::super::firmware::{Activity, FirmwareError, Identity, Reading, ShareTotals, Step};

/// Most presets of a miner kept; the recording has 26.
const STEPS_MAX: usize = 256;
/// Longest preset name kept; they are watts as text.
const NAME_CHARACTERS_MAX: usize = 64;

/// The unit of a miner's hashrates, in GH/s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit(f64);

impl Unit {
    /// GH/s: SHA-256 machines.
    pub const GIGA: Self = Self(1.0);
}

/// Who answers, from `info`.
pub fn identity(info: &Value) -> Result<Identity, FirmwareError> {
    let text = |name: &str| info.get(name).and_then(Value::as_str).map(field::excerpt);
    let name = text("fw_name").unwrap_or_default();
    if !name.to_ascii_lowercase().contains("vnish") {
        return Err(FirmwareError::Unsupported {
            what: "driving this miner as VNish".into(),
            why: format!("its firmware calls itself {name:?}"),
        });
    }
    Ok(Identity {
        firmware: format!("VNish {}", text("fw_version").unwrap_or_default()),
        model: text("miner").unwrap_or_else(|| "unknown model".into()),
    })
}

/// Unit of the hashrates, from `info`.
pub fn unit(info: &Value) -> Result<Unit, FirmwareError> {
    match info.get("hr_measure").and_then(Value::as_str) {
        Some("GH/s") | None => Ok(Unit::GIGA),
        Some("TH/s") => Ok(Unit(1e3)),
        Some("MH/s") => Ok(Unit(1e-3)),
        Some("kH/s" | "KH/s") => Ok(Unit(1e-6)),
        Some(other) => Err(FirmwareError::Garbled {
            what: "info".into(),
            why: format!("hashrate unit {:?} is not known", field::excerpt(other)),
        }),
    }
}

/// One look, from `summary`.
pub fn reading(summary: &Value, unit: Unit) -> Result<Reading, FirmwareError> {
    let Some(miner) = summary.get("miner").filter(|miner| miner.is_object()) else {
        return Err(FirmwareError::Garbled {
            what: "summary".into(),
            why: "no miner in it".into(),
        });
    };
    let at = |pointer: &str| miner.pointer(pointer);
    let scaled = |rate: f64| field::gigahash(&(rate * unit.0).into());
    Ok(Reading {
        watts: at("/power_consumption").or_else(|| at("/power_usage")).and_then(field::watts),
        hashrate: at("/hr_realtime").and_then(field::number).and_then(scaled),
        temperature: [at("/chip_temp/max"), at("/pcb_temp/max")]
            .into_iter()
            .flatten()
            .filter_map(field::celsius)
            .max(),
        activity: activity(at("/miner_status/miner_state").and_then(Value::as_str)),
        shares: at("/pools").and_then(Value::as_array).map(|pools| shares(pools)),
    })
}

fn activity(state: Option<&str>) -> Activity {
    match state {
        Some(
            "mining" | "auto-tuning" | "auto_tuning" | "initializing" | "starting" | "restarting",
        ) => Activity::Mining,
        Some("stopped" | "paused" | "idle" | "sleeping" | "sleep") => Activity::Sleeping,
        Some(_) | None => Activity::Unknown,
    }
}

/// Totals over the operator's pools; what the firmware mines for its maker is not the farm's work.
fn shares(pools: &[Value]) -> ShareTotals {
    let ours =
        pools.iter().filter(|pool| pool.get("pool_type").and_then(Value::as_str) != Some("DevFee"));
    let sum = |mut total: ShareTotals, pool: &Value| {
        let count = |name: &str| pool.get(name).and_then(field::count).unwrap_or(0);
        total.accepted = total.accepted.saturating_add(count("accepted"));
        total.rejected = total.rejected.saturating_add(count("rejected"));
        total.stale = total.stale.saturating_add(count("stale"));
        total
    };
    ours.fold(ShareTotals::default(), sum)
}

/// All presets, from `autotune/presets`: a list, or an object that holds it.
pub fn steps(value: &Value) -> Result<Vec<Step>, FirmwareError> {
    let list = value.as_array().or_else(|| value.get("presets").and_then(Value::as_array));
    let Some(list) = list else {
        return Err(FirmwareError::Garbled {
            what: "autotune/presets".into(),
            why: "no list in it".into(),
        });
    };
    Ok(list.iter().take(STEPS_MAX).filter_map(step).collect())
}

/// `{"name": "2800", "pretty": "2800 watt ~ 188 TH", "status": "tuned"}`; `disabled` is no number
/// and so no step.
fn step(preset: &Value) -> Option<Step> {
    let name = preset.get("name")?.as_str()?;
    if name.len() > NAME_CHARACTERS_MAX {
        return None;
    }
    let terahash = preset
        .get("pretty")
        .and_then(Value::as_str)
        .and_then(|pretty| pretty.split_once('~'))
        .and_then(|(_, rate)| rate.trim().strip_suffix("TH"))
        .and_then(|rate| rate.trim().parse::<f64>().ok());
    Some(Step {
        name: name.to_owned(),
        watts: name.trim().parse().ok().map(Watts)?,
        hashrate: terahash.and_then(|rate| field::gigahash(&(rate * 1e3).into())),
        usable: preset.get("status").and_then(Value::as_str) == Some("tuned")
            && preset.get("modded_psu_required") != Some(&Value::Bool(true)),
    })
}

/// Name of the preset in force, from `settings`.
pub fn preset(settings: &Value) -> Option<&str> {
    settings.pointer("/miner/overclock/preset").and_then(Value::as_str)
}

/// Whether the automatic preset switcher may go above preset `name`.
pub fn switcher_above(settings: &Value, name: &str) -> bool {
    let switcher = settings.pointer("/miner/overclock/preset_switcher");
    let enabled = switcher.and_then(|switcher| switcher.get("enabled")) == Some(&Value::Bool(true));
    let top = switcher
        .and_then(|switcher| switcher.get("top_preset"))
        .and_then(Value::as_str)
        .and_then(|top| top.trim().parse::<u64>().ok());
    enabled
        && match (top, name.trim().parse::<u64>()) {
            (Some(top), Ok(chosen)) => top > chosen,
            (None, _) | (_, Err(_)) => false,
        }
}

/// The miner's own overclock settings with preset `name`, and with `name` as the ceiling of the
/// preset switcher where that is on: it may cool the miner, not raise it above what it was told.
pub fn overclock_with(settings: &Value, name: &str) -> Result<Value, FirmwareError> {
    let mut overclock = settings
        .pointer("/miner/overclock")
        .filter(|overclock| overclock.is_object())
        .cloned()
        .ok_or_else(|| FirmwareError::Garbled {
            what: "settings".into(),
            why: "no miner.overclock in it".into(),
        })?;
    if switcher_above(settings, name)
        && let Some(top) = overclock.pointer_mut("/preset_switcher/top_preset")
    {
        *top = name.into();
    }
    overclock["preset"] = name.into();
    Ok(overclock)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::StatusCode;
    use roadbed_protocol::{HashesPerSecond, MilliCelsius};
    use serde_json::json;

    use super::super::wire::open;
    use super::*;
    use crate::asic::firmware::step_at_most;
    use crate::asic::recording::{mutated, recording};

    fn opened(path: &str) -> Value {
        open(path, StatusCode::OK, &recording(&format!("vnish/web/{path}.json"))).unwrap()
    }

    #[test]
    fn a_recorded_s21_pro_is_understood() {
        let info = opened("info");
        assert_eq!(identity(&info).unwrap().to_string(), "VNish 1.2.7 on Antminer S21 Pro");
        assert_eq!(
            reading(&opened("summary"), unit(&info).unwrap()).unwrap(),
            Reading {
                watts: Some(Watts(2583)),
                hashrate: Some(HashesPerSecond(173_870_940_000_000)),
                temperature: Some(MilliCelsius(65_000)),
                activity: Activity::Mining,
                // 1599 of the user's pools; 224 more went to the firmware's maker.
                shares: Some(ShareTotals { accepted: 1599, rejected: 9, stale: 0 }),
            }
        );
        let steps = steps(&opened("autotune/presets")).unwrap();
        assert_eq!(steps.len(), 25, "`disabled` is no step");
        assert_eq!(steps[3].hashrate, Some(HashesPerSecond(188_000_000_000_000)));
        assert!(step_at_most(&steps, Watts(9_999)).is_none(), "none of the recorded is tuned");
        let settings = opened("settings");
        assert_eq!(preset(&settings), Some("3160"));
    }

    #[test]
    fn a_preset_changes_nothing_else_but_the_switchers_ceiling() {
        let settings = opened("settings");
        let before = settings.pointer("/miner/overclock").unwrap();
        let after = overclock_with(&settings, "2800").unwrap();
        assert_eq!(after["preset"], "2800");
        assert_eq!(after["preset_switcher"]["top_preset"], "2800");
        assert_eq!(after["preset_switcher"]["min_preset"], "2550");
        assert_eq!(after["chains"], before["chains"]);
        assert_eq!(after["globals"], before["globals"]);
        assert!(switcher_above(&settings, "2800"));
        assert!(!switcher_above(&json!({ "miner": { "overclock": after } }), "2800"));
    }

    #[test]
    fn units_are_obeyed() {
        let summary = json!({"miner": {"hr_realtime": 10.0}});
        let rate = |name: &str| {
            let unit = unit(&json!({ "hr_measure": name })).unwrap();
            reading(&summary, unit).unwrap().hashrate.unwrap().0
        };
        assert_eq!(rate("GH/s"), 10_000_000_000);
        assert_eq!(rate("MH/s"), 10_000_000);
        assert_eq!(rate("TH/s"), 10_000_000_000_000);
        assert!(unit(&json!({"hr_measure": "Sol/s"})).is_err());
    }

    #[test]
    fn status_codes_are_told_apart() {
        let kind = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            open("settings", status, b"no").unwrap_err()
        };
        assert!(matches!(kind(404), FirmwareError::Unsupported { .. }));
        assert!(matches!(kind(500), FirmwareError::Refused { .. }));
        assert!(matches!(kind(200), FirmwareError::Garbled { .. }));
        assert_eq!(open("x", StatusCode::OK, b" ").unwrap(), Value::Null);
    }

    fn read_all(bytes: &[u8]) {
        if let Ok(value) = open("x", StatusCode::OK, bytes) {
            let _ = (identity(&value), unit(&value), steps(&value), preset(&value));
            let _ = (reading(&value, Unit(1e3)), overclock_with(&value, "2800"));
            let _ = switcher_above(&value, "2800");
        }
    }

    proptest! {
        #[test]
        fn no_mutated_reply_panics(
            path in prop::sample::select(vec!["info", "summary", "settings", "autotune/presets"]),
            edits in mutated(),
        ) {
            read_all(&edits.apply(&recording(&format!("vnish/web/{path}.json"))));
        }

        #[test]
        fn no_noise_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }
    }
}
