//! A front that speaks TLS and passes on to a stand-in that does not, with certificates made for tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where the certificates are.
pub const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tls");

/// Speaks TLS as `hub.test` at this machine.
///
/// # Errors
/// As [`tls_front_as`].
pub async fn tls_front(server: SocketAddr) -> anyhow::Result<SocketAddr> {
    tls_front_as("hub", IpAddr::V4(Ipv4Addr::LOCALHOST), server).await
}

/// Speaks TLS with the certificate of that name, at one of this machine's addresses, for as long as the program runs.
///
/// # Errors
/// The certificate or the address cannot be used.
pub async fn tls_front_as(
    name: &str,
    ip: IpAddr,
    server: SocketAddr,
) -> anyhow::Result<SocketAddr> {
    let file = |file: &str| format!("{CERTIFICATES}/{file}");
    let chain = vec![CertificateDer::from_pem_file(file(&format!("{name}.pem")))?];
    let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key")))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((ip, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us goes away here, and then nothing is to be done.
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let Ok(mut server) = TcpStream::connect(server).await else { return };
                if let Err(error) = copy_bidirectional(&mut inside, &mut server).await {
                    tracing::debug!(%error, "one side of a TLS front hung up");
                }
            });
        }
    });
    Ok(address)
}
