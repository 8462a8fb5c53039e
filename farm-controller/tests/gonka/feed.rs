//! The task on sockets: fallbacks, refusals, endless answers, redirects, and the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farm_controller::clock::FarmClock;
use farm_controller::config::GonkaSite;
use farm_controller::gonka::client::{ClientError, NodeClient};
use farm_controller::gonka::feed::Feed;
use farm_controller::store::{Store, read_kept};
use farm_core::gonka::Fact;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ADDRESS, answer};

const DEADLINE: Duration = Duration::from_secs(30);

/// A stand-in of a Network Node: fixed answers by path, one connection a request, 404 for the rest.
async fn stand_in(answers: BTreeMap<&'static str, String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4_096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            let missing =
                "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let reply = answers.get(path.as_str()).cloned();
            let _ = stream.write_all(reply.unwrap_or(missing.to_owned()).as_bytes()).await;
        }
    });
    address
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

pub fn site(nodes: Vec<String>) -> GonkaSite {
    GonkaSite {
        nodes,
        admin_url: None,
        authorities: None,
        callback_url: None,
        address: ADDRESS.to_owned(),
        price: None,
        expected_loss: None,
        origins: Vec::new(),
        rigs: Vec::new(),
    }
}

/// An address at which nobody listens: its port was just given back.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_next_node_answers_and_what_it_says_outlives_a_restart() {
    let answers = BTreeMap::from([
        ("/v1/epochs/latest", ok(&answer("epochs_latest").to_string())),
        ("/chain-api/productscience/inference/inference/params", ok(&answer("params").to_string())),
    ]);
    let (away, good) = (nobody().await, stand_in(answers).await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (store, kept) = Store::open(&path).unwrap();
    let site = site(vec![away, good.clone()]);
    let feed = Feed::new(&site, FarmClock::default(), &kept.gonka, Some(Arc::new(store)));
    let (facts_in, mut facts) = watch::channel(Arc::default());
    let cancel = CancellationToken::new();
    let task = tokio::spawn(feed.run(facts_in, cancel.clone()));
    let read = facts.wait_for(|facts: &Arc<farm_core::gonka::GonkaFacts>| {
        facts.params.last().is_some() && matches!(facts.group, Fact::NotOffered { .. })
    });
    let known = tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap().clone();
    assert_eq!(known.answering.as_deref(), Some(good.as_str()));
    assert_eq!(known.epoch.last().unwrap().0.stages.epoch_index, 410);
    cancel.cancel();
    task.await.unwrap();

    let kept = read_kept(&path).unwrap().gonka;
    let again = Feed::new(&site, FarmClock::default(), &kept, None);
    assert_eq!(again.facts().params, known.params);
    assert_eq!(again.facts().epoch, known.epoch);
}

#[tokio::test]
async fn a_hostile_node_gives_errors_and_nothing_else() {
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(17 * 1024 * 1024));
    let client = NodeClient::new(
        &stand_in(BTreeMap::from([
            ("/redirect", "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()),
            ("/long", ok(&long)),
            ("/html", ok("<html>")),
            ("/cut", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{".to_owned()),
            ("/ill", "HTTP/1.1 500 Oops\r\ncontent-length: 17\r\nconnection: close\r\n\r\n{\"error\":\"panic\"}".to_owned()),
        ]))
        .await,
        None,
    );
    let refused = client.get("/redirect").await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 302, .. }), "{refused}");
    let long = client.get("/long").await.unwrap_err();
    assert!(long.to_string().contains("longer than"), "{long}");
    let html = client.get("/html").await.unwrap_err();
    assert!(matches!(html, ClientError::Unreadable { .. }), "{html}");
    let cut = client.get("/cut").await.unwrap_err();
    assert!(matches!(cut, ClientError::Unreachable { .. }), "{cut}");
    let ill = client.get("/ill").await.unwrap_err();
    assert!(ill.to_string().ends_with("500: panic"), "{ill}");
    let absent = client.get("/absent").await.unwrap_err();
    assert!(matches!(absent, ClientError::NotOffered { status: 404, .. }), "{absent}");
}
