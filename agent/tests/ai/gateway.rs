//! The whole table of the MLNode contract against the controller's gateway, with real rigs' faces behind it.

use std::path::Path;
use std::time::Duration;

use farm_controller::config::{AiFace, GatewaySettings, Secret, SingleMlNode, Site};
use farm_controller::gateway::{Gateway, Pace};
use farm_tests::contract::{Face, Ground, Subject, run};
use roadbed_protocol::RigKind;

use super::contract::RigSubject;

/// The gateway of the scenario under way, and the rig behind it.
struct GatewaySubject {
    face: Face,
    rig: RigSubject,
    gateway: Option<Gateway>,
    folder: tempfile::TempDir,
}

impl GatewaySubject {
    fn new(face: Face) -> Self {
        let (rig, folder) = (RigSubject::default(), tempfile::tempdir().unwrap());
        Self { face, rig, gateway: None, folder }
    }

    /// The demo's site with the rig under test in place of its own, and a gateway.
    fn site(&self, rig_url: &str, token: Option<Secret>) -> Site {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/demo-site.yaml");
        let mut site = Site::load(&shipped).unwrap();
        site.state_dir = self.folder.path().to_owned();
        site.rigs.retain(|rig| rig.profile.kind == RigKind::Gpu);
        let rig = &mut site.rigs[0];
        let authority = rig_url.trim_start_matches("http://").parse().unwrap();
        let model = super::MODEL.to_owned();
        rig.model = Some(model.clone());
        let settings = GatewaySettings {
            listen: "127.0.0.1:0".parse().unwrap(),
            auth_token: None,
            rig_tokens: std::collections::BTreeMap::new(),
            openai_keys: vec![],
            single_mlnode: None,
        };
        site.gateway = Some(match self.face {
            // The token is between the Network Node and the rig.
            Face::Rig | Face::GatewayRig => {
                rig.ai = Some(AiFace { authority, token: None });
                settings
            }
            // The gateway asks for one and shows one.
            Face::FanOut => {
                rig.ai = Some(AiFace { authority, token: token.clone() });
                let rigs = vec![rig.id.clone()];
                let single = SingleMlNode { rigs, base: Some("mlnode".into()), model };
                GatewaySettings { auth_token: token, single_mlnode: Some(single), ..settings }
            }
        });
        site
    }
}

impl Subject for GatewaySubject {
    fn face(&self) -> Face {
        self.face
    }

    async fn bring(&mut self, given: &str) -> Option<Ground> {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        if given == "metrics-off" && self.face == Face::FanOut {
            // The fan-out's page is the controller's.
            return None;
        }
        let ground = self.rig.bring(given).await?;
        let site = self.site(&ground.base_url, (given == "token").then(|| "secret".into()));
        let pace = Pace { pause: Duration::from_millis(20), patience: Duration::from_secs(10) };
        let settings = site.gateway.as_ref().unwrap();
        let gateway = Gateway::start(&site, settings, pace).await.unwrap();
        let base = match self.face {
            Face::Rig | Face::GatewayRig => format!("rigs/{}", site.rigs[0].id),
            Face::FanOut => "mlnode".to_owned(),
        };
        let base_url = format!("http://{}/{base}", gateway.address());
        self.gateway = Some(gateway);
        Some(Ground { base_url, ..ground })
    }
}

#[tokio::test]
async fn a_rig_behind_the_gateway_answers_as_the_contract_says() {
    let report = run(&mut GatewaySubject::new(Face::GatewayRig)).await;
    assert!(report.failures.is_empty(), "{}", report.faults());
    assert_eq!(report.states_left_out, [""; 0]);
    assert!(report.rows > 150, "{}", report.rows);
}

#[tokio::test]
async fn rigs_as_one_mlnode_answer_as_the_contract_says() {
    let report = run(&mut GatewaySubject::new(Face::FanOut)).await;
    assert!(report.failures.is_empty(), "{}", report.faults());
    assert_eq!(report.states_left_out, ["metrics-off"]);
    assert!(report.rows > 120, "{}", report.rows);
}
