//! A stand-in for the Network Node's callback server: keeps what came, answers what it was told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;

/// One delivery, taken or not.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The path exactly as it came.
    pub path: String,
    pub bytes: Vec<u8>,
    pub body: Value,
    pub status: u16,
}

impl Delivery {
    pub fn nonces(&self) -> Vec<u64> {
        let artifacts = self.body["artifacts"].as_array().unwrap();
        artifacts.iter().map(|artifact| artifact["nonce"].as_u64().unwrap()).collect()
    }
}

#[derive(Default)]
struct Kept {
    deliveries: Vec<Delivery>,
    answers: VecDeque<u16>,
    /// Answered once `answers` is empty; 0 is 200.
    then: u16,
}

#[derive(Clone)]
pub struct Callback {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Callback {
    /// Answers these first, then 200.
    pub async fn start(answers: impl IntoIterator<Item = u16>) -> Self {
        let kept = Kept { answers: answers.into_iter().collect(), ..Kept::default() };
        let kept = Arc::new(Mutex::new(kept));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(Arc::clone(&kept));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, kept }
    }

    pub fn answer_always(&self, status: u16) {
        self.kept.lock().unwrap().then = status;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.kept.lock().unwrap().deliveries.clone()
    }

    pub fn taken(&self) -> Vec<Delivery> {
        self.deliveries().into_iter().filter(|delivery| delivery.status == 200).collect()
    }

    /// Nonces of everything taken, in the order it came.
    pub fn nonces(&self) -> Vec<u64> {
        self.taken().iter().flat_map(Delivery::nonces).collect()
    }
}

async fn take(State(kept): State<Arc<Mutex<Kept>>>, uri: Uri, bytes: Bytes) -> StatusCode {
    let mut kept = kept.lock().unwrap();
    let then = if kept.then == 0 { 200 } else { kept.then };
    let status = kept.answers.pop_front().unwrap_or(then);
    let body = serde_json::from_slice(&bytes).unwrap();
    let path = uri.path().to_owned();
    kept.deliveries.push(Delivery { path, bytes: bytes.to_vec(), body, status });
    StatusCode::from_u16(status).unwrap()
}
