//! A stand-in for an OpenAI-compatible server, which lies on request. It is no server anybody should use.
//!
//! It speaks plain bytes over TCP, one request a connection, so that every way to break a promise is open to it. It runs
//! in a test's own process, or, to be started and killed, as this test program started again with
//! [`LISTEN`] set.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the stand-in calls its model.
pub const OWN_NAME: &str = "/models/stand-in";
/// Where a stand-in in a process of its own listens.
pub const LISTEN: &str = "ROADBED_STAND_IN_LISTEN";
/// After so many chats that process ends itself.
pub const DIES_AFTER: &str = "ROADBED_STAND_IN_DIES_AFTER";

/// How it answers chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    #[default]
    Honest,
    /// Says nothing until [`Script::release`].
    Held,
    /// Status 200 and a page of HTML.
    Garbage,
    /// This status, and a reason.
    Status(u16),
    /// 200 with an error inside.
    HiddenError,
    /// Hangs up before the first byte.
    Slammed,
    /// Hangs up in the middle of a whole body.
    Torn,
    /// A body that has no end.
    Endless,
    /// A stream nobody asked for.
    Unasked,
    /// A stream whose first line is no event.
    NoEvents,
    /// Hangs up after two chunks.
    Cut,
    /// Ends properly after two chunks, without `[DONE]`.
    NoDone,
    /// Says nothing more after two chunks.
    Stuck,
    /// A chunk that is no JSON.
    Malformed,
    /// An error in the middle of a stream.
    FailsLate,
    /// One endless event.
    EndlessEvent,
    /// Events without end.
    Babble,
}

/// Which orders to prove it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proves {
    #[default]
    Nothing,
    AsMlNode,
    AsEngine,
}

/// What it does, and what it saw.
#[derive(Default)]
pub struct Script {
    pub lie: Mutex<Lie>,
    pub proves: Mutex<Proves>,
    /// Every request but looks at pages: method and path, and body.
    pub seen: Mutex<Vec<(String, String)>>,
    /// The last `Authorization`.
    pub key: Mutex<Option<String>>,
    /// Customers who hung up while it had more to say.
    pub hung_up: AtomicU64,
    /// Chats it has begun.
    pub chats: AtomicU64,
    dies_after: Option<u64>,
    released: watch::Sender<bool>,
}

impl Script {
    pub fn lie(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
        self.released.send_replace(lie != Lie::Held);
    }

    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// The body of the last request to a path.
    pub fn last(&self, path: &str) -> String {
        let seen = self.seen.lock().unwrap();
        let last = seen.iter().rev().find(|(to, _)| to.ends_with(path));
        last.map(|(_, body)| body.clone()).unwrap_or_default()
    }
}

/// A stand-in in this process; it no longer listens once dropped.
pub struct StandIn {
    pub address: SocketAddr,
    pub script: Arc<Script>,
    stop: CancellationToken,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl StandIn {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), Arc::default()).await
    }

    pub async fn at(address: SocketAddr, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(listen(listener, Arc::clone(&script), stop.clone()));
        Self { address, script, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn listen(listener: TcpListener, script: Arc<Script>, stop: CancellationToken) {
    let everything = async {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (script, stop) = (Arc::clone(&script), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    // A customer who is gone is no failure of the stand-in.
                    _ = converse(socket, &script) => {}
                }
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = everything => {}
    }
}

async fn converse(mut socket: TcpStream, script: &Script) -> std::io::Result<()> {
    let Some((head, body)) = read_request(&mut socket).await? else { return Ok(()) };
    let mut first = head.lines().next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default();
    let path = first.next().unwrap_or_default();
    let key = head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
    *script.key.lock().unwrap() = key;
    if method == "POST" || path.contains("/pow/") {
        script.seen.lock().unwrap().push((format!("{method} {path}"), body.clone()));
    }
    match path {
        "/health" => whole(&mut socket, 200, "").await,
        "/v1/models" => {
            let model = json!({"id": OWN_NAME, "object": "model", "max_model_len": 4096});
            let page = json!({"object": "list", "data": [model]});
            whole(&mut socket, 200, &page.to_string()).await
        }
        "/v1/chat/completions" | "/v1/completions" => chat(&mut socket, script, path, &body).await,
        "/v1/embeddings" => {
            let vector = json!({"object": "embedding", "index": 0, "embedding": [0.5, -1.25e-3]});
            let usage = json!({"prompt_tokens": 2, "total_tokens": 2});
            let answer = json!({"model": OWN_NAME, "data": [vector], "usage": usage});
            whole(&mut socket, 200, &answer.to_string()).await
        }
        "/tokenize" => whole(&mut socket, 200, r#"{"count":2,"tokens":[1,2]}"#).await,
        _ => prove(&mut socket, script, path).await,
    }
}

async fn read_request(socket: &mut TcpStream) -> std::io::Result<Option<(String, String)>> {
    let mut bytes = vec![];
    loop {
        let mut piece = [0; 8192];
        let count = socket.read(&mut piece).await?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend(&piece[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if bytes.len() >= end + 4 + length {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let body = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
            return Ok(Some((head.replace("Authorization", "authorization"), body)));
        }
    }
}

async fn whole(socket: &mut TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} said so\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await?;
    socket.shutdown().await
}

async fn chat(
    socket: &mut TcpStream,
    script: &Script,
    path: &str,
    body: &str,
) -> std::io::Result<()> {
    let asked: Value = serde_json::from_str(body).unwrap();
    let chats = script.chats.fetch_add(1, Ordering::SeqCst) + 1;
    if script.dies_after.is_some_and(|most| chats > most) {
        std::process::abort();
    }
    if asked["model"] != OWN_NAME {
        let error = json!({"error": {"message": "no such model", "type": "x", "code": 404}});
        return whole(socket, 404, &error.to_string()).await;
    }
    let lie = *script.lie.lock().unwrap();
    let stream = asked["stream"] == true;
    match lie {
        Lie::Held => {
            let mut released = script.released.subscribe();
            let mut end = [0; 1];
            tokio::select! {
                _ = released.wait_for(|released| *released) => {}
                _ = socket.read(&mut end) => {
                    script.hung_up.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            }
        }
        Lie::Garbage => return whole(socket, 200, "<html>Welcome to nginx!</html>").await,
        Lie::Status(code) => {
            let error = json!({"error": {"message": "told to", "type": "x", "code": code}});
            return whole(socket, code, &error.to_string()).await;
        }
        Lie::HiddenError => return whole(socket, 200, r#"{"error":{"message":"hidden"}}"#).await,
        Lie::Slammed => return Ok(()),
        Lie::Torn => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{\"a\":";
            return socket.write_all(head.as_bytes()).await;
        }
        Lie::Endless => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":\"";
            socket.write_all(head.as_bytes()).await?;
            return pour(socket, script).await;
        }
        Lie::Honest
        | Lie::Unasked
        | Lie::NoEvents
        | Lie::Cut
        | Lie::NoDone
        | Lie::Stuck
        | Lie::Malformed
        | Lie::FailsLate
        | Lie::EndlessEvent
        | Lie::Babble => {}
    }
    if !stream && lie != Lie::Unasked {
        let choice = if path.contains("chat") {
            json!({"index": 0, "message": {"role": "assistant", "content": "abc"}, "finish_reason": "stop"})
        } else {
            json!({"index": 0, "text": "abc", "finish_reason": "stop"})
        };
        let usage = json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8});
        let answer = format!(
            r#"{{"id":"x","model":{},"logprob":-1.10E-1,"choices":[{choice}],"usage":{usage}}}"#,
            Value::from(OWN_NAME)
        );
        return whole(socket, 200, &answer).await;
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    speak(socket, script, lie, &asked).await
}

async fn speak(
    socket: &mut TcpStream,
    script: &Script,
    lie: Lie,
    asked: &Value,
) -> std::io::Result<()> {
    let chunk = |text: &str| {
        let delta = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
        format!("data: {}\n\n", json!({"id": "x", "model": OWN_NAME, "choices": [delta]}))
    };
    if lie == Lie::NoEvents {
        return socket.write_all(b"<html>Welcome</html>\n").await;
    }
    if lie == Lie::EndlessEvent {
        socket.write_all(b"data: {\"a\":\"").await?;
        return pour(socket, script).await;
    }
    if lie == Lie::Babble {
        while socket.write_all(chunk(&"x".repeat(10_000)).as_bytes()).await.is_ok() {}
        script.hung_up.fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    socket.write_all(b": ping\n\n").await?;
    for text in ["a", "b"] {
        socket.write_all(chunk(text).as_bytes()).await?;
    }
    match lie {
        Lie::Cut => return Ok(()),
        Lie::NoDone => return socket.shutdown().await,
        Lie::Stuck => {
            let mut end = [0; 1];
            let _ = socket.read(&mut end).await;
            script.hung_up.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        Lie::Malformed => return socket.write_all(b"data: {\"id\":\n\n").await,
        Lie::FailsLate => {
            return socket
                .write_all(b"data: {\"error\":{\"message\":\"out of memory\"}}\n\n")
                .await;
        }
        _ => {}
    }
    socket.write_all(chunk("c").as_bytes()).await?;
    if asked["stream_options"]["include_usage"] == true {
        let usage = json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8});
        let last = json!({"id": "x", "model": OWN_NAME, "choices": [], "usage": usage});
        socket.write_all(format!("data: {last}\n\n").as_bytes()).await?;
    }
    socket.write_all(b"data: [DONE]\n\n").await?;
    socket.shutdown().await
}

/// Writes until nobody takes it any more.
async fn pour(socket: &mut TcpStream, script: &Script) -> std::io::Result<()> {
    while socket.write_all(&[b'x'; 65_536]).await.is_ok() {}
    script.hung_up.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

async fn prove(socket: &mut TcpStream, script: &Script, path: &str) -> std::io::Result<()> {
    let proves = *script.proves.lock().unwrap();
    let step = match proves {
        Proves::Nothing => None,
        Proves::AsMlNode => path.strip_prefix("/api/v1/inference/pow/"),
        Proves::AsEngine => path.strip_prefix("/api/v1/pow/"),
    };
    let answer = match (step, proves) {
        (Some("status"), Proves::AsMlNode) => {
            let backend =
                json!({"port": 5007, "status": "GENERATING", "config": null, "stats": null});
            json!({"status": "GENERATING", "backends": [backend]})
        }
        (Some("status"), _) => {
            json!({"status": "IDLE", "config": null, "stats": {"total_processed": 4}})
        }
        (Some("init/generate"), _) => json!({"status": "OK", "backends": 1, "of": "the stand-in"}),
        (Some("stop"), _) => json!({"status": "OK", "of": "the stand-in"}),
        (Some("generate"), Proves::AsMlNode) => {
            json!({"status": "queued", "request_id": "5007:u-1"})
        }
        (Some("generate"), _) => json!({"status": "queued", "request_id": "u-1"}),
        (Some("generate/5007:u-1"), Proves::AsMlNode) => {
            json!({"status": "running", "request_id": "5007:u-1"})
        }
        (Some("generate/u-1"), Proves::AsEngine) => {
            json!({"status": "running", "request_id": "u-1"})
        }
        (_, _) => return whole(socket, 404, r#"{"detail":"Not Found"}"#).await,
    };
    whole(socket, 200, &answer.to_string()).await
}

/// Not a check: the stand-in in a process of its own, when the test program is started as one.
#[tokio::test]
async fn process_of_a_stand_in() {
    let Ok(address) = std::env::var(LISTEN) else { return };
    let dies_after = std::env::var(DIES_AFTER).ok().map(|count| count.parse().unwrap());
    let script = Arc::new(Script { dies_after, ..Script::default() });
    let _listening = StandIn::at(address.parse().unwrap(), script).await;
    // Longer than any test waits, and not for ever should all else fail.
    tokio::time::sleep(Duration::from_secs(300)).await;
}
