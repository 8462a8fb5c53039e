//! Servers this agent starts: brought up, looked after, brought up again, and gone when they shall be gone.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use roadbed_agent::config::{ServerCommand, UpstreamConfig};
use roadbed_agent::engine::EngineState;
use serde_json::json;

use super::stand_in::{DIES_AFTER, LISTEN, StandIn};
use super::{DEADLINE, Rig, bounds, until};

/// An address of its own for every stand-in: all of 127.0.0.0/8 is this machine.
pub fn unused_address() -> String {
    static NUMBER: AtomicU8 = AtomicU8::new(2);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{high}.{low}.{}:18099", NUMBER.fetch_add(1, Ordering::SeqCst))
}

/// A stand-in behind a line of shell; `STAND_IN` in it starts the stand-in.
pub fn supervised(address: &str, line: &str) -> UpstreamConfig {
    let program = std::env::current_exe().unwrap();
    let stand_in = format!(
        "exec {} ai::upstream::stand_in::process_of_a_stand_in --exact --nocapture",
        program.display()
    );
    let mut command = ServerCommand::shell(&line.replace("STAND_IN", &stand_in));
    command.env.push((LISTEN.into(), address.into()));
    command.stop_wait = DEADLINE;
    UpstreamConfig {
        command: Some(command),
        start_wait: DEADLINE,
        ..UpstreamConfig::attached(format!("http://{address}").parse().unwrap())
    }
}

pub fn is_listening(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

#[tokio::test]
async fn a_server_of_ours_comes_answers_and_goes() {
    let address = unused_address();
    // Slow to come, and loud.
    let line = "(yes flood | head -n 100000 >&2) & sleep 0.3; STAND_IN";
    let rig = Rig::start(supervised(&address, line), bounds()).await;
    let loading = rig.server.clone();
    let loading = tokio::spawn(async move { loading.load().await });
    until("the start", || {
        matches!(&*rig.server.state().borrow(), EngineState::Loading { .. }).then_some(())
    })
    .await;
    assert_eq!(rig.chat().await.0, 503);
    loading.await.unwrap().unwrap();
    assert_eq!(rig.chat().await.0, 200);
    // Loaded again, it is the one that is there.
    rig.server.load().await.unwrap();
    assert_eq!(rig.server.restarts(), 0);
    rig.server.unload().await.unwrap();
    assert!(!is_listening(&address));
    assert_eq!(rig.chat().await.0, 503);
    rig.server.load().await.unwrap();
    assert_eq!(rig.chat().await.0, 200);
    rig.server.clone().shut_down().await;
    assert!(!is_listening(&address));
}

#[tokio::test]
async fn a_server_that_does_not_come_is_told_with_its_last_words() {
    let rig =
        Rig::start(supervised(&unused_address(), "echo no such model >&2; exit 3"), bounds()).await;
    let fault = rig.server.load().await.unwrap_err().to_string();
    assert!(fault.contains("ended with status 3"), "{fault}");
    let mut config = supervised(&unused_address(), "echo loading >&2; sleep 300");
    config.start_wait = Duration::from_millis(300);
    let rig = Rig::start(config, bounds()).await;
    let fault = rig.server.load().await.unwrap_err().to_string();
    assert!(fault.contains("within 0.3 s") && fault.contains("loading"), "{fault}");
    let (_, status) = rig.get("/api/v1/inference/up/status").await;
    assert_eq!(status["is_running"], false);
}

#[tokio::test]
async fn a_start_is_broken_off_by_a_stop() {
    let rig = Rig::start(supervised(&unused_address(), "sleep 300"), bounds()).await;
    let loading = rig.server.clone();
    let loading = tokio::spawn(async move { loading.load().await });
    until("the start", || {
        matches!(&*rig.server.state().borrow(), EngineState::Loading { .. }).then_some(())
    })
    .await;
    rig.server.unload().await.unwrap();
    assert!(loading.await.unwrap().is_err());
    assert_eq!(*rig.server.state().borrow(), EngineState::Empty);
}

#[tokio::test]
async fn a_deaf_server_is_killed() {
    let address = unused_address();
    let mut config = supervised(&address, "trap '' TERM; STAND_IN");
    config.command.as_mut().unwrap().stop_wait = Duration::from_millis(50);
    let rig = Rig::start(config, bounds()).await;
    rig.server.load().await.unwrap();
    rig.server.unload().await.unwrap();
    assert!(!is_listening(&address));
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_twice() {
    let address = unused_address();
    let mut config = supervised(&address, "STAND_IN");
    // The first chat is the one that asks whether it can.
    config.command.as_mut().unwrap().env.push((DIES_AFTER.into(), "2".into()));
    let rig = Rig::start(config, bounds()).await;
    rig.server.load().await.unwrap();
    for restarts in 1..=2 {
        assert_eq!(rig.chat().await.0, 200);
        let (status, answer) = rig.chat().await;
        assert!([502, 503].contains(&status), "{status} {answer}");
        until("the restart", || (rig.server.restarts() == restarts).then_some(())).await;
        rig.is_ready().await;
    }
    assert_eq!(rig.chat().await.0, 200);
    rig.chat().await;
    let reason = rig.failure().await;
    assert!(reason.contains("was ended by signal 6"), "{reason}");
    assert!(!is_listening(&address));
    assert_eq!(rig.get("/health").await.0, 503);
    // Whoever watches the rig starts it again.
    let up = json!({"model": super::MODEL, "dtype": "auto"});
    assert_eq!(rig.post("/api/v1/inference/up", up).await.0, 200);
    assert_eq!(rig.chat().await.0, 200);
}

#[tokio::test]
async fn a_stranger_at_the_address_is_not_taken_for_our_server() {
    let stranger = StandIn::start().await;
    let rig = Rig::start(supervised(&stranger.address.to_string(), "STAND_IN"), bounds()).await;
    let fault = rig.server.load().await.unwrap_err().to_string();
    assert!(fault.contains("something listens at"), "{fault}");
}

#[tokio::test]
async fn nobody_holding_it_ends_the_server() {
    let address = unused_address();
    let rig = Rig::start(supervised(&address, "STAND_IN"), bounds()).await;
    rig.server.load().await.unwrap();
    assert!(is_listening(&address));
    drop(rig);
    until("the server to be gone", || (!is_listening(&address)).then_some(())).await;
}
