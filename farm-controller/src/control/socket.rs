//! The control socket: `roadbed console` and `roadbed rigs` on the same machine, without a password, by file rights.
//!
//! One JSON document a line. The controller sends a [`FarmView`] whenever it changes; the other end sends [`Action`]s.
//! The socket file lies in the controller's private folder, so who can open it could read the store as well.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::view::{Action, FarmView};

/// Consoles at once: a few operators.
const CONSOLES_MAX: usize = 16;
/// Longest action line.
const ACTION_BYTES_MAX: u64 = 4_096;
/// Longest view line: ten thousand rigs with a plan of a day and a half fit.
const VIEW_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Serves consoles until `cancel` fires. A socket file left by a crash is replaced.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(
    path: &Path,
    views: watch::Receiver<FarmView>,
    actions: mpsc::Sender<Action>,
    cancel: CancellationToken,
) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let places = std::sync::Arc::new(Semaphore::new(CONSOLES_MAX));
    loop {
        let stream = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a console could not connect");
                    continue;
                }
            },
        };
        let Ok(place) = std::sync::Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("more than {CONSOLES_MAX} consoles; the newest is turned away");
            continue;
        };
        let (views, actions, cancel) = (views.clone(), actions.clone(), cancel.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = cancel.cancelled() => {}
                ended = attend(stream, views, actions) => if let Err(error) = ended {
                    tracing::debug!(%error, "a console left");
                },
            }
        });
    }
    let _ = std::fs::remove_file(path);
    Ok(())
}

async fn attend(
    stream: UnixStream,
    mut views: watch::Receiver<FarmView>,
    actions: mpsc::Sender<Action>,
) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let tell = async {
        loop {
            let line = line(&*views.borrow_and_update())?;
            writing.write_all(&line).await?;
            if views.changed().await.is_err() {
                return Ok(());
            }
        }
    };
    let listen = async {
        let mut lines = BufReader::new(reading);
        let mut text = String::new();
        loop {
            text.clear();
            if (&mut lines).take(ACTION_BYTES_MAX).read_line(&mut text).await? == 0 {
                return Ok(());
            }
            let action: Action = serde_json::from_str(&text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if actions.send(action).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        told = tell => told,
        heard = listen => heard,
    }
}

fn line<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// The other end: views in, actions out, over a running controller's socket. The tasks end with the channels.
///
/// # Errors
/// When there is no controller behind `path`.
pub async fn connect(path: &Path) -> io::Result<(watch::Receiver<FarmView>, mpsc::Sender<Action>)> {
    let stream = UnixStream::connect(path).await?;
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading);
    let first = read_view(&mut lines).await?;
    let (views_in, views) = watch::channel(first);
    let (actions, mut actions_out) = mpsc::channel::<Action>(super::INPUTS_WAITING_MAX);
    tokio::spawn(async move {
        while let Ok(view) = read_view(&mut lines).await {
            if views_in.send(view).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(action) = actions_out.recv().await {
            let Ok(line) = line(&action) else { continue };
            if writing.write_all(&line).await.is_err() {
                return;
            }
        }
    });
    Ok((views, actions))
}

async fn read_view(lines: &mut BufReader<tokio::net::unix::OwnedReadHalf>) -> io::Result<FarmView> {
    let mut text = String::new();
    if lines.take(VIEW_BYTES_MAX).read_line(&mut text).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::RigId;

    use super::*;

    #[tokio::test]
    async fn a_console_sees_views_and_sends_actions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        std::fs::write(&path, b"left by a crash").unwrap();
        let (views_in, views) = watch::channel(FarmView { farm: "a".into(), ..Default::default() });
        let (actions, mut wanted) = mpsc::channel(4);
        let cancel = CancellationToken::new();
        let server = tokio::spawn({
            let (path, cancel) = (path.clone(), cancel.clone());
            async move { serve(&path, views, actions, cancel).await }
        });
        let (mut seen, act) = loop {
            if let Ok(ends) = connect(&path).await {
                break ends;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(seen.borrow().farm, "a");
        views_in.send_replace(FarmView { farm: "b".into(), ..Default::default() });
        seen.wait_for(|view| view.farm == "b").await.unwrap();
        let release = Action::Release { rig: RigId::new("asic-1").unwrap() };
        act.send(release.clone()).await.unwrap();
        assert_eq!(wanted.recv().await, Some(release));
        cancel.cancel();
        server.await.unwrap().unwrap();
        assert!(!path.exists());
    }
}
