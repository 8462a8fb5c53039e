//! The gateway in front of stand-in rigs.

mod any_order;
mod config;
mod fan_out;
mod openai;
mod passing;
mod stand_in;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use farm_controller::config::{AiFace, GatewaySettings, Site};
use farm_controller::gateway::{Gateway, Pace};
use roadbed_protocol::{RigId, RigKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use stand_in::StandIn;

/// Generous: the machine may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);
/// The model that the stand-ins say they serve.
const MODEL: &str = "org/model-a";
/// Looks follow one another at once, so that tests need not wait for them.
const PACE: Pace = Pace { pause: Duration::from_millis(5), patience: Duration::from_secs(10) };

fn shipped() -> Site {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/demo-site.yaml");
    Site::load(&path).unwrap()
}

/// The demo's site with these rigs in place of its own, `gpu-1` the first.
fn site_of(rigs: &[&StandIn], folder: &Path) -> Site {
    let mut site = shipped();
    let gpu = site.rigs.iter().find(|rig| rig.profile.kind == RigKind::Gpu).unwrap().clone();
    site.rigs = rigs
        .iter()
        .enumerate()
        .map(|(place, rig)| {
            let mut entry = gpu.clone();
            entry.id = id(place);
            entry.model = Some(rig.model());
            let authority = rig.address().to_string().parse().unwrap();
            entry.ai = Some(AiFace { authority, token: None });
            entry
        })
        .collect();
    site.state_dir = folder.to_path_buf();
    site.gateway = Some(settings());
    site
}

fn id(place: usize) -> RigId {
    RigId::new(format!("gpu-{}", place + 1)).unwrap()
}

fn settings() -> GatewaySettings {
    GatewaySettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        auth_token: None,
        rig_tokens: std::collections::BTreeMap::new(),
        openai_keys: vec![],
        single_mlnode: None,
    }
}

async fn start(site: &Site) -> Gateway {
    Gateway::start(site, site.gateway.as_ref().unwrap(), PACE).await.unwrap()
}

/// Sends bytes as they are and reads to the end; the request must ask for the connection to be closed.
async fn raw(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap()
}

/// A request with the headers a Go client sends, and no Content-Type.
fn bare(method: &str, target: &str, body: Option<&[u8]>) -> Vec<u8> {
    let length = body.map(|body| format!("Content-Length: {}\r\n", body.len()));
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{}\r\n",
        length.unwrap_or_default()
    );
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

/// Status and body of a raw answer that is not chunked.
fn split(answer: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks again until the answer is as wanted.
async fn until<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("it did not come about")
}

/// Waits until the gateway says this of a rig.
async fn until_up(gateway: SocketAddr, rig: usize, up: bool) {
    let line = format!("roadbed_gateway_rig_up{{rig=\"{}\"}} {}", id(rig), u8::from(up));
    until(async || {
        let page = reqwest::get(format!("http://{gateway}/metrics")).await.unwrap();
        page.text().await.unwrap().contains(&line).then_some(())
    })
    .await;
}
