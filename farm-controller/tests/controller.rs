//! A whole controller on free ports: it starts, shows its farm through the control socket, stops, and starts again.

use std::path::Path;
use std::time::Duration;

use farm_controller::config::{GatewaySettings, Site};
use farm_controller::control::socket;
use farm_controller::controller::Controller;
use farm_controller::store;
use farm_controller::view::FarmView;

/// Generous: the machine may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);

fn site(folder: &Path) -> Site {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/demo-site.yaml");
    let mut site = Site::load(&shipped).unwrap();
    site.broker_listen = "127.0.0.1:0".parse().unwrap();
    site.state_dir = folder.join("state");
    site.key_file = folder.join("controller.key");
    // A still farm: the first moment of the demo's day, at the pace of the wall.
    site.clock.farm_origin_ms = site.commitments[0].from.0;
    site.clock.wall_origin_ms = farm_controller::clock::wall_now().0;
    site
}

async fn planned(views: &mut tokio::sync::watch::Receiver<FarmView>) -> FarmView {
    let has_plan = |view: &FarmView| view.price.is_some() && !view.plan.rows.is_empty();
    tokio::time::timeout(DEADLINE, views.wait_for(has_plan)).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn it_runs_the_gateway_of_its_site() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = site(folder.path());
    site.gateway = Some(GatewaySettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        auth_token: None,
        rig_tokens: std::collections::BTreeMap::new(),
        openai_keys: vec![],
        single_mlnode: None,
    });
    let controller = Controller::start(&site).await.unwrap();
    let address = controller.gateway_address().unwrap();
    let page = reqwest::get(format!("http://{address}/health")).await.unwrap();
    assert_eq!(page.status().as_u16(), 200);
    // Its address is in use: a second one says so, and leaves nothing running.
    let mut second = site.clone();
    second.state_dir = folder.path().join("second");
    second.gateway.as_mut().unwrap().listen = address;
    let error = Controller::start(&second).await.err().unwrap().to_string();
    assert!(
        error.contains("gateway cannot listen") && error.contains("gateway: listen"),
        "{error}"
    );
    controller.stop().await.unwrap();
    assert!(reqwest::get(format!("http://{address}/health")).await.is_err());
}

#[tokio::test]
async fn it_starts_shows_itself_and_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let site = site(folder.path());
    let controller = Controller::start(&site).await.unwrap();
    let key = controller.public_key();
    let mut views = controller.views();
    let view = planned(&mut views).await;
    assert_eq!(view.rigs.len(), 7);
    assert!(view.rigs.iter().all(|rig| !rig.online && rig.state.is_none()));
    let connect = async {
        loop {
            if let Ok(ends) = socket::connect(&site.socket_path()).await {
                break ends;
            }
            tokio::task::yield_now().await;
        }
    };
    let (mut seen, _actions) = tokio::time::timeout(DEADLINE, connect).await.unwrap();
    assert_eq!(planned(&mut seen).await.farm, "Demo farm, HB_WEST");
    controller.stop().await.unwrap();

    let first = store::read_kept(&site.store_path()).unwrap();
    assert!(first.memory.plan_id > 0 && first.signer_counter > 0);
    let again = Controller::start(&site).await.unwrap();
    assert_eq!(again.public_key(), key);
    let view = planned(&mut again.views()).await;
    assert!(view.plan.id > first.memory.plan_id, "plans go on counting");
    again.stop().await.unwrap();
    let second = store::read_kept(&site.store_path()).unwrap();
    assert!(second.signer_counter > first.signer_counter, "no counter is used twice");
}
