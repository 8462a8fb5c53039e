//! The framing that cgminer gave the field: one JSON request a connection, one JSON answer, then the connection closes.
//!
//! A request ends where its JSON ends: clients send no newline, a newline or a NUL. Several commands without parameters can be
//! joined by `+`; the answer then holds one list a command.
//!
//! Misbehaves on purpose: every second answer ends with a NUL, because some firmwares of this kind send one and some do
//! not. Faults of [`Fault`] act here: slow, cut, garbage, offline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Miner;
use super::fault::{Fault, SLOW_ANSWER_MS};

/// Longest request read: firmware buffers are of this order.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Most commands joined in one request.
const JOINED_COMMANDS_MAX: usize = 16;
/// Wall time a client may take to finish its request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// What a machine answers that has lost its mind.
const GARBAGE: &[u8] = b"\x7fELF\x00\x01{\"STATUS\":[{\"ST\xff\xfe";

/// A firmware that answers commands of this framing.
pub trait CommandFace: Send + Sync + 'static {
    /// The miner behind it.
    fn miner(&self) -> &Arc<Miner>;
    /// The whole answer to one command.
    fn answer(&self, command: &str, parameter: &str) -> Value;
}

/// Serves a face until `stop`.
pub async fn serve(listener: TcpListener, face: Arc<impl CommandFace>, stop: CancellationToken) {
    let answered = Arc::new(AtomicU64::new(0));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors or alike: let some go before the next try.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if !face.miner().is_reachable() {
            continue;
        }
        let (face, answered, stop) = (Arc::clone(&face), Arc::clone(&answered), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that goes away is no event for a miner.
                _ = exchange(stream, face.as_ref(), &answered) => {}
            }
        });
    }
}

async fn exchange(
    mut stream: TcpStream,
    face: &impl CommandFace,
    answered: &AtomicU64,
) -> std::io::Result<()> {
    let request = tokio::time::timeout(REQUEST_TIME_MAX, read_request(&mut stream)).await??;
    let mut bytes = match parse(&request) {
        Some((command, parameter)) => answer(face, &command, &parameter).to_string(),
        None => "STATUS=E,When=0,Code=14,Msg=Invalid command,Description=|".to_owned(),
    }
    .into_bytes();
    if answered.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
        bytes.push(0);
    }
    match face.miner().fault() {
        Some(Fault::Slow) => tokio::time::sleep(Duration::from_millis(SLOW_ANSWER_MS)).await,
        Some(Fault::CutReply) => bytes.truncate(bytes.len() / 2),
        Some(Fault::Garbage) => bytes = GARBAGE.to_vec(),
        Some(Fault::DropsOffline) => return Ok(()),
        Some(
            Fault::OkButNothingHappens
            | Fault::SessionHeld
            | Fault::ExpiredToken
            | Fault::WrongPassword
            | Fault::Reboot,
        )
        | None => {}
    }
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Bytes up to the end of the JSON object, a newline, a NUL, the end of the stream or the limit.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut part = [0_u8; 1024];
    loop {
        let count = stream.read(&mut part).await?;
        request.extend_from_slice(&part[..count]);
        let ended = count == 0
            || request.len() > REQUEST_BYTES_MAX
            || request.iter().any(|byte| matches!(byte, 0 | b'\n'))
            || serde_json::from_slice::<Value>(&request).is_ok();
        if ended {
            return Ok(request);
        }
    }
}

/// Command and parameter of a request, if it is one.
fn parse(request: &[u8]) -> Option<(String, String)> {
    let end = request.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(request.len());
    let document: Value = serde_json::from_slice(&request[..end]).ok()?;
    let command = document.get("command")?.as_str()?.to_owned();
    let parameter = match document.get("parameter") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    Some((command, parameter))
}

fn answer(face: &impl CommandFace, command: &str, parameter: &str) -> Value {
    if !command.contains('+') {
        return face.answer(command, parameter);
    }
    let mut joined = Map::new();
    for part in command.split('+').take(JOINED_COMMANDS_MAX) {
        joined.insert(part.to_owned(), json!([face.answer(part, "")]));
    }
    joined.insert("id".to_owned(), json!(1));
    Value::Object(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_end_in_any_of_the_usual_ways() {
        for text in [
            "{\"command\":\"summary\"}",
            "{\"command\":\"summary\"}\n",
            "{\"command\":\"summary\"}\0rest",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(("summary".to_owned(), String::new())));
        }
        assert_eq!(
            parse(br#"{"command":"curtail","parameter":"abc,sleep"}"#),
            Some(("curtail".to_owned(), "abc,sleep".to_owned()))
        );
        assert_eq!(parse(b"summary|"), None);
    }

    proptest! {
        #[test]
        fn no_request_upsets_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
