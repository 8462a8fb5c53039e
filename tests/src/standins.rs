//! All stand-ins of one config file, started and stopped together.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::asic::{self, RunningAsic};
use crate::config::StandinsConfig;
use crate::customer::{self, Customer};
use crate::gonka::{self, GonkaNode};
use crate::network_node::{self, NetworkNode};
use crate::pool::{self, Pool};
use crate::status;
use crate::stratum2::templates::{self, Templates};

/// Why the stand-ins could not start.
#[derive(Debug, thiserror::Error)]
#[error("{what} at {address}: {reason}")]
pub struct StartError {
    what: String,
    address: String,
    reason: std::io::Error,
}

/// What is running.
#[derive(Debug)]
pub struct Parts {
    /// The mining pool.
    pub pool: Option<Arc<Pool>>,
    /// The template provider.
    pub templates: Option<Arc<Templates>>,
    /// The miners.
    pub asics: Vec<RunningAsic>,
    /// The Network Node.
    pub network_node: Option<NetworkNode>,
    /// The Network Node with a chain.
    pub gonka: Option<Arc<GonkaNode>>,
    /// The customer.
    pub customer: Option<Customer>,
}

/// Running stand-ins.
#[derive(Debug)]
pub struct Standins {
    /// What is running.
    pub parts: Arc<Parts>,
    status_address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Standins {
    /// Binds and starts everything the config names.
    ///
    /// # Errors
    /// [`StartError`] with the part and its address.
    pub async fn start(config: &StandinsConfig) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let clock = config.clock;
        let failed = |what: &str, address: SocketAddr| {
            let what = what.to_owned();
            move |reason| StartError { what, address: address.to_string(), reason }
        };
        let pool = match &config.pool {
            Some(pool) => {
                let started = pool::start(pool, clock, &stop, &tasks).await;
                Some(started.map_err(failed("pool", pool.listen))?)
            }
            None => None,
        };
        let templates = match &config.templates {
            Some(templates) => {
                let started = templates::start(templates, &stop, &tasks).await;
                Some(started.map_err(failed("template provider", templates.listen))?)
            }
            None => None,
        };
        let mut asics = Vec::new();
        for asic in &config.asics {
            let started = asic::start(asic, clock, &stop, &tasks).await;
            asics.push(started.map_err(failed(&asic.id, asic.listen))?);
        }
        let network_node = match &config.network_node {
            Some(node) => {
                let started = network_node::start(node, clock, &stop, &tasks).await;
                Some(started.map_err(failed("network node", node.callback_listen))?)
            }
            None => None,
        };
        let gonka = match &config.gonka {
            Some(node) => {
                let started = gonka::start(node, clock, &stop, &tasks).await;
                Some(started.map_err(failed("network node with a chain", node.public_listen))?)
            }
            None => None,
        };
        let customer = match &config.customer {
            Some(customer) => {
                let started = customer::start(customer, &stop, &tasks);
                Some(started.map_err(failed("customer", config.status_listen))?)
            }
            None => None,
        };
        let parts = Arc::new(Parts { pool, templates, asics, network_node, gonka, customer });
        let listener = TcpListener::bind(config.status_listen)
            .await
            .map_err(failed("status server", config.status_listen))?;
        let status_address =
            listener.local_addr().map_err(failed("status server", config.status_listen))?;
        tasks.spawn(status::serve(listener, Arc::clone(&parts), stop.clone()));
        Ok(Self { parts, status_address, stop, tasks })
    }

    /// Where the status document is served.
    #[must_use]
    pub const fn status_address(&self) -> SocketAddr {
        self.status_address
    }

    /// Ends everything and waits until it has ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        // A client that keeps its connection open must not keep us from ending.
        let patience = std::time::Duration::from_secs(2);
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::debug!("some connections were still open at the end");
        }
    }
}
