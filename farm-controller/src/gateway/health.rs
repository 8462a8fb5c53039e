//! The watch over rigs: `/health` every 2 s, down after three failures in a row, up at once.
//!
//! What it finds decides who is asked first, never whether a rig that is asked by name is asked at all.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::rig::{Health, Rig};
use super::wire::Wire;

/// How often rigs are looked at, and how long a look may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at a rig.
    pub pause: Duration,
    /// For one of its answers.
    pub patience: Duration,
}

impl Default for Pace {
    /// As in the network's own fan-out.
    fn default() -> Self {
        Self { pause: Duration::from_secs(2), patience: Duration::from_secs(10) }
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It answers, and was down before.
    CameBack,
    /// It answers.
    Well,
    /// It does not.
    Ill,
}

/// Looks at a rig once and notes what it serves; `Err` says why it is not well. Only the watch counts failures.
pub(super) async fn look(wire: &Wire, rig: &Arc<Rig>, patience: Duration) -> Result<(), String> {
    match wire.call(rig, Method::GET, "/health", None, patience).await {
        Ok(reply) if reply.status.is_success() => {}
        Ok(reply) => return Err(format!("its /health says {}", reply.status)),
        Err(fault) => return Err(fault.to_string()),
    }
    let models = match wire.call(rig, Method::GET, "/v1/models", None, patience).await {
        Ok(reply) if reply.status.is_success() => {
            match reply.json().get_mut("data").map(Value::take) {
                Some(Value::Array(models)) => models,
                Some(_) | None => vec![],
            }
        }
        // It serves nothing now.
        Ok(_) | Err(_) => vec![],
    };
    if rig.found_well(models) != Health::Up {
        tracing::info!(rig = %rig.id, "the rig answers the gateway");
    }
    Ok(())
}

/// Looks at a rig until told to stop; `then` is run after each look.
pub(super) async fn watch<F: Future<Output = ()>>(
    wire: Wire,
    rig: Arc<Rig>,
    pace: Pace,
    stop: CancellationToken,
    then: impl Fn(Finding) -> F,
) {
    let mut was_down = false;
    loop {
        let step = async {
            let finding = match look(&wire, &rig, pace.patience).await {
                Ok(()) if was_down => Finding::CameBack,
                Ok(()) => Finding::Well,
                Err(reason) => {
                    if rig.found_ill() {
                        tracing::warn!(rig = %rig.id, reason, "the rig does not answer the gateway");
                    }
                    Finding::Ill
                }
            };
            was_down = match finding {
                Finding::CameBack | Finding::Well => false,
                Finding::Ill => was_down || rig.health() == Health::Down,
            };
            then(finding).await;
            tokio::time::sleep(pace.pause).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = step => {}
        }
    }
}
