//! The driver of a GPU rig: the real engine, miner and faces behind it, on whatever adapter this machine has.

mod tiny_encoder;

use std::net::TcpListener;
use std::time::Duration;

use roadbed_agent::clock::FarmClock;
use roadbed_agent::config::{
    EngineConfig, ExternalConfig, GpuConfig, Kv, LogprobsWord, MemoryBytes, MiningConfig,
    PoolConfig, RigMining, SensorChoice, Split, WgpuConfig,
};
use roadbed_agent::driver::{DRIVER_EVENTS_MAX, DriverEvent, RigDriver};
use roadbed_agent::gpu::GpuDriver;
use roadbed_agent::journal::Journal;
use roadbed_protocol::{
    AgentId, HashesPerSecond, MilliCelsius, MiningStep, PoolStanding, PowerSource, RigKind,
    RigProfile, Watts, Workload,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::ai::upstream::process::{is_listening, supervised, unused_address};
use crate::miner::external;
use crate::miner::pool::Pool;

/// Longest wait for anything: loading on a software adapter while others build.
const PATIENCE: Duration = Duration::from_secs(180);
const MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";
const MINE: Workload = Workload::Mine { power_target: None };

fn built_in(gpus: Vec<String>, pool: u16) -> RigMining {
    let address = format!("stratum+tcp://127.0.0.1:{pool}").parse().unwrap();
    let pools = vec![PoolConfig::new(address, "farm.rig", "x")];
    RigMining::BuiltIn(MiningConfig { threads: 1, gpus, pools })
}

struct Bench {
    driver: GpuDriver,
    events: mpsc::Receiver<DriverEvent>,
    http: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Bench {
    /// `model` of `None` is a file that is no model.
    fn start(model: Option<&str>, pool: u16) -> Self {
        Self::start_hashing_on(vec![], model, pool)
    }

    /// The same, with GPUs that hash beside the processor.
    fn start_hashing_on(hashing: Vec<String>, model: Option<&str>, pool: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.gguf");
        std::fs::write(&broken, b"GGUF but not really").unwrap();
        let model = model.map_or_else(|| broken.to_string_lossy().into_owned(), Into::into);
        let gpus = vec!["auto".into()];
        let engine = EngineConfig::Wgpu(WgpuConfig {
            model,
            gpus,
            split: Split::Auto,
            context_tokens: Some(256),
            memory: Some(MemoryBytes(4 << 30)),
            kv: Kv::F16,
            codebook: None,
            logprobs: LogprobsWord::Processed,
            deterministic_sampling: true,
        });
        Self::start_in(folder, engine, built_in(hashing, pool))
    }

    fn start_in(folder: tempfile::TempDir, engine: EngineConfig, mining: RigMining) -> Self {
        let encoder = folder.path().join("encoder.gguf");
        tiny_encoder::write(&encoder);
        let own = matches!(engine, EngineConfig::Wgpu(_));
        let config = GpuConfig {
            served_as: MODEL.into(),
            embeddings: own.then(|| encoder.to_string_lossy().into_owned()),
            engine,
            listen: "127.0.0.1:0".parse().unwrap(),
            auth_token: None,
            pocstream_listen: None,
            apply_p_value_threshold: false,
            accuse_with_own_weights: false,
            metrics: true,
            sensor: SensorChoice::Simulated,
            mining: Some(mining),
        };
        let profile = RigProfile {
            model: "test".into(),
            kind: RigKind::Gpu,
            firmware: "none".into(),
            source: "test".into(),
            status: "test".into(),
            floor_watts: Watts(40),
            nameplate_watts: Watts(150),
            mining: vec![MiningStep {
                watts: Watts(90),
                hashes_per_second: HashesPerSecond(1_000_000),
            }],
            ai_watts: Some(Watts(110)),
            start_seconds: 60,
            stop_seconds: 20,
            temperature_trip: MilliCelsius(95_000),
            temperature_safe: MilliCelsius(80_000),
        };
        let journal = Journal::open(folder.path(), &AgentId::new("box").unwrap()).unwrap();
        let (sender, events) = mpsc::channel(DRIVER_EVENTS_MAX);
        let clock = FarmClock::real();
        let driver = GpuDriver::spawn(&config, &profile, clock, &journal, sender).unwrap();
        Self { driver, events, http: reqwest::Client::new(), folder }
    }

    async fn event(&mut self) -> DriverEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").unwrap()
    }

    async fn failure(&mut self) -> String {
        let event = self.event().await;
        let reason = match &event {
            DriverEvent::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        assert!(reason.is_some(), "{event:?} is no failure");
        reason.unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.driver.address())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let sent = self.http.post(self.url(path)).body(body.to_string()).send().await.unwrap();
        let status = sent.status().as_u16();
        (status, serde_json::from_slice(&sent.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn chat(&self) -> (u16, Value) {
        let question = json!({"role": "user", "content": "Say yes."});
        let body =
            json!({"model": MODEL, "messages": [question], "temperature": 0, "max_tokens": 2});
        self.post("/v1/chat/completions", body).await
    }

    async fn embed(&self) -> (u16, Value) {
        self.post("/v1/embeddings", json!({"model": "encoder", "input": [1, 2, 3]})).await
    }

    async fn state(&self) -> String {
        let reply = self.http.get(self.url("/api/v1/state")).send().await.unwrap();
        let state: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        state["state"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mining_is_said_when_it_hashes_and_ended_when_it_is_silent() {
    let pool = Pool::listen().await;
    let mut bench = Bench::start(None, pool.port());
    bench.driver.probe();
    assert_eq!(bench.event().await, DriverEvent::Probed);
    bench.driver.start(MINE);
    let mut talk = pool.accept().await;
    talk.let_in(1e-5, "a").await;
    let share = talk.share().await;
    assert_eq!(bench.event().await, DriverEvent::Started { workload: MINE });
    talk.answer(&share, json!({"result": true, "error": null})).await;
    let seen = bench.driver.observe();
    assert!(seen.hashrate.unwrap() > HashesPerSecond::ZERO);
    assert_eq!(seen.power.unwrap().source, PowerSource::Profile);

    // Whoever asks the MLNode face meanwhile is told what the rig does.
    let (status, answer) =
        bench.post("/api/v1/inference/up", json!({"model": MODEL, "dtype": "float16"})).await;
    let said = answer["detail"].as_str().unwrap().to_owned();
    assert!(status == 409 && said.contains("in MINE mode"), "{status} {said}");
    assert_eq!(bench.state().await, "STOPPED");

    let accepted = async {
        while bench.driver.observe().jobs.shares_accepted == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, accepted).await.expect("the share is booked");
    let pools = bench.driver.observe().pools;
    assert_eq!(pools.len(), 1);
    let reported = &pools[0];
    assert_eq!((reported.url.clone(), reported.standing), (pool.address(), PoolStanding::Hashing));
    assert!(reported.shares.accepted >= 1 && reported.answer_after.is_some(), "{reported:?}");
    assert_eq!((reported.difficulty_millionths, reported.trouble.as_str()), (10, ""));
    bench.driver.stop(false);
    bench.driver.stop(true);
    assert_eq!(bench.event().await, DriverEvent::Stopped, "once for both orders");
    let seen = bench.driver.observe();
    assert_eq!((seen.hashrate, seen.pools.len()), (None, 0));
    assert!(seen.jobs.shares_accepted >= 1, "work is not forgotten with the miner");
    assert!(bench.events.try_recv().is_err(), "nothing more was said");
    bench.folder.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_making_ready_of_a_gpu_too() {
    let pool = Pool::listen().await;
    let mut bench = Bench::start_hashing_on(vec!["auto".into()], None, pool.port());
    bench.driver.probe();
    assert_eq!(bench.event().await, DriverEvent::Probed);
    bench.driver.start(MINE);
    bench.driver.stop(true);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
    assert_eq!(bench.driver.observe().hashrate, None);
    // A start after it is not held up by the one that was given up.
    bench.driver.start(MINE);
    let mut talk = pool.accept().await;
    talk.let_in(1e-5, "a").await;
    assert_eq!(talk.share().await.job, "a");
    assert_eq!(bench.event().await, DriverEvent::Started { workload: MINE });
    bench.driver.stop(true);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_loaded_is_a_failure_with_its_reason() {
    let mut bench = Bench::start(None, 1);
    bench.driver.start(Workload::Serve { model: "other/model".into() });
    assert!(bench.failure().await.contains("this rig serves"));
    bench.driver.start(Workload::Serve { model: MODEL.into() });
    let reason = bench.failure().await;
    assert!(reason.contains("broken.gguf"), "{reason}");
    bench.driver.stop(true);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
    let (status, _) = bench.chat().await;
    assert!(status >= 400, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_hands_over_to_proving_drains_and_unloads() {
    // `make test` fetches the model; the message of a missing one says what to run.
    let mut bench = Bench::start(Some("smollm2-135m"), 1);
    let serve = Workload::Serve { model: MODEL.into() };
    let prove = Workload::Prove { model: MODEL.into() };
    bench.driver.start(serve.clone());
    assert_eq!(bench.event().await, DriverEvent::Started { workload: serve.clone() });
    assert_eq!(bench.state().await, "INFERENCE");
    assert_eq!(bench.chat().await.0, 200);
    assert!(bench.driver.observe().jobs.completions >= 1);
    let (status, embedded) = bench.embed().await;
    assert_eq!(status, 200, "{embedded}");
    let vector = embedded["data"][0]["embedding"].as_array().unwrap();
    assert_eq!(vector.len(), tiny_encoder::DIMENSIONS);

    bench.driver.hand_over(prove.clone());
    assert_eq!(bench.event().await, DriverEvent::HandedOver { workload: prove });
    assert_eq!(bench.state().await, "INFERENCE", "the loaded engine stays up");
    bench.driver.hand_over(MINE);
    assert!(bench.failure().await.contains("without a stop"));

    bench.driver.begin_drain();
    assert_eq!(bench.event().await, DriverEvent::Drained);
    let (status, _) = bench.chat().await;
    assert!(status >= 400, "a draining rig takes no chat: {status}");
    assert_eq!(bench.embed().await.0, 503, "and no texts");
    bench.driver.cancel_drain();
    let taken = async {
        while bench.chat().await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, taken).await.expect("chats are taken again");

    bench.driver.stop(false);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
    assert_eq!(bench.state().await, "STOPPED");
    assert_eq!(bench.embed().await.0, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_the_engines_place_switches_as_the_engine_does() {
    let address = unused_address();
    let engine = EngineConfig::Upstream(Box::new(supervised(&address, "STAND_IN")));
    let mut bench = Bench::start_in(tempfile::tempdir().unwrap(), engine, built_in(vec![], 1));
    let serve = Workload::Serve { model: MODEL.into() };
    assert!(!is_listening(&address), "nothing runs before it shall");
    bench.driver.start(serve.clone());
    assert_eq!(bench.event().await, DriverEvent::Started { workload: serve });
    assert_eq!(bench.state().await, "INFERENCE");
    assert_eq!(bench.chat().await.0, 200);
    let seen = bench.driver.observe();
    assert_eq!(seen.jobs.completions, 1);
    assert!(seen.engine.starts_with("openai-upstream at http://127."), "{}", seen.engine);

    bench.driver.begin_drain();
    assert_eq!(bench.event().await, DriverEvent::Drained);
    assert_eq!(bench.chat().await.0, 503, "a draining rig takes no chat");
    bench.driver.stop(false);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
    assert!(!is_listening(&address), "stopped is when the server is gone");
    assert_eq!(bench.state().await, "STOPPED");

    // A start that is given up leaves nothing behind either.
    bench.driver.start(Workload::Serve { model: MODEL.into() });
    bench.driver.stop(true);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
    assert!(!is_listening(&address));
}

/// A rig that hashes with a fake miner and serves by a stand-in of a server; the addresses of the miner's API and of the
/// server.
fn with_an_external_miner(
    manners: &str,
    change: impl FnOnce(&mut ExternalConfig),
) -> (Bench, String, String) {
    // Free now; the miner's API listens on 127.0.0.1 and nowhere else.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (api, server) = (format!("127.0.0.1:{port}"), unused_address());
    let folder = tempfile::tempdir().unwrap();
    let mut config = external::config(folder.path(), "t-rex", manners);
    config.api_port = Some(port);
    change(&mut config);
    let engine = EngineConfig::Upstream(Box::new(supervised(&server, "STAND_IN")));
    let bench = Bench::start_in(folder, engine, RigMining::External(Box::new(config)));
    (bench, api, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_miner_is_gone_before_a_model_comes() {
    let (mut bench, api, server) = with_an_external_miner("well", |_| {});
    bench.driver.start(MINE);
    assert_eq!(bench.event().await, DriverEvent::Started { workload: MINE });
    let counted = async {
        while bench.driver.observe().jobs.shares_accepted == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("its shares are counted");
    let seen = bench.driver.observe();
    assert!(seen.hashrate.unwrap() > HashesPerSecond(1_000));
    assert!(seen.engine.ends_with("for stratum+tcp://pool.example:3333"), "{}", seen.engine);
    let [pool] = &seen.pools[..] else { panic!("{:?}", seen.pools) };
    assert!(pool.standing == PoolStanding::Hashing && pool.shares.accepted > 0, "{pool:?}");

    bench.driver.stop(false);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
    assert!(!is_listening(&api), "stopped is when the miner is gone");
    let seen = bench.driver.observe();
    assert!(seen.hashrate.is_none() && seen.jobs.shares_accepted > 0, "work is not forgotten");

    // A model that is ordered over a running miner waits for its end too.
    bench.driver.start(MINE);
    assert_eq!(bench.event().await, DriverEvent::Started { workload: MINE });
    assert!(is_listening(&api) && !is_listening(&server));
    let serve = Workload::Serve { model: MODEL.into() };
    bench.driver.start(serve.clone());
    assert_eq!(bench.event().await, DriverEvent::Started { workload: serve });
    assert!(!is_listening(&api));
    bench.driver.stop(true);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_an_external_miner_that_is_deaf() {
    let (mut bench, api, _) = with_an_external_miner("deaf forks", |_| {});
    bench.driver.start(MINE);
    assert_eq!(bench.event().await, DriverEvent::Started { workload: MINE });
    bench.driver.cut_power();
    let gone = async {
        while is_listening(&api) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it is killed");
    bench.driver.stop(true);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
    assert!(bench.events.try_recv().is_err(), "nothing more was said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_miner_that_is_not_there_is_the_rigs_failure() {
    let (mut bench, _, _) =
        with_an_external_miner("well", |config| config.program = "/nowhere/t-rex".into());
    bench.driver.start(MINE);
    let reason = bench.failure().await;
    assert!(reason.contains("/nowhere/t-rex"), "{reason}");
    assert!(bench.driver.observe().pools[0].trouble.contains("/nowhere/t-rex"));
    bench.driver.stop(false);
    assert_eq!(bench.event().await, DriverEvent::Stopped);
}
