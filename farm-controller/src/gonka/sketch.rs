//! The picture for people: facts, verdicts and promises into a [`GonkaView`]. Nothing is decided here.

use farm_core::gonka::{
    Calendar, Estimate, Fact, GonkaFacts, Income, Ngonka, Phase, Registration, Span,
};
use farm_core::plan::{Commitment, IncomeSource};
use roadbed_protocol::UnixMillis;

use super::desk::Found;
use super::promised::Promised;
use super::view::{
    AgeView, GonkaRigView, GonkaView, IncomeView, PromiseView, WeightView, WindowView,
};

/// Draws everything.
#[must_use]
pub fn view(
    facts: &GonkaFacts,
    found: &[Found],
    promised: &Promised,
    now: UnixMillis,
) -> GonkaView {
    let chain = facts.epoch.last().map(|(chain, _)| chain);
    GonkaView {
        at: now,
        address: facts.address.clone(),
        answering: facts.answering.clone(),
        disagreement: facts.disagreement.clone(),
        height: facts.highest.map(|(height, at)| (height.0, at)),
        block_time: facts.block.map(|block| block.block_time),
        epoch: chain.map(|chain| chain.stages.epoch_index),
        phase: chain.map(|chain| phase(chain.phase).to_owned()),
        windows: windows(facts, now),
        weight: weight(facts),
        funds: funds(facts),
        versions: facts.versions.last().map_or_else(String::new, |(versions, _)| {
            format!("API {}, chain {}", versions.api, versions.node)
        }),
        rigs: found.iter().map(|one| rig(one, promised)).collect(),
        alerts: Vec::new(),
        ages: ages(facts),
    }
}

/// The chain's own word.
const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::PocGenerate => "PoCGenerate",
        Phase::PocGenerateWindDown => "PoCGenerateWindDown",
        Phase::PocValidate => "PoCValidate",
        Phase::PocValidateWindDown => "PoCValidateWindDown",
        Phase::Inference => "Inference",
    }
}

/// The stages of this epoch and the next that are not over.
fn windows(facts: &GonkaFacts, now: UnixMillis) -> Vec<WindowView> {
    let (Some((chain, _)), Some(block)) = (facts.epoch.last(), facts.block) else {
        return Vec::new();
    };
    let confirmation = facts.params.last().and_then(|(params, _)| params.confirmation);
    let next = chain.next_stages.unwrap_or_else(|| chain.stages.following());
    let calendar = |stages, next| Calendar::new(stages, next, confirmation.as_ref(), &block);
    let epochs = [calendar(&chain.stages, Some(&next)), calendar(&next, None)];
    let mut windows = Vec::new();
    let mut add = |name: String, span: Span| windows.push(window(name, span));
    if let Some(event) = &chain.confirmation {
        let number = event.sequence + 1;
        add(format!("confirmation PoC {number}: generate"), Span::of(&block, event.generation));
        add(format!("confirmation PoC {number}: validate"), Span::of(&block, event.validation));
    }
    for epoch in epochs {
        let index = epoch.epoch_index;
        add(format!("epoch {index}: PoC generate"), epoch.generate);
        add(format!("epoch {index}: PoC validate"), epoch.validate);
        if let Some(quiet) = epoch.quiet {
            add(format!("epoch {index}: no confirmation PoC"), quiet);
        }
    }
    windows.retain(|window| window.until > now);
    windows.sort_by_key(|window| window.from);
    windows
}

fn window(name: String, span: Span) -> WindowView {
    let Estimate { at: from, error } = span.from;
    WindowView { name, block: span.blocks.start.0, from, error, until: span.until.at }
}

fn weight(facts: &GonkaFacts) -> Option<WeightView> {
    let (group, _) = facts.group.last()?;
    Some(WeightView {
        own: group.member(&facts.address).map_or(0, |member| member.weight),
        confirmed_permille: facts.confirmed_permille(),
        total: u64::try_from(group.total_weight).unwrap_or(u64::MAX),
    })
}

fn funds(facts: &GonkaFacts) -> Vec<(String, String)> {
    let mut funds = Vec::new();
    let mut add = |name: &str, amount: Ngonka| funds.push((name.to_owned(), gnk(amount)));
    if let Some((amount, _)) = facts.collateral.last() {
        add("collateral", *amount);
    }
    if let Some((amount, _)) = facts.vesting.last() {
        add("vesting", *amount);
    }
    if let Some((settlement, _)) = facts.settlement.last() {
        let name = format!("to be claimed of epoch {}", settlement.epoch_index);
        add(&name, Ngonka(settlement.reward.0.saturating_add(settlement.work.0)));
    }
    if let Some((result, _)) = facts.result.last() {
        add(&format!("rewarded for epoch {}", result.epoch_index), result.rewarded);
        if result.burned.0 > 0 {
            add(&format!("burned of epoch {}", result.epoch_index), result.burned);
        }
    }
    funds
}

/// Whole GNK with three places, cut.
#[must_use]
pub fn gnk(amount: Ngonka) -> String {
    let thousandths = amount.0 / 1_000_000;
    format!("{}.{:03} GNK", thousandths / 1_000, thousandths % 1_000)
}

fn rig(found: &Found, promised: &Promised) -> GonkaRigView {
    let registered = match found.registration {
        Registration::Unknown => "not known",
        Registration::Absent => "no",
        Registration::Present { is_enabled: true, has_model: true } => "yes",
        Registration::Present { is_enabled: true, has_model: false } => "without the model",
        Registration::Present { is_enabled: false, .. } => "disabled",
    };
    let eligible = found.verdict.is_eligible();
    GonkaRigView {
        rig: found.rig.rig.clone(),
        node_id: found.rig.node_id.clone(),
        shares_node_with: found.shares_node_with.clone(),
        model: found.rig.model.clone(),
        registered: registered.to_owned(),
        eligible,
        reasons: found.verdict.reasons.iter().map(ToString::to_string).collect(),
        income: income(&found.income, eligible),
        promises: promised.of(&found.rig.rig).map(promise).collect(),
    }
}

/// A commitment for people.
#[must_use]
pub fn promise(commitment: &Commitment) -> PromiseView {
    PromiseView {
        id: commitment.id.clone(),
        ready_by: commitment.from - commitment.load_lead,
        from: commitment.from,
        until: commitment.until,
        income: commitment.income,
        penalty: commitment.penalty,
        assumed: commitment.source == IncomeSource::Assumption,
    }
}

/// A rig that cannot earn gets no sum, however well its steps could be reckoned.
fn income(income: &Income, eligible: bool) -> IncomeView {
    let sum = income.sum.as_ref().ok().filter(|_| eligible);
    let source = |source: &IncomeSource| match source {
        IncomeSource::Data { at } => format!("read at {at} UTC"),
        IncomeSource::Assumption => "assumption".to_owned(),
    };
    let steps = &income.steps;
    let mut shown = Vec::new();
    let mut step = |name: &str, value: Option<String>| {
        shown.extend(value.map(|value| (name.to_owned(), value)));
    };
    let count = |value: Option<u64>| value.map(|value| value.to_string());
    step("nonces in a generate stage", count(steps.nonces));
    step("weight", count(steps.weight));
    step("backed by collateral", count(steps.backed));
    step("confirmed", count(steps.confirmed));
    step("after delegation", count(steps.kept));
    step("under the cap on one host", count(steps.capped).filter(|_| steps.capped != steps.kept));
    step(
        "share of the network",
        steps.share_millionths.map(|share| format!("{}.{:04} %", share / 10_000, share % 10_000)),
    );
    step("reward of the epoch", steps.reward.map(gnk));
    step("expected after losses", steps.expected.map(gnk));
    let epochs = income.parts.vesting_epochs.as_ref().map(|epochs| epochs.value);
    step(
        "paid out with each epoch",
        steps
            .released
            .zip(epochs)
            .map(|(amount, epochs)| format!("{} for {epochs} epochs", gnk(amount))),
    );
    step("collateral at stake", steps.slash.map(gnk));
    IncomeView {
        by_epoch: sum.map(|sum| sum.money),
        by_hour: sum.map(|sum| sum.rate),
        assumed: sum.is_some_and(|sum| sum.source == IncomeSource::Assumption),
        oldest: sum.and_then(|sum| match sum.source {
            IncomeSource::Data { at } => Some(at),
            IncomeSource::Assumption => None,
        }),
        steps: shown,
        parts: income
            .parts
            .sources()
            .iter()
            .filter_map(|(part, origin)| Some((part.to_string(), source(origin.as_ref()?))))
            .collect(),
        missing: income
            .sum
            .as_ref()
            .err()
            .map(|missing| missing.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

fn ages(facts: &GonkaFacts) -> Vec<AgeView> {
    vec![
        age("height and stages", &facts.epoch),
        age("the chain's rules", &facts.params),
        age("hosts and weights", &facts.participants),
        age("confirmed weights", &facts.group),
        age("coefficients", &facts.coefficients),
        age("collateral", &facts.collateral),
        age("delegations", &facts.delegations),
        age("models", &facts.models),
        age("versions", &facts.versions),
        age("MLNodes (admin API)", &facts.nodes),
    ]
}

fn age<T>(what: &str, fact: &Fact<T>) -> AgeView {
    let problem = match fact {
        Fact::Unread => Some("not asked yet".to_owned()),
        Fact::NotOffered { .. } => Some("the Network Node does not have it".to_owned()),
        Fact::Failing(failing) | Fact::Read { failing: Some(failing), .. } => {
            Some(format!("fails since {} UTC: {}", failing.since, failing.reason))
        }
        Fact::Read { failing: None, .. } => None,
    };
    AgeView { what: what.to_owned(), at: fact.last().map(|(_, at)| at), problem }
}
