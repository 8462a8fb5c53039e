//! The transport of LuxOS: connect, send one JSON object, read until the miner closes.
//!
//! cgminer's old interface ends replies with a NUL byte and closes; LuxOS closes. Some proxies do
//! neither, so a reply also ends where it is complete JSON.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::field::excerpt;
use super::super::firmware::FirmwareError;
use super::reply;

/// A miner on the farm's own network answers a connect in milliseconds; one that needs longer is
/// rebooting or gone. Wall time, as all network time-outs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// From the request to the end of the reply. Chip reports take real miners about a second.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest reply read. The longest recorded one is 29 kB.
const REPLY_BYTES_MAX: usize = 256 * 1024;

/// Where a miner listens.
pub struct Wire {
    address: SocketAddr,
}

impl Wire {
    pub const fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// One command; the reply's own status is checked too.
    pub async fn request(
        &self,
        command: &'static str,
        parameter: Option<&str>,
    ) -> Result<Value, FirmwareError> {
        let mut request = json!({ "command": command });
        if let Some(parameter) = parameter {
            request["parameter"] = parameter.into();
        }
        let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address));
        let mut stream = match connect.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(error.to_string())),
            Err(_) => return Err(self.unreachable(format!("no connection in {CONNECT_TIMEOUT:?}"))),
        };
        let exchange = async {
            stream.write_all(format!("{request}\n").as_bytes()).await?;
            receive(&mut stream).await
        };
        match timeout(REPLY_TIMEOUT, exchange).await {
            Ok(Ok(bytes)) => reply::open(command, &bytes),
            Ok(Err(error)) => Err(self.unreachable(format!("{command}: {error}"))),
            Err(_) => {
                Err(self.unreachable(format!("{command}: no whole reply in {REPLY_TIMEOUT:?}")))
            }
        }
    }

    fn unreachable(&self, why: String) -> FirmwareError {
        FirmwareError::Unreachable { address: self.address.to_string(), why: excerpt(&why) }
    }
}

/// Bytes up to the end of the stream, of the JSON, or of what is read at all.
async fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let count = stream.read(&mut chunk).await?;
        bytes.extend_from_slice(&chunk[..count]);
        let ended = matches!(bytes.last(), Some(b'}' | b'\n' | 0));
        if count == 0 || bytes.len() > REPLY_BYTES_MAX || (ended && reply::is_whole(&bytes)) {
            bytes.truncate(REPLY_BYTES_MAX + 1);
            return Ok(bytes);
        }
    }
}

/// Longest reply read, for the reader of replies.
pub const fn reply_bytes_max() -> usize {
    REPLY_BYTES_MAX
}
