//! What the stand-ins saw and judged, beside what the controller was told of it.

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use serde::Deserialize;

use crate::view::FarmView;
use crate::web::{Asked, Web};

/// Time for the status document; it is made from memory on the same machine.
const FETCH_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);
/// Largest page looked at: the status document of a long demo is below one megabyte.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The stand-ins' status document, as far as it is judged here, with the controller's own counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Judgements {
    /// The pool re-hashed every share.
    pub pool: Pool,
    /// The Network Node measured every artifact.
    pub network_node: NetworkNode,
    /// The customer read every answer.
    pub customer: Customer,
    /// The miners' last readings.
    pub asics: Vec<Miner>,
    /// What the agents reported of the same things.
    #[serde(skip)]
    pub booked: Booked,
    /// Requests that the controller's gateway passed on, by its own count.
    #[serde(skip)]
    pub passed: u64,
}

/// The pool's counters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// Shares received.
    pub submitted: u64,
    /// Shares that were good.
    pub accepted: u64,
    /// Shares that were not.
    pub rejected: Rejected,
    /// Sum of difficulties of good shares.
    pub accepted_difficulty: f64,
}

/// Refused shares by reason.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Rejected {
    /// For work that was void: can happen to anybody.
    pub stale: u64,
    /// Sent twice.
    pub duplicate: u64,
    /// Above the target: the miner hashes wrongly.
    pub low_difficulty: u64,
    /// Anything else.
    pub other: u64,
}

/// The Network Node's rounds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NetworkNode {
    /// Every window it opened.
    pub rounds: Vec<Round>,
    /// Breaches of the contract.
    pub errors: Vec<String>,
}

/// One window.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Round {
    /// Farm time of its start, if it started.
    pub started_farm_ms: Option<i64>,
    /// Different artifacts received.
    pub artifacts: u64,
    /// Artifacts received again.
    pub duplicates: u64,
    /// Artifacts held against golden vectors.
    pub judged: u64,
    /// Largest L2 distance of those.
    pub distance_max: f64,
    /// Mean of those.
    pub distance_mean: f64,
    /// Verdict over honest artifacts.
    pub validation: Option<Verdict>,
    /// Verdict over artifacts that were spoiled on purpose.
    pub corrupted_validation: Option<Verdict>,
}

/// A verdict of our own validation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Artifacts checked.
    pub n_total: u32,
    /// Of them, different.
    pub n_mismatch: u32,
    /// Whether that is fraud.
    pub fraud_detected: bool,
}

/// The customer's counters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Customer {
    /// Questions asked.
    pub asked: u64,
    /// Answers read.
    pub answered: u64,
    /// Refused for now.
    pub refused: u64,
    /// Promised and not kept.
    pub failed: u64,
    /// Tokens of all answers.
    pub tokens: u64,
    /// The last answer.
    pub last_text: String,
    /// Why the last failure was one.
    pub last_failure: Option<String>,
}

/// One emulated miner.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Miner {
    /// Its id.
    pub id: String,
    /// What it does.
    pub state: String,
    /// Power now.
    pub watts: u64,
    /// Orders it was given.
    pub commands: u64,
}

/// Sums of what agents reported to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Booked {
    /// Shares the pool is said to have accepted.
    pub shares_accepted: u64,
    /// Completions answered.
    pub completions: u64,
    /// Artifacts the Network Node is said to have taken.
    pub artifacts_delivered: u64,
}

impl Booked {
    /// The counts of a view.
    #[must_use]
    pub fn of(view: &FarmView) -> Self {
        let mut booked = Self::default();
        for rig in &view.rigs {
            booked.shares_accepted += rig.jobs.shares_accepted;
            booked.completions += rig.jobs.completions;
            booked.artifacts_delivered += rig.jobs.artifacts_delivered;
        }
        booked
    }
}

/// Requests that the gateway at `url` passed to rigs, from its metrics page.
///
/// # Errors
/// When it does not answer, or does not count them.
pub(super) async fn passed(url: &str) -> anyhow::Result<u64> {
    const FAMILY: &str = "roadbed_gateway_requests_total{";
    let page = fetched(&format!("{url}/metrics")).await?;
    let page = String::from_utf8_lossy(&page);
    let counts = page.lines().filter(|line| line.starts_with(FAMILY));
    let counts: Vec<u64> =
        counts.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    anyhow::ensure!(!counts.is_empty(), "the gateway's metrics have no {FAMILY}..}}");
    Ok(counts.iter().sum())
}

async fn fetched(url: &str) -> anyhow::Result<Bytes> {
    let (method, wait) = (Method::GET, FETCH_DEADLINE);
    let asked = Asked { method, url, login: None, json: None, wait, bytes_max: PAGE_BYTES_MAX };
    let reply = Web::to(url, None).ask(asked).await.with_context(|| format!("asking {url}"))?;
    Ok(reply.body)
}

impl Judgements {
    /// Asks the stand-ins.
    ///
    /// # Errors
    /// When they do not answer or answer something else.
    pub async fn fetch(url: &str) -> anyhow::Result<Self> {
        let answer = fetched(url).await?;
        serde_json::from_slice(&answer).with_context(|| format!("reading {url}"))
    }

    /// Artifacts the Network Node holds.
    #[must_use]
    pub fn artifacts(&self) -> u64 {
        self.network_node.rounds.iter().map(|round| round.artifacts).sum()
    }

    /// Things the other side holds and the controller was not told of: shares, answers, artifacts.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.pool.accepted.saturating_sub(self.booked.shares_accepted)
            + self.customer.answered.saturating_sub(self.booked.completions)
            + self.artifacts().saturating_sub(self.booked.artifacts_delivered)
    }
}
