//! A hold from its question to its release: a running controller, the stand-in of a Network Node, `roadbed` as a process.

use std::path::Path;
use std::time::Duration;

use farm_controller::clock::wall_now;
use farm_controller::config::Site;
use farm_controller::control::{Keeper as _, Record};
use farm_controller::controller::Controller;
use farm_controller::gonka::view::GonkaView;
use farm_controller::store::Store;
use farm_controller::view::{Action, FarmView};
use roadbed_protocol::{RigId, Workload};
use serde_json::json;
use tokio::sync::watch;

use super::MODEL;
use super::network_node::{network_node, site_file};

const DEADLINE: Duration = Duration::from_secs(30);
const HOUR: i64 = 3_600_000;

async fn roadbed(site: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_roadbed"));
    command.args(args).arg("--site").arg(site).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn until(
    views: &mut watch::Receiver<FarmView>,
    is_so: impl Fn(&FarmView) -> bool,
) -> FarmView {
    tokio::time::timeout(DEADLINE, views.wait_for(|view| is_so(view)))
        .await
        .unwrap()
        .unwrap()
        .clone()
}

fn says(view: &FarmView, words: &str) -> bool {
    view.log.iter().any(|line| line.text.contains(words))
}

#[tokio::test]
async fn a_hold_that_breaks_a_promise_asks_is_told_its_price_and_let_go() {
    let node = network_node().await;
    let folder = tempfile::tempdir().unwrap();
    let path = site_file(folder.path(), &node);
    let mut site = Site::load(&path).unwrap();
    site.broker_listen = "127.0.0.1:0".parse().unwrap();
    site.gateway = None;
    // A promise of the run before, when the rig's rate was known.
    let now = wall_now();
    let promise = json!([{
        "epoch": 410, "id": "gonka-epoch-410", "rig": "h100-1",
        "workload": Workload::Prove { model: MODEL.to_owned() },
        "from": now.0 - HOUR, "until": now.0 + 2 * HOUR, "load_lead": 600_000,
        "penalty": 1_000_000, "income": 12_500_000, "as_of": null,
    }]);
    let (store, _) = Store::open(&site.store_path()).unwrap();
    let record = Record::Gonka { key: "promises".into(), at: now, body: promise.to_string() };
    store.keep(vec![record]).await.unwrap();
    drop(store);

    let controller = Controller::start(&site).await.unwrap();
    let mut views = controller.views();
    let has_height =
        |view: &FarmView| view.gonka.as_ref().is_some_and(|gonka| gonka.height.is_some());
    until(&mut views, has_height).await;
    let is_planned = |view: &FarmView| {
        !view.plan.rows.is_empty() && view.rigs.iter().any(|rig| !rig.promises.is_empty())
    };
    until(&mut views, is_planned).await;
    // The controller's own picture, over its socket.
    let (code, shown, said) = roadbed(&path, &["gonka", "status", "--json"]).await;
    assert_eq!(code, Some(0), "{said}");
    let view: GonkaView = serde_json::from_str(&shown).unwrap();
    assert_eq!((view.epoch, view.rigs[0].promises[0].id.as_str()), (Some(410), "gonka-epoch-410"));

    let hold = ["hold", "--rig", "h100-1", "--operator", "eva"];
    let (code, _, said) = roadbed(&path, &hold).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("h100-1: breaks gonka-epoch-410 (under way until"), "{said}");
    assert!(
        said.contains("which would cost 13.5000 (assumption) in income and penalty USD"),
        "{said}"
    );
    assert!(said.contains("nothing was done; --yes holds them nevertheless"), "{said}");
    // Nor does the controller itself obey who did not ask.
    let rig = RigId::new("h100-1").unwrap();
    let (workload, operator) = (Workload::Curtailed, "max".to_owned());
    let unasked = Action::Hold { rig, workload, operator, accept_loss: false };
    controller.actions().send(unasked).await.unwrap();
    until(&mut views, |view| says(view, "not held for max: breaks gonka-epoch-410")).await;

    let (code, shown, said) = roadbed(&path, &[&hold[..], &["--yes"]].concat()).await;
    assert_eq!((code, shown.trim()), (Some(0), "held"), "{said}");
    assert!(
        said.contains("h100-1 is silent: the order reaches it when it is heard again"),
        "{said}"
    );
    let told = "eva holds it and was told that it breaks gonka-epoch-410";
    let view = until(&mut views, |view| says(view, told)).await;
    let line = view.log.iter().find(|line| line.text.contains(told)).unwrap();
    assert!(line.text.contains("would cost 13.5000 (assumption)"), "{}", line.text);
    assert_eq!(line.rig.as_ref().map(RigId::as_str), Some("h100-1"));
    let (code, shown, said) = roadbed(&path, &["release", "--rig", "h100-1"]).await;
    assert_eq!((code, shown.trim()), (Some(0), "released"), "{said}");
    controller.stop().await.unwrap();
    let (code, _, said) = roadbed(&path, &["release", "--rig", "h100-1"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no controller answers at"), "{said}");
}
