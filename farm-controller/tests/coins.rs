//! What coins pay, from a list to the options of a rig and to an alert.

use std::path::Path;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use farm_controller::coins::{CoinReading, CoinSource, ask, rig_rates};
use farm_controller::config::{CoinFeed, Site, SiteRig};
use farm_controller::feeds::{Hashing, options};
use farm_controller::hashprice::Service;
use farm_core::FarmEvent;
use farm_core::plan::{IncomeSource, WorkOption};
use roadbed_protocol::{
    HashRate, HashesPerSecond, MicrosPerHour, Millis, RigKind, UnixMillis, Workload,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const HEAD: &str = "coin,algorithm,revenue_per_day,per_hashes_per_second,currency,as_of,source";
const MEASURED: UnixMillis = UnixMillis(1_600_000_000_000);

/// A site of one GPU rig that earns by coins.
fn site(folder: &Path, coins: &str) -> Site {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::create_dir_all(folder.join("state")).unwrap();
    let text = format!(
        "farm: west-1\ncurrency: USD\nbroker_listen: 127.0.0.1:0\nstate_dir: state\nkey_file: controller.key\n\
         policy: {base}/tests/profiles/valid/empty-policy.yaml\nfeeders:\n  - {{id: site, limit_watts: 50000}}\nagents:\n\
         \x20 - {{id: box, public_key: \"{key}\"}}\nrigs:\n\
         \x20 - {{id: gpu-1, profile: {base}/profiles/gpu-software.yaml, feeder: site, agent: box, model: m}}\n\
         tariff: {{fixed_per_mwh: 38.5}}\nincome:\n  coins: {coins}\n",
        base = base.display(),
        key = "01".repeat(32),
    );
    let file = folder.join("site.yaml");
    std::fs::write(&file, text).unwrap();
    Site::load(&file).unwrap()
}

fn feed(site: &Site) -> &CoinFeed {
    site.income.coins.as_ref().unwrap()
}

fn gpu(site: &Site) -> &SiteRig {
    site.rigs.iter().find(|rig| rig.profile.kind == RigKind::Gpu).unwrap()
}

fn mining(
    site: &Site,
    coins: Option<&CoinReading>,
    rates: &[HashRate],
    now: UnixMillis,
) -> Option<WorkOption> {
    let all = options(site, gpu(site), &[], Hashing { price: None, coins, rates }, now);
    all.into_iter().find(|option| matches!(option.workload, Workload::Mine { .. }))
}

fn measured(algorithm: &str, rate: u64) -> HashRate {
    let hashes_per_second = HashesPerSecond(rate);
    HashRate { algorithm: algorithm.to_owned(), hashes_per_second, measured_at: MEASURED }
}

#[tokio::test]
async fn a_rig_earns_what_the_best_fresh_coin_pays_for_a_rate_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let site = site(folder.path(), "{csv: coins.csv, pool_fee_percent: 50, hold_hours: 24}");
    let now: UnixMillis = UnixMillis(1_700_000_000_000);
    let rows = [
        "SLOW,SHA-256d,2.4,1000000,USD,2023-11-14T22:00:00Z,a",
        "BEST,kawpow,4.8,1000000,USD,2023-11-14T21:00:00Z,b",
        "STALE,kawpow,999,1,USD,2023-11-10T21:00:00Z,c",
        "UNKNOWN,octopus,999,1,USD,2023-11-14T21:00:00Z,d",
    ];
    std::fs::write(folder.path().join("coins.csv"), format!("{HEAD}\n{}\n", rows.join("\n")))
        .unwrap();
    let reading = ask(feed(&site), &site.currency, now).await.unwrap();
    assert_eq!(reading.offers.len(), 3);
    assert!(
        reading.left_out[0].starts_with("row 3: STALE: its figure is"),
        "{:?}",
        reading.left_out
    );
    // By its profile: 10 MH/s of SHA-256d earn 24 a day, half of it the pool's.
    let by_profile = mining(&site, Some(&reading), &[], now).unwrap();
    assert_eq!(by_profile.income, [MicrosPerHour(500_000)]);
    assert_eq!(
        by_profile.hashrate,
        gpu(&site).profile.normal_mining().map(|it| it.hashes_per_second)
    );
    assert_eq!(rig_rates(&gpu(&site).profile, &[])[0].measured_at, None);
    // Its own measured rate counts before that; another algorithm's pays more still.
    let own = [measured("sha256d", 20_000_000)];
    assert_eq!(rig_rates(&gpu(&site).profile, &own)[0].measured_at, Some(MEASURED));
    let by_rate = mining(&site, Some(&reading), &own, now).unwrap();
    assert_eq!(by_rate.income, [MicrosPerHour(1_000_000)]);
    let both = [measured("sha256d", 20_000_000), measured("KawPow", 11_000_000)];
    let best = mining(&site, Some(&reading), &both, now).unwrap();
    assert_eq!(best.income, [MicrosPerHour(1_100_000)]);
    assert_eq!(best.source, IncomeSource::Data { at: UnixMillis(1_699_995_600_000) });
    // A row gets too old between two readings.
    let later = now + Millis::from_hours(23);
    assert_eq!(
        mining(&site, Some(&reading), &both, later).unwrap().income,
        [MicrosPerHour(1_000_000)]
    );
    assert_eq!(mining(&site, Some(&reading), &both, later + Millis::from_hours(1)), None);
    assert_eq!(mining(&site, None, &both, now), None, "no figure is no option");
}

#[tokio::test]
async fn a_list_that_no_row_of_counts_is_an_alert_until_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let rows = std::sync::Arc::new(std::sync::Mutex::new(json!([])));
    let told = std::sync::Arc::clone(&rows);
    let router = Router::new().route(
        "/coins",
        get(move || {
            let document = told.lock().unwrap().clone();
            async move { Json(document) }
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let site = site(folder.path(), &format!("{{url: \"http://{address}/coins\"}}"));
    let run = || {
        let (service, readings) = Service::new(&site, CoinSource::of(&site));
        let (events_in, events) = mpsc::channel(4);
        let cancel = CancellationToken::new();
        tokio::spawn(service.run(events_in, cancel.clone()));
        (readings, events, cancel)
    };
    let (readings, mut events, cancel) = run();
    let event =
        tokio::time::timeout(Duration::from_secs(30), events.recv()).await.unwrap().unwrap();
    let FarmEvent::Noticed(alert) = event else { panic!("{event:?}") };
    assert!(alert.active && alert.text.ends_with("it has no rows"), "{}", alert.text);
    assert!(alert.text.starts_with("no coin's figure counts"), "{}", alert.text);
    assert!(readings.borrow().is_none());
    cancel.cancel();
    *rows.lock().unwrap() = json!({"coins": [{
        "coin": "A", "algorithm": "sha256d", "revenue_per_day": "1.5", "per_hashes_per_second": 1000,
        "currency": site.currency, "as_of": "2100-01-01T00:00:00Z", "source": "test",
    }]});
    let (mut readings, _events, cancel) = run();
    let is_there = readings.wait_for(Option::is_some);
    tokio::time::timeout(Duration::from_secs(30), is_there).await.unwrap().unwrap();
    cancel.cancel();
    // What was read outlives a restart.
    let (_service, readings) = Service::new(&site, CoinSource::of(&site));
    assert_eq!(readings.borrow().as_ref().unwrap().offers[0].coin, "A");
}
