//! A stand-in for what lies between a rig and the Hub: a proxy that opens tunnels.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// A proxy for one name; knows no other.
pub struct ProxyStandIn {
    pub address: SocketAddr,
    /// First line of each request.
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl ProxyStandIn {
    /// Tunnels to `hub.test:443` end at `target`; without the right word nothing does.
    pub async fn start(target: SocketAddr, password: Option<&'static str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
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
