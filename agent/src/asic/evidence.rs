//! What a reading must show before an order counts as done: watts and hashrate, both.
//!
//! The firmware's own word ([`super::firmware::Activity`]) proves nothing: firmwares are known that
//! say "mining" while they sleep and "success" while they do nothing. Bands are wide enough for a
//! miner that lost one of three hashboards, and for the difference between a firmware's estimate
//! and the wall.

use roadbed_protocol::{HashesPerSecond, RigProfile, Watts};

use super::firmware::{Activity, Reading, Step};

/// Lowest part of a step's watts and hashrate that still shows the step: two of three hashboards
/// give 66 %.
const BAND_LOW_PERCENT: u64 = 60;
/// Highest part of the allowed watts: firmware estimates and meters differ by 5 to 20 %.
const BAND_HIGH_PERCENT: u64 = 115;
/// Asleep, a miner may draw this part of its profile's floor and this much more: one fan. The rig
/// machine uses the same bound, so that what is confirmed here is not doubted there.
const FLOOR_PERCENT: u64 = 125;
const FLOOR_SLACK: Watts = Watts(25);
/// Below this part of normal a hashrate is silence: what a decaying average still shows.
const SILENT_PERCENT: u64 = 1;
/// A hashrate above this part of the model's best is a wrong unit, not a good machine.
const IMPLAUSIBLE_PERCENT: u64 = 200;

/// What the model of a rig lets us expect.
#[derive(Debug, Clone)]
pub struct Expectations {
    floor_max: Watts,
    profile: RigProfile,
    normal_hashrate: HashesPerSecond,
}

/// What mining at one step must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiningBand {
    /// Least power.
    pub watts_min: Watts,
    /// Most power.
    pub watts_max: Watts,
    /// Least hashrate.
    pub hashrate_min: HashesPerSecond,
}

impl Expectations {
    /// From the rig's model.
    #[must_use]
    pub fn new(profile: &RigProfile) -> Self {
        Self {
            floor_max: Watts(percent(profile.floor_watts.0, FLOOR_PERCENT)) + FLOOR_SLACK,
            normal_hashrate: profile
                .normal_mining()
                .map_or(HashesPerSecond::ZERO, |step| step.hashes_per_second),
            profile: profile.clone(),
        }
    }

    /// The band of mining under `cap`, at `step` where the firmware named one.
    #[must_use]
    pub fn mining(&self, cap: Watts, step: Option<&Step>) -> MiningBand {
        let modelled = self.profile.mining.iter().rev().find(|modelled| modelled.watts <= cap);
        let watts = [step.map(|step| step.watts), modelled.map(|step| step.watts)];
        let hashrates =
            [step.and_then(|step| step.hashrate), modelled.map(|step| step.hashes_per_second)];
        // The lower of two opinions: the model knows the type, the firmware knows this machine.
        let least_watts = watts.into_iter().flatten().min().unwrap_or(self.floor_max);
        let least_rate = hashrates.into_iter().flatten().min().unwrap_or(HashesPerSecond(1));
        let most = step.map_or(cap, |step| step.watts.max(cap));
        MiningBand {
            watts_min: Watts(percent(least_watts.0, BAND_LOW_PERCENT)).max(self.floor_max),
            watts_max: Watts(percent(most.0, BAND_HIGH_PERCENT)),
            hashrate_min: HashesPerSecond(percent(least_rate.0, BAND_LOW_PERCENT).max(1)),
        }
    }

    /// A reading without a hashrate that no machine of this model can have.
    #[must_use]
    pub fn plausible(&self, mut reading: Reading) -> Reading {
        let limit = HashesPerSecond(percent(self.normal_hashrate.0, IMPLAUSIBLE_PERCENT));
        if limit.0 > 0 {
            reading.hashrate = reading.hashrate.filter(|rate| *rate <= limit);
        }
        reading
    }

    /// Whether the reading shows a sleeping miner.
    ///
    /// # Errors
    /// What it shows instead.
    pub fn shows_sleep(&self, reading: &Reading) -> Result<(), String> {
        match reading.watts {
            None => return Err("no power is measured".into()),
            Some(watts) if watts > self.floor_max => {
                return Err(format!("{watts}, asleep is at most {}", self.floor_max));
            }
            Some(_) => {}
        }
        match reading.hashrate {
            // Some firmwares leave the field out while they are stopped; the watts have spoken.
            None if reading.activity == Activity::Sleeping => Ok(()),
            None => Err("no hashrate is told".into()),
            Some(rate) if self.is_silent(rate) => Ok(()),
            Some(rate) => Err(format!("still {rate}")),
        }
    }

    /// Whether the reading shows mining within `band`.
    ///
    /// # Errors
    /// What it shows instead.
    pub fn shows_mining(&self, reading: &Reading, band: &MiningBand) -> Result<(), String> {
        let Some(watts) = reading.watts else {
            return Err("no power is measured".into());
        };
        let Some(rate) = reading.hashrate else {
            return Err("no hashrate is told".into());
        };
        if watts > band.watts_max {
            return Err(format!("{watts}, allowed are {}", band.watts_max));
        }
        if watts < band.watts_min || rate < band.hashrate_min {
            return Err(format!(
                "{watts} and {rate}, expected {} and {} at least",
                band.watts_min, band.hashrate_min
            ));
        }
        Ok(())
    }

    /// Whether nothing is being hashed, as far as is known.
    #[must_use]
    pub fn is_idle(&self, reading: &Reading) -> bool {
        let silent = reading.hashrate.is_none_or(|rate| self.is_silent(rate));
        let low = reading.watts.is_none_or(|watts| watts <= self.floor_max);
        silent && low && (reading.hashrate.is_some() || reading.watts.is_some())
    }

    /// Whether the reading draws more than `band` allows.
    #[must_use]
    pub fn is_over(reading: &Reading, band: &MiningBand) -> bool {
        reading.watts.is_some_and(|watts| watts > band.watts_max)
    }

    fn is_silent(&self, rate: HashesPerSecond) -> bool {
        rate.0 <= percent(self.normal_hashrate.0, SILENT_PERCENT)
    }
}

fn percent(value: u64, percent: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(percent) / 100;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub mod tests {
    use roadbed_protocol::{MilliCelsius, MiningStep, RigKind};

    use super::*;

    pub const TERA: u64 = 1_000_000_000_000;

    pub fn profile() -> RigProfile {
        let step = |watts, tera: u64| MiningStep {
            watts: Watts(watts),
            hashes_per_second: HashesPerSecond(tera * TERA),
        };
        RigProfile {
            model: "Antminer S19k Pro".into(),
            kind: RigKind::Asic,
            firmware: "luxos".into(),
            source: "test".into(),
            status: "test".into(),
            floor_watts: Watts(20),
            nameplate_watts: Watts(3_000),
            mining: vec![step(1_384, 65), step(2_794, 121)],
            ai_watts: None,
            start_seconds: 60,
            stop_seconds: 10,
            temperature_trip: MilliCelsius(85_000),
            temperature_safe: MilliCelsius(60_000),
        }
    }

    pub fn reading(watts: u64, tera: u64) -> Reading {
        Reading {
            watts: Some(Watts(watts)),
            hashrate: Some(HashesPerSecond(tera * TERA)),
            ..Reading::default()
        }
    }

    #[test]
    fn sleep_needs_both_watts_and_silence() {
        let expect = Expectations::new(&profile());
        assert!(expect.shows_sleep(&reading(50, 0)).is_ok());
        assert!(expect.shows_sleep(&reading(51, 0)).is_err());
        assert!(expect.shows_sleep(&reading(20, 2)).is_err());
        let wordless = Reading { watts: Some(Watts(20)), ..Reading::default() };
        assert!(expect.shows_sleep(&wordless).is_err());
        let stopped = Reading { activity: Activity::Sleeping, ..wordless };
        assert!(expect.shows_sleep(&stopped).is_ok());
        let unmeasured = Reading { watts: None, activity: Activity::Sleeping, ..reading(0, 0) };
        assert!(expect.shows_sleep(&unmeasured).is_err(), "its word alone proves nothing");
    }

    #[test]
    fn mining_needs_the_band_of_its_step() {
        let expect = Expectations::new(&profile());
        let full = expect.mining(Watts(2_794), None);
        assert!(expect.shows_mining(&reading(2_794, 121), &full).is_ok());
        assert!(expect.shows_mining(&reading(1_862, 81), &full).is_ok(), "two of three boards");
        assert!(expect.shows_mining(&reading(1_384, 65), &full).is_err(), "the lower step");
        assert!(expect.shows_mining(&reading(3_300, 121), &full).is_err(), "over the cap");
        assert!(expect.shows_mining(&reading(2_794, 0), &full).is_err(), "burning, not hashing");
        let named = Step {
            name: "315MHz".into(),
            watts: Watts(1_299),
            hashrate: Some(HashesPerSecond(65 * TERA)),
            usable: true,
        };
        let low = expect.mining(Watts(1_384), Some(&named));
        assert!(expect.shows_mining(&reading(1_384, 65), &low).is_ok());
        assert!(expect.shows_mining(&reading(2_794, 121), &low).is_err());
        assert!(Expectations::is_over(&reading(2_794, 121), &low));
    }

    #[test]
    fn a_wrong_unit_is_no_hashrate() {
        let expect = Expectations::new(&profile());
        assert_eq!(expect.plausible(reading(2_794, 121_000)).hashrate, None);
        assert!(expect.plausible(reading(2_794, 150)).hashrate.is_some());
    }
}
