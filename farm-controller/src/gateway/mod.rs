//! The farm's HTTP gateway: an MLNode address per rig, several rigs as one MLNode, and one OpenAI endpoint.
//!
//! ```text
//! Network Node ── /rigs/<rig>/.. ──────────────────► that rig's agent, verbatim
//! Network Node ── /mlnode/.. ──► fan-out ── orders, places among the nonces ──► every rig's agent
//! customer ────── /v1/.. ──────► by model, least loaded ──► one rig's agent
//! ```
//! The gateway holds no work of its own: what it says of rigs it has asked them, and tokens and artifacts pass through
//! or by it.

mod address;
mod door;
mod fan_out;
mod health;
mod listener;
mod locks;
mod metrics;
mod openai;
mod passage;
mod reply;
mod rig;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{GatewaySettings, Site};
use address::Base;
use fan_out::FanOut;
pub use health::Pace;
use listener::BoundedListener;
use locks::Locks;
use rig::Rig;
use wire::Wire;

/// Requests answered at once: a Network Node allows 500 customers per node.
const REQUESTS_MAX: usize = 2_000;
/// How long requests under way may go on when the gateway ends.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its address cannot be used.
    #[error(
        "the gateway cannot listen on {address}: {source}; see `gateway: listen` of the site file"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A token that no header can carry.
    #[error("the token of rig {rig} cannot stand in a header; see its ai_token")]
    Token {
        /// The rig.
        rig: String,
    },
}

/// What every request sees.
struct Shared {
    rigs: Vec<Arc<Rig>>,
    locks: Locks,
    settings: GatewaySettings,
    fan_out: Option<Arc<FanOut>>,
    wire: Wire,
    places: Semaphore,
}

impl Shared {
    fn rig(&self, id: &str) -> Option<&Arc<Rig>> {
        self.rigs.iter().find(|rig| rig.id.as_str() == id)
    }

    fn base(&self) -> Base<'_> {
        match self.settings.single_mlnode.as_ref().map(|single| single.base.as_deref()) {
            None => Base::Absent,
            Some(None) => Base::Root,
            Some(Some(step)) => Base::Step(step),
        }
    }
}

/// A running gateway; ends when dropped, orderly by [`Self::stop`].
pub struct Gateway {
    address: SocketAddr,
    server: JoinHandle<std::io::Result<()>>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Gateway {
    /// Starts the gateway of a site.
    ///
    /// # Errors
    /// [`GatewayError`], with nothing left running.
    pub async fn start(
        site: &Site,
        settings: &GatewaySettings,
        pace: Pace,
    ) -> Result<Self, GatewayError> {
        let mut rigs = vec![];
        for rig in &site.rigs {
            let Some(face) = &rig.ai else { continue };
            let authorization = match &face.token {
                None => None,
                Some(token) => {
                    let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                    let unusable = |_| GatewayError::Token { rig: rig.id.to_string() };
                    let mut value = value.map_err(unusable)?;
                    value.set_sensitive(true);
                    Some(value)
                }
            };
            let model = rig.model.clone().unwrap_or_default();
            let authority = face.authority.clone();
            rigs.push(Arc::new(Rig::new(rig.id.clone(), authority, authorization, model)));
        }
        let cannot_listen = |source| GatewayError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let wire = Wire::new();
        let fan_out = settings.single_mlnode.as_ref().map(|single| {
            let place = |id: &roadbed_protocol::RigId| {
                rigs.iter().find(|rig: &&Arc<Rig>| rig.id == *id).cloned()
            };
            let members = single.rigs.iter().filter_map(place).collect();
            let file = site.state_dir.join("gateway-round.json");
            Arc::new(FanOut::new(members, wire.clone(), file))
        });
        let shared = Arc::new(Shared {
            rigs,
            fan_out,
            locks: Locks::new(settings),
            settings: settings.clone(),
            wire,
            places: Semaphore::new(REQUESTS_MAX),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        for rig in &shared.rigs {
            let (wire, stop) = (shared.wire.clone(), stop.clone());
            let (rig, fan_out) = (Arc::clone(rig), shared.fan_out.clone());
            let watched = Arc::clone(&rig);
            tasks.spawn(health::watch(wire, watched, pace, stop, move |finding| {
                let (rig, fan_out) = (Arc::clone(&rig), fan_out.clone());
                async move {
                    if let Some(fan_out) = fan_out {
                        fan_out.after_look(&rig, finding).await;
                    }
                }
            }));
        }
        if settings.auth_token.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "the gateway asks for no auth_token: whoever reaches it drives the rigs");
        }
        let router = Router::new().fallback(door::answer).with_state(shared);
        let served = axum::serve(BoundedListener::new(listener), router)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(async move { served.await });
        tracing::info!(%address, "the gateway listens");
        Ok(Self { address, server, tasks, stop: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns when it ends by itself.
    pub async fn ended(&mut self) -> std::io::Result<()> {
        match (&mut self.server).await {
            Ok(ended) => ended,
            Err(error) => Err(std::io::Error::other(error)),
        }
    }

    /// Takes no more requests, gives those under way a moment, and ends.
    pub async fn stop(mut self) {
        drop(self.stop);
        if tokio::time::timeout(STOP_PATIENCE, &mut self.server).await.is_err() {
            tracing::warn!("requests under way at the gateway were cut off");
            self.server.abort();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}
