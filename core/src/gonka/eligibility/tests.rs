//! Every reason against a rig, alone and together.

use super::*;
use crate::gonka::fixture::epoch;
use crate::gonka::{ApprovedModel, ChainParams};

fn good() -> Candidate {
    Candidate {
        rig: RigId::new("gpu-1").unwrap(),
        model: Some("Qwen/Qwen3-0.6B".into()),
        vram_bytes: Some(24_500_000_000),
        weights: Weights::AsPublished,
        registration: Registration::Present { is_enabled: true, has_model: true },
        proof_rate: Some(ProofRate {
            model: "Qwen/Qwen3-0.6B".into(),
            seq_len: 1_024,
            millinonces_per_minute: 90_000,
            measured_at: UnixMillis(1),
        }),
        engine: EngineHealth::Answering,
        context_max: Some(4_096),
    }
}

fn facts() -> GonkaFacts {
    let model = |model: &str, vram_gb| ModelParams {
        model: model.into(),
        seq_len: 1_024,
        coefficient: None,
        vram_gb,
        dist_threshold: None,
        penalty_start_epoch: None,
    };
    let models = vec![model("Qwen/Qwen3-0.6B", None), model("big/DeepSeek", Some(280))];
    let listed =
        ApprovedModel { id: "Qwen/Qwen3-0.6B".into(), vram_gb: Some(24), args: Vec::new() };
    let mut facts = GonkaFacts::default();
    facts.epoch.answered(epoch(101_000), UnixMillis(0));
    facts.params.answered(ChainParams { models, ..ChainParams::default() }, UnixMillis(0));
    facts.models.answered(vec![listed], UnixMillis(0));
    facts
}

fn reasons(rig: &Candidate) -> Vec<Reason> {
    let facts = facts();
    let (now, age_max) = (UnixMillis(0), Millis(1_000));
    verdict(rig, &ChainView { facts: &facts, backed_of_proved: None, now, age_max }).reasons
}

#[test]
fn every_reason_is_found_and_all_of_them_at_once() {
    assert_eq!(reasons(&good()), Vec::new());
    let big = Some("big/DeepSeek".to_owned());
    type Change = fn(&mut Candidate);
    let table: [(Change, Vec<Reason>); 9] = [
        (|rig| rig.model = None, vec![Reason::NoModel]),
        (
            |rig| rig.model = Some("qwen/qwen3-0.6b".into()),
            vec![Reason::NotApproved {
                model: "qwen/qwen3-0.6b".into(),
                close: Some("Qwen/Qwen3-0.6B".into()),
            }],
        ),
        (|rig| rig.vram_bytes = None, vec![Reason::VramUnknown]),
        (
            |rig| rig.vram_bytes = Some(16_000_000_000),
            vec![Reason::VramShort { needed_gb: 24, has_gb: 16 }],
        ),
        (|rig| rig.registration = Registration::Absent, vec![Reason::NotRegistered]),
        (
            |rig| {
                rig.registration = Registration::Present { is_enabled: false, has_model: false };
            },
            vec![Reason::Disabled, Reason::ModelNotRegistered],
        ),
        (|rig| rig.proof_rate = None, vec![Reason::NoProofRate { measured: None }]),
        (|rig| rig.context_max = Some(512), vec![Reason::ContextShort { needed: 1_024, has: 512 }]),
        (
            |rig| rig.engine = EngineHealth::Failing("no adapter".into()),
            vec![Reason::Engine { why: "no adapter".into() }],
        ),
    ];
    for (change, expected) in table {
        let mut rig = good();
        change(&mut rig);
        assert_eq!(reasons(&rig), expected);
    }
    let mut rig = Candidate { model: big, ..good() };
    rig.weights = Weights::Requantised("Q4_K".into());
    rig.registration = Registration::Unknown;
    let all = reasons(&rig);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.iter().all(Reason::bars) && all.iter().all(|why| !why.to_string().is_empty()));
}

#[test]
fn what_lowers_the_weight_does_not_bar_and_what_is_old_does() {
    let facts = GonkaFacts { epoch: Fact::Unread, ..facts() };
    let chain = ChainView {
        facts: &facts,
        backed_of_proved: Some((20, 100)),
        now: UnixMillis(5_000),
        age_max: Millis(1_000),
    };
    let rig = Candidate { engine: EngineHealth::NotLoaded, ..good() };
    let answer = verdict(&rig, &chain);
    let texts: Vec<String> = answer.reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "where the chain stands: never read from the Network Node",
            "the chain's rules: last read at 00:00 UTC",
            "the model is not loaded; it must be before the PoC starts",
            "only 20 of the host's proved weight 100 counts: the rest lacks collateral",
        ]
    );
    assert!(!answer.is_eligible());
    let bars: Vec<bool> = answer.reasons.iter().map(Reason::bars).collect();
    assert_eq!(bars, [true, true, false, false]);
}
