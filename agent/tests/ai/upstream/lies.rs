//! Servers that break their promises, while they are up and while they are asked whether they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::stand_in::{Lie, Script, StandIn};
use super::{Rig, attached, bounds, chat, impatient, until};

#[tokio::test]
async fn a_failed_answer_has_a_proper_status_and_leaves_nothing_behind() {
    let stand_in = StandIn::start().await;
    let rig = Rig::before(&stand_in, bounds()).await;
    let mut failed = 0;
    for (lie, stream, status, word) in [
        (Lie::Garbage, false, 502, "no JSON"),
        (Lie::Garbage, true, 502, "no JSON"),
        (Lie::HiddenError, false, 502, "hidden"),
        (Lie::Status(500), false, 502, "told to"),
        (Lie::Status(503), false, 503, "told to"),
        (Lie::Status(302), false, 502, "status 302"),
        (Lie::Status(401), true, 502, "api_key_file"),
        (Lie::Slammed, false, 502, "cannot be reached"),
        (Lie::Slammed, true, 502, "cannot be reached"),
        (Lie::Torn, false, 502, "in the middle"),
        (Lie::Endless, false, 502, "longer than"),
        (Lie::Unasked, false, 502, "nobody asked for"),
        (Lie::NoEvents, true, 502, "no event"),
        (Lie::EndlessEvent, true, 502, "longer than"),
    ] {
        stand_in.script.lie(lie);
        let body = chat(json!({"stream": stream}));
        let (got, answer) = rig.post("/v1/chat/completions", body).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(got == status && message.contains(word), "{lie:?}: {got} {answer}");
        failed += 1;
        assert_eq!(rig.server.stats().failed, failed, "{lie:?}");
        assert_eq!(rig.server.open_jobs(), 0, "{lie:?}");
        stand_in.script.lie(Lie::Honest);
        // It is looked at after some of these, and found well.
        rig.is_ready().await;
        assert_eq!(rig.chat().await.0, 200, "after {lie:?}");
    }
    assert_eq!(rig.server.restarts(), 0);
    // What the customer can mend, or must wait for, is his to hear.
    stand_in.script.lie(Lie::Status(422));
    let (status, answer) = rig.chat().await;
    assert_eq!((status, &answer["error"]["type"]), (422, &json!("x")));
    stand_in.script.lie(Lie::Status(429));
    let body = Some(chat(json!({})).to_string());
    let busy = rig.send(Method::POST, "/v1/chat/completions", body).await;
    assert_eq!(
        (busy.status().as_u16(), &busy.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    assert_eq!(rig.server.stats().failed, failed);
}

#[tokio::test]
async fn a_stream_that_fails_says_so_in_its_last_event() {
    let stand_in = StandIn::start().await;
    let rig = Rig::before(&stand_in, bounds()).await;
    for (lie, word) in [
        (Lie::Cut, "ended before"),
        (Lie::NoDone, "ended before"),
        (Lie::Malformed, "no JSON"),
        (Lie::FailsLate, "out of memory"),
    ] {
        stand_in.script.lie(lie);
        let body = Some(chat(json!({"stream": true})).to_string());
        let answer = rig.send(Method::POST, "/v1/chat/completions", body).await;
        assert_eq!(answer.status(), 200, "{lie:?}");
        let text = answer.text().await.unwrap();
        assert_eq!(text.matches("\"delta\"").count(), 2, "{lie:?}: {text}");
        let last = text.split("\n\n").nth(2).unwrap_or_default();
        assert!(last.contains("{\"error\":{") && last.contains(word), "{lie:?}: {text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{lie:?}: {text}");
        until("the job to be closed", || (rig.server.open_jobs() == 0).then_some(())).await;
        stand_in.script.lie(Lie::Honest);
        rig.is_ready().await;
    }
    let stats = rig.server.stats();
    assert_eq!((stats.failed, stats.completions), (4, 0));
    // Two chunks of each came through, and nobody counted them but we.
    assert_eq!(stats.tokens, 8);
}

#[tokio::test]
async fn silence_has_an_end() {
    let stand_in = StandIn::start().await;
    let rig = Rig::before(&stand_in, impatient()).await;
    stand_in.script.lie(Lie::Held);
    let (status, answer) = rig.chat().await;
    let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(status == 504 && message.contains("said nothing for 0.3 s"), "{status} {answer}");
    stand_in.script.lie(Lie::Stuck);
    let body = Some(chat(json!({"stream": true})).to_string());
    let answer = rig.send(Method::POST, "/v1/chat/completions", body).await;
    let text = answer.text().await.unwrap();
    assert!(text.contains("said nothing") && text.ends_with("data: [DONE]\n\n"), "{text}");
    // The server was let go both times.
    let hung_up = || stand_in.script.hung_up.load(Ordering::SeqCst);
    until("the server to be let go", || (hung_up() == 2).then_some(())).await;
    assert_eq!(rig.server.open_jobs(), 0);
}

#[tokio::test]
async fn a_customer_who_does_not_read_is_let_go() {
    use tokio::io::AsyncWriteExt as _;
    let stand_in = StandIn::start().await;
    let soon = Duration::from_millis(200);
    let mut bounds = bounds();
    bounds.unread = soon;
    let rig = Rig::before(&stand_in, bounds).await;
    // An endless stream, and a socket nobody reads from.
    stand_in.script.lie(Lie::Babble);
    let mut socket = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let body = chat(json!({"stream": true})).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let hung_up = || stand_in.script.hung_up.load(Ordering::SeqCst);
    until("the server to be let go", || (hung_up() == 1).then_some(())).await;
    until("the job to be closed", || (rig.server.open_jobs() == 0).then_some(())).await;
    assert_eq!(rig.server.stats().cancelled, 1);
}

#[tokio::test]
async fn a_server_that_only_looks_healthy_is_never_ready() {
    let stand_in = StandIn::start().await;
    for (lie, word) in [
        (Lie::Status(500), "status 500: told to"),
        (Lie::Garbage, "gave <html>"),
        (Lie::Held, "within 0.4 s"),
        (Lie::Status(401), "api_key_file"),
    ] {
        stand_in.script.lie(lie);
        let mut config = attached(&stand_in);
        config.start_wait = Duration::from_millis(400);
        let rig = Rig::start(config, bounds()).await;
        let fault = rig.server.load().await.unwrap_err().to_string();
        assert!(fault.contains(word), "{lie:?}: {fault}");
        assert_eq!(rig.get("/v1/models").await.0, 503);
        assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
    }
    stand_in.script.lie(Lie::Honest);
    let mut config = attached(&stand_in);
    config.model = Some("org/unheard-of".into());
    let rig = Rig::start(config, bounds()).await;
    let fault = rig.server.load().await.unwrap_err().to_string();
    assert!(fault.contains("it lists /models/stand-in"), "{fault}");
}

#[tokio::test]
async fn failing_chats_have_the_server_looked_at() {
    let stand_in = StandIn::start().await;
    let mut config = attached(&stand_in);
    config.start_wait = Duration::from_millis(200);
    let rig = Rig::start(config, bounds()).await;
    rig.server.load().await.unwrap();
    // Its health page says yes all the while.
    stand_in.script.lie(Lie::Status(500));
    for _ in 0..3 {
        rig.chat().await;
    }
    let reason = rig.failure().await;
    assert!(reason.contains("told to"), "{reason}");
    assert_eq!(rig.server.restarts(), 2, "twice, then it is told");
    let (_, state) = rig.get("/api/v1/state").await;
    assert_eq!(
        (&state["state"], &state["inference_healthy"]),
        (&json!("INFERENCE"), &json!(false))
    );
    assert_eq!(rig.get("/readyz").await.0, 503);
    // A server of somebody else's is used again as soon as it answers.
    stand_in.script.lie(Lie::Honest);
    rig.is_ready().await;
    assert_eq!(rig.chat().await.0, 200);
}

#[tokio::test]
async fn a_server_that_went_away_is_found_again() {
    let stand_in = StandIn::start().await;
    let address = stand_in.address;
    let rig = Rig::before(&stand_in, bounds()).await;
    drop(stand_in);
    let gone = || rig.server.model().is_none().then_some(());
    until("the loss to be seen", gone).await;
    let (status, said) = rig.chat().await;
    assert_eq!((status, said), (503, json!("No vLLM backend available")));
    let stand_in = StandIn::at(address, Arc::<Script>::default()).await;
    rig.is_ready().await;
    assert_eq!(rig.chat().await.0, 200);
    assert_eq!(rig.metric("roadbed_upstream_restarts_total").await, 1.0);
    drop(stand_in);
}
