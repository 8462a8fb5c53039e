//! The emulated miners, driven over their sockets by a client that knows nothing of them but their wire.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use farm_tests::asic::fault::Fault;
use farm_tests::asic::{AsicConfig, Family, RunningAsic, StepConfig};
use farm_tests::clock::FarmClock;
use roadbed_protocol::{Millis, UnixMillis};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Farm seconds in a wall second here: a wake-up of a minute takes a quarter of one.
const RATE: f64 = 240.0;
/// Wall time within which anything expected must have happened.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    asic: RunningAsic,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn step(watts: u64, terahash: f64) -> StepConfig {
    StepConfig { watts, terahash }
}

async fn bench(family: Family) -> Bench {
    let stop = CancellationToken::new();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = AsicConfig {
        id: "asic-1".to_owned(),
        family,
        listen: any,
        rpc_listen: Some(any),
        password: "admin".to_owned(),
        floor_watts: 18,
        wake_seconds: 60,
        steps: match family {
            Family::Luxos => vec![step(1_384, 65.0), step(2_794, 121.8)],
            Family::Vnish => vec![step(2_550, 170.0), step(3_520, 236.0)],
        },
        asleep: false,
        fault: None,
    };
    let clock = FarmClock::starting_at(UnixMillis(1_600_000_000_000), RATE);
    let asic = farm_tests::asic::start(&config, clock, &stop, &TaskTracker::new()).await.unwrap();
    Bench { asic, stop }
}

/// One request to a cgminer-like port: bytes until the peer closes.
async fn exchange(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = stream.read_to_end(&mut answer).await;
    }
    answer
}

async fn ask(address: SocketAddr, command: &str, parameter: &str) -> Value {
    let request = json!({ "command": command, "parameter": parameter }).to_string();
    let answer = exchange(address, &request).await;
    let text = answer.strip_suffix(b"\0").unwrap_or(&answer);
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn severity(answer: &Value) -> &str {
    answer["STATUS"][0]["STATUS"].as_str().unwrap()
}

async fn log_on(address: SocketAddr) -> String {
    let answer = ask(address, "logon", "").await;
    answer["SESSION"][0]["SessionID"].as_str().unwrap().to_owned()
}

/// Polls a LuxOS machine's watts until they are as wanted.
async fn watts_become(address: SocketAddr, wanted: std::ops::RangeInclusive<u64>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let watts = ask(address, "power", "").await["POWER"][0]["Watts"].as_u64().unwrap();
        if wanted.contains(&watts) {
            return;
        }
        assert!(Instant::now() < deadline, "{watts} W, {wanted:?} wanted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn luxos_answers_every_recorded_command_with_live_values() {
    let bench = bench(Family::Luxos).await;
    let address = bench.asic.address;
    for (command, list) in [
        ("version", "VERSION"),
        ("summary", "SUMMARY"),
        ("devs", "DEVS"),
        ("stats", "STATS"),
        ("temps", "TEMPS"),
        ("fans", "FANS"),
        ("power", "POWER"),
        ("config", "CONFIG"),
        ("pools", "POOLS"),
        ("profiles", "PROFILES"),
        ("events", "EVENTS"),
        ("groups", "GROUPS"),
        ("tempctrl", "TEMPCTRL"),
        ("atm", "ATM"),
        ("session", "SESSION"),
    ] {
        let answer = ask(address, command, "").await;
        assert_eq!(severity(&answer), "S", "{command}");
        assert!(answer[list].is_array(), "{command}: {answer}");
    }
    let summary = ask(address, "summary", "").await;
    let gigahash = summary["SUMMARY"][0]["GHS 5s"].as_f64().unwrap();
    // The configured top step took the place of the recorded profile nearest in hashrate.
    assert!((115_000.0..125_000.0).contains(&gigahash), "{gigahash}");
    assert_eq!(ask(address, "voltageget", "1").await["VOLTAGE"][0]["Board"], 1);
    assert_eq!(severity(&ask(address, "nonsense", "").await), "E");
    let joined = ask(address, "summary+power", "").await;
    assert!(joined["power"][0]["POWER"][0]["Watts"].as_u64().unwrap() > 2_700);
    assert!(joined["summary"][0]["SUMMARY"].is_array());
}

#[tokio::test]
async fn luxos_sleeps_and_wakes_by_the_watts() {
    let bench = bench(Family::Luxos).await;
    let address = bench.asic.address;
    watts_become(address, 2_700..=2_794).await;
    let session = log_on(address).await;
    let slept = ask(address, "curtail", &format!("{session},sleep")).await;
    assert_eq!(slept["CURTAIL"][0]["Action"], "sleep mode");
    watts_become(address, 1..=18).await;
    let config = ask(address, "config", "").await;
    assert_eq!(config["CONFIG"][0]["CurtailMode"], "Sleep");
    assert_eq!(config["CONFIG"][0]["IsPowerSupplyOn"], false);
    let summary = ask(address, "summary", "").await;
    assert_eq!(summary["SUMMARY"][0]["GHS 5s"], 0.0);
    let woken = ask(address, "curtail", &format!("{session},wakeup")).await;
    assert_eq!(severity(&woken), "S");
    watts_become(address, 2_700..=2_794).await;
    assert_eq!(bench.asic.miner.status().commands, 2);
}

#[tokio::test]
async fn luxos_changes_profile_only_without_the_thermal_manager() {
    let bench = bench(Family::Luxos).await;
    let address = bench.asic.address;
    let session = log_on(address).await;
    let refused = ask(address, "profileset", &format!("{session},1384W")).await;
    assert_eq!(severity(&refused), "E");
    let off = ask(address, "atmset", &format!("{session},enabled=false")).await;
    assert_eq!(severity(&off), "S");
    assert_eq!(ask(address, "atm", "").await["ATM"][0]["Enabled"], false);
    let set = ask(address, "profileset", &format!("{session},1384W")).await;
    assert_eq!(severity(&set), "S");
    watts_become(address, 1_370..=1_384).await;
    let name = set["PROFILE"][0]["Profile"].clone();
    for bad in ["enabled=perhaps", "max_profile=nowhere", "colour=red", ""] {
        let answer = ask(address, "atmset", &format!("{session},{bad}")).await;
        assert_eq!(severity(&answer), "E", "{bad}");
    }
    assert_eq!(ask(address, "config", "").await["CONFIG"][0]["Profile"], name);
    for bad in ["nowhere", "1W", "-5kW", ""] {
        let answer = ask(address, "profileset", &format!("{session},{bad}")).await;
        assert_eq!(severity(&answer), "E", "{bad}");
    }
}

#[tokio::test]
async fn luxos_climbs_back_unless_it_has_a_ceiling() {
    let bench = bench(Family::Luxos).await;
    let address = bench.asic.address;
    let session = log_on(address).await;
    let order = async |command: &str, rest: &str| {
        let answer = ask(address, command, &format!("{session},{rest}")).await;
        assert_eq!(severity(&answer), "S", "{command} {rest}");
        answer
    };
    order("atmset", "enabled=false").await;
    let set = order("profileset", "1384W").await;
    let name = set["PROFILE"][0]["Profile"].as_str().unwrap().to_owned();
    let ceiling = format!("enabled=true,max_profile={name}");
    order("atmset", &ceiling).await;
    assert_eq!(ask(address, "atm", "").await["ATM"][0]["MaxProfile"], name.as_str());
    watts_become(address, 1_370..=1_384).await;
    // Half an hour of farm time later it is still there.
    let later = bench.asic.miner.now() + Millis::from_mins(31);
    let deadline = Instant::now() + 2 * PATIENCE;
    while bench.asic.miner.now() < later {
        assert!(Instant::now() < deadline, "the farm's clock stands");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    watts_become(address, 1_370..=1_384).await;
    order("atmset", "max_profile=").await;
    watts_become(address, 1_385..=2_794).await;
}

#[tokio::test]
async fn luxos_knows_one_session_at_a_time() {
    let bench = bench(Family::Luxos).await;
    let address = bench.asic.address;
    let none = ask(address, "curtail", "guess,sleep").await;
    assert_eq!(severity(&none), "E");
    let session = log_on(address).await;
    assert_eq!(severity(&ask(address, "logon", "").await), "E");
    assert_eq!(severity(&ask(address, "logoff", &session).await), "S");
    assert_ne!(log_on(address).await, session);
}

#[tokio::test]
async fn luxos_faults_show() {
    let bench = bench(Family::Luxos).await;
    let (address, miner) = (bench.asic.address, &bench.asic.miner);

    miner.set_fault(Some(Fault::SessionHeld)).unwrap();
    assert_eq!(severity(&ask(address, "logon", "").await), "E");
    let held = ask(address, "session", "").await;
    assert_ne!(held["SESSION"][0]["SessionID"], "");

    miner.set_fault(Some(Fault::OkButNothingHappens)).unwrap();
    let session = log_on(address).await;
    let lied = ask(address, "curtail", &format!("{session},sleep")).await;
    assert_eq!(severity(&lied), "S");
    assert!(miner.is_awake());

    miner.set_fault(Some(Fault::ExpiredToken)).unwrap();
    let stale = ask(address, "curtail", &format!("{session},sleep")).await;
    assert_eq!(severity(&stale), "E");
    let session = log_on(address).await;
    let fresh = ask(address, "curtail", &format!("{session},wakeup")).await;
    assert_eq!(severity(&fresh), "S");

    for fault in [Fault::CutReply, Fault::Garbage] {
        miner.set_fault(Some(fault)).unwrap();
        let bytes = exchange(address, r#"{"command":"summary"}"#).await;
        assert!(!bytes.is_empty(), "{fault:?}");
        let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        assert!(serde_json::from_slice::<Value>(text).is_err(), "{fault:?}");
    }

    miner.set_fault(Some(Fault::DropsOffline)).unwrap();
    assert!(exchange(address, r#"{"command":"summary"}"#).await.is_empty());
    miner.set_fault(None).unwrap();
    watts_become(address, 2_700..=2_794).await;
    assert!(miner.set_fault(Some(Fault::WrongPassword)).is_err());
}

#[tokio::test]
async fn a_restart_is_silent_for_a_while_and_then_over() {
    let bench = bench(Family::Luxos).await;
    let address = bench.asic.address;
    let session = log_on(address).await;
    assert_eq!(severity(&ask(address, "rebootdevice", &session).await), "S");
    assert!(exchange(address, r#"{"command":"power"}"#).await.is_empty());
    let deadline = Instant::now() + PATIENCE;
    while exchange(address, r#"{"command":"power"}"#).await.is_empty() {
        assert!(Instant::now() < deadline, "still restarting");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watts_become(address, 2_700..=2_794).await;
}

/// A VNish client: base address, HTTP client, token.
struct Web {
    base: String,
    client: reqwest::Client,
    token: String,
}

impl Web {
    fn new(address: SocketAddr) -> Self {
        Self {
            base: format!("http://{address}/api/v1"),
            client: reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap(),
            token: String::new(),
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(format!("{}/{path}", self.base));
        Self::read(request.header("Authorization", &self.token)).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}/{path}", self.base));
        Self::read(request.header("Authorization", &self.token).json(&body)).await
    }

    async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    async fn unlock(&mut self) {
        let (status, answer) = self.post("unlock", json!({ "pw": "admin" })).await;
        assert_eq!(status, 200);
        self.token = format!("Bearer {}", answer["token"].as_str().unwrap());
    }

    async fn watts_become(&self, wanted: std::ops::RangeInclusive<u64>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, summary) = self.get("summary").await;
            let watts = summary["miner"]["power_usage"].as_u64().unwrap();
            if wanted.contains(&watts) {
                return;
            }
            assert!(Instant::now() < deadline, "{watts} W, {wanted:?} wanted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn vnish_reads_need_no_token_but_orders_do() {
    let bench = bench(Family::Vnish).await;
    let mut web = Web::new(bench.asic.address);
    for path in ["info", "status", "summary", "perf-summary", "autotune/presets"] {
        assert_eq!(web.get(path).await.0, 200, "{path}");
    }
    let hostname = "/system/network_status/hostname";
    assert_eq!(web.get("info").await.1.pointer(hostname), Some(&json!("")));
    assert_eq!(web.get("settings").await.0, 401);
    assert_eq!(web.post("mining/stop", json!({})).await.0, 401);
    assert_eq!(web.post("unlock", json!({ "pw": "root" })).await.0, 401);
    assert_eq!(web.post("unlock", json!(["?"])).await.0, 400);
    web.unlock().await;
    assert_eq!(web.get("info").await.1.pointer(hostname), Some(&json!("Antminer")));
    assert_eq!(web.get("settings").await.1["miner"]["overclock"]["preset"], "3520");
    assert_eq!(web.post("mining/throttle", json!({ "percent": 50 })).await.0, 404);
    assert_eq!(web.get("nonsense").await.0, 404);
    assert!(bench.asic.miner.is_awake());
}

#[tokio::test]
async fn vnish_stops_starts_and_changes_preset_by_the_watts() {
    let bench = bench(Family::Vnish).await;
    let mut web = Web::new(bench.asic.address);
    web.unlock().await;
    web.watts_become(3_400..=3_520).await;
    for (stop, start) in [("stop", "start"), ("pause", "resume")] {
        let (status, answer) = web.post(&format!("mining/{stop}"), json!({})).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)));
        web.watts_become(1..=18).await;
        let (_, summary) = web.get("summary").await;
        assert_eq!(summary["miner"]["miner_status"]["miner_state"], "stopped");
        assert_eq!(summary["miner"]["instant_hashrate"], 0.0);
        web.post(&format!("mining/{start}"), json!({})).await;
        web.watts_become(3_400..=3_520).await;
    }
    let wanted = |preset: &str| json!({ "miner": { "overclock": { "preset": preset } } });
    let ceiling = json!({ "miner": { "overclock": {
        "preset": "2550", "preset_switcher": { "top_preset": "2550" }
    }}});
    web.post("settings", ceiling).await;
    let (_, settings) = web.get("settings").await;
    assert_eq!(settings["miner"]["overclock"]["preset_switcher"]["top_preset"], "2550");
    web.watts_become(2_500..=2_550).await;
    let (_, performance) = web.get("perf-summary").await;
    assert_eq!(performance["current_preset"]["status"], "tuned");
    // An unknown preset is answered like a known one.
    let (status, answer) = web.post("settings", wanted("9")).await;
    assert_eq!((status, &answer["reboot_required"]), (200, &json!(false)));
    assert_eq!(web.get("settings").await.1["miner"]["overclock"]["preset"], "2550");
    // An untuned one starts a tuning run.
    web.post("settings", wanted("2800")).await;
    web.watts_become(2_750..=2_800).await;
    let deadline = Instant::now() + PATIENCE;
    while web.get("status").await.1["miner_state"] != "auto-tuning" {
        assert!(Instant::now() < deadline, "no tuning run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn vnish_faults_show() {
    let bench = bench(Family::Vnish).await;
    let miner = &bench.asic.miner;
    let mut web = Web::new(bench.asic.address);

    miner.set_fault(Some(Fault::WrongPassword)).unwrap();
    assert_eq!(web.post("unlock", json!({ "pw": "admin" })).await.0, 401);

    miner.set_fault(Some(Fault::ExpiredToken)).unwrap();
    web.unlock().await;
    assert_eq!(web.post("mining/start", json!({})).await.0, 200);
    assert_eq!(web.post("mining/start", json!({})).await.0, 401);
    web.unlock().await;
    assert_eq!(web.post("mining/start", json!({})).await.0, 200);

    miner.set_fault(Some(Fault::OkButNothingHappens)).unwrap();
    let (_, answer) = web.post("mining/stop", json!({})).await;
    assert_eq!(answer["success"], true);
    assert!(miner.is_awake());

    miner.set_fault(Some(Fault::Garbage)).unwrap();
    assert_eq!(web.get("summary").await.1, Value::Null);
    miner.set_fault(Some(Fault::CutReply)).unwrap();
    let cut = web.client.get(format!("{}/summary", web.base)).send().await;
    let body = match cut {
        Ok(response) => response.bytes().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(body.is_err(), "half an answer must not look whole");

    miner.set_fault(Some(Fault::DropsOffline)).unwrap();
    let fresh = Web::new(bench.asic.address);
    let lost = fresh.client.get(format!("{}/summary", fresh.base)).send();
    assert!(lost.await.is_err());
    assert!(miner.set_fault(Some(Fault::SessionHeld)).is_err());
}

#[tokio::test]
async fn a_slow_miner_answers_late_but_whole() {
    let bench = bench(Family::Vnish).await;
    bench.asic.miner.set_fault(Some(Fault::Slow)).unwrap();
    let web = Web::new(bench.asic.address);
    let impatient = web
        .client
        .get(format!("{}/status", web.base))
        .timeout(Duration::from_millis(200))
        .send()
        .await;
    assert!(impatient.is_err());
    assert_eq!(web.get("status").await.0, 200);
}

#[tokio::test]
async fn vnish_shows_its_cgminer_face() {
    let bench = bench(Family::Vnish).await;
    let address = bench.asic.rpc_address.unwrap();
    let stats = ask(address, "stats", "").await;
    assert_eq!(stats["STATS"][0]["Type"], "Antminer S21 Pro (Vnish 1.2.7)");
    let gigahash = ask(address, "summary", "").await["SUMMARY"][0]["GHS 5s"].as_f64().unwrap();
    assert!((230_000.0..240_000.0).contains(&gigahash), "{gigahash}");
    assert_eq!(severity(&ask(address, "version", "").await), "E");
}
