//! Feed and commands against the stand-in of a Network Node, over sockets: what it says, how it fails, what it is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use farm_controller::clock::{FarmClock, wall_now};
use farm_controller::config::{GonkaSite, Site};
use farm_controller::control::{Keeper as _, Record};
use farm_controller::gonka::desk::Desk;
use farm_controller::gonka::feed::Feed;
use farm_controller::gonka::promised::Promised;
use farm_controller::gonka::view::{AgeView, GonkaView};
use farm_controller::store::Store;
use farm_core::gonka::{Fact, GonkaFacts};
use farm_tests::gonka::chain::EpochParams;
use farm_tests::gonka::registry::{ModelArgs, NodeConfig};
use farm_tests::gonka::weights::EpochBook;
use farm_tests::gonka::{Decimal, GonkaConfig, GonkaNode, Model, Stranger};
use roadbed_protocol::{Millis, UnixMillis};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{ADDRESS, MODEL};

const DEADLINE: Duration = Duration::from_secs(30);
/// An hour of the farm in a second: the ten minutes between two reads of the rules pass in a sixth of one.
const RATE: f64 = 3_600.0;

pub async fn network_node() -> GonkaNode {
    let config = GonkaConfig {
        address: ADDRESS.to_owned(),
        models: vec![Model {
            id: MODEL.to_owned(),
            seq_len: 1_024,
            coefficient: Decimal { value: 3_024, exponent: -4 },
            v_ram: 230,
            price_per_token: 100,
        }],
        strangers: vec![Stranger {
            address: "gonka1other".to_owned(),
            public_key: "03cd".to_owned(),
            weight: 9_000,
            node_num: 0,
            node_count: 1,
            honest: true,
        }],
        start_height: 1_030,
        params: EpochParams {
            epoch_length: 2_000,
            confirmation_quiet: 500,
            ..EpochParams::default()
        },
        ..GonkaConfig::default()
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let node = GonkaNode::start(config, None, &stop, &tasks).await.unwrap();
    let book = EpochBook {
        // By the coefficient, cut: the thousand.
        node_nonces: [("farm-h100-1".to_owned(), 3_307)].into(),
        node_weights: [("farm-h100-1".to_owned(), 1_000)].into(),
        weight: 1_000,
        total_weight: 10_000,
        confirmation_weight: 900,
        ..EpochBook::default()
    };
    node.with(|world| world.books.insert(410, book));
    node
}

/// The shipped site with `node`'s addresses, in a folder of its own.
pub fn site_file(folder: &Path, node: &GonkaNode) -> PathBuf {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles");
    for name in ["gpu-h100.yaml", "demo-policy.yaml"] {
        std::fs::copy(profiles.join(name), folder.join(name)).unwrap();
    }
    let text = std::fs::read_to_string(profiles.join("gonka-site.yaml")).unwrap();
    let text = text
        .replace("http://10.0.0.5:8000", &node.public_url())
        .replace("http://127.0.0.1:9200", &node.admin_url())
        .replace("http://10.0.0.5:9100", &node.callback_url())
        // Addresses of MLNodes at which nobody listens.
        .replace("http://10.0.0.2:18890", "http://127.0.0.1:9")
        .replace("host: 10.0.0.12", "host: 127.0.0.1")
        .replace("inference_port: 5050", "inference_port: 9")
        .replace("poc_port: 8080", "poc_port: 9");
    let path = folder.join("site.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// `roadbed gonka ARGS --site SITE --json` as a process of its own.
async fn roadbed(site: &Path, args: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_roadbed"));
    command.arg("gonka").args(args).arg("--site").arg(site).arg("--json").kill_on_drop(true);
    let run = tokio::time::timeout(DEADLINE, command.output());
    let Output { status, stdout, stderr } = run.await.unwrap().unwrap();
    let document = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
    (status.code(), document, String::from_utf8(stderr).unwrap())
}

fn results<'v>(document: &'v Value, field: &str) -> Vec<&'v str> {
    let nodes = document["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node[field].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn mlnodes_are_registered_and_switched_dry_first() {
    let node = network_node().await;
    let folder = tempfile::tempdir().unwrap();
    let site = site_file(folder.path(), &node);
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    let text = std::fs::read_to_string(&site).unwrap();
    let text =
        text.replacen("weights: published", "weights: published\n      auth_token_file: token", 1);
    std::fs::write(&site, text).unwrap();
    let registered = || node.with(|world| world.registry.iter().count());

    let (code, dry, said) = roadbed(&site, &["register"]).await;
    assert_eq!((code, &dry["applied"]), (Some(0), &false.into()), "{said}");
    assert_eq!((results(&dry, "difference"), registered()), (vec!["new"; 2], 0));
    assert!(!dry.to_string().contains("s3cret"));

    // Somebody else's node has the second one's address: half of the batch is taken.
    let squatter = NodeConfig {
        id: "old-name".to_owned(),
        host: "127.0.0.1".to_owned(),
        inference_segment: String::new(),
        inference_port: 9,
        poc_segment: String::new(),
        poc_port: 9,
        base_url: String::new(),
        auth_token: String::new(),
        models: [(MODEL.to_owned(), ModelArgs::default())].into(),
        max_concurrent: 1,
        hardware: Vec::new(),
    };
    node.with(|world| world.registry.upsert(squatter, &[MODEL.to_owned()], 410).map(drop)).unwrap();
    let (code, half, _) = roadbed(&site, &["register", "--apply"]).await;
    assert_eq!((code, &half["failed"]), (Some(1), &true.into()));
    let said = results(&half, "result");
    assert_eq!(said[0], "registered");
    assert!(
        said[1].contains("206") && said[1].contains("already used by node old-name"),
        "{said:?}"
    );
    let (token, cards) = node.with(|world| {
        let config = &world.registry.get("farm-h100-1").unwrap().config;
        (config.auth_token.clone(), config.hardware[0].count)
    });
    assert_eq!((token.as_str(), cards), ("s3cret", 4));

    node.with(|world| world.registry.remove("old-name"));
    let (code, rest, _) = roadbed(&site, &["register", "--apply"]).await;
    assert_eq!((code, results(&rest, "difference")), (Some(0), vec!["same", "new"]));
    assert_eq!(results(&rest, "result"), ["-", "registered"]);
    let (_, again, _) = roadbed(&site, &["register", "--apply"]).await;
    assert_eq!(results(&again, "difference"), ["same", "same"]);

    let enabled = |id: &str| node.with(|world| world.registry.get(id).map(|node| node.enabled));
    let one = ["disable", "--rig", "h100-1"];
    let (code, dry, _) = roadbed(&site, &one).await;
    assert_eq!((code, enabled("farm-h100-1")), (Some(0), Some(true)));
    let now = results(&dry, "now")[0];
    assert!(now.starts_with("works in this epoch"), "{now}");
    let (code, done, _) = roadbed(&site, &["disable", "--rig", "h100-1", "--apply"]).await;
    assert_eq!((code, results(&done, "result")), (Some(0), vec!["disabled"]));
    assert_eq!((enabled("farm-h100-1"), enabled("farm-h100-2")), (Some(false), Some(true)));
    let (code, done, _) = roadbed(&site, &["enable", "--apply"]).await;
    assert_eq!((code, results(&done, "result")), (Some(0), vec!["enabled", "-"]));
    assert_eq!(enabled("farm-h100-1"), Some(true));

    // Of a rig that was never registered, and of an API that is away, it says so.
    node.with(|world| world.registry.remove("farm-h100-2"));
    let (code, unknown, _) = roadbed(&site, &["enable", "--apply"]).await;
    assert_eq!(
        (code, results(&unknown, "now")[1]),
        (Some(1), "not registered: roadbed gonka register")
    );
    node.go_down();
    let (code, _, said) = roadbed(&site, &["register", "--apply"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("is the admin API reachable from here?"), "{said}");
}

#[tokio::test]
async fn rigs_that_are_one_mlnode_are_one_node() {
    let node = network_node().await;
    let folder = tempfile::tempdir().unwrap();
    let site = site_file(folder.path(), &node);
    let text = std::fs::read_to_string(&site).unwrap();
    let (text, _) = text.split_once("    - rig: h100-2").unwrap();
    let gateway = "gateway:\n  single_mlnode: {rigs: [h100-1, h100-2]}\n";
    let text = text.replace("gateway:\n", gateway).replace("/rigs/h100-1", "/mlnode");
    std::fs::write(&site, text).unwrap();
    let (code, done, said) = roadbed(&site, &["register", "--apply"]).await;
    assert_eq!((code, results(&done, "result")), (Some(0), vec!["registered"]), "{said}");
    assert_eq!(node.with(|world| world.registry.iter().count()), 1);
    let (code, _, said) = roadbed(&site, &["disable", "--rig", "h100-2", "--apply"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("stands behind \"h100-1\" as one MLNode"), "{said}");
}

#[tokio::test]
async fn a_status_without_a_controller_asks_by_itself() {
    let node = network_node().await;
    let folder = tempfile::tempdir().unwrap();
    let site = site_file(folder.path(), &node);
    roadbed(&site, &["register", "--apply"]).await;
    let (code, document, said) = roadbed(&site, &["status"]).await;
    assert_eq!(code, Some(0), "{said}");
    let view: GonkaView = serde_json::from_value(document).unwrap();
    assert_eq!((view.epoch, view.phase.as_deref()), (Some(410), Some("Inference")));
    let weight = view.weight.unwrap();
    assert_eq!((weight.own, weight.total, weight.confirmed_permille), (1_000, 10_000, Some(900)));
    assert_eq!(view.versions, "API 0.2.16, chain 0.2.16");
    let registered: Vec<&str> = view.rigs.iter().map(|rig| rig.registered.as_str()).collect();
    assert_eq!(registered, ["yes", "yes"]);
    assert!(view.rigs.iter().all(|rig| !rig.eligible && rig.income.by_epoch.is_none()));
    assert_eq!(view.windows, [], "one look measures no pace of blocks");
    let problems: Vec<&AgeView> = view.ages.iter().filter(|age| age.problem.is_some()).collect();
    let offered =
        |age: &&AgeView| age.problem.as_deref() == Some("the Network Node does not have it");
    assert!(problems.iter().all(offered), "{problems:?}");

    node.go_down();
    let (code, document, _) = roadbed(&site, &["status"]).await;
    assert_eq!(code, Some(0));
    let view: GonkaView = serde_json::from_value(document).unwrap();
    assert_eq!((view.epoch, view.height, view.weight), (None, None, None));
    assert!(view.ages.iter().all(|age| age.at.is_none()), "{:?}", view.ages);
    assert!(
        view.ages
            .iter()
            .any(|age| age.problem.as_deref().is_some_and(|it| it.contains("no answer")))
    );
}

#[tokio::test]
async fn maintenance_goes_into_the_blocks_without_a_confirmation() {
    let node = network_node().await;
    let folder = tempfile::tempdir().unwrap();
    let path = site_file(folder.path(), &node);
    roadbed(&path, &["register", "--apply"]).await;
    let (code, _, said) = roadbed(&path, &["maintenance"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no pace of blocks is known"), "{said}");
    // What a controller would have measured and kept.
    let (store, _) = Store::open(&Site::load(&path).unwrap().store_path()).unwrap();
    let now = wall_now();
    let body = format!("{{\"height\":1030,\"at\":{},\"block_time_ms\":5300}}", now.0);
    store.keep(vec![Record::Gonka { key: "block".to_owned(), at: now, body }]).await.unwrap();
    drop(store);

    let (code, document, said) = roadbed(&path, &["maintenance", "--minutes", "10"]).await;
    assert_eq!(code, Some(0), "{said}");
    let first_quiet = &document["quiet"][0];
    assert_eq!((&first_quiet["epoch"], &first_quiet["from_block"]), (&410.into(), &2_500.into()));
    let [one, other] = document["rigs"].as_array().unwrap().as_slice() else { unreachable!() };
    assert_eq!((&one["standing"], &one["advice"]), (&"active".into(), &"wait".into()));
    let (from, back_by) = (one["from"].as_i64().unwrap(), one["back_by"].as_i64().unwrap());
    // The latest moment the quiet blocks may begin; back before the earliest PoC start, less ten minutes to load.
    assert!(from > first_quiet["from"].as_i64().unwrap() && back_by - from >= 10 * 60_000);
    assert!(back_by < first_quiet["until"].as_i64().unwrap() - 10 * 60_000);
    assert_eq!(one["cost_now"], Value::Null, "no controller, no promise");
    assert_eq!((&other["standing"], &other["advice"]), (&"free".into(), &"now".into()));
    let (_, long, _) = roadbed(&path, &["maintenance", "--minutes", "60", "--rig", "h100-1"]).await;
    assert_eq!(long["rigs"].as_array().unwrap().len(), 1);
    assert!(long["rigs"][0]["why"].as_str().unwrap().contains("take it out for an epoch"));

    // For good: disabled first, and a node that serves through the PoC may have to stay one epoch more.
    let (_, bye, _) = roadbed(&path, &["maintenance", "--for-good", "--rig", "h100-1"]).await;
    let bye = &bye["rigs"][0];
    assert_eq!((&bye["first"], &bye["at_worst"]), (&"roadbed gonka disable".into(), &Value::Null));
    roadbed(&path, &["disable", "--rig", "h100-1", "--apply"]).await;
    node.with(|world| {
        for node in world.registry.iter_mut() {
            node.preserved = true;
        }
    });
    let (_, bye, _) = roadbed(&path, &["maintenance", "--for-good", "--rig", "h100-1"]).await;
    let bye = &bye["rigs"][0];
    assert_eq!((&bye["standing"], &bye["is_preserved"]), (&"leaving".into(), &true.into()));
    assert!(bye["at_worst"].as_i64() > bye["from"].as_i64(), "{bye}");
    assert!(bye["lines"].to_string().contains("it may have to serve one more epoch"), "{bye}");
}

/// A feed on a fast clock, with what it knows.
struct Reading {
    site: Site,
    facts: watch::Receiver<Arc<GonkaFacts>>,
    cancel: CancellationToken,
}

impl Reading {
    fn start(path: &Path) -> Self {
        let mut site = Site::load(path).unwrap();
        let now = wall_now().0;
        site.clock = FarmClock { rate: RATE, farm_origin_ms: now, wall_origin_ms: now };
        let gonka: &GonkaSite = site.gonka.as_ref().unwrap();
        let feed = Feed::new(gonka, site.clock, &[], None).waiting(Duration::from_millis(500));
        let (facts_in, facts) = watch::channel(Arc::default());
        let cancel = CancellationToken::new();
        tokio::spawn(feed.run(facts_in, cancel.clone()));
        Self { site, facts, cancel }
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&GonkaFacts) -> bool) -> GonkaFacts {
        let mut facts = self.facts.clone();
        let wait = facts.wait_for(|facts| is_so(facts));
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(known) => GonkaFacts::clone(&known.unwrap()),
            Err(_) => unreachable!("{what}: {:?}", self.facts.borrow()),
        }
    }

    fn view(&self) -> GonkaView {
        let mut desk = Desk::new(&self.site, Promised::default()).unwrap();
        let facts = GonkaFacts::clone(&self.facts.borrow());
        desk.look(&facts, &BTreeMap::new(), self.site.clock.now()).view
    }
}

fn failing<T>(fact: &Fact<T>, with: &str) -> bool {
    fact.failing().is_some_and(|failing| failing.reason.contains(with))
}

#[tokio::test]
async fn the_feed_lives_through_every_fault_of_the_stand_in() {
    let node = network_node().await;
    let folder = tempfile::tempdir().unwrap();
    let site = site_file(folder.path(), &node);
    roadbed(&site, &["register", "--apply"]).await;
    let mut reading = Reading::start(&site);
    reading.until("a first block", |facts| facts.highest.is_some()).await;
    node.step().await;
    let first = reading
        .until("everything", |facts| {
            let model = facts.model_groups.get(MODEL).and_then(Fact::last);
            facts.block.is_some()
                && facts.nodes.last().is_some()
                && model.is_some()
                && facts.versions.last().is_some()
                && !matches!(facts.vesting, Fact::Unread)
        })
        .await;
    assert_eq!(first.answering.as_deref(), Some(node.public_url().as_str()));
    assert_eq!(first.coefficient(MODEL).unwrap().to_string(), "0.3024");
    assert_eq!(first.params.last().unwrap().0.models[0].seq_len, 1_024);
    assert!(matches!(first.collateral, Fact::NotOffered { .. }), "{:?}", first.collateral);
    assert_eq!(first.node("farm-h100-1").unwrap().models, [MODEL]);
    assert!(!reading.view().windows.is_empty());
    // Everything once more from another release: the same facts.
    node.with(|world| world.faults.numbers_as_strings = true);
    let params_at = first.params.last().unwrap().1;
    let later = |facts: &GonkaFacts| {
        facts.params.last().is_some_and(|(_, at)| at > params_at + Millis::from_mins(15))
    };
    let strings = reading.until("the rules again", later).await;
    assert!(strings.params.failing().is_none() && strings.epoch.failing().is_none());
    assert_eq!(strings.params.last().unwrap().0, first.params.last().unwrap().0);
    assert_eq!(strings.group.last().unwrap().0, first.group.last().unwrap().0);

    // 500 with a text, 200 with no JSON, and silence: the old answer with its age and the reason.
    node.with(|world| {
        world.faults.broken.insert("/params".to_owned());
        world.faults.garbled.insert("/current_epoch_group_data".to_owned());
        world.faults.not_found.insert("/dynamic_coefficients/0".to_owned());
    });
    let ill = reading
        .until("three faults", |facts| {
            failing(&facts.params, "500")
                && failing(&facts.group, "no JSON")
                && matches!(facts.coefficients, Fact::NotOffered { .. })
        })
        .await;
    assert_eq!(ill.group.last().unwrap().0, first.group.last().unwrap().0);
    assert!(reading.view().ages.iter().any(|age| age.at.is_some() && age.problem.is_some()));
    node.with(|world| world.faults = farm_tests::gonka::faults::Faults::default());
    reading
        .until("health", |facts| {
            facts.params.failing().is_none() && facts.group.failing().is_none()
        })
        .await;

    // The same again and again: heights stand still, and the age says so.
    node.with(|world| world.faults.stale = true);
    let both_after = |at: UnixMillis| {
        move |facts: &GonkaFacts| {
            let read = [facts.epoch.last().map(|it| it.1), facts.catching_up.last().map(|it| it.1)];
            read.into_iter().all(|read| read.is_some_and(|read| read > at))
        }
    };
    let asked = reading.site.clock.now();
    let kept = reading.until("answers that stay", both_after(asked)).await;
    let height = kept.highest.unwrap().0;
    node.step().await;
    let later = reading.site.clock.now() + Millis::from_mins(10);
    let stale = reading.until("later answers", both_after(later)).await;
    assert_eq!(stale.highest.unwrap().0, height);
    assert!(stale.block_age(reading.site.clock.now()).unwrap() > Millis::from_mins(10));

    // Slower than anybody waits, then gone, then back.
    node.with(|world| {
        world.faults.stale = false;
        world.faults.slow_ms = 2_000;
    });
    reading.until("patience ends", |facts| failing(&facts.epoch, "timed out")).await;
    node.with(|world| world.faults.slow_ms = 0);
    reading.until("health", |facts| facts.epoch.failing().is_none()).await;
    node.go_down();
    reading.until("nobody", |facts| failing(&facts.epoch, "no answer")).await;
    let dark = reading
        .until("stale facts", |facts| {
            let failing = facts.params.failing();
            failing.is_some_and(|it| facts.params.last().is_some_and(|(_, at)| it.since > at))
        })
        .await;
    assert!(dark.params.last().is_some() && dark.epoch.last().is_some(), "what was read stays");
    node.come_back().await.unwrap();
    let back = reading.until("health", |facts| facts.epoch.failing().is_none()).await;
    assert!(back.highest.unwrap().0 > height);
    reading.cancel.cancel();
}
