//! Network Nodes behind TLS: certificates made for tests, over real sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::routing::get;
use axum::{Json, Router};
use farm_controller::clock::FarmClock;
use farm_controller::config::Authorities;
use farm_controller::gonka::client::NodeClient;
use farm_controller::gonka::feed::Feed;
use farm_tests::tls_front::{CERTIFICATES, tls_front_as};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::feed::site;

async fn epochs() -> Json<Value> {
    Json(json!({"said": "epochs"}))
}

/// A Network Node without TLS.
async fn plain() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/epochs/latest", get(epochs));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// The same behind a front with the certificate of that name.
async fn behind(certificate: &str) -> String {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let front = tls_front_as(certificate, here, plain().await).await.unwrap();
    format!("https://{front}")
}

fn file(name: &str) -> PathBuf {
    Path::new(CERTIFICATES).join(name)
}

fn authorities(name: &str) -> Authorities {
    Authorities::read(&file(name)).unwrap()
}

#[tokio::test]
async fn a_network_node_is_believed_when_its_ca_vouches_for_it() {
    let own = authorities("pool_ca.pem");
    let node = NodeClient::new(&behind("pool").await, Some(&own));
    for _ in 0..2 {
        assert_eq!(node.get("/v1/epochs/latest").await.unwrap()["said"], "epochs");
    }
    // The same file lets plain addresses be asked too.
    let node = NodeClient::new(&format!("http://{}", plain().await), Some(&own));
    assert_eq!(node.get("/v1/epochs/latest").await.unwrap()["said"], "epochs");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let said = async |url: String, ca: &str| {
        let node = NodeClient::new(&url, Some(&authorities(ca)));
        node.get("/v1/epochs/latest").await.unwrap_err().to_string()
    };
    let words = said(behind("pool").await, "ca.pem").await;
    assert!(words.contains("no answer: nobody who is trusted here vouches"), "{words}");
    let words = said(behind("hub").await, "ca.pem").await;
    assert!(words.contains("hub.test") && words.ends_with(", not for 127.0.0.1"), "{words}");
    let words = said(format!("https://{}", plain().await), "ca.pem").await;
    assert!(words.ends_with("it does not speak TLS there; is its address http://?"), "{words}");
    let words = Authorities::read(&file("pool.key")).unwrap_err();
    assert!(words.ends_with("pool.key holds no certificate in PEM form"), "{words}");
    let words = Authorities::read(&file("absent.pem")).unwrap_err();
    assert!(words.contains("absent.pem: "), "{words}");
}

/// A node that is not vouched for is passed over, like one that is away.
#[tokio::test]
async fn the_feed_goes_on_to_a_node_that_is_vouched_for() {
    let (stranger, own) = (behind("hub").await, behind("pool").await);
    let mut site = site(vec![stranger, own.clone()]);
    site.authorities = Some(authorities("pool_ca.pem"));
    let mut feed = Feed::new(&site, FarmClock::default(), &[], None);
    feed.ask_all_once().await;
    assert_eq!(feed.facts().answering.as_deref(), Some(own.as_str()));
}
