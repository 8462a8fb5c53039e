//! What follows for the farm: promises, incomes and reasons, with fresh facts, with stale ones and without any.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use farm_controller::config::Site;
use farm_controller::feeds::{Hashing, options};
use farm_controller::gonka::desk::{Desk, Outcome, RigSight, sights};
use farm_controller::gonka::promised::Promised;
use farm_controller::gonka::question::Question;
use farm_controller::gonka::reader::Reader;
use farm_controller::gonka::view::risk;
use farm_controller::view::{FarmView, RigView};
use farm_core::gonka::{EngineHealth, Generating, GonkaFacts, Height};
use farm_core::plan::{Commitment, IncomeSource};
use roadbed_protocol::{
    MicrosPerHour, Millis, ProofActivity, ProofRate, ProofRound, ProofStatus, RigId, UnixMillis,
    Workload,
};
use serde_json::json;

use super::reader::{ask_all, at};
use super::{ADDRESS, MODEL, answer};

fn site() -> Site {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/gonka-site.yaml");
    Site::load(&path).unwrap()
}

/// The same rigs as the gateway's single MLNode, which the Network Node knows as the first one's node.
fn one_node() -> Site {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles");
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpu-h100.yaml", "demo-policy.yaml"] {
        std::fs::copy(profiles.join(name), folder.path().join(name)).unwrap();
    }
    let text = std::fs::read_to_string(profiles.join("gonka-site.yaml")).unwrap();
    let (text, _) = text.split_once("    - rig: h100-2").unwrap();
    let listen = "  listen: 127.0.0.1:18890\n";
    let single = format!("{listen}  single_mlnode: {{rigs: [h100-1, h100-2]}}\n");
    let text = text.replace(listen, &single).replace("18890/rigs/h100-1", "18890/mlnode");
    let file = folder.path().join("site.yaml");
    std::fs::write(&file, text).unwrap();
    Site::load(&file).unwrap()
}

/// Facts of a healthy Network Node two hundred blocks before the next PoC, with a measured pace.
fn facts() -> GonkaFacts {
    let mut reader = Reader::new(ADDRESS, vec![MODEL.to_owned()], true, false);
    let epoch = |height: i64| {
        let mut value = answer("epochs_latest");
        value["block_height"] = json!(height);
        value["active_confirmation_poc_event"] = json!(null);
        value
    };
    reader.take(Question::Epoch, &Ok(epoch(6_355_181)), at(-55));
    ask_all(&mut reader, at(-55));
    reader.take(Question::ActiveConfirmation, &Ok(json!({})), at(-55));
    reader.take(Question::Epoch, &Ok(epoch(6_355_191)), at(0));
    let mut facts = reader.facts().clone();
    // The second node of the answers is disabled.
    facts.confirmation.answered(None, at(0));
    facts
}

fn rigs() -> BTreeMap<RigId, RigSight> {
    let sight = RigSight {
        rates: vec![ProofRate {
            model: MODEL.to_owned(),
            seq_len: 1_024,
            millinonces_per_minute: 1_400_000,
            measured_at: at(-3_600),
        }],
        engine: EngineHealth::Answering,
        generating: Generating::Nothing,
        callbacks_refused: Some(0),
    };
    ["h100-1", "h100-2"].map(|id| (RigId::new(id).unwrap(), sight.clone())).into()
}

fn look(desk: &mut Desk, facts: &GonkaFacts, now: UnixMillis) -> Outcome {
    desk.look(facts, &rigs(), now)
}

fn ids(commitments: &[Commitment]) -> Vec<(&str, &str)> {
    commitments.iter().map(|it| (it.rig.as_str(), it.id.as_str())).collect()
}

#[test]
fn an_eligible_rig_promises_whole_epochs_and_earns_in_them() {
    let site = site();
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let outcome = look(&mut desk, &facts(), at(0));
    let eligible: Vec<bool> = outcome.view.rigs.iter().map(|rig| rig.eligible).collect();
    assert_eq!(eligible, [true, false], "{:?}", outcome.view.rigs);
    assert_eq!(outcome.view.rigs[1].reasons, ["the node is disabled at the Network Node"]);
    assert_eq!(outcome.view.rigs[1].income.by_epoch, None, "what cannot earn shows no sum");
    // Both work in the epoch under way; only one joins the next.
    let ids = ids(&outcome.commitments);
    let expected = [
        ("h100-1", "gonka-epoch-410"),
        ("h100-2", "gonka-epoch-410"),
        ("h100-1", "gonka-epoch-411"),
    ];
    assert_eq!(ids, expected);
    let next = &outcome.commitments[2];
    assert_eq!(next.workload, Workload::Prove { model: MODEL.to_owned() });
    // 200 blocks of 5.5 s, less five per cent and a block for the error.
    let start = at(1_100);
    assert!(start - Millis::from_secs(61) <= next.from && next.from < start, "{}", next.from);
    // Every step as the chain makes it; the price is the operator's, so the whole is an assumption.
    let income = &outcome.view.rigs[0].income;
    let steps: BTreeMap<&str, &str> =
        income.steps.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // 48 blocks of 5.5 s at 1400 nonces a minute, by 0.3024.
    assert_eq!(steps["nonces in a generate stage"], "6160");
    assert_eq!(steps["weight"], "1862");
    assert!(income.assumed && income.missing.is_empty());
    assert_eq!(next.source, IncomeSource::Assumption);
    assert!(next.income > roadbed_protocol::Money(0));

    let rig = site.rig(&RigId::new("h100-1").unwrap()).unwrap();
    let prove = |promised: &[Commitment]| {
        let all = options(&site, rig, promised, Hashing::default(), at(0));
        let prove = all.into_iter().find(|it| matches!(it.workload, Workload::Prove { .. }));
        prove.unwrap()
    };
    assert!(prove(&outcome.commitments).income_at(8) > MicrosPerHour::ZERO);
    assert_eq!(prove(&[]).income_at(8), MicrosPerHour::ZERO);
}

#[test]
fn a_newer_figure_at_another_length_hides_none() {
    let mut rigs = rigs();
    let wanted = Desk::new(&site(), Promised::default()).unwrap().look(&facts(), &rigs, at(0));
    for sight in rigs.values_mut() {
        // As a benchmark leaves it.
        let other = ProofRate {
            seq_len: 64,
            millinonces_per_minute: 90_000_000,
            measured_at: at(-60),
            ..sight.rates[0].clone()
        };
        sight.rates.insert(0, other);
    }
    let found = Desk::new(&site(), Promised::default()).unwrap().look(&facts(), &rigs, at(0));
    assert!(found.view.rigs.iter().any(|rig| rig.eligible));
    assert_eq!(found.view.rigs, wanted.view.rigs);
    // The length that counts was never measured.
    rigs.values_mut().for_each(|sight| drop(sight.rates.remove(1)));
    let found = Desk::new(&site(), Promised::default()).unwrap().look(&facts(), &rigs, at(0));
    assert!(found.view.rigs.iter().all(|rig| !rig.eligible), "{:?}", found.view.rigs);
}

#[test]
fn rigs_that_are_one_node_promise_and_earn_each_by_its_rate() {
    let site = one_node();
    let rigs_of = |site: &Site| site.gonka.clone().unwrap().rigs;
    let entry = RigId::new("h100-1").unwrap();
    let behind: Vec<_> = rigs_of(&site).into_iter().map(|rig| (rig.node_id, rig.behind)).collect();
    let node = || "farm-h100-1".to_owned();
    assert_eq!(behind, [(node(), None), (node(), Some(entry))]);
    assert_eq!(
        rigs_of(&self::site()).len(),
        2,
        "rigs with entries of their own stand for themselves"
    );

    let mut rigs = rigs();
    let second = rigs.get_mut(&RigId::new("h100-2").unwrap()).unwrap();
    second.rates[0].millinonces_per_minute = 700_000;
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let outcome = desk.look(&facts(), &rigs, at(0));
    assert!(outcome.view.rigs.iter().all(|rig| rig.eligible), "{:?}", outcome.view.rigs);
    let promised: BTreeSet<_> = ids(&outcome.commitments).into_iter().collect();
    let epochs = ["gonka-epoch-410", "gonka-epoch-411"];
    let wanted: BTreeSet<_> =
        ["h100-1", "h100-2"].into_iter().flat_map(|rig| epochs.map(|epoch| (rig, epoch))).collect();
    assert_eq!(promised, wanted);
    let nonces = |at: usize| {
        let steps = &outcome.view.rigs[at].income.steps;
        steps.iter().find(|(name, _)| name == "nonces in a generate stage").unwrap().1.clone()
    };
    assert_eq!((&*nonces(0), &*nonces(1)), ("6160", "3080"));
    assert_eq!(outcome.view.rigs[1].shares_node_with, [RigId::new("h100-1").unwrap()]);
    let [one, two] = [0, 1].map(|at| outcome.view.rigs[at].income.by_epoch.unwrap().0);
    assert!(
        two > 0 && (one - 2 * two).abs() < one / 20,
        "half the rate is about half the income: {one}, {two}"
    );
    // That the node is unknown would be said once.
    let mut unknown = facts();
    unknown.nodes.answered(Vec::new(), at(0));
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let said = desk.look(&unknown, &rigs, at(0)).alerts;
    let of_second = said.iter().filter(|alert| alert.text.contains("h100-2")).count();
    assert_eq!(of_second, 0, "{said:?}");
}

#[test]
fn stale_facts_make_no_new_promise_and_break_none() {
    let site = site();
    let facts = facts();
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let made = look(&mut desk, &facts, at(0)).commitments;
    let later = look(&mut desk, &facts, at(1_800));
    assert_eq!(later.commitments, made);
    assert!(!later.view.rigs[0].eligible && later.view.rigs[0].income.by_epoch.is_none());
    assert!(later.view.rigs[0].reasons[0].starts_with("where the chain stands: last read at"));
    // A restart in the silence knows them; one that knows none makes none.
    let restored = Promised::from_document(&desk.document());
    let mut desk = Desk::new(&site, restored).unwrap();
    assert_eq!(look(&mut desk, &facts, at(1_800)).commitments, made);
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    assert_eq!(look(&mut desk, &facts, at(1_800)).commitments, []);
    assert_eq!(look(&mut desk, &GonkaFacts::default(), at(0)).commitments, []);
}

#[test]
fn what_is_not_known_is_named_and_gives_no_income() {
    let site = site();
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let outcome = desk.look(&facts(), &BTreeMap::new(), at(0));
    let rig = &outcome.view.rigs[0];
    assert!(!rig.eligible);
    assert!(
        rig.reasons.iter().any(|reason| reason.contains("nonces per minute were never measured"))
    );
    assert_eq!(rig.income.missing, ["the rig's nonces per minute"]);
    assert_eq!(ids(&outcome.commitments).len(), 2, "the epoch under way is kept all the same");
}

#[test]
fn a_hold_is_told_what_it_breaks() {
    let site = site();
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let view = look(&mut desk, &facts(), at(0)).view;
    let text = risk(&view.rigs[0].promises, at(0)).unwrap();
    assert!(text.starts_with("breaks gonka-epoch-410, gonka-epoch-411 (under way until"), "{text}");
    assert!(text.ends_with("(assumption) in income and penalty"), "{text}");
    let over = view.rigs[0].promises.last().unwrap().until;
    assert_eq!(risk(&view.rigs[0].promises, over), None);
}

#[test]
fn a_node_that_the_network_node_forgot_is_told_once() {
    let site = site();
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let mut facts = facts();
    facts.nodes.answered(Vec::new(), at(0));
    let mut alerts = Vec::new();
    for second in 0..8 {
        alerts.extend(look(&mut desk, &facts, at(second * 6)).alerts);
    }
    let told: Vec<(&str, Option<&str>)> = alerts
        .iter()
        .map(|alert| (alert.key.as_str(), alert.rig.as_ref().map(RigId::as_str)))
        .collect();
    assert_eq!(told, [("gonka-unknown", Some("h100-1")), ("gonka-unknown", Some("h100-2"))]);
}

#[test]
fn an_old_generation_and_refused_deliveries_are_told_of_their_rig() {
    let site = site();
    let mut desk = Desk::new(&site, Promised::default()).unwrap();
    let facts = facts();
    let mut rigs = rigs();
    let mut alerts = Vec::new();
    for second in 0..12 {
        let rig = rigs.get_mut(&RigId::new("h100-2").unwrap()).unwrap();
        rig.generating = if (2..7).contains(&second) {
            Generating::For(Height(6_300_000))
        } else {
            Generating::Nothing
        };
        rig.callbacks_refused = Some(if second < 5 { 7 } else { 9 });
        alerts.extend(desk.look(&facts, &rigs, at(second * 6)).alerts);
    }
    let told: Vec<(&str, bool)> =
        alerts.iter().map(|alert| (alert.key.as_str(), alert.active)).collect();
    assert_eq!(
        told,
        [
            ("gonka-stale-generating", true),
            ("gonka-callback", true),
            ("gonka-callback", false),
            ("gonka-stale-generating", false),
        ]
    );
    assert!(
        alerts.iter().all(|alert| alert.rig.as_ref().is_some_and(|rig| rig.as_str() == "h100-2"))
    );
    assert!(alerts[1].text.contains("refused 2 deliveries for good (4xx)"), "{}", alerts[1].text);
}

#[test]
fn what_a_rig_reports_of_its_proofs_is_seen_while_it_is_there() {
    let round =
        ProofRound { block_hash: "AB".into(), block_height: 6_339_991, processed: 3, waiting: 1 };
    let mut view = super::adviser::view("running", 0).rigs.remove(0);
    view.online = true;
    view.reported_at = Some(at(0));
    view.jobs.callbacks_refused = 4;
    view.proof = None;
    let mut status =
        ProofStatus { activity: ProofActivity::Generating, since: at(-9), round: Some(round) };
    let seen = |view: &RigView| {
        let farm = FarmView { rigs: vec![view.clone()], ..FarmView::default() };
        let sight = sights(&farm).into_values().next().unwrap();
        (sight.generating, sight.callbacks_refused)
    };
    assert_eq!(seen(&view), (Generating::Unknown, Some(4)), "no engine of ours");
    view.proof = Some(status.clone());
    assert_eq!(seen(&view), (Generating::For(Height(6_339_991)), Some(4)));
    // A round that ended early and still delivers is no generation.
    status.activity = ProofActivity::Idle;
    view.proof = Some(status);
    assert_eq!(seen(&view).0, Generating::Nothing);
    view.online = false;
    assert_eq!(seen(&view), (Generating::Unknown, None));
}
