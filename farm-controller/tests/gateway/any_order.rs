//! The fan-out as a property: any requests in any order, any number of rigs, and rigs that die, lose their line, are slow, hang
//! up and talk nonsense at any moment.
//!
//! Held at every step: every answer has the contract's form, and no two rigs have the same group of a round. Held in the
//! end: no nonce was proved twice, and a round that was not stopped is proved to its last residue by the rigs that can.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use farm_controller::gateway::Gateway;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::fan_out::{GENERATE, INIT, STATUS, STOP, order, single_of, stand_ins};
use super::stand_in::{Mood, StandIn};
use super::{start, until, until_up};

/// Each takes about 40 ms, most of it looks at rigs.
const CASES: u32 = 24;

#[derive(Debug, Clone)]
enum Step {
    Dies(Index),
    GoesDark(Index),
    ComesBack(Index),
    Unloads(Index),
    Turns(Index, Mood),
    Mine(u64),
    /// A round; whether it is a new one.
    Init(bool),
    Stop,
    Asks(&'static str, &'static str, Vec<u8>),
    Restart,
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let job = order("A");
    let mut strange = job.clone();
    strange["node_id"] = json!("one");
    prop_oneof![
        Just(vec![]),
        proptest::collection::vec(any::<u8>(), 0..12),
        proptest::sample::select(vec![
            json!({}),
            json!([]),
            json!(7),
            json!(null),
            json!({"params": []}),
            strange,
            json!({"model": 5, "hf_repo": [], "dtype": {}}),
            job,
        ])
        .prop_map(|json| json.to_string().into_bytes()),
    ]
}

fn asks() -> impl Strategy<Value = Step> {
    let paths = vec![
        "/api/v1/state",
        "/api/v1/stop",
        "/api/v1/inference/up",
        "/api/v1/inference/up/async",
        "/api/v1/inference/up/status",
        "/api/v1/inference/down",
        INIT,
        STATUS,
        GENERATE,
        "/api/v1/inference/pow/generate/5001:a-0",
        "/api/v1/inference/pow/generate/x",
        "/health",
        "/livez",
        "/readyz",
        "/api/v1/gpu/devices",
        "/api/v1/gpu/driver",
        "/api/v1/models/status",
        "/api/v1/models/download",
        "/api/v1/models",
        "/api/v1/models/list",
        "/api/v1/models/space",
        "/api/v1/clock",
        "/api/v1/embed",
        "/metrics",
        "/nowhere",
    ];
    let methods = vec!["GET", "POST", "DELETE"];
    (proptest::sample::select(methods), proptest::sample::select(paths), body())
        .prop_map(|(method, path, body)| Step::Asks(method, path, body))
}

fn mood() -> impl Strategy<Value = Mood> {
    let said = vec![
        "",
        "no",
        "7",
        "[1]",
        "[]",
        "null",
        "{",
        "\"\\u0000\"",
        "{\"data\":[1,{\"id\":[]}]}",
        "{\"devices\":[1,null,[]],\"gpu\":{\"devices\":[\"x\"]}}",
        "{\"backends\":[5]}",
        "{\"backends\":[{\"status\":\"GENERATING\"}]}",
        "{\"detail\":[]}",
        "{\"status\":\"queued\",\"request_id\":5}",
        "{\"models\":[3],\"status\":\"DOWNLOADING\"}",
        "{\"backends\":[{\"status\":\"GENERATING\",\"config\":{\"group_id\":-1,\"n_groups\":1e99}}]}",
    ];
    let statuses = vec![200_u16, 204, 302, 400, 404, 409, 422, 429, 500, 503];
    let garbled = (proptest::sample::select(statuses), proptest::sample::select(said));
    prop_oneof![
        2 => Just(Mood::Sane),
        1 => Just(Mood::Slow),
        1 => Just(Mood::HangsUp),
        3 => garbled.prop_map(|(status, said)| Mood::Garbled(status, said)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let rig = any::<Index>;
    prop_oneof![
        1 => rig().prop_map(Step::Dies),
        1 => rig().prop_map(Step::GoesDark),
        2 => rig().prop_map(Step::ComesBack),
        1 => rig().prop_map(Step::Unloads),
        3 => (rig(), mood()).prop_map(|(rig, mood)| Step::Turns(rig, mood)),
        2 => (1_u64..4).prop_map(Step::Mine),
        4 => any::<bool>().prop_map(Step::Init),
        1 => Just(Step::Stop),
        5 => asks(),
        1 => Just(Step::Restart),
    ]
}

/// Asks as a client without a library of the contract would, and holds the answer against the contract's form.
async fn ask(at: SocketAddr, method: &str, path: &str, body: Vec<u8>) -> (u16, Value) {
    let url = format!("http://{at}/mlnode{path}");
    let request = reqwest::Client::new().request(method.parse().unwrap(), url);
    let answer = request.body(body).send().await.expect("the gateway answers");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("to the end");
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    let is_page = matches!(path, "/health" | "/livez" | "/readyz") && status == 503;
    let in_form = match status {
        204 => path == "/api/v1/clock",
        200..=299 => path == "/metrics" || said.is_object(),
        400..=599 => said.get("detail").is_some() || (is_page && said.is_object()),
        _ => false,
    };
    assert!(in_form, "{method} {path}: {status} {text}");
    (status, said)
}

/// What a rig proves: block hash, group, number of groups.
fn proves(rig: &StandIn) -> Option<(String, u64, u64)> {
    let round = rig.inside().round.clone()?;
    let number = |name: &str| round[name].as_u64();
    Some((round["block_hash"].as_str()?.to_owned(), number("group_id")?, number("n_groups")?))
}

struct Farm {
    rigs: Vec<StandIn>,
    site: farm_controller::config::Site,
    gateway: Option<Gateway>,
    /// How many rounds there were; the last one's number is its block hash.
    rounds: usize,
    /// The round that was accepted and not stopped.
    running: Option<String>,
}

impl Farm {
    fn rig(&mut self, index: Index) -> &mut StandIn {
        let count = self.rigs.len();
        &mut self.rigs[index.index(count)]
    }

    fn at(&self) -> SocketAddr {
        self.gateway.as_ref().unwrap().address()
    }

    async fn stop(&mut self) {
        self.gateway.take().unwrap().stop().await;
    }

    async fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> (u16, Value) {
        ask(self.at(), method, path, body).await
    }

    async fn init(&mut self) -> u16 {
        let hash = self.rounds.to_string();
        let (status, said) = self.ask("POST", INIT, order(&hash).to_string().into_bytes()).await;
        if status == 200 {
            assert_eq!(said["n_groups"], self.rigs.len());
            self.running = Some(hash);
        }
        status
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Dies(rig) => self.rig(rig).die().await,
            Step::GoesDark(rig) => self.rig(rig).go_dark().await,
            Step::ComesBack(rig) => self.rig(rig).come_back().await,
            Step::Unloads(rig) => {
                let mut inside = self.rig(rig).inside();
                inside.loaded = false;
                inside.round = None;
            }
            Step::Turns(rig, mood) => self.rig(rig).inside().mood = mood,
            Step::Mine(count) => self.rigs.iter().for_each(|rig| rig.mine(count)),
            Step::Init(is_new) => {
                self.rounds += usize::from(is_new);
                self.init().await;
            }
            Step::Stop => {
                assert_eq!(self.ask("POST", STOP, vec![]).await.0, 200);
                self.running = None;
            }
            Step::Asks(method, path, body) => {
                let begins = path == INIT && body == order("A").to_string().into_bytes();
                let (status, _) = self.ask(method, path, body).await;
                if begins && status == 200 {
                    self.running = Some("A".to_owned());
                }
                if path.ends_with("/stop") || path.ends_with("/down") {
                    self.running = self.running.take().filter(|_| status != 200);
                }
            }
            Step::Restart => {
                // Whether the round goes on is known once a rig that proves it is seen: no promise here.
                self.running = None;
                self.stop().await;
                self.gateway = Some(start(&self.site).await);
            }
        }
        let all: Vec<_> = self.rigs.iter().filter_map(proves).collect();
        let distinct: BTreeSet<_> = all.iter().map(|(hash, group, _)| (hash, group)).collect();
        assert_eq!(all.len(), distinct.len(), "a group twice: {all:?}");
    }

    /// All rigs are well again.
    async fn recover(&mut self) {
        for rig in &mut self.rigs {
            rig.inside().mood = Mood::Sane;
            rig.come_back().await;
        }
        for place in 0..self.rigs.len() {
            until_up(self.at(), place, true).await;
        }
    }

    /// Every rig proves its group of this round.
    async fn all_prove(&self, hash: &str) {
        let groups = self.rigs.len() as u64;
        for (group, rig) in (0..groups).zip(&self.rigs) {
            until(async || {
                // A stop that it missed may have unloaded it as it came back.
                rig.inside().loaded = true;
                (proves(rig)? == (hash.to_owned(), group, groups)).then_some(())
            })
            .await;
        }
    }

    async fn ends(mut self) {
        self.recover().await;
        if let Some(hash) = self.running.clone() {
            self.all_prove(&hash).await;
        }
        for rig in &self.rigs {
            rig.inside().loaded = true;
        }
        assert_eq!(self.ask("POST", STOP, vec![]).await.0, 200);
        self.rounds += 1;
        assert_eq!(self.init().await, 200, "rigs that are well take a round");
        self.all_prove(&self.rounds.to_string()).await;
        self.rigs.iter().for_each(|rig| rig.mine(3));
        let mined: Vec<_> = self.rigs.iter().flat_map(|rig| rig.inside().mined.clone()).collect();
        let distinct: BTreeSet<_> = mined.iter().collect();
        assert_eq!(mined.len(), distinct.len(), "a nonce twice: {mined:?}");
        self.stop().await;
    }
}

#[test]
fn any_requests_in_any_order_before_rigs_in_any_state() {
    let config = ProptestConfig { cases: CASES, max_shrink_iters: 64, ..ProptestConfig::default() };
    let config = ProptestConfig { failure_persistence: None, ..config };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let any = (1_usize..5, proptest::collection::vec(step(), 4..20));
    let held = TestRunner::new(config).run(&any, |(count, steps)| {
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let rigs = stand_ins(count).await;
            let site = single_of(&rigs, folder.path());
            let gateway = start(&site).await;
            let mut farm = Farm { rigs, site, gateway: Some(gateway), rounds: 0, running: None };
            for step in steps {
                farm.take(step).await;
            }
            farm.ends().await;
        });
        Ok(())
    });
    held.unwrap();
}
