//! The whole table of the MLNode contract against the agent's own face.

use std::net::TcpListener;
use std::sync::atomic::Ordering;

use farm_tests::contract::{Face, Ground, Subject, run};
use roadbed_agent::engine::catalogue::ModelStore;
use roadbed_agent::engine::pull::{Hub, Patience};
use roadbed_agent::faces::{Gate, ModelHub};
use roadbed_protocol::WorkloadKind;
use serde_json::json;

use super::callback::Callback;
use super::stand_in::CONTEXT;
use super::{MODEL, Rig, RigParts, embeddings};

/// The rig of the scenario under way, and what it needs to stay.
#[derive(Default)]
pub(super) struct RigSubject {
    rig: Option<Rig>,
    kept: Vec<Box<dyn std::any::Any + Send>>,
}

impl RigSubject {
    fn keep<T: Send + 'static>(&mut self, thing: T) {
        self.kept.push(Box::new(thing));
    }

    /// A Hub that takes connections and never says a word.
    fn silent_hub(&mut self) -> ModelHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        self.keep(listener);
        ModelHub::Hub(Box::new(Hub::new(&endpoint, None, Patience::default()).unwrap()))
    }

    /// A folder of models with `org/whole` in it.
    fn store(&mut self) -> ModelStore {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("org--whole");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("m.gguf"), b"GGUF").unwrap();
        let file = json!({"path": "m.gguf", "bytes": 4, "sha256": "", "commit": "c0ffee"});
        let manifest = json!({"repo": "org/whole", "files": [file]});
        std::fs::write(model.join("roadbed.json"), manifest.to_string()).unwrap();
        let store = ModelStore::at(folder.path());
        self.keep(folder);
        store
    }

    async fn parts(&mut self, given: &str) -> Option<RigParts> {
        let parts = RigParts::default();
        Some(match given {
            "up" | "lost" => parts,
            "stopped" | "unloadable" => RigParts { loaded: false, ..parts },
            "other-service" => RigParts { gate: Gate::Other(WorkloadKind::Mine), ..parts },
            "token" => RigParts { auth_token: Some("secret".into()), ..parts },
            "metrics-off" => RigParts { metrics_off: true, ..parts },
            "no-gpu" => RigParts { loaded: false, devices: vec![], ..parts },
            "encoder" => RigParts { embeddings: Some(embeddings::loaded().await), ..parts },
            "models" => {
                let (hub, store) = (self.silent_hub(), self.store());
                RigParts { hub, store, ..parts }
            }
            "offline" => parts,
            _ => return None,
        })
    }
}

impl Subject for RigSubject {
    fn face(&self) -> Face {
        Face::Rig
    }

    async fn bring(&mut self, given: &str) -> Option<Ground> {
        let rig = Rig::start(self.parts(given).await?).await;
        match given {
            "unloadable" => rig.script.refuse_load.store(true, Ordering::SeqCst),
            "lost" => {
                rig.script.lose_device.store(true, Ordering::SeqCst);
                let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
                assert_eq!(rig.post("/v1/chat/completions", chat).await.0, 503);
            }
            _ => {}
        }
        let callback = Callback::start([]).await;
        let words = [
            ("model", json!(MODEL)),
            ("context", json!(CONTEXT)),
            ("too_long", json!(CONTEXT + 1)),
            ("gpu", json!(super::stand_in::adapter().name)),
            ("callback", json!(callback.url("/v2/poc-batches/MiniMaxAI%252FMiniMax-M2.7"))),
        ];
        let words = words.map(|(word, value)| (word.to_owned(), value)).into();
        let base_url = format!("http://{}", rig.address);
        self.rig = Some(rig);
        Some(Ground { base_url, words })
    }
}

#[tokio::test]
async fn every_route_answers_as_the_contract_says() {
    let report = run(&mut RigSubject::default()).await;
    assert!(report.failures.is_empty(), "{}", report.faults());
    assert_eq!(report.states_left_out, [""; 0]);
    assert_eq!(report.rows_left_out, [""; 0]);
    assert!(report.rows > 150, "{}", report.rows);
}
