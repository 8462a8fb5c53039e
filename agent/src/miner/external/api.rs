//! Asking a miner's API on this machine: bounded in time and size.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::reply::Figures;
use crate::config::miner_profile::{ApiDialect, Blanks, MinerProfile};

/// A miner on this machine answers in milliseconds; one that builds a DAG, in seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Longest answer read: a rig of sixteen cards says 20 KiB.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;

/// A miner's API at one start.
#[derive(Clone)]
pub struct Api {
    profile: MinerProfile,
    port: u16,
    headers: Vec<(String, String)>,
    http: reqwest::Client,
}

impl Api {
    /// # Errors
    /// A header with a blank that has no value, or no HTTP client.
    pub fn new(profile: &MinerProfile, port: u16, blanks: &Blanks) -> Result<Self, String> {
        let mut headers = Vec::new();
        for (name, value) in &profile.api.headers {
            let value = value.fill(blanks).map_err(|blank| format!("{blank} has no value"))?;
            headers.push((name.clone(), value));
        }
        // Nobody stands between us and ourselves, and an answer that points elsewhere is none.
        let http =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = http.timeout(ANSWER_WITHIN).build().map_err(|error| error.to_string())?;
        Ok(Self { profile: profile.clone(), port, headers, http })
    }

    /// Asks every question of the profile.
    ///
    /// # Errors
    /// What was not answered, and how.
    pub async fn look(self) -> Result<Figures, String> {
        let mut answers = Map::new();
        for (name, what) in &self.profile.api.ask {
            let answer = self.ask(what).await.map_err(|problem| format!("{what}: {problem}"))?;
            answers.insert(name.clone(), answer);
        }
        Ok(Figures::read(&self.profile, &Value::Object(answers)))
    }

    /// Tells it to end, if it can be told.
    ///
    /// # Errors
    /// It did not take it; many end before they answer.
    pub async fn stop(self) -> Result<(), String> {
        let Some(what) = &self.profile.stop else { return Ok(()) };
        let answered = self.exchange(what).await.map(drop);
        answered.map_err(|problem| format!("{what}: {problem}"))
    }

    async fn ask(&self, what: &str) -> Result<Value, String> {
        let bytes = self.exchange(what).await?;
        // cgminer ends its answer with a zero byte.
        let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
        serde_json::from_slice(text).map_err(|error| format!("its answer is no JSON: {error}"))
    }

    async fn exchange(&self, what: &str) -> Result<Vec<u8>, String> {
        let exchange = async {
            match self.profile.api.dialect {
                ApiDialect::HttpJson => self.get(what).await,
                ApiDialect::CgminerTcp => self.single_shot(what).await,
            }
        };
        let bounded = tokio::time::timeout(ANSWER_WITHIN, exchange).await;
        bounded
            .unwrap_or_else(|_elapsed| Err(format!("no answer in {} s", ANSWER_WITHIN.as_secs())))
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let mut request = self.http.get(format!("http://127.0.0.1:{}{path}", self.port));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let said = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = request.send().await.map_err(said)?;
        if !answer.status().is_success() {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(said)? {
            append(&mut bytes, &piece)?;
        }
        Ok(bytes)
    }

    async fn single_shot(&self, request: &str) -> Result<Vec<u8>, String> {
        let said = |error: std::io::Error| error.to_string();
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.map_err(said)?;
        socket.write_all(format!("{request}\n").as_bytes()).await.map_err(said)?;
        let (mut bytes, mut piece) = (Vec::new(), [0; 8 << 10]);
        loop {
            match socket.read(&mut piece).await.map_err(said)? {
                0 => return Ok(bytes),
                count => append(&mut bytes, &piece[..count])?,
            }
        }
    }
}

fn append(bytes: &mut Vec<u8>, piece: &[u8]) -> Result<(), String> {
    if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
        return Err(format!("its answer is longer than {} KiB", ANSWER_BYTES_MAX >> 10));
    }
    bytes.extend_from_slice(piece);
    Ok(())
}
