//! Stand-in of a paying customer: asks the OpenAI endpoint small questions, one after the other, and counts what comes back.
//!
//! A refusal (429, 409, 503) is an answer a customer can live with: the rig does something else now. A *failure* is an answer
//! that was promised and did not come: another status, a broken body, a connection lost after it was made. A door that is
//! shut altogether (no connection) is neither; it is counted apart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What is asked, in turn.
const QUESTIONS: [&str; 5] = [
    "What is a transformer station for?",
    "Name three things that need electricity at night.",
    "Write one sentence about the price of power.",
    "What is 7 plus 5?",
    "Say hello to the people of the farm.",
];
/// The read time-out of the original proxy.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(900);
/// Characters of the last answer kept for the status document.
const LAST_TEXT_CHARS_MAX: usize = 400;

/// The customer as the config file gives it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomerConfig {
    /// Address below which `/v1` lies.
    pub base_url: String,
    /// Model asked for.
    pub model: String,
    /// Wall milliseconds between questions.
    #[serde(default = "default_pause_wall_ms")]
    pub pause_wall_ms: u64,
    /// Longest answer wanted.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: u32,
}

fn default_pause_wall_ms() -> u64 {
    3_000
}

fn default_max_tokens() -> u32 {
    24
}

/// The customer's part of the status document.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CustomerStatus {
    /// Questions asked of an open door.
    pub asked: u64,
    /// Questions answered.
    pub answered: u64,
    /// Questions refused for now: 429, 409 or 503.
    pub refused: u64,
    /// Answers promised and not kept.
    pub failed: u64,
    /// Questions that found no door.
    pub unreached: u64,
    /// Tokens of all answers, as billed.
    pub tokens: u64,
    /// Model ids listed when they were asked for, once.
    pub models: Vec<String>,
    /// The last answer.
    pub last_text: String,
    /// Why the last failure was one.
    pub last_failure: Option<String>,
}

/// A running customer.
#[derive(Debug)]
pub struct Customer {
    status: Arc<Mutex<CustomerStatus>>,
}

/// Starts asking, until `stop`.
///
/// # Errors
/// That no HTTP client could be made.
pub fn start(
    config: &CustomerConfig,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<Customer> {
    let status = Arc::new(Mutex::new(CustomerStatus::default()));
    let client = reqwest::Client::builder()
        .timeout(ANSWER_TIME_MAX)
        .build()
        .map_err(std::io::Error::other)?;
    let asker = Asker {
        base: config.base_url.trim_end_matches('/').to_owned(),
        config: config.clone(),
        client,
        status: Arc::clone(&status),
    };
    tasks.spawn(asker.run(stop.clone()));
    Ok(Customer { status })
}

impl Customer {
    /// Its part of the status document.
    #[must_use]
    pub fn status(&self) -> CustomerStatus {
        lock(&self.status).clone()
    }
}

struct Asker {
    config: CustomerConfig,
    base: String,
    client: reqwest::Client,
    status: Arc<Mutex<CustomerStatus>>,
}

/// What became of a question.
enum Outcome {
    Answered { text: String, tokens: u64 },
    Refused,
    Failed(String),
    Unreached,
}

impl Asker {
    async fn run(self, stop: CancellationToken) {
        let mut questions = QUESTIONS.iter().cycle();
        let mut listed = false;
        loop {
            let question = questions.next().copied().unwrap_or_default();
            tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.ask(question) => self.count(outcome),
            }
            if !listed && lock(&self.status).answered > 0 {
                listed = true;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.list_models() => {}
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(self.config.pause_wall_ms)) => {}
            }
        }
    }

    async fn ask(&self, question: &str) -> Outcome {
        let body = json!({
            "model": self.config.model,
            "messages": [{ "role": "user", "content": question }],
            "max_tokens": self.config.max_tokens, "temperature": 0,
        });
        let sent =
            self.client.post(format!("{}/v1/chat/completions", self.base)).json(&body).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Outcome::Unreached,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        match response.status().as_u16() {
            200 => {}
            409 | 429 | 503 => return Outcome::Refused,
            status => return Outcome::Failed(format!("status {status}")),
        }
        let answer: Value = match response.json().await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Failed(format!("body: {error}")),
        };
        let text = answer.pointer("/choices/0/message/content");
        let tokens = answer.pointer("/usage/completion_tokens");
        match (text.and_then(Value::as_str), tokens.and_then(Value::as_u64)) {
            (Some(text), Some(tokens)) if tokens <= u64::from(self.config.max_tokens) => {
                Outcome::Answered { text: text.chars().take(LAST_TEXT_CHARS_MAX).collect(), tokens }
            }
            (Some(_), Some(tokens)) => {
                Outcome::Failed(format!("{tokens} tokens, more than asked for"))
            }
            (None, _) | (_, None) => {
                Outcome::Failed("no choices[0].message.content or no usage".to_owned())
            }
        }
    }

    async fn list_models(&self) {
        let url = format!("{}/v1/models", self.base);
        let Ok(response) = self.client.get(url).send().await else {
            return;
        };
        let Ok(list) = response.json::<Value>().await else {
            return;
        };
        lock(&self.status).models = list["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|model| Some(model["id"].as_str()?.to_owned()))
            .take(16)
            .collect();
    }

    fn count(&self, outcome: Outcome) {
        let mut status = lock(&self.status);
        match outcome {
            Outcome::Answered { text, tokens } => {
                status.asked += 1;
                status.answered += 1;
                status.tokens += tokens;
                status.last_text = text;
            }
            Outcome::Refused => {
                status.asked += 1;
                status.refused += 1;
            }
            Outcome::Failed(why) => {
                status.asked += 1;
                status.failed += 1;
                status.last_failure = Some(why);
            }
            Outcome::Unreached => status.unreached += 1,
        }
    }
}

fn lock(status: &Mutex<CustomerStatus>) -> MutexGuard<'_, CustomerStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
