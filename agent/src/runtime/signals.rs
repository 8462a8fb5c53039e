//! When this process shall end: a signal, or the end of the pipe it was started with.

use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

/// A token that is cancelled on SIGTERM, on SIGINT, and when standard input is a pipe whose other end is gone: a parent
/// that dies without a word takes its children with it. A terminal or `/dev/null` (systemd) is no such pipe.
#[must_use]
pub fn ended_from_outside() -> CancellationToken {
    let ended = CancellationToken::new();
    let told = ended.clone();
    tokio::spawn(async move {
        let why = tokio::select! {
            why = signal() => why,
            () = pipe_closed() => "standard input closed",
        };
        tracing::info!("{why}: ending");
        told.cancel();
    });
    ended
}

#[cfg(unix)]
async fn signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::error!("SIGTERM cannot be awaited: {error}");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        interrupted = tokio::signal::ctrl_c() => {
            if interrupted.is_err() {
                std::future::pending::<()>().await;
            }
            "SIGINT"
        }
    }
}

#[cfg(not(unix))]
async fn signal() -> &'static str {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    "interrupted"
}

async fn pipe_closed() {
    if !is_stdin_a_pipe() {
        std::future::pending::<()>().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut sink = [0; 64];
    // What a parent writes means nothing; an error is an end too.
    while stdin.read(&mut sink).await.is_ok_and(|read| read > 0) {}
}

#[cfg(unix)]
fn is_stdin_a_pipe() -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata("/dev/stdin").is_ok_and(|file| file.file_type().is_fifo())
}

#[cfg(not(unix))]
fn is_stdin_a_pipe() -> bool {
    false
}
