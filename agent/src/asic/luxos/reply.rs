//! What LuxOS replies mean. Pure: bytes and JSON in, our words out.
//!
//! Every reply carries `STATUS: [{STATUS, Code, Msg}]` and one list named after the command. Status
//! `E` and `F` are refusals, whatever else the reply holds.

use roadbed_protocol::MilliCelsius;
use serde_json::Value;

use super::super::field;
use super::super::firmware::{Activity, FirmwareError, Identity, Reading, ShareTotals, Step};
use super::wire;

/// cgminer's code for a command it does not have (`MSG_INVCMD` in cgminer's API).
const CODE_INVALID_COMMAND: u64 = 14;
/// Most profiles of a miner kept; LuxOS generates 25.
const STEPS_MAX: usize = 256;

/// State of Advanced Thermal Management, which moves profiles by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atm {
    /// It moves profiles, and refuses that we do.
    On,
    /// It leaves profiles alone.
    Off,
}

/// Whether the bytes are a whole JSON document, apart from trailing NULs and spaces.
pub fn is_whole(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(trimmed(bytes)).is_ok()
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0 && !byte.is_ascii_whitespace())
        .map_or(0, |last| last + 1);
    &bytes[..end]
}

/// A reply to `command`, with its status checked.
pub fn open(command: &'static str, bytes: &[u8]) -> Result<Value, FirmwareError> {
    let garbled = |why: String| FirmwareError::Garbled { what: command.into(), why };
    if bytes.len() > wire::reply_bytes_max() {
        return Err(garbled(format!("longer than {} bytes", wire::reply_bytes_max())));
    }
    let bytes = trimmed(bytes);
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| garbled(format!("{error}, after {} bytes", bytes.len())))?;
    let Some(status) = value.pointer("/STATUS/0") else {
        return Err(garbled("no STATUS in it".into()));
    };
    let message = status.get("Msg").and_then(Value::as_str).unwrap_or("no reason given");
    match status.get("STATUS").and_then(Value::as_str) {
        Some("E" | "F") => {
            let code = status.get("Code").and_then(field::count);
            let reason = field::excerpt(message);
            if code == Some(CODE_INVALID_COMMAND) || reason.eq_ignore_ascii_case("invalid command")
            {
                return Err(FirmwareError::Unsupported { what: command.into(), why: reason });
            }
            Err(FirmwareError::Refused { what: command.into(), reason })
        }
        Some(_) => Ok(value),
        None => Err(garbled("STATUS has no letter".into())),
    }
}

/// Whether a refusal speaks of the session: it has expired, or was never ours.
pub fn names_session(reason: &str) -> bool {
    reason.to_ascii_lowercase().contains("session")
}

/// The id that `logon` granted.
pub fn session(value: &Value) -> Result<String, FirmwareError> {
    const SESSION_CHARACTERS_MAX: usize = 64;
    let id = value.pointer("/SESSION/0/SessionID").and_then(Value::as_str).unwrap_or("");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.is_empty() || id.len() > SESSION_CHARACTERS_MAX || !id.chars().all(plain) {
        return Err(FirmwareError::Garbled {
            what: "logon".into(),
            why: "no usable SessionID in it".into(),
        });
    }
    Ok(id.to_owned())
}

/// Who answers, from `version`.
pub fn identity(value: &Value) -> Result<Identity, FirmwareError> {
    let text = |name: &str| {
        let text = value.pointer("/VERSION/0")?.get(name)?.as_str()?;
        Some(field::excerpt(text))
    };
    // `LUXminer` carries version and build; its presence is what tells LuxOS from cgminer.
    let Some(full) = text("LUXminer") else {
        return Err(FirmwareError::Unsupported {
            what: "driving this miner as LuxOS".into(),
            why: "its version reply does not name LUXminer".into(),
        });
    };
    Ok(Identity {
        firmware: format!("LuxOS {}", text("Miner").unwrap_or(full)),
        model: text("Type").unwrap_or_else(|| "unknown model".into()),
    })
}

/// One look, from `power`, `summary` and, where they were answered, `temps` and `config`.
pub fn reading(
    power: &Value,
    summary: &Value,
    temps: Option<&Value>,
    config: Option<&Value>,
) -> Reading {
    let summary = summary.pointer("/SUMMARY/0");
    let from_summary = |name: &str| summary.and_then(|summary| summary.get(name));
    Reading {
        watts: power.pointer("/POWER/0/Watts").and_then(field::watts),
        // Only short windows: the averages go on for a day after the hashing has stopped.
        hashrate: from_summary("GHS 5s")
            .or_else(|| from_summary("GHS 1m"))
            .and_then(field::gigahash),
        temperature: temps.and_then(hottest),
        activity: config.map_or(Activity::Unknown, activity),
        shares: from_summary("Accepted").and_then(field::count).map(|accepted| ShareTotals {
            accepted,
            rejected: from_summary("Rejected").and_then(field::count).unwrap_or(0),
            stale: from_summary("Stale").and_then(field::count).unwrap_or(0),
        }),
    }
}

/// The hottest of four sensors on each board.
fn hottest(temps: &Value) -> Option<MilliCelsius> {
    const CORNERS: [&str; 4] = ["TopLeft", "TopRight", "BottomLeft", "BottomRight"];
    let boards = temps.get("TEMPS")?.as_array()?;
    boards
        .iter()
        .flat_map(|board| CORNERS.iter().filter_map(|corner| board.get(*corner)))
        .filter_map(field::celsius)
        .max()
}

fn activity(config: &Value) -> Activity {
    let Some(config) = config.pointer("/CONFIG/0") else {
        return Activity::Unknown;
    };
    let mode = config.get("CurtailMode").and_then(Value::as_str).unwrap_or("");
    if mode.to_ascii_lowercase().contains("sleep")
        || config.get("IsPowerSupplyOn") == Some(&Value::Bool(false))
    {
        return Activity::Sleeping;
    }
    match mode {
        "" => Activity::Unknown,
        mode if mode.eq_ignore_ascii_case("none") => Activity::Mining,
        _ => Activity::Unknown,
    }
}

/// Name of the profile in force, from `config`.
pub fn profile(config: &Value) -> Option<&str> {
    config.pointer("/CONFIG/0/Profile").and_then(Value::as_str)
}

/// All profiles. LuxOS ramps to untuned ones as it does to tuned ones, so all are usable but those
/// whose name `profileset` would misread.
pub fn steps(value: &Value) -> Result<Vec<Step>, FirmwareError> {
    let Some(list) = value.get("PROFILES").and_then(Value::as_array) else {
        return Err(FirmwareError::Garbled {
            what: "profiles".into(),
            why: "no PROFILES in it".into(),
        });
    };
    let step = |profile: &Value| {
        let name = profile.get("Profile Name")?.as_str()?;
        let gigahash = profile.get("Hashrate").and_then(field::number);
        Some(Step {
            name: name.to_owned(),
            watts: profile.get("Watts").and_then(field::watts)?,
            // Given in TH/s.
            hashrate: gigahash.and_then(|rate| field::gigahash(&(rate * 1000.0).into())),
            usable: is_plain_name(name),
        })
    };
    Ok(list.iter().take(STEPS_MAX).filter_map(step).collect())
}

/// A name that is safe as a parameter: a comma would begin another parameter, and a lone digit 0 to
/// 3 is read as a board number (vendor's page on profileset).
fn is_plain_name(name: &str) -> bool {
    const CHARACTERS_MAX: usize = 64;
    !name.is_empty()
        && name.len() <= CHARACTERS_MAX
        && name.chars().all(|c| !c.is_control() && c != ',' && c != '=' && c != '"')
        && !matches!(name, "0" | "1" | "2" | "3")
}

/// State of thermal management, from `atm`.
pub fn atm(value: &Value) -> Atm {
    match value.pointer("/ATM/0/Enabled") {
        Some(Value::Bool(true)) => Atm::On,
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Atm::On,
        Some(_) | None => Atm::Off,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roadbed_protocol::{HashesPerSecond, Watts};
    use serde_json::json;

    use super::*;
    use crate::asic::firmware::step_at_most;
    use crate::asic::recording::{mutated, recording};

    fn opened(name: &'static str) -> Value {
        open(name, &recording(&format!("luxos/{name}.json"))).unwrap()
    }

    #[test]
    fn a_recorded_s19k_pro_is_understood() {
        assert_eq!(
            identity(&opened("version")).unwrap().to_string(),
            "LuxOS 2025.4.8.220305 on Antminer S19k Pro"
        );
        let (temps, config) = (opened("temps"), opened("config"));
        let seen = reading(&opened("power"), &opened("summary"), Some(&temps), Some(&config));
        assert_eq!(
            seen,
            Reading {
                watts: Some(Watts(1051)),
                hashrate: Some(HashesPerSecond(59_756_060_000_000)),
                temperature: Some(MilliCelsius(47_000)),
                activity: Activity::Mining,
                shares: Some(ShareTotals { accepted: 1483, rejected: 1, stale: 0 }),
            }
        );
        assert_eq!(profile(&config), Some("290MHz"));
        let steps = steps(&opened("profiles")).unwrap();
        assert_eq!(steps.len(), 25);
        let step = step_at_most(&steps, Watts(1384)).unwrap();
        assert_eq!((step.name.as_str(), step.watts), ("315MHz", Watts(1299)));
        assert_eq!(step.hashrate, Some(HashesPerSecond(65_000_000_000_000)));
    }

    #[test]
    fn refusals_keep_the_firmwares_words() {
        let refusal = json!({"STATUS": [{"STATUS": "E", "Code": 402, "Msg": "Session expired"}]});
        let error = open("curtail", refusal.to_string().as_bytes()).unwrap_err();
        assert!(matches!(&error, FirmwareError::Refused { reason, .. } if names_session(reason)));
        let unknown = json!({"STATUS": [{"STATUS": "E", "Code": 14, "Msg": "Invalid command"}]});
        let error = open("atm", unknown.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, FirmwareError::Unsupported { .. }));
    }

    #[test]
    fn a_sleeping_miner_says_so() {
        let asleep = |config: Value| activity(&json!({ "CONFIG": [config] }));
        assert_eq!(asleep(json!({"CurtailMode": "Sleep"})), Activity::Sleeping);
        assert_eq!(
            asleep(json!({"CurtailMode": "None", "IsPowerSupplyOn": false})),
            Activity::Sleeping
        );
        assert_eq!(asleep(json!({"CurtailMode": "Sideways"})), Activity::Unknown);
        assert_eq!(asleep(json!({})), Activity::Unknown);
    }

    #[test]
    fn names_that_would_be_misread_are_not_used() {
        for bad in ["", "0", "3", "a,b", "a=b", "a\nb", "a\"b"] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
        for good in ["default", "290MHz", "4", "my profile"] {
            assert!(is_plain_name(good), "{good:?}");
        }
    }

    fn read_all(bytes: &[u8]) {
        for command in
            ["version", "power", "summary", "temps", "config", "profiles", "logon", "atm"]
        {
            if let Ok(value) = open(command, bytes) {
                let _ = (identity(&value), session(&value), steps(&value), atm(&value));
                let _ = (profile(&value), reading(&value, &value, Some(&value), Some(&value)));
            }
        }
    }

    proptest! {
        #[test]
        fn no_mutated_reply_panics(
            name in prop::sample::select(vec![
                "version", "power", "summary", "temps", "config", "profiles", "devs", "stats",
            ]),
            edits in mutated(),
        ) {
            read_all(&edits.apply(&recording(&format!("luxos/{name}.json"))));
        }

        #[test]
        fn no_noise_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }
    }
}
