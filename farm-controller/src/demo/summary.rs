//! What the day came to: every figure from the controller's store or from a stand-in that judged it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use farm_core::ledger::{Account, Ledger};
use serde::Serialize;

use super::claims::{self, Claim};
use super::day::Day;
use super::judgements::Judgements;
use super::site_time;
use crate::cli::Table;
use crate::config::{Site, span_words};
use crate::control::Kept;

/// The summary of a demo.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// What was run.
    pub title: String,
    /// Currency of all money here.
    pub currency: String,
    /// One line a rig, the total last.
    pub accounts: Vec<AccountLine>,
    /// Every switch with its reason, by rig.
    pub switches: BTreeMap<String, Vec<String>>,
    /// Assumptions behind the revenue.
    pub origins: Vec<String>,
    /// The customer's last answer.
    pub last_answer: String,
    /// The GPU rig's engines, as they name themselves.
    pub engines: BTreeSet<String>,
    /// Every claim.
    pub claims: Vec<Claim>,
    /// Where logs, store and configs lie.
    pub work_dir: String,
}

/// One rig's account, money in millionths.
#[derive(Debug, Clone, Serialize)]
pub struct AccountLine {
    /// The rig, or "total".
    pub rig: String,
    /// Energy.
    pub watt_hours: u64,
    /// What it cost.
    pub cost_micros: i64,
    /// What was earned.
    pub revenue_micros: i64,
    /// Of it, by assumption.
    pub assumed_micros: i64,
    /// Revenue less cost.
    pub margin_micros: i64,
    /// Switches.
    pub switches: u64,
    /// The line as people read it.
    #[serde(skip)]
    cells: Vec<String>,
}

impl Summary {
    pub(super) fn new(
        site: &Site,
        day: &Day,
        kept: &Kept,
        judgements: &Judgements,
        engines: BTreeSet<String>,
        work_dir: &Path,
    ) -> Self {
        let mut ledger = Ledger::default();
        for entry in &kept.entries {
            ledger.apply(entry);
        }
        let mut accounts: Vec<AccountLine> =
            ledger.accounts().map(|(rig, account)| line(rig.as_str(), account)).collect();
        accounts.push(line("total", &ledger.total()));
        let mut switches: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for switch in ledger.switches() {
            let word = |workload: &Option<roadbed_protocol::Workload>| {
                workload.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
            };
            let text = format!(
                "{} {} -> {}: {}",
                site_time(switch.at, site),
                word(&switch.from),
                word(&switch.to),
                switch.reason
            );
            switches.entry(switch.rig.to_string()).or_default().push(text);
        }
        Self {
            title: format!(
                "{}: {} from {} at {} times the speed of the wall",
                site.name,
                span_words(day.end.since(day.start)),
                site_time(day.start, site),
                day.clock.rate
            ),
            currency: site.currency.clone(),
            accounts,
            switches,
            origins: site.income.origins.clone(),
            last_answer: judgements.customer.last_text.clone(),
            engines,
            claims: claims::judge(site, day, &kept.entries, &ledger, judgements),
            work_dir: work_dir.display().to_string(),
        }
    }

    /// Claims that did not hold.
    pub fn failed(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|claim| !claim.held)
    }
}

fn line(rig: &str, account: &Account) -> AccountLine {
    let energy = account.energy.watt_hours();
    AccountLine {
        rig: rig.to_owned(),
        watt_hours: energy.0,
        cost_micros: account.cost.0,
        revenue_micros: account.revenue().0,
        assumed_micros: account.income_assumed.0,
        margin_micros: account.margin().0,
        switches: account.switches,
        cells: vec![
            rig.to_owned(),
            energy.to_string(),
            account.cost.to_string(),
            account.revenue().to_string(),
            account.income_assumed.to_string(),
            account.margin().to_string(),
            account.switches.to_string(),
        ],
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}, money in {}\n", self.title, self.currency)?;
        let mut table = Table::new(&[
            "rig",
            "energy",
            "cost",
            "revenue",
            "of it assumed",
            "margin",
            "switches",
        ]);
        for account in &self.accounts {
            table.row(account.cells.clone());
        }
        writeln!(f, "{table}")?;
        for (rig, switches) in &self.switches {
            writeln!(f, "{rig}")?;
            for switch in switches {
                writeln!(f, "  {switch}")?;
            }
        }
        writeln!(f)?;
        for origin in &self.origins {
            writeln!(f, "income: {origin}")?;
        }
        for engine in &self.engines {
            writeln!(f, "engine: {engine}")?;
        }
        writeln!(f, "last answer: {:?}\n", self.last_answer)?;
        for claim in &self.claims {
            let mark = if claim.held { "held  " } else { "FAILED" };
            writeln!(f, "{mark} {}: {}", claim.name, claim.evidence)?;
        }
        writeln!(f, "\nlogs, configs and store: {}", self.work_dir)
    }
}
