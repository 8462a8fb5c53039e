//! The rules of a site file that its types cannot state, each complaint with its place.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use farm_core::plan::{Commitment, Feeder};
use roadbed_protocol::{
    FeederId, MicrosPerHour, MicrosPerMwh, Millis, Money, RigKind, Watts, Workload,
};

use super::decimal::Decimal;
use super::error::{ConfigError, Problem};
use super::gateway;
use super::moment::DayTime;
use super::policy::Policy;
use super::rig_profile;
use super::site::{AgentEntry, EnergyPrice, Income, Site, SiteRig, Tariff};
use super::site_file::{
    AgentFile, CommitmentFile, FeederFile, IncomeFile, RigFile, SiteFile, TariffFile,
};
use super::source::{FieldPath, Source};

/// Rigs of one farm: what the tables, the broker's limits and the planner are made for.
const RIGS_MAX: usize = 1_000;

/// Turns a read file into a site, or says everything that is wrong with it.
pub(super) fn check(source: &Source, mut file: SiteFile) -> Result<Site, ConfigError> {
    let mut checker = Checker { source, problems: Vec::new() };
    checker.top(&file);
    let feeders = checker.feeders(&file.feeders);
    let agents = checker.agents(&file.agents);
    let rigs = checker.rigs(&file)?;
    let tariff = checker.tariff(&file.tariff);
    let income = checker.income(std::mem::take(&mut file.income));
    let commitments = checker.commitments(&file.commitments, &rigs);
    let gateway = gateway::check(source, &file, &rigs, &mut checker.problems);
    let gonka = file.gonka.map(|file| checker.gonka(file, &rigs, gateway.as_ref()));
    let policy_source = Source::read(&source.beside(&file.policy))
        .map_err(|error| source.invalid(vec![source.problem(&FieldPath::of("policy"), error)]));
    let policy = match policy_source {
        Err(error) => return Err(error),
        Ok(policy_source) => {
            let policy = Policy::load(&policy_source)?;
            let known: Vec<_> = feeders.iter().map(|feeder| feeder.id.clone()).collect();
            let unknown = policy.unknown_feeders(&policy_source, &known);
            if !unknown.is_empty() {
                return Err(policy_source.invalid(unknown));
            }
            policy
        }
    };
    if !checker.problems.is_empty() {
        return Err(source.invalid(checker.problems));
    }
    Ok(Site {
        name: if file.name.is_empty() { file.farm.to_string() } else { file.name },
        farm: file.farm,
        currency: file.currency,
        utc_offset_minutes: file.utc_offset_minutes,
        broker_listen: file.broker_listen,
        state_dir: source.beside(&file.state_dir),
        key_file: source.beside(&file.key_file),
        clock: file.clock,
        policy,
        feeders,
        agents,
        rigs,
        tariff,
        income,
        commitments,
        gateway,
        gonka,
    })
}

pub(super) struct Checker<'s> {
    source: &'s Source,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    pub(super) fn say(&mut self, path: &FieldPath, text: impl Display) {
        self.problems.push(self.source.problem(path, text));
    }

    pub(super) fn beside(&self, name: &Path) -> PathBuf {
        self.source.beside(name)
    }

    fn top(&mut self, file: &SiteFile) {
        let currency = FieldPath::of("currency");
        if file.currency.len() != 3 || !file.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            self.say(
                &currency,
                format!(
                    "\"{}\" is no currency code; expected three capitals like USD",
                    file.currency
                ),
            );
        }
        if file.utc_offset_minutes.unsigned_abs() > 14 * 60 {
            self.say(
                &FieldPath::of("utc_offset_minutes"),
                format!("is {}; expected -840 to 840", file.utc_offset_minutes),
            );
        }
        if !file.clock.is_usable() {
            self.say(
                &FieldPath::of("clock").key("rate"),
                format!(
                    "is {}; expected above 0 and at most {}",
                    file.clock.rate,
                    crate::clock::RATE_MAX
                ),
            );
        }
        if file.rigs.is_empty() || file.rigs.len() > RIGS_MAX {
            self.say(
                &FieldPath::of("rigs"),
                format!("has {} entries; expected 1 to {RIGS_MAX}", file.rigs.len()),
            );
        }
    }

    fn feeders(&mut self, files: &[FeederFile]) -> Vec<Feeder> {
        let top = FieldPath::of("feeders");
        let ids: Vec<_> = files.iter().map(|file| file.id.as_str()).collect();
        let mut seen = BTreeSet::new();
        let mut feeders = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            let path = top.at(index);
            if !seen.insert(&file.id) {
                self.say(&path.key("id"), format!("feeder \"{}\" is listed twice", file.id));
            }
            if let Some(parent) = &file.parent {
                if !ids.contains(&parent.as_str()) {
                    self.say(
                        &path.key("parent"),
                        format!("unknown feeder \"{parent}\"; expected one of: {}", ids.join(", ")),
                    );
                } else if hangs_on_itself(files, &file.id) {
                    self.say(
                        &path.key("parent"),
                        format!("feeder \"{}\" hangs on itself through \"{parent}\"", file.id),
                    );
                }
            }
            let limit = self.limit(&path, file);
            feeders.push(Feeder { id: file.id.clone(), parent: file.parent.clone(), limit });
        }
        feeders
    }

    fn limit(&mut self, path: &FieldPath, file: &FeederFile) -> Watts {
        match (file.limit_watts, &file.breaker) {
            (Some(watts), None) if watts > 0 => Watts(watts),
            (Some(_), None) => {
                self.say(&path.key("limit_watts"), "is 0; expected the continuous limit in watts");
                Watts::ZERO
            }
            (None, Some(breaker)) => {
                let derate = breaker.continuous_derate.0;
                if !(1..=1_000_000).contains(&derate) {
                    self.say(
                        &path.key("breaker").key("continuous_derate"),
                        format!("is {}; expected above 0 and at most 1", breaker.continuous_derate),
                    );
                }
                if !matches!(breaker.phases, 1 | 3) {
                    self.say(
                        &path.key("breaker").key("phases"),
                        format!("is {}; expected 1 or 3", breaker.phases),
                    );
                }
                if breaker.amps == 0
                    || breaker.amps > 10_000
                    || breaker.volts == 0
                    || breaker.volts > 50_000
                {
                    self.say(&path.key("breaker"), "expected 1 to 10000 amps and 1 to 50000 volts");
                    return Watts::ZERO;
                }
                breaker_limit(breaker.amps, breaker.volts, breaker.phases, derate)
            }
            (Some(_), Some(_)) => {
                self.say(path, "has limit_watts and breaker; expected one of them");
                Watts::ZERO
            }
            (None, None) => {
                self.say(path, "has no limit; expected limit_watts or breaker");
                Watts::ZERO
            }
        }
    }

    fn agents(&mut self, files: &[AgentFile]) -> Vec<AgentEntry> {
        let top = FieldPath::of("agents");
        let mut seen = BTreeSet::new();
        let mut agents = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            if !seen.insert(&file.id) {
                self.say(
                    &top.at(index).key("id"),
                    format!("agent \"{}\" is listed twice", file.id),
                );
            }
            match super::key::parse_hex(&file.public_key) {
                Some(public_key) => agents.push(AgentEntry { id: file.id.clone(), public_key }),
                None => {
                    self.say(&top.at(index).key("public_key"), "is no key; expected 64 hex digits")
                }
            }
        }
        agents
    }

    fn rigs(&mut self, file: &SiteFile) -> Result<Vec<SiteRig>, ConfigError> {
        let top = FieldPath::of("rigs");
        let feeders: Vec<_> = file.feeders.iter().map(|feeder| feeder.id.as_str()).collect();
        let agents: Vec<_> = file.agents.iter().map(|agent| agent.id.as_str()).collect();
        let mut seen = BTreeSet::new();
        let mut rigs = Vec::with_capacity(file.rigs.len());
        for (index, rig) in file.rigs.iter().enumerate() {
            let path = top.at(index);
            if !seen.insert(&rig.id) {
                self.say(&path.key("id"), format!("rig \"{}\" is listed twice", rig.id));
            }
            if !feeders.contains(&rig.feeder.as_str()) {
                self.say(
                    &path.key("feeder"),
                    format!(
                        "unknown feeder \"{}\"; expected one of: {}",
                        rig.feeder,
                        feeders.join(", ")
                    ),
                );
            }
            if !agents.contains(&rig.agent.as_str()) {
                self.say(
                    &path.key("agent"),
                    format!(
                        "unknown agent \"{}\"; expected one of: {}",
                        rig.agent,
                        agents.join(", ")
                    ),
                );
            }
            if let Some(rig) = self.rig(&path, rig)? {
                rigs.push(rig);
            }
        }
        Ok(rigs)
    }

    fn rig(&mut self, path: &FieldPath, file: &RigFile) -> Result<Option<SiteRig>, ConfigError> {
        let profile = match Source::read(&self.source.beside(&file.profile)) {
            Ok(source) => rig_profile::load(&source)?,
            Err(error) => {
                self.say(&path.key("profile"), error);
                return Ok(None);
            }
        };
        match (profile.kind, &file.model) {
            (RigKind::Gpu, None) => {
                self.say(&path.key("model"), "is missing; a GPU rig needs the model it serves");
            }
            (RigKind::Asic, Some(_)) => {
                self.say(&path.key("model"), "an ASIC can only mine; remove the field");
            }
            (RigKind::Gpu, Some(_)) | (RigKind::Asic, None) => {}
        }
        for (key, cost) in
            [("switch_cost", file.switch_cost), ("hand_over_cost", file.hand_over_cost)]
        {
            if cost.0 < 0 {
                self.say(&path.key(key), format!("is {cost}; expected 0 or more"));
            }
        }
        let ai = gateway::ai_face(file, profile.kind, |key, text| self.say(&path.key(key), text));
        Ok(Some(SiteRig {
            ai,
            id: file.id.clone(),
            profile,
            profile_path: self.source.beside(&file.profile),
            feeder: file.feeder.clone(),
            agent: file.agent.clone(),
            model: file.model.clone(),
            switch_cost: Money(file.switch_cost.0),
            hand_over_cost: Money(file.hand_over_cost.0),
        }))
    }

    fn tariff(&mut self, file: &TariffFile) -> Tariff {
        let path = FieldPath::of("tariff");
        let energy = match (&file.feed, file.fixed_per_mwh, &file.time_of_use) {
            (Some(feed), None, None) => {
                if feed.step_minutes == 0 || feed.step_minutes > 24 * 60 {
                    self.say(
                        &path.key("feed").key("step_minutes"),
                        format!("is {}; expected 1 to 1440", feed.step_minutes),
                    );
                }
                EnergyPrice::Feed {
                    csv: self.source.beside(&feed.csv),
                    time_column: feed.time_column.clone(),
                    price_column: feed.price_column.clone(),
                    step: Millis::from_mins(feed.step_minutes.min(24 * 60)),
                }
            }
            (None, Some(price), None) => EnergyPrice::Fixed(MicrosPerMwh(price.0)),
            (None, None, Some(steps)) => {
                let key = path.key("time_of_use");
                let times = steps.iter().map(|step| (step.from, step.price_per_mwh));
                EnergyPrice::TimeOfUse(
                    self.day(&key, times).map(|(at, price)| (at, MicrosPerMwh(price.0))).collect(),
                )
            }
            _ => {
                self.say(&path, "expected exactly one of: feed, fixed_per_mwh, time_of_use");
                EnergyPrice::Fixed(MicrosPerMwh::ZERO)
            }
        };
        Tariff { energy, adder: MicrosPerMwh(file.adder_per_mwh.0) }
    }

    /// Checks that a list of times of day begins at midnight and rises.
    fn day(
        &mut self,
        path: &FieldPath,
        times: impl Iterator<Item = (DayTime, Decimal)>,
    ) -> std::vec::IntoIter<(DayTime, Decimal)> {
        let times: Vec<_> = times.collect();
        match times.first() {
            None => self.say(path, "is empty; expected at least an entry from \"00:00\""),
            Some((first, _)) if first.0 != 0 => {
                self.say(
                    &path.at(0).key("from"),
                    format!("is {first}; the first entry must begin at 00:00"),
                );
            }
            Some(_) => {}
        }
        for (index, pair) in times.windows(2).enumerate() {
            if pair[0].0 >= pair[1].0 {
                self.say(
                    &path.at(index + 1).key("from"),
                    format!("{} does not come after {}", pair[1].0, pair[0].0),
                );
            }
        }
        times.into_iter()
    }

    fn income(&mut self, file: IncomeFile) -> Income {
        let top = FieldPath::of("income");
        let mut income = Income::default();
        if let Some((hashprice, told)) = file.hashprice.and_then(|hash| self.hashprice(hash)) {
            income.hashprice = Some(hashprice);
            income.origins.push(told);
        }
        if let Some(feed) = file.coins.and_then(|coins| self.coins(coins)) {
            if file.gpu_mine.is_some() {
                self.say(&top.key("gpu_mine"), "stands beside coins; expected one of them");
            }
            income.origins.push(feed.line());
            income.coins = Some(feed);
        }
        if let Some(mine) = &file.gpu_mine {
            let source = self.origin(&top.key("gpu_mine"), &mine.origin);
            let how_much = format!("{} per hour", mine.per_hour);
            income.origins.push(mine.origin.line("GPU mining", &how_much));
            income.gpu_mine = Some((MicrosPerHour(mine.per_hour.0), source));
        }
        if let Some(serve) = &file.serve {
            let path = top.key("serve");
            let source = self.origin(&path, &serve.origin);
            let times = serve.by_time.iter().map(|rate| (rate.from, rate.per_hour));
            let rates = self.day(&path.key("by_time"), times);
            income.origins.push(serve.origin.line("serving", "by time of day"));
            income.serve =
                Some((rates.map(|(at, rate)| (at, MicrosPerHour(rate.0))).collect(), source));
        }
        income
    }

    fn commitments(&mut self, files: &[CommitmentFile], rigs: &[SiteRig]) -> Vec<Commitment> {
        let top = FieldPath::of("commitments");
        let mut commitments = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            let path = top.at(index);
            if file.until <= file.from {
                self.say(&path.key("until"), "does not come after from");
            }
            if file.load_lead_minutes > 24 * 60 {
                self.say(
                    &path.key("load_lead_minutes"),
                    format!("is {}; expected at most 1440", file.load_lead_minutes),
                );
            }
            let source = self.origin(&path, &file.origin);
            let Some(model) =
                rigs.iter().find(|rig| rig.id == file.rig).map(|rig| rig.model.clone())
            else {
                let ids: Vec<_> = rigs.iter().map(|rig| rig.id.as_str()).collect();
                self.say(
                    &path.key("rig"),
                    format!("unknown rig \"{}\"; expected one of: {}", file.rig, ids.join(", ")),
                );
                continue;
            };
            let Some(model) = model else {
                self.say(
                    &path.key("rig"),
                    format!("\"{}\" is no GPU rig; it cannot prove", file.rig),
                );
                continue;
            };
            commitments.push(Commitment {
                id: file.id.clone(),
                rig: file.rig.clone(),
                workload: Workload::Prove { model },
                from: file.from.0,
                until: file.until.0,
                load_lead: Millis::from_mins(file.load_lead_minutes.min(24 * 60)),
                penalty: Money(file.penalty.0),
                income: Money(file.income.0),
                source,
            });
        }
        commitments
    }
}

fn hangs_on_itself(files: &[FeederFile], id: &FeederId) -> bool {
    let mut at = Some(id);
    for _ in 0..=files.len() {
        at = at
            .and_then(|at| files.iter().find(|file| file.id == *at))
            .and_then(|file| file.parent.as_ref());
        if at.is_none() {
            return false;
        }
        if at == Some(id) {
            return true;
        }
    }
    // A ring further up: the members of the ring are told, not what hangs on it.
    false
}

/// `amps * volts * (sqrt 3 for three phases) * derate`, rounded down; volts are between phases.
fn breaker_limit(amps: u64, volts: u64, phases: u8, derate_millionths: i64) -> Watts {
    const SQRT_3_MILLIONTHS: u128 = 1_732_050;
    let phase_factor = if phases == 3 { SQRT_3_MILLIONTHS } else { 1_000_000 };
    let derate = u128::try_from(derate_millionths).unwrap_or(0);
    let watts = u128::from(amps) * u128::from(volts) * phase_factor * derate / 1_000_000_000_000;
    Watts(u64::try_from(watts).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_carries_four_fifths() {
        assert_eq!(breaker_limit(63, 415, 3, 800_000), Watts(36_227));
        assert_eq!(breaker_limit(16, 230, 1, 800_000), Watts(2_944));
    }
}
