//! Inference validation: a chat is sampled on one node, scored on another by its exact tokens, and the two are compared.
//!
//! The comparison is the original's: for every position the validator's logprobs against the executor's, missing tokens
//! taken as one step below its lowest; `1 - sum / (max(100, positions) * K)`.

use serde_json::{Value, json};

use super::broker::{Base, Caller};
use super::registry::NodeConfig;
use super::world::lock;

/// Fewest positions a sum is spread over.
const POSITIONS_MIN: f64 = 100.0;
/// Logprobs asked for at every position.
const TOP: u64 = 5;
/// Tokens of the answer.
const ANSWER_TOKENS: u64 = 24;

/// One position of an answer: its token, and the tokens considered with their logprobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Chosen.
    pub token: String,
    /// Considered.
    pub top: Vec<(String, f64)>,
}

impl Caller {
    /// Sends a chat to `executor`, has `validator` score it, and keeps the similarity.
    ///
    /// # Errors
    /// What the answers lacked.
    pub(super) async fn validate_inference(
        &self,
        executor: &str,
        validator: &str,
        prompt: &str,
    ) -> Result<f64, String> {
        let (executor, model, seed) = self.party(executor)?;
        let (validator, _, _) = self.party(validator)?;
        let mut body = json!({
            "model": model, "messages": [{ "role": "user", "content": prompt }],
            "logprobs": true, "top_logprobs": TOP, "seed": seed, "temperature": 0.7,
            "max_tokens": ANSWER_TOKENS, "max_completion_tokens": ANSWER_TOKENS,
            "skip_special_tokens": false, "return_token_ids": true, "stream": false,
        });
        let said = self.chat(&executor, &body).await?;
        let tokens: Vec<Value> = said
            .iter()
            .map(|position| {
                let top: Vec<&str> = position.top.iter().map(|(token, _)| token.as_str()).collect();
                json!({ "token": position.token, "top_tokens": top })
            })
            .collect();
        body["enforced_tokens"] = json!({ "tokens": tokens });
        let scored = self.chat(&validator, &body).await?;
        let similarity = similarity(&said, &scored)?;
        lock(self.world()).counters.similarities.push(similarity);
        Ok(similarity)
    }

    fn party(&self, id: &str) -> Result<(NodeConfig, String, i64), String> {
        let world = lock(self.world());
        let node = world.registry.get(id).ok_or_else(|| format!("no node {id}"))?;
        let model = world.config.model_for(&node.config).ok_or("no model")?;
        Ok((node.config.clone(), model.id.clone(), world.chain.draw("inference") & 0x7fff_ffff))
    }

    async fn chat(&self, node: &NodeConfig, body: &Value) -> Result<Vec<Position>, String> {
        let path = "/v1/chat/completions";
        let answer = self.call(node, Base::Inference, path, Some(body), true).await;
        let answer = answer.ok_or("no answer")?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.body));
        }
        positions(&answer.body)
            .ok_or_else(|| format!("an answer without logprobs: {}", answer.body))
    }
}

/// The positions of a chat completion.
#[must_use]
pub fn positions(answer: &Value) -> Option<Vec<Position>> {
    let content = answer.pointer("/choices/0/logprobs/content")?.as_array()?;
    content
        .iter()
        .map(|position| {
            let top = position["top_logprobs"].as_array()?.iter();
            let pair =
                |one: &Value| Some((one["token"].as_str()?.to_owned(), one["logprob"].as_f64()?));
            Some(Position {
                token: position["token"].as_str()?.to_owned(),
                top: top.map(pair).collect::<Option<_>>()?,
            })
        })
        .collect()
}

/// How alike an answer and its replay are, from 0 to 1.
///
/// # Errors
/// When the tokens differ or the replay is shorter.
#[expect(clippy::cast_precision_loss, reason = "answers have thousands of tokens at most")]
pub fn similarity(said: &[Position], scored: &[Position]) -> Result<f64, String> {
    if scored.len() < said.len() {
        return Err(format!("{} positions scored of {}", scored.len(), said.len()));
    }
    let top = said.first().map_or(0, |position| position.top.len());
    if top == 0 {
        return Err("no logprobs at the first position".to_owned());
    }
    let mut sum = 0.0;
    for (place, (one, other)) in said.iter().zip(scored).enumerate() {
        if one.token != other.token {
            return Err(format!("position {place}: {} became {}", one.token, other.token));
        }
        let missing = one_below_the_lowest(&one.top);
        for (token, scored) in &other.top {
            let own =
                one.top.iter().find(|(known, _)| known == token).map_or(missing, |(_, own)| *own);
            sum += (scored - own).abs() / (1e-6 + own.abs() + scored.abs()) / 2.0;
        }
    }
    Ok((1.0 - sum / ((said.len() as f64).max(POSITIONS_MIN) * top as f64)).max(0.0))
}

/// What a token that was not considered counts as: as far below the lowest as that is below the next.
fn one_below_the_lowest(top: &[(String, f64)]) -> f64 {
    let mut lowest: Vec<f64> = top.iter().map(|(_, logprob)| *logprob).collect();
    lowest.sort_by(f64::total_cmp);
    let first = lowest.first().copied().unwrap_or(0.0);
    let second = lowest.get(1).copied().unwrap_or(first - 100.0);
    2.0 * first - second
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(token: &str, top: &[(&str, f64)]) -> Position {
        let top = top.iter().map(|(token, logprob)| ((*token).to_owned(), *logprob)).collect();
        Position { token: token.to_owned(), top }
    }

    #[test]
    fn the_same_answer_is_alike_and_another_is_not() {
        let said = vec![at("1", &[("1", -0.5), ("2", -1.5)]); 3];
        assert_eq!(similarity(&said, &said), Ok(1.0));
        // One of two tokens unknown at each of three positions: taken as -2.5, found at -1.5.
        let other = vec![at("1", &[("1", -0.5), ("3", -1.5)]); 3];
        let got = similarity(&said, &other).unwrap();
        let want = 1.0 - 3.0 * (1.0 / (1e-6 + 4.0) / 2.0) / 200.0;
        assert!((got - want).abs() < 1e-12, "{got} {want}");
        assert!(similarity(&said, &said[..2]).is_err());
        assert!(similarity(&said, &vec![at("2", &[("2", -0.5)]); 3]).is_err());
        assert!(similarity(&[], &[]).is_err());
    }
}
