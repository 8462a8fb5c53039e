//! The task around a PoC against a stand-in rig: the list before it, the watch during it, the account after it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::StatusCode;
use axum::routing::{get, post};
use farm_controller::broker::Waiting;
use farm_controller::clock::{FarmClock, wall_now};
use farm_controller::config::Site;
use farm_controller::control::{Answer, KeepError, Keeper, Record};
use farm_controller::gonka::adviser::Adviser;
use farm_controller::gonka::epoch_record::EpochRecord;
use farm_controller::gonka::preflight::{Trial, measure};
use farm_controller::view::{FarmView, FeederView, RigView};
use farm_core::FarmEvent;
use farm_core::gonka::{
    BlockMoment, ChainEpoch, Check, Culprit, Decimal, EpochGroup, EpochResult, EpochStages,
    GonkaFacts, Grade, GroupMember, Height, MlNodeWeight, ModelCoefficient, Phase, preflight,
};
use roadbed_protocol::{Millis, ProofRate, RigId, UnixMillis, Watts};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ADDRESS;

const DEADLINE: Duration = Duration::from_secs(30);
const MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// A rig's face that answers everything well; says `pow` for its proofs.
async fn stand_in_rig(pow: Value) -> String {
    let clock = || async {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().to_string();
        (StatusCode::NO_CONTENT, [("x-server-recv-ns", now.clone()), ("x-server-send-ns", now)])
    };
    let chat = |Json(body): Json<Value>| async move {
        assert_eq!(body["max_tokens"], 1);
        Json(json!({ "model": MODEL, "choices": [{}], "usage": { "completion_tokens": 1 } }))
    };
    let router = axum::Router::new()
        .route("/api/v1/clock", get(clock))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(|| async { Json(json!({ "data": [{ "id": MODEL }] })) }))
        .route("/api/v1/inference/pow/status", get(move || async move { Json(pow) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn trial(face: Option<String>, callback: Option<String>) -> Trial {
    Trial {
        rig: RigId::new("gpu-1").unwrap(),
        model: MODEL.into(),
        network_node: face.clone().unwrap_or_default(),
        authorities: None,
        face,
        token: None,
        callback,
        rate: None,
        usual_rate: None,
        draws_more: Watts(10),
        feeders: Vec::new(),
        is_confirming: false,
        poc_start: Height(200),
    }
}

#[tokio::test]
async fn a_rig_is_measured_over_its_own_face() {
    let face = stand_in_rig(json!({ "status": "IDLE", "backends": [] })).await;
    let list = preflight(&measure(&trial(Some(face.clone()), Some(face)), UnixMillis(0)).await);
    let grades: BTreeMap<Check, Grade> =
        list.points.iter().map(|point| (point.check, point.grade)).collect();
    for check in [Check::Forward, Check::Model, Check::Callback, Check::Clock, Check::Status] {
        assert_eq!(grades[&check], Grade::Ready, "{:?}", list.points);
    }
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let list = preflight(&measure(&trial(Some(nobody.clone()), Some(nobody)), UnixMillis(0)).await);
    assert_eq!((list.points[0].grade, list.points[2].grade), (Grade::NotReady, Grade::NotReady));
    let list = preflight(&measure(&trial(None, None), UnixMillis(0)).await);
    assert!(list.points.iter().all(|point| point.grade == Grade::Doubtful), "{:?}", list.points);
}

/// A keeper that shows what it is given.
struct Shown(mpsc::UnboundedSender<Record>);

impl Keeper for Shown {
    fn keep(&self, records: Vec<Record>) -> Waiting<'_, Result<(), KeepError>> {
        Box::pin(async move {
            for record in records {
                let _ = self.0.send(record);
            }
            Ok(())
        })
    }
}

/// The demo's site as a place on Gonka, with the rig's face at `face`.
fn site(face: &str) -> Site {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&shipped).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = folder.path().join("demo-site.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let rig = "  - {id: gpu-1, ";
    let text = text.replace(rig, &format!("{rig}ai_url: \"{face}\", "));
    let section = format!(
        "gonka:\n  nodes: [\"{face}\"]\n  callback_url: \"{face}\"\n  address: {ADDRESS}\n  rigs:\n    - {{rig: gpu-1, node_id: \
         node-1, base_url: \"{face}\"}}\n"
    );
    std::fs::write(&path, format!("{text}\n{section}")).unwrap();
    let mut site = Site::load(&path).unwrap();
    // Ten times as fast as the wall: a look every half second, and a stage that outlasts a busy machine.
    site.clock = FarmClock { rate: 10.0, farm_origin_ms: 0, wall_origin_ms: wall_now().0 };
    site
}

fn stages(epoch_index: u64, start: i64) -> EpochStages {
    let at = |blocks| Height(start + blocks);
    EpochStages {
        epoch_index,
        poc_start: at(0),
        poc_generation_wind_down: at(48),
        poc_generation_end: at(60),
        poc_validation_start: at(65),
        poc_validation_wind_down: at(80),
        poc_validation_end: at(85),
        set_new_validators: at(90),
        claim_money: at(91),
        next_poc_start: at(200),
    }
}

/// The chain at `height` of an epoch, now.
fn facts(clock: &FarmClock, epoch_index: u64, start: i64, height: i64) -> GonkaFacts {
    let now = clock.now();
    let mut facts = GonkaFacts { address: ADDRESS.into(), ..GonkaFacts::default() };
    facts.block = Some(BlockMoment { height: Height(height), at: now, block_time: Millis(5_000) });
    let epoch = ChainEpoch {
        height: Height(height),
        phase: Phase::Inference,
        stages: stages(epoch_index, start),
        next_stages: None,
        confirmation: None,
    };
    facts.epoch.answered(epoch, now);
    let effective = Decimal::new(5, -1).unwrap();
    let coefficient = ModelCoefficient { model: MODEL.into(), effective, base: None, bounds: None };
    facts.coefficients.answered(vec![coefficient], now);
    facts
}

pub(super) fn view(state: &str, computed: u64) -> FarmView {
    let rate = ProofRate {
        model: MODEL.into(),
        seq_len: 1_024,
        millinonces_per_minute: 300_000,
        measured_at: UnixMillis(1),
    };
    let rig: RigView = serde_json::from_value(json!({
        "id": "gpu-1", "kind": "gpu", "model": "card", "engine": "wgpu", "feeder": "gpu-room", "agent": "gpu-box",
        "online": true, "state": state, "since": 0, "workload": { "kind": "prove", "model": MODEL },
        "target": { "kind": "prove", "model": MODEL }, "cause": "poc_window", "reason": "", "state_reason": "lost the card",
        "generation": 1, "lease_until": null, "power": null, "hashrate": null, "temperature": null,
        "proof_rate": rate, "jobs": { "artifacts_computed": computed, "artifacts_delivered": computed },
        "reported_at": 0, "margin": null, "assumed": false,
        "totals": { "energy": 0, "cost": 0, "revenue": 0, "assumed_revenue": 0, "switches": 0 }, "switches": [],
    }))
    .unwrap();
    let feeder = FeederView { id: "gpu-room".into(), limit: Watts(2_000), power: Watts(100) };
    FarmView { feeders: vec![feeder], rigs: vec![rig], ..FarmView::default() }
}

#[tokio::test]
async fn a_poc_is_checked_before_watched_during_and_accounted_for_after() {
    let generating = json!({
        "status": "GENERATING",
        "backends": [{ "status": "GENERATING", "config": { "block_height": 400 } }],
    });
    let face = stand_in_rig(generating).await;
    let site = Arc::new(site(&face));
    let clock = site.clock;
    let (facts_in, facts_out) = watch::channel(Arc::new(facts(&clock, 410, 200, 300)));
    let (view_in, view_out) = watch::channel(view("running", 0));
    let (events, mut told) = mpsc::channel(64);
    let (kept_in, mut kept) = mpsc::unbounded_channel();
    let keeper = Arc::new(Shown(kept_in));
    let adviser = Adviser::new(Arc::clone(&site), view_out, facts_out, events, keeper, &[]);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(adviser.run(cancel.clone()));
    let mut text_with = async |word: &str| loop {
        let event = tokio::time::timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
        if let FarmEvent::Noted { text, .. } = event
            && text.contains(word)
        {
            return text;
        }
    };
    // Eight minutes before the PoC at 400. A generation for that very block would be right, a rate measured once is not
    // usual yet.
    let list = text_with("pre-flight").await;
    assert!(list.contains("block 400: doubtful; nonces/min: 300.0, measured once"), "{list}");
    assert_eq!(list.matches(';').count(), 1, "{list}");
    // The PoC runs, and the rig falls over.
    facts_in.send_replace(Arc::new(facts(&clock, 411, 400, 402)));
    let mut record_with = async |word: &str| loop {
        let record = tokio::time::timeout(DEADLINE, kept.recv()).await.unwrap().unwrap();
        if let Record::Gonka { key, body, .. } = record
            && key.starts_with("epoch-record")
            && body.contains(word)
        {
            return Answer { key, at: UnixMillis(0), body };
        }
    };
    record_with("\"epoch_index\":411").await;
    view_in.send_replace(view("faulted", 100));
    let record = record_with("offline").await;
    let record = EpochRecord::among(&[record]).remove(&411).unwrap();
    // 48 blocks of 5 s at 300 nonces/min, half a unit each.
    assert_eq!(record.rigs.values().next().unwrap().expected, 600);
    // An epoch later the chain has told everything.
    let mut over = facts(&clock, 412, 600, 700);
    let node = MlNodeWeight { node_id: "node-1".into(), poc_weight: 100, timeslots: [true, false] };
    let member = GroupMember {
        address: ADDRESS.into(),
        weight: 50,
        confirmation_weight: None,
        nodes: vec![node],
    };
    let group = EpochGroup {
        epoch_index: 411,
        model: None,
        total_weight: 1_000,
        models: Vec::new(),
        members: vec![member],
        coefficients: Vec::new(),
    };
    over.former_group.answered(group, clock.now());
    let result =
        EpochResult { epoch_index: 411, reward_weight: Some(50), ..EpochResult::default() };
    over.result.answered(result, clock.now());
    facts_in.send_replace(Arc::new(over));
    let head = text_with("epoch 411").await;
    assert_eq!(head, "epoch 411: weight 600 expected, 50 earned");
    let record = EpochRecord::among(&[record_with("\"told\":true").await]).remove(&411).unwrap();
    let account = record.post_mortem().unwrap();
    assert_eq!((account.lost(), account.is_final), (550, true));
    assert!(account.lost_by(Culprit::Rig) > 0, "{account:?}");
    cancel.cancel();
    task.await.unwrap();
}
