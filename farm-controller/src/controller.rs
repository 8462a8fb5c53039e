//! A running controller: store, gateway, broker, feeds, control loop and control socket, started in order and stopped in reverse.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use roadbed_protocol::{RigId, Signer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::{
    BrokerEngine as _, BrokerError, BrokerSettings, EVENTS_WAITING_MAX, EmbeddedBroker, Roster,
    access,
};
use crate::coins::CoinSource;
use crate::config::{ConfigError, Site, read_or_create_secret};
use crate::control::snapshot::Nameplates;
use crate::control::{self, ControlError, ControlParts, INPUTS_WAITING_MAX, Keeper, socket};
use crate::feeds::{Feeds, Known};
use crate::gateway::{Gateway, GatewayError, Pace};
use crate::gonka::service::Service;
use crate::hashprice::{self, HashpriceSource};
use crate::store::{Store, StoreError};
use crate::view::{Action, FarmView};

/// Name of the controller's key in envelopes and in the agents' lists of trusted keys.
pub const KEY_ID: &str = "controller";

/// Why a controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Its key cannot be read.
    #[error(transparent)]
    Key(#[from] ConfigError),
    /// Its store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its broker does not run.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Its control loop ended.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Its control socket cannot be made.
    #[error("control socket {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Its gateway cannot be started.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Its gateway ended by itself.
    #[error("the gateway ended: {0}")]
    GatewayEnded(std::io::Error),
    /// One of its tasks ended by a panic.
    #[error("a task of the controller ended by a panic: {0}")]
    Panicked(String),
}

/// A running controller.
pub struct Controller {
    views: watch::Receiver<FarmView>,
    actions: mpsc::Sender<Action>,
    broker: Arc<EmbeddedBroker>,
    address: SocketAddr,
    public_key: [u8; 32],
    control: JoinHandle<Result<(), ControlError>>,
    feeds: JoinHandle<()>,
    gonka: JoinHandle<()>,
    hashprice: JoinHandle<()>,
    coins: JoinHandle<()>,
    socket: JoinHandle<Result<(), ControllerError>>,
    gateway: Option<Gateway>,
    cancel: CancellationToken,
}

impl Controller {
    /// Starts everything a site needs.
    ///
    /// # Errors
    /// [`ControllerError`], with nothing left running.
    pub async fn start(site: &Site) -> Result<Self, ControllerError> {
        let secret = read_or_create_secret(&site.key_file)?;
        let (store, kept) = Store::open(&site.store_path())?;
        // Dropped, it ends; a broker would not.
        let gateway = match &site.gateway {
            Some(settings) => Some(Gateway::start(site, settings, Pace::default()).await?),
            None => None,
        };
        let (events, agents) = mpsc::channel(EVENTS_WAITING_MAX);
        let settings = BrokerSettings {
            farm: site.farm.clone(),
            listen: site.broker_listen,
            folder: site.state_dir.join("broker"),
            roster: roster(site),
        };
        let broker = Arc::new(EmbeddedBroker::start(settings, events).await?);
        let address = broker.address();
        let cancel = CancellationToken::new();
        let (feed_events, feed_waiting) = mpsc::channel(INPUTS_WAITING_MAX);
        let (actions, actions_waiting) = mpsc::channel(INPUTS_WAITING_MAX);
        let (views_in, views) = watch::channel(FarmView::default());
        let signer = Signer::new(KEY_ID, &secret, kept.signer_counter);
        let public_key = signer.public_key();
        let keeper: Arc<dyn Keeper> = Arc::new(store);
        let (gonka, told) = Service::new(site, &kept.gonka, Arc::clone(&keeper));
        let (hashprice, readings) = hashprice::Service::new(site, HashpriceSource::of(site));
        let (coins, coin_readings) = hashprice::Service::new(site, CoinSource::of(site));
        let known = Known { hashprice: readings, coins: coin_readings, views: views.clone() };
        let mut feeds = Feeds::new(site.clone(), site.clock, told.commitments.clone(), known);
        let parts = ControlParts {
            settings: site.settings(),
            names: nameplates(site),
            clock: site.clock,
            signer,
            kept,
            keeper,
            broker: broker.clone(),
            agents,
            feeds: feed_waiting,
            actions: actions_waiting,
            told,
            views: views_in,
            first: feeds.first(),
        };
        let control = tokio::spawn(control::run(parts, cancel.clone()));
        let gonka = gonka.start(views.clone(), feed_events.clone(), cancel.clone());
        let hashprice = tokio::spawn(hashprice.run(feed_events.clone(), cancel.clone()));
        let coins = tokio::spawn(coins.run(feed_events.clone(), cancel.clone()));
        let feeds = tokio::spawn(feeds.run(feed_events, cancel.clone()));
        let socket = tokio::spawn({
            let (path, views) = (site.socket_path(), views.clone());
            let (actions, cancel) = (actions.clone(), cancel.clone());
            async move {
                let served = socket::serve(&path, views, actions, cancel).await;
                served.map_err(|source| ControllerError::Socket { path, source })
            }
        });
        tracing::info!(%address, farm = %site.farm, rigs = site.rigs.len(), "the controller runs");
        Ok(Self {
            views,
            actions,
            broker,
            address,
            public_key,
            control,
            feeds,
            gonka,
            hashprice,
            coins,
            socket,
            gateway,
            cancel,
        })
    }

    /// What people see.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<FarmView> {
        self.views.clone()
    }

    /// What people want.
    #[must_use]
    pub fn actions(&self) -> mpsc::Sender<Action> {
        self.actions.clone()
    }

    /// Where the broker listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the gateway listens, if the site has one.
    #[must_use]
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        self.gateway.as_ref().map(Gateway::address)
    }

    /// The key agents must trust.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// Returns when the controller ends by itself, with what ended it.
    pub async fn ended(&mut self) -> ControllerError {
        let gateway = async {
            match &mut self.gateway {
                Some(gateway) => gateway.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut self.control => match ended {
                Ok(Ok(())) => ControllerError::Panicked("the control loop ended early".into()),
                Ok(Err(error)) => error.into(),
                Err(error) => ControllerError::Panicked(error.to_string()),
            },
            ended = gateway => match ended {
                Ok(()) => ControllerError::Panicked("the gateway ended early".into()),
                Err(error) => ControllerError::GatewayEnded(error),
            },
            ended = &mut self.socket => match ended {
                Ok(Ok(())) => ControllerError::Panicked("the control socket ended early".into()),
                Ok(Err(error)) => error,
                Err(error) => ControllerError::Panicked(error.to_string()),
            },
        }
    }

    /// Ends in order: gateway, inputs, control loop, broker; the store is closed with the loop.
    ///
    /// # Errors
    /// [`ControllerError`] when a part ended badly.
    pub async fn stop(self) -> Result<(), ControllerError> {
        if let Some(gateway) = self.gateway {
            gateway.stop().await;
        }
        self.cancel.cancel();
        let panicked = |error: tokio::task::JoinError| ControllerError::Panicked(error.to_string());
        let _ = self.feeds.await;
        let _ = self.gonka.await;
        let _ = self.hashprice.await;
        let _ = self.coins.await;
        let control = self.control.await.map_err(panicked)?;
        let socket = self.socket.await.map_err(panicked)?;
        if let Some(broker) = Arc::into_inner(self.broker) {
            Box::new(broker).stop().await?;
        }
        control?;
        socket
    }
}

fn roster(site: &Site) -> Roster {
    let mut roster = Roster::default();
    for agent in &site.agents {
        let rigs: Vec<RigId> = site.rigs_of(&agent.id).map(|rig| rig.id.clone()).collect();
        roster.insert(agent.id.clone(), access(agent.public_key, rigs));
    }
    roster
}

/// Names for people.
#[must_use]
pub fn nameplates(site: &Site) -> Nameplates {
    Nameplates {
        farm: site.name.clone(),
        currency: site.currency.clone(),
        models: site.rigs.iter().map(|rig| (rig.id.clone(), rig.profile.model.clone())).collect(),
    }
}
