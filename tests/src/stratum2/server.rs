//! The stand-in pool behind a socket: one double a connection, and one account of what was judged on all of them.
//!
//! Misbehaves when ordered to: [`PoolServer::cut`] ends every connection in the middle of a frame, and a dropped server is
//! a dead one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pool::{Manners, PoolDouble};
use super::wire::{Authority, WireError};

/// Orders a connection may lag behind by.
const ORDERS_MAX: usize = 64;
/// Messages kept in the account.
const HEARD_MAX: usize = 1_000;

/// What was judged, over all connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Connections accepted.
    pub connections: u64,
    /// Shares that were good.
    pub good: u64,
    /// Codes of those that were not.
    pub refused: Vec<&'static str>,
    /// Messages of miners that are neither setup nor shares.
    pub heard: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Block,
    Cut,
}

/// A pool that listens; dropping it ends it and its connections.
pub struct PoolServer {
    address: SocketAddr,
    account: Arc<Mutex<Account>>,
    orders: broadcast::Sender<Order>,
    _stop: DropGuard,
}

impl PoolServer {
    /// Listens at this address.
    ///
    /// # Errors
    /// What binding said.
    pub async fn start(
        listen: SocketAddr,
        authority: Authority,
        manners: Manners,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let (orders, _) = broadcast::channel(ORDERS_MAX);
        let account = Arc::<Mutex<Account>>::default();
        let (own, told, ended) = (account.clone(), orders.clone(), stop.clone());
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                lock(&own).connections += 1;
                let Ok(pool) = PoolDouble::new(&authority, manners.clone()) else { break };
                let serve = serve(stream, pool, own.clone(), told.subscribe());
                let ended = ended.clone();
                tokio::spawn(async move { ended.run_until_cancelled(serve).await });
            }
        };
        let over = stop.clone();
        tokio::spawn(async move { over.run_until_cancelled(accept).await });
        Ok(Self { address, account, orders, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was judged so far.
    #[must_use]
    pub fn account(&self) -> Account {
        lock(&self.account).clone()
    }

    /// A new block was found.
    pub fn block(&self) {
        // Nobody may be connected.
        let _ = self.orders.send(Order::Block);
    }

    /// Ends every connection in the middle of a frame.
    pub fn cut(&self) {
        let _ = self.orders.send(Order::Cut);
    }
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    mut stream: TcpStream,
    mut pool: PoolDouble,
    account: Arc<Mutex<Account>>,
    mut orders: broadcast::Receiver<Order>,
) -> Result<(), WireError> {
    let mut chunk = [0; 4_096];
    loop {
        let (bytes, goes_on) = tokio::select! {
            read = stream.read(&mut chunk) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => (pool.take(&chunk[..count])?, true),
            },
            Ok(order) = orders.recv() => {
                let mut bytes = pool.block()?;
                let cut = match order {
                    Order::Block => bytes.len(),
                    Order::Cut => bytes.len() / 2,
                };
                let whole = cut == bytes.len();
                bytes.truncate(cut);
                (bytes, whole)
            }
        };
        {
            let mut account = lock(&account);
            for (_, fault) in pool.verdicts.drain(..) {
                match fault {
                    Some(code) => account.refused.push(code),
                    None => account.good += 1,
                }
            }
            let room = HEARD_MAX.saturating_sub(account.heard.len());
            account.heard.extend(pool.heard.drain(..).take(room));
        }
        if stream.write_all(&bytes).await.is_err() {
            return Ok(());
        }
        if !goes_on {
            hang_up(stream).await;
            return Ok(());
        }
    }
}

/// Ends a connection so that what was sent arrives: a socket that is closed over unread shares takes it along.
pub async fn hang_up(mut stream: TcpStream) {
    let mut chunk = [0; 4_096];
    if stream.shutdown().await.is_ok() {
        while stream.read(&mut chunk).await.is_ok_and(|count| count > 0) {}
    }
}
