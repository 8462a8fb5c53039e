//! Stand-ins for what lies between a rig and the Hub: a front that speaks TLS, and a proxy that opens tunnels.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates made for tests: the front's name is `hub.test`.
pub const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tls");

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn listener(ip: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Speaks TLS as `hub.test` and passes on to a server that does not.
pub async fn tls_front(server: SocketAddr) -> SocketAddr {
    tls_front_as("hub", LOCALHOST, server).await
}

/// The same with one of the certificates, at one of this machine's addresses.
pub async fn tls_front_as(name: &str, ip: IpAddr, server: SocketAddr) -> SocketAddr {
    let file = |file: &str| format!("{CERTIFICATES}/{file}");
    let chain = vec![CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listener(ip).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us goes away here.
                if let Ok(mut inside) = acceptor.accept(stream).await {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut inside, &mut server).await;
                }
            });
        }
    });
    address
}

/// A proxy for one name; knows no other.
pub struct ProxyStandIn {
    pub address: SocketAddr,
    /// First line of each request.
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl ProxyStandIn {
    /// Tunnels to `hub.test:443` end at `target`; without the right word nothing does.
    pub async fn start(target: SocketAddr, password: Option<&'static str>) -> Self {
        let (listener, address) = listener(LOCALHOST).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, target, password, Arc::clone(&told)));
            }
        });
        Self { address, seen }
    }
}

async fn tunnel(
    stream: TcpStream,
    target: SocketAddr,
    password: Option<&'static str>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    let mut client = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        match line.trim() {
            "" => break,
            words => head.push(words.to_owned()),
        }
    }
    let word = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    seen.lock().unwrap().push(head[0].clone());
    let refusal = if word.as_deref() != password {
        "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    } else if head[0] != "CONNECT hub.test:443 HTTP/1.1" {
        "HTTP/1.1 502 Bad Gateway\r\n\r\n"
    } else {
        ""
    };
    if !refusal.is_empty() {
        let _ = client.write_all(refusal.as_bytes()).await;
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
