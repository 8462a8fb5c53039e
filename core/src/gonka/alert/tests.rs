//! Conditions are told once, at their edge, and never twice.

use super::*;
use crate::gonka::fixture::{epoch, moment};
use crate::gonka::{ConfirmationEvent, ConfirmationPhase, StageWindow};

fn sight(seconds: i64, height: i64) -> Sight {
    Sight {
        now: UnixMillis(seconds * 1_000),
        chain: Some(epoch(height)),
        moment: Some(moment(height)),
        unanswered_since: None,
        weight: None,
        confirmed_permille: None,
        nodes: Vec::new(),
        models: None,
        version: None,
    }
}

fn node() -> NodeSight {
    NodeSight {
        rig: RigId::new("gpu-1").unwrap(),
        is_known: Some(true),
        generating: Generating::Nothing,
        callbacks_refused: Some(0),
    }
}

/// Keys raised and cleared, one letter each, over the looks that `change` makes of a good one.
fn run(looks: u32, change: impl Fn(u32, &mut Sight)) -> Vec<(u32, String, bool)> {
    let mut watch = Watch::default();
    let mut told = Vec::new();
    for index in 0..looks {
        let mut sight = sight(i64::from(index) * 5, 101_000 + i64::from(index));
        sight.nodes = vec![node()];
        change(index, &mut sight);
        let alerts = watch.look(&sight);
        told.extend(alerts.into_iter().map(|alert| (index, alert.key, alert.active)));
    }
    told
}

fn told(key: &str, raised: u32, cleared: u32) -> Vec<(u32, String, bool)> {
    vec![(raised, key.into(), true), (cleared, key.into(), false)]
}

#[test]
fn a_good_chain_raises_nothing() {
    assert_eq!(run(50, |_, sight| sight.confirmed_permille = Some(990)), []);
}

#[test]
fn each_condition_is_raised_and_cleared_once() {
    let inside = |index: u32| (10..20).contains(&index);
    let silent = run(40, |index, sight| {
        sight.unanswered_since = inside(index).then_some(UnixMillis(0));
    });
    assert_eq!(silent, told("gonka-silent", 11, 22));
    let known = run(40, |index, sight| sight.nodes[0].is_known = Some(!inside(index)));
    assert_eq!(known, told("gonka-unknown", 11, 22));
    let stale = run(40, |index, sight| {
        sight.nodes[0].generating =
            if inside(index) { Generating::For(Height(85_000)) } else { Generating::Nothing };
    });
    assert_eq!(stale, told("gonka-stale-generating", 11, 22));
    let refused = run(40, |index, sight| {
        sight.nodes[0].callbacks_refused = Some(u64::from(index.clamp(10, 20)));
    });
    assert_eq!(refused, told("gonka-callback", 11, 23));
    let confirmed = run(40, |index, sight| {
        sight.confirmed_permille = Some(if inside(index) { 700 } else { 990 });
    });
    assert_eq!(confirmed, told("gonka-confirmation", 11, 22));
    let halted = run(60, |index, sight| {
        if (10..40).contains(&index) {
            sight.moment = Some(moment(101_010));
        }
    });
    // Twelve block times of 5.35 s, then one look more.
    assert_eq!(halted, told("gonka-halt", 24, 42));
}

#[test]
fn a_level_on_the_edge_does_not_flap() {
    let edge = run(200, |index, sight| {
        sight.confirmed_permille = Some(if index % 2 == 0 { 790 } else { 830 });
    });
    assert!(edge.len() <= 1, "{edge:?}");
    let flicker = run(200, |index, sight| sight.nodes[0].is_known = Some(index % 2 == 0));
    assert_eq!(flicker, []);
}

#[test]
fn a_fall_is_told_though_the_level_is_high() {
    let fall = run(20, |index, sight| {
        sight.confirmed_permille = Some(if index < 10 { 1_000 } else { 890 });
    });
    assert_eq!(fall, vec![(11, "gonka-confirmation".into(), true)]);
}

#[test]
fn a_weight_that_jumps_and_models_that_change_are_told_for_their_epoch() {
    let advance = |index: u32, sight: &mut Sight| {
        let epoch = 410 + u64::from(index / 10);
        sight.chain.as_mut().unwrap().stages.epoch_index = epoch;
        epoch
    };
    let weight = run(50, |index, sight| {
        let epoch = advance(index, sight);
        sight.weight = Some((if epoch == 410 { 1_000 } else { 1_250 }, epoch));
    });
    assert_eq!(weight, told("gonka-weight", 11, 22));
    let model = |coefficient| ModelParams {
        model: "org/model".into(),
        seq_len: 1_024,
        coefficient: Decimal::new(coefficient, -3),
        vram_gb: None,
        dist_threshold: None,
        penalty_start_epoch: None,
    };
    let models = run(50, |index, sight| {
        advance(index, sight);
        sight.models = Some(vec![model(if index < 15 { 246 } else { 270 })]);
        sight.version = Some(if index < 25 { "v0.2.15" } else { "v0.2.16" }.into());
    });
    let expected = [told("gonka-models", 15, 20), told("gonka-version", 25, 30)].concat();
    assert_eq!(models, expected);
    let changes = differences(&[model(246)], &[model(270)]);
    assert_eq!(changes, ["org/model: coefficient 0.246, now 0.270"]);
}

#[test]
fn generating_for_the_event_under_way_is_right() {
    let window = |start| StageWindow { start: Height(start), end: Height(start + 60) };
    let mut sight = sight(0, 105_000);
    let event = ConfirmationEvent {
        sequence: 0,
        trigger: Height(104_990),
        generation: window(104_992),
        validation: window(105_057),
        phase: ConfirmationPhase::Generation,
    };
    sight.chain.as_mut().unwrap().confirmation = Some(event);
    let at = |height| NodeSight { generating: Generating::For(Height(height)), ..node() };
    assert!(matches!(stale(&at(104_990), &sight), Seen::Fine(_)));
    assert!(matches!(stale(&at(100_000), &sight), Seen::Bad(_)));
}
