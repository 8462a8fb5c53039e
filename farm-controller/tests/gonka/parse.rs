//! Every answer in its known spellings, and any JSON at all.

use farm_controller::gonka::parse;
use farm_core::gonka::{ConfirmationPhase, Decimal, Height, Ngonka, NodeStatus, Phase};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{ADDRESS, MODEL, answer};

const START: i64 = 6_340_000;

#[test]
fn an_epoch_is_read_in_both_spellings() {
    let epoch = parse::chain_epoch(&answer("epochs_latest")).unwrap();
    assert_eq!((epoch.height, epoch.phase), (Height(START + 4_010), Phase::Inference));
    assert_eq!(epoch.stages.epoch_index, 410);
    assert_eq!(epoch.next_stages.unwrap().poc_start, epoch.stages.next_poc_start);
    // Its heights are reckoned from the start of generation by the epoch's lengths.
    let event = epoch.confirmation.unwrap();
    assert_eq!((event.sequence, event.phase), (1, ConfirmationPhase::Generation));
    assert_eq!(event.generation.end, Height(START + 4_062));
    assert_eq!(event.validation.start, Height(START + 4_067));
    assert_eq!(event.validation.end, Height(START + 4_547));

    let old = parse::chain_epoch(&answer("epochs_latest_old")).unwrap();
    assert_eq!((old.height, old.phase), (Height(START + 30), Phase::PocGenerate));
    assert_eq!(old.stages, epoch.stages);
    assert_eq!((old.next_stages, old.confirmation), (None, None));

    let error = parse::chain_epoch(&json!({"block_height": 1, "phase": "Later"})).unwrap_err();
    assert_eq!(error.to_string(), "epoch_stages: expected the stages, found nothing");
}

#[test]
fn the_rules_are_read_in_both_spellings() {
    let params = parse::chain_params(&answer("params")).unwrap();
    let mint = params.mint.unwrap();
    assert_eq!(mint.initial, Ngonka(323_000_000_000_000));
    assert_eq!(mint.decay, Decimal::new(-475, -6).unwrap());
    assert_eq!(params.epoch.unwrap().epoch, 15_391);
    let confirmation = params.confirmation.unwrap();
    assert_eq!((confirmation.expected_per_epoch, confirmation.safety_window), (4, Some(500)));
    assert_eq!(params.collateral.unwrap().per_weight_unit.to_string(), "32000000");
    let delegation = params.delegation.unwrap();
    assert_eq!(delegation.no_participation_penalty, Decimal::new(15, -2));
    let model = params.model(MODEL).unwrap();
    assert_eq!((model.seq_len, model.penalty_start_epoch), (1_024, Some(271)));
    assert_eq!(model.coefficient, Decimal::new(3_024, -4));

    let single = parse::chain_params(&answer("params_single_model")).unwrap();
    let model = single.model("Qwen/Qwen3-0.6B").unwrap();
    assert_eq!((model.seq_len, model.coefficient), (256, Decimal::new(1, 0)));
    assert_eq!((single.mint, single.collateral, single.confirmation), (None, None, None));
}

#[test]
fn hosts_and_weights_are_read() {
    let all = parse::participants(&answer("participants")).unwrap();
    assert_eq!((all.epoch_index, all.poc_start, all.total_weight()), (410, Height(START), 497_724));
    let own = &all.hosts[0];
    assert_eq!((own.address.as_str(), own.weight, own.nodes.len()), (ADDRESS, 3_656, 2));
    assert_eq!(own.nodes[1].timeslots, [true, true]);

    let group = parse::epoch_group(&answer("group")).unwrap();
    assert_eq!((group.epoch_index, group.total_weight), (410, 497_724));
    assert_eq!(group.member(ADDRESS).unwrap().confirmation_weight, Some(3_300));
    assert_eq!(group.coefficients[1].effective, Decimal::new(62, -2).unwrap());

    let coefficients = parse::coefficients(&answer("coefficients")).unwrap();
    assert_eq!(coefficients[1].effective, Decimal::new(601, -3).unwrap());
    assert_eq!(coefficients[1].bounds.unwrap().1, Decimal::new(682, -3).unwrap());
}

#[test]
fn results_and_money_are_read() {
    let result = parse::epoch_result(&answer("performance")).unwrap();
    assert_eq!((result.epoch_index, result.missed, result.claimed), (409, 31, true));
    assert_eq!((result.rewarded, result.burned), (Ngonka(1_950_000_000_000), Ngonka(0)));
    let settlement = parse::settlement(&answer("settle_amount")).unwrap();
    assert_eq!((settlement.epoch_index, settlement.work), (409, Ngonka(880_000_000)));
    assert_eq!(parse::collateral(&answer("collateral")).unwrap(), Ngonka(120_000_000_000));
    assert_eq!(parse::vesting(&answer("vesting")).unwrap(), Ngonka(77_000_000_000_000));
    let delegations = parse::delegations(&answer("delegation"));
    assert_eq!(delegations.delegated[0].0, "zai-org/GLM-5.3-Flash");
    let models = parse::models(&answer("models")).unwrap();
    assert_eq!((models[0].id.as_str(), models[0].vram_gb), (MODEL, Some(230)));
    assert_eq!(parse::prices(&answer("pricing")).unwrap()[0].price, Some(Ngonka(17)));
    assert_eq!(parse::versions(&answer("versions")).api, "v0.2.15-post5");
    let hardware = parse::hardware(&answer("hardware"));
    assert_eq!(hardware[0].cards, [("NVIDIA H100 80GB HBM3".to_owned(), 4)]);
    let status = parse::comet_status(&answer("comet_status")).unwrap();
    assert_eq!(status, (Height(START + 4_011), false));
}

#[test]
fn confirmation_events_are_read() {
    let lengths = parse::chain_params(&answer("params")).unwrap().epoch;
    let event = parse::active_confirmation(&answer("confirmation_event"), lengths).unwrap();
    assert_eq!(event.generation.start, Height(START + 4_002));
    let all = parse::confirmations(&answer("confirmation_events"), lengths);
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].sequence, all[0].phase), (0, ConfirmationPhase::Completed));
    assert_eq!(parse::active_confirmation(&json!({"event": null}), lengths), None);
}

#[test]
fn registered_nodes_are_read() {
    let nodes = parse::registered(&answer("admin_nodes")).unwrap();
    assert_eq!((nodes[0].node_num, nodes[0].current), (Some(3), NodeStatus::Inference));
    assert!(nodes[0].enabled && nodes[0].status_at.is_some());
    assert_eq!(nodes[0].models, [MODEL]);
    assert_eq!((nodes[1].intended, nodes[1].current), (NodeStatus::Stopped, NodeStatus::Failed));
    assert_eq!(nodes[1].failure.as_deref(), Some("inference up: timeout"));
    assert!(!nodes[1].enabled);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-0-9.eE]{0,24}|[a-zA-Z]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(|fields| {
                Value::from(
                    fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

/// Names that lead into the parsers' depths.
const NAMES: &[&str] = &[
    "block_height",
    "phase",
    "epoch_stages",
    "epoch_index",
    "poc_start",
    "epoch_params",
    "params",
    "epoch_length",
    "poc_stage_duration",
    "poc_validation_duration",
    "latest_epoch",
    "index",
    "active_confirmation_poc_event",
    "trigger_height",
    "active_participants",
    "participants",
    "weight",
    "ml_nodes",
    "node_id",
    "models",
    "model_id",
    "seq_len",
    "value",
    "exponent",
    "epoch_group_data",
    "validation_weights",
    "member_address",
    "events",
    "event",
    "amount",
    "node",
    "state",
    "id",
    "status_timestamp",
    "result",
    "sync_info",
    "latest_block_height",
];

fn read_all(value: &Value) {
    let lengths = parse::chain_params(value).ok().and_then(|params| params.epoch);
    let _ = (parse::chain_epoch(value), parse::participants(value), parse::epoch_group(value));
    let _ = (parse::coefficients(value), parse::epoch_result(value), parse::settlement(value));
    let _ = (parse::delegations(value), parse::collateral(value), parse::vesting(value));
    let _ = (parse::models(value), parse::prices(value), parse::versions(value));
    let _ = (parse::hardware(value), parse::comet_status(value), parse::registered(value));
    let _ = (parse::active_confirmation(value, lengths), parse::confirmations(value, lengths));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        read_all(&value);
    }

    /// A good answer with one field spoiled, so that the parsers are met deep inside.
    #[test]
    fn a_spoiled_answer_is_read_or_refused(name in 0_usize..5, place in any::<prop::sample::Index>(), bad in any_json()) {
        let name = ["epochs_latest", "participants", "params", "group", "admin_nodes"][name];
        let mut value = answer(name);
        let mut count = 0;
        count_leaves(&value, &mut count);
        let mut at = place.index(count);
        spoil(&mut value, &mut at, &bad);
        read_all(&value);
    }
}

fn count_leaves(value: &Value, count: &mut usize) {
    *count += 1;
    match value {
        Value::Object(fields) => fields.values().for_each(|value| count_leaves(value, count)),
        Value::Array(list) => list.iter().for_each(|value| count_leaves(value, count)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn spoil(value: &mut Value, at: &mut usize, bad: &Value) {
    if *at == 0 {
        *value = bad.clone();
        *at = usize::MAX;
        return;
    }
    *at = at.saturating_sub(1);
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| spoil(value, at, bad)),
        Value::Array(list) => list.iter_mut().for_each(|value| spoil(value, at, bad)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
