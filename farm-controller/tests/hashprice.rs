//! The hashprice from nodes and documents on sockets: stand-ins of ours, one of which misbehaves.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use farm_controller::config::Site;
use farm_controller::feeds::{Hashing, hash_income, options};
use farm_controller::hashprice::{Asker, HashpriceSource, Kept, Reading, Service, Source as _};
use farm_core::FarmEvent;
use farm_core::plan::IncomeSource;
use farm_tests::tls_front::{CERTIFICATES, tls_front_as};
use roadbed_protocol::{Millis, Money, UnixMillis};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

/// What the stand-in of a node answers.
struct Script {
    difficulty: Value,
    height: u64,
    has_stats: bool,
    /// Methods called so far.
    calls: Vec<String>,
}

type Shared = Arc<Mutex<Script>>;

async fn rpc(
    State(script): State<Shared>,
    headers: HeaderMap,
    Json(call): Json<Value>,
) -> (StatusCode, Json<Value>) {
    // roadbed:secret
    if headers.get("authorization").is_none_or(|it| it != "Basic cm9hZGJlZDpzZWNyZXQ=") {
        return (StatusCode::UNAUTHORIZED, Json(Value::Null));
    }
    let mut script = script.lock().unwrap();
    let method = call["method"].as_str().unwrap().to_owned();
    script.calls.push(method.clone());
    let refuse = |code: i64, message: &str| json!({"result": null, "error": {"code": code, "message": message}});
    let answer = match method.as_str() {
        "getblockchaininfo" => json!({"error": null, "result": {
            "chain": "main", "blocks": script.height, "difficulty": script.difficulty}}),
        // Every block pays its height in fees.
        "getblockstats" if script.has_stats => {
            json!({"error": null, "result": {"totalfee": call["params"][0]}})
        }
        _ => refuse(-32_601, "Method not found"),
    };
    (StatusCode::OK, Json(answer))
}

async fn served(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn node() -> (String, Shared) {
    let script =
        Script { difficulty: json!(1e14), height: 840_143, has_stats: true, calls: vec![] };
    let script: Shared = Arc::new(Mutex::new(script));
    let router = Router::new().route("/", post(rpc)).with_state(Arc::clone(&script));
    (served(router).await, script)
}

/// A site of one ASIC of 100 TH/s whose income is this YAML.
fn site(folder: &Path, hashprice: &str) -> Site {
    let valid = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/profiles/valid");
    std::fs::write(folder.join("cookie"), "roadbed:secret\n").unwrap();
    std::fs::create_dir_all(folder.join("state")).unwrap();
    let text = format!(
        "farm: west-1\ncurrency: USD\nbroker_listen: 127.0.0.1:0\nstate_dir: state\nkey_file: controller.key\n\
         policy: {valid}/empty-policy.yaml\nfeeders:\n  - {{id: site, limit_watts: 50000}}\nagents:\n\
         \x20 - {{id: box, public_key: \"{key}\"}}\nrigs:\n\
         \x20 - {{id: asic-1, profile: {valid}/asic.yaml, feeder: site, agent: box}}\n\
         tariff: {{fixed_per_mwh: 38.5}}\nincome:\n  hashprice: {hashprice}\n",
        valid = valid.display(),
        key = "01".repeat(32),
    );
    let path = folder.join("site.yaml");
    std::fs::write(&path, text).unwrap();
    Site::load(&path).unwrap()
}

fn computed(url: &str) -> String {
    format!(
        "{{pool_fee_percent: 2, network: {{node: {{url: \"{url}\", cookie_file: cookie}}}}, \
         btc_price: {{value: 100000, as_of: 2026-11-01T00:00:00Z, source: an exchange}}}}"
    )
}

async fn ask(site: &Site, asker: &mut Asker) -> Result<Reading, String> {
    asker.ask(site.clock.now()).await.map_err(|error| error.to_string())
}

fn asker(site: &Site) -> Asker {
    Asker::new(&site.income.hashprice.as_ref().unwrap().from)
}

#[tokio::test]
async fn a_node_and_a_price_make_a_hashprice() {
    let folder = tempfile::tempdir().unwrap();
    let (url, script) = node().await;
    let site = site(folder.path(), &computed(&url));
    let mut asker = asker(&site);
    let reading = ask(&site, &mut asker).await.unwrap();
    // 3.125 BTC and the mean of the heights 840 000 to 840 143, 840 071 satoshis: 320.840071e6 * 86400e15 / (1e14 * 2^32)
    // satoshis at 100 000.
    let reward = 312_500_000.0 + 840_071.0;
    let expected = reward / 1e8 * 86_400.0 * 1e15 / (1e14 * 4_294_967_296.0) * 100_000.0;
    assert!((reading.per_ph_day.0 as f64 / 1e6 - expected).abs() < 1e-5, "{expected} {reading:?}");
    // The price is the oldest part.
    assert_eq!(reading.true_at, Some(UnixMillis(1_793_491_200_000)));
    let fees = &reading.parts[2];
    assert_eq!(
        (fees.what.as_str(), fees.figure.as_str()),
        ("fees of a block, mean of the last 144", "0.00840071 BTC")
    );

    // Two blocks later only they are asked for.
    script.lock().unwrap().height += 2;
    script.lock().unwrap().calls.clear();
    let later = ask(&site, &mut asker).await.unwrap();
    assert_eq!(
        script.lock().unwrap().calls,
        ["getblockchaininfo", "getblockstats", "getblockstats"]
    );
    assert_eq!(later.parts[2].figure, "0.00840073 BTC", "the mean of two blocks further");

    // What the planner gets: after the pool's fee, by the hour, with the age of the oldest part.
    let now = site.clock.now();
    let hashing = hash_income(&site, Some(&reading), now);
    let (per_ph_hour, origin) = hashing.unwrap();
    assert_eq!(per_ph_hour.0, reading.per_ph_day.0 * 98 / 100 / 24);
    assert_eq!(origin, IncomeSource::Data { at: UnixMillis(1_793_491_200_000) });
    assert!(
        !options(&site, &site.rigs[0], &[], Hashing { price: hashing, ..Hashing::default() }, now)
            .is_empty()
    );
    assert!(
        options(&site, &site.rigs[0], &[], Hashing::default(), now).is_empty(),
        "no figure is no option"
    );
    let day = Millis::from_hours(24);
    assert!(hash_income(&site, Some(&reading), reading.asked_at + day).is_some());
    assert!(hash_income(&site, Some(&reading), reading.asked_at + day + Millis(1)).is_none());
}

#[tokio::test]
async fn what_a_node_does_not_tell_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (url, script) = node().await;
    let site = site(folder.path(), &computed(&url));
    let mut asker = asker(&site);
    script.lock().unwrap().has_stats = false;
    let reading = ask(&site, &mut asker).await.unwrap();
    assert_eq!(reading.parts[2].figure, "none counted: this node has no getblockstats");

    // Regtest's difficulty pays nothing that can be told; a figure that is none is none.
    for (difficulty, complaint) in [
        (json!(4.656542373906925e-10), "is below a millionth"),
        (json!(-1.0), "is below a millionth"),
        (json!("much"), "the answer has no difficulty"),
        (json!(1e30), "is larger than any that can be"),
    ] {
        script.lock().unwrap().difficulty = difficulty;
        let said = ask(&site, &mut asker).await.unwrap_err();
        assert!(said.contains(complaint), "{said}");
    }
    // A cookie that is not this node's, and none at all.
    std::fs::write(folder.path().join("cookie"), "roadbed:wrong").unwrap();
    let said = ask(&site, &mut asker).await.unwrap_err();
    assert!(said.contains("getblockchaininfo: 401"), "{said}");
    std::fs::write(folder.path().join("cookie"), "no colon").unwrap();
    let said = ask(&site, &mut asker).await.unwrap_err();
    assert!(said.contains("is no cookie; expected name:password"), "{said}");
}

/// A price document behind TLS, vouched for by a CA of one's own; without it nothing is believed.
#[tokio::test]
async fn a_quote_over_https_needs_somebody_who_vouches_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let document = Json(json!({"hashprice": 48.25}));
    let url = served(Router::new().route("/now", get(|| async { document }))).await;
    let behind = url.strip_prefix("http://").unwrap().parse().unwrap();
    let front = tls_front_as("pool", "127.0.0.1".parse().unwrap(), behind).await.unwrap();
    let quote = |ca: &str| {
        format!(
            "{{quote: {{http: {{url: \"https://{front}/now\", pointer: /hashprice, ca_file: {CERTIFICATES}/{ca}}}}}}}"
        )
    };
    let own = site(folder.path(), &quote("pool_ca.pem"));
    let reading = ask(&own, &mut asker(&own)).await.unwrap();
    assert_eq!(reading.per_ph_day, Money(48_250_000));
    let strange = site(folder.path(), &quote("ca.pem"));
    let said = ask(&strange, &mut asker(&strange)).await.unwrap_err();
    assert!(said.contains("nobody who is trusted here vouches for its certificate"), "{said}");
}

#[tokio::test]
async fn a_quote_is_taken_with_its_age_and_stands_for_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let document = Json(json!({"data": [{"hashprice": "48.25", "at": 1_790_000_000}]}));
    let url = served(Router::new().route("/v1/now", get(|| async { document }))).await;
    let quote = format!(
        "{{quote: {{http: {{url: \"{url}/v1/now?unit=ph\", pointer: /data/0/hashprice, time_pointer: /data/0/at}}}}, hold_hours: 2}}"
    );
    let site = site(folder.path(), &quote);
    let (service, readings) = Service::new(&site, HashpriceSource::of(&site));
    assert!(readings.borrow().is_none());
    let (cancel, (events, mut told)) = (CancellationToken::new(), mpsc::channel(8));
    let running = tokio::spawn(service.run(events, cancel.clone()));
    let mut seen = readings.clone();
    tokio::time::timeout(DEADLINE, seen.changed()).await.unwrap().unwrap();
    let reading = seen.borrow().clone().unwrap();
    assert_eq!(
        (reading.per_ph_day, reading.true_at),
        (Money(48_250_000), Some(UnixMillis(1_790_000_000_000)))
    );
    cancel.cancel();
    running.await.unwrap();
    assert!(told.try_recv().is_err(), "nothing was amiss");

    // A restart while nobody answers: what was kept stands, as long as it may.
    let nobody = quote.replace(&url, "http://127.0.0.1:1");
    let site = self::site(folder.path(), &nobody);
    let (_service, readings) = Service::new(&site, HashpriceSource::of(&site));
    assert_eq!(readings.borrow().as_deref(), Some(&*reading));
    let kept = Kept::in_folder(&site.state_dir, HashpriceSource::FILE);
    let old = Reading { asked_at: reading.asked_at - Millis::from_hours(3), ..(*reading).clone() };
    kept.write(&old).unwrap();
    let (service, readings) = Service::new(&site, HashpriceSource::of(&site));
    assert!(readings.borrow().is_none(), "three hours are more than two");
    let (cancel, (events, mut told)) = (CancellationToken::new(), mpsc::channel(8));
    let running = tokio::spawn(service.run(events, cancel.clone()));
    let event = tokio::time::timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
    let FarmEvent::Noticed(alert) = event else { panic!("{event:?}") };
    assert!(alert.active && alert.text.starts_with("there is no hashprice"), "{alert:?}");
    cancel.cancel();
    running.await.unwrap();

    // A torn file is none.
    std::fs::write(site.state_dir.join("hashprice.json"), "{\"per_ph").unwrap();
    assert!(kept.read().is_none());
}

#[tokio::test]
async fn figures_make_a_hashprice_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("btc.csv"), "time,usd\n2026-11-01T00:00:00Z,100000\n")
        .unwrap();
    let text = "{network: {difficulty: {value: 1e14, as_of: 2026-11-02T00:00:00Z, source: block 1}, \
                reward_btc: {value: 3.2, assumption: true, source: a round figure}}, \
                btc_price: {csv: {file: btc.csv, time_column: time, value_column: usd}}}";
    let site = site(folder.path(), text);
    let reading = ask(&site, &mut asker(&site)).await.unwrap();
    assert_eq!(reading.per_ph_day, Money(64_373_016));
    assert_eq!(reading.origin(), IncomeSource::Assumption, "one assumption makes the whole one");
}
