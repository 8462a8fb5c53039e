//! `/rigs/<rig>/..`: everything passes as it was written, both ways, and nothing outlives its client.

use std::time::Duration;

use farm_controller::config::AiFace;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::stand_in::{Manner, StandIn, hangs};
use super::{MODEL, bare, id, raw, site_of, split, start, until_up};

#[tokio::test]
async fn requests_arrive_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let rig = StandIn::start("one", MODEL).await;
    let gateway = start(&site_of(&[&rig], folder.path())).await;
    let at = gateway.address();
    for (asked, arrived) in [
        ("/rigs/gpu-1/api/v1/state", "/api/v1/state"),
        ("/rigs/gpu-1//api//v1/state", "//api//v1/state"),
        ("/rigs/gpu-1/v3.0.16/api/v1/state", "/v3.0.16/api/v1/state"),
        ("/v3.0.16/rigs/gpu-1/api/v1/state", "/v3.0.16/api/v1/state"),
        ("//rigs/gpu-1/echo?a=%252F&b", "/echo?a=%252F&b"),
        ("/rigs/gpu-1/cb/MiniMaxAI%252FMiniMax-M2.7/../x?", "/cb/MiniMaxAI%252FMiniMax-M2.7/../x?"),
    ] {
        rig.inside().seen.retain(|seen| seen.target == "/health");
        raw(at, &bare("GET", asked, None)).await;
        assert_eq!(rig.seen(arrived).len(), 1, "{asked}");
    }
    // A Go client: JSON without a Content-Type, a POST without a body.
    let (status, body) =
        split(&raw(at, &bare("POST", "/rigs/gpu-1/echo", Some(b"{\"a\":1}"))).await);
    assert_eq!((status, body.as_str()), (200, "{\"a\":1}"));
    let seen = rig.seen("/echo").pop().unwrap();
    assert!(!seen.headers.contains_key("content-type") && seen.headers["content-length"] == "7");
    assert!(!seen.headers.contains_key("connection"), "it concerns one connection only");
    let (status, _) = split(&raw(at, &bare("POST", "/rigs/gpu-1/api/v1/stop", None)).await);
    assert_eq!(status, 200);
    assert!(rig.seen("/api/v1/stop").pop().unwrap().body.is_empty());
    // Statuses and bodies come back as they are.
    let (status, body) = split(&raw(at, &bare("GET", "/rigs/gpu-1/nowhere", None)).await);
    assert_eq!((status, body.as_str()), (404, r#"{"detail":"Not Found"}"#));
    let (status, body) = split(&raw(at, &bare("GET", "/rigs/gpu-9/api/v1/state", None)).await);
    assert_eq!(status, 404);
    assert!(serde_json::from_str::<Value>(&body).unwrap()["detail"].is_string());
    gateway.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A gateway for every case would be slow; one runtime for all is not.
    #[test]
    fn any_path_and_any_body_arrive_unchanged(
        tail in "(/[!$-;=@-Z\\[\\]^_a-z|~%]{0,10}){1,5}", query in "[!$-;=?-Z_a-z~%]{0,12}",
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let rig = StandIn::start("one", MODEL).await;
            let gateway = start(&site_of(&[&rig], folder.path())).await;
            let target = format!("{tail}?{query}");
            let request = bare("PUT", &format!("/rigs/gpu-1{target}"), Some(&body));
            let (status, _) = split(&raw(gateway.address(), &request).await);
            let seen: Vec<_> =
                rig.inside().seen.iter().filter(|seen| seen.method == "PUT").cloned().collect();
            assert_eq!(seen.len(), 1, "status {status} for {target}");
            assert_eq!(seen[0].target, target);
            assert_eq!(seen[0].body, body);
        });
    }
}

#[tokio::test]
async fn hostile_requests_are_answered_and_the_next_one_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let rig = StandIn::start("one", MODEL).await;
    let gateway = start(&site_of(&[&rig], folder.path())).await;
    for request in [
        &b"\x00\xff\x16\x03\x01 / HTTP/1.1\r\n\r\n"[..],
        b"GET /rigs/gpu-1/\xff\xfe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET http://[::1/rigs HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"POST /rigs/gpu-1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 7\r\nConnection: close\r\n\r\nhello",
        b"GET /rigs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ] {
        raw(gateway.address(), request).await;
    }
    let (status, _) =
        split(&raw(gateway.address(), &bare("GET", "/rigs/gpu-1/api/v1/state", None)).await);
    assert_eq!(status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn events_pass_one_by_one_and_a_gone_client_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let rig = StandIn::start("one", MODEL).await;
    rig.inside().chats = Manner::Stalls;
    let gateway = start(&site_of(&[&rig], folder.path())).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let chat = bare("POST", "/rigs/gpu-1/v1/chat/completions", Some(b"{\"stream\":true}"));
    stream.write_all(&chat).await.unwrap();
    // The first event comes although the answer never ends.
    let mut lines = BufReader::new(&mut stream).lines();
    let first = tokio::time::timeout(super::DEADLINE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("data:") {
                return line;
            }
        }
        String::new()
    });
    assert_eq!(first.await.unwrap(), "data: {\"n\":1}");
    assert_eq!(hangs(&rig, |(now, _)| *now == 1).await, (1, 0));
    drop(stream);
    assert_eq!(hangs(&rig, |(_, dropped)| *dropped == 1).await, (0, 1));
    // Likewise one who waits for the head.
    rig.inside().chats = Manner::Hangs;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(&chat).await.unwrap();
    hangs(&rig, |(now, _)| *now == 1).await;
    drop(stream);
    hangs(&rig, |(_, dropped)| *dropped == 2).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_no_complete_answer() {
    let folder = tempfile::tempdir().unwrap();
    let rig = StandIn::start("one", MODEL).await;
    rig.inside().chats = Manner::DiesMidStream;
    let gateway = start(&site_of(&[&rig], folder.path())).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let chat = bare("POST", "/rigs/gpu-1/v1/chat/completions", Some(b"{\"stream\":true}"));
    stream.write_all(&chat).await.unwrap();
    let mut answer = vec![];
    // An error or an early end; the last chunk must not be there.
    let read = tokio::time::timeout(super::DEADLINE, stream.read_to_end(&mut answer));
    let _ = read.await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("{\"n\":1}") && !text.ends_with("0\r\n\r\n"), "{text}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_rig_that_is_gone_is_told_in_the_words_of_its_paths() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = StandIn::start("one", MODEL).await;
    let site = site_of(&[&rig], folder.path());
    let gateway = start(&site).await;
    let at = gateway.address();
    until_up(at, 0, true).await;
    rig.die().await;
    until_up(at, 0, false).await;
    let chat = bare("POST", "/rigs/gpu-1/v1/chat/completions", Some(b"{}"));
    assert_eq!(split(&raw(at, &chat).await), (503, "No vLLM backend available".into()));
    let (status, body) = split(&raw(at, &bare("GET", "/rigs/gpu-1/api/v1/state", None)).await);
    assert_eq!(status, 503);
    assert!(serde_json::from_str::<Value>(&body).unwrap()["detail"].is_string());
    // It is asked all the same, so it is there at once when it is back.
    rig.come_back().await;
    assert_eq!(split(&raw(at, &chat).await).0, 200);
    gateway.stop().await;
    // Before anybody looked it may have failed a moment ago.
    rig.die().await;
    let slow = farm_controller::gateway::Pace {
        pause: Duration::from_secs(600),
        patience: Duration::from_secs(1),
    };
    let settings = site.gateway.as_ref().unwrap();
    let gateway = farm_controller::gateway::Gateway::start(&site, settings, slow).await.unwrap();
    let answer = split(&raw(gateway.address(), &chat).await);
    assert_eq!(answer, (502, "vLLM connection failed".into()));
    gateway.stop().await;
}

#[tokio::test]
async fn tokens_are_taken_at_the_gateway_and_given_to_the_rig() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (StandIn::start("one", MODEL).await, StandIn::start("two", MODEL).await);
    let mut site = site_of(&[&one, &two], folder.path());
    let settings = site.gateway.as_mut().unwrap();
    settings.auth_token = Some("node".into());
    settings.rig_tokens.insert(id(1), "second".into());
    settings.openai_keys = vec!["customer".into()];
    let face = site.rigs[0].ai.as_mut().unwrap();
    *face = AiFace { authority: face.authority.clone(), token: Some("inner".into()) };
    let gateway = start(&site).await;
    let client = reqwest::Client::new();
    let ask = async |path: &str, token: Option<&str>| {
        let request = client.get(format!("http://{}{path}", gateway.address()));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("/rigs/gpu-1/api/v1/state", None).await, 401);
    assert_eq!(ask("/rigs/gpu-1/api/v1/state", Some("customer")).await, 401);
    assert_eq!(ask("/rigs/gpu-1/api/v1/state", Some("node")).await, 200);
    assert_eq!(ask("/rigs/gpu-2/api/v1/state", Some("node")).await, 401);
    assert_eq!(ask("/rigs/gpu-2/api/v1/state", Some("second")).await, 200);
    assert_eq!(ask("/rigs/nobody/api/v1/state", None).await, 401);
    // Probes, and the call for which one client forgets its token.
    for path in ["/health", "/readyz", "/v1/models", "//v1/models", "/v3.0.16/health"] {
        let status = ask(&format!("/rigs/gpu-1{path}"), None).await;
        assert!(matches!(status, 200 | 404), "{path}: {status}");
    }
    assert_eq!(ask("/v1/models", None).await, 401);
    assert_ne!(ask("/v1/models", Some("customer")).await, 401);
    let shown = |rig: &StandIn| rig.seen("/api/v1/state").pop().unwrap().headers;
    assert_eq!(shown(&one)["authorization"], "Bearer inner");
    assert!(!shown(&two).contains_key("authorization"), "the gateway's token stays here");
    gateway.stop().await;
}

#[tokio::test]
async fn without_a_token_here_the_clients_own_reaches_the_rig() {
    let folder = tempfile::tempdir().unwrap();
    let rig = StandIn::start("one", MODEL).await;
    let gateway = start(&site_of(&[&rig], folder.path())).await;
    let address = format!("http://{}/rigs/gpu-1/api/v1/state", gateway.address());
    let request = reqwest::Client::new().get(address).bearer_auth("rigs-own");
    assert_eq!(request.send().await.unwrap().json::<Value>().await.unwrap()["state"], "INFERENCE");
    let seen = rig.seen("/api/v1/state").pop().unwrap();
    assert_eq!(seen.headers["authorization"], "Bearer rigs-own");
    assert_eq!(seen.headers["host"].to_str().unwrap(), rig.address().to_string());
    let unknown = json!({"detail": "Not Found"});
    let page = reqwest::get(format!("http://{}/api/v1/state", gateway.address())).await.unwrap();
    assert_eq!(page.json::<Value>().await.unwrap(), unknown, "there is no single MLNode");
    gateway.stop().await;
}
