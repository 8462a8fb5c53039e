//! How a pull reaches a server: directly, or through the proxy that the environment names.
//!
//! `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` mean what they mean to curl. TLS is spoken with the server itself, through a
//! tunnel (`CONNECT`), so that a proxy sees neither the token nor the files. Plain http is for mirrors in the same
//! house and goes there directly.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(20);

type Failure = Box<dyn Error + Send + Sync>;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Dialler {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Dialler {
    pub(super) fn from_environment() -> Self {
        let mut direct = HttpConnector::new();
        direct.set_connect_timeout(Some(CONNECT_WAIT_MAX));
        direct.enforce_http(false);
        Self { direct, proxies: Arc::new(Matcher::from_env()) }
    }
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let proxy = match server.scheme_str() {
            Some("https") => self.proxies.intercept(&server),
            _ => None,
        };
        let Some(proxy) = proxy else {
            let direct = self.direct.call(server);
            return Box::pin(async { Ok(direct.await?) });
        };
        let (host, scheme) = (proxy.uri().authority().cloned(), proxy.uri().scheme_str());
        let host = host.map(|host| host.to_string()).unwrap_or_default();
        if scheme != Some("http") {
            let scheme = scheme.unwrap_or_default().to_owned();
            return Box::pin(async move {
                Err(format!(
                    "cannot use the proxy {host} by {scheme}: name one by http in HTTPS_PROXY"
                )
                .into())
            });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let way = tunnel.call(server);
        Box::pin(async move {
            way.await.map_err(|error| format!("through the proxy {host}: {error}").into())
        })
    }
}
