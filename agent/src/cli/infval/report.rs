//! What a validation found, in words and as JSON.

use std::fmt::Write as _;

use roadbed_compute::LogprobsMode;
use roadbed_compute::infval::{Judgement, Reason, SamplingVerdict, replay};
use serde_json::{Value, json};

use super::executed::{Executed, Told};
use crate::engine::ModelInfo;

/// What came of the replay.
pub(super) enum Replayed {
    Answered(Told),
    Refused {
        judgement: Judgement,
        answer: String,
    },
    /// The executor's answer alone settles it.
    NotAsked {
        judgement: Judgement,
    },
}

/// All that was found.
pub(super) struct Report<'a> {
    pub(super) judgement: Judgement,
    /// Of an answer that says it was drawn by the contract.
    pub(super) sampling: Option<replay::Replayed>,
    pub(super) threshold: f64,
    pub(super) mode: LogprobsMode,
    pub(super) executed: &'a Executed,
    pub(super) replayed: &'a Replayed,
    pub(super) info: &'a ModelInfo,
}

impl Report<'_> {
    pub(super) fn passes(&self) -> bool {
        let drawn_otherwise =
            self.sampling.as_ref().is_some_and(|found| found.verdict == SamplingVerdict::Fraud);
        self.judgement.passes && !drawn_otherwise
    }

    /// Why it passes or does not.
    fn reason(&self) -> String {
        if self.judgement.passes && !self.passes() {
            return "its tokens are not those that its draw gives".to_owned();
        }
        reason_text(&self.judgement.reason, self.threshold)
    }

    fn verdict(&self) -> &'static str {
        if self.passes() { "pass" } else { "fraud" }
    }

    const fn mode_word(&self) -> &'static str {
        match self.mode {
            LogprobsMode::Raw => "raw",
            LogprobsMode::Processed => "processed",
        }
    }

    fn counts(&self) -> (usize, Option<usize>) {
        let replayed = match self.replayed {
            Replayed::Answered(told) => Some(told.positions.len()),
            Replayed::Refused { .. } | Replayed::NotAsked { .. } => None,
        };
        (self.executed.told.positions.len(), replayed)
    }

    pub(super) fn document(&self) -> Value {
        let judgement = &self.judgement;
        let (executor, validator) = self.counts();
        let sampling = self.sampling.as_ref().map(|found| {
            json!({
                "verdict": found.verdict.word(), "honest": found.honest,
                "inconclusive": found.inconclusive, "reason": found.reason,
                "fraud_position": found.fraud.as_ref().map(|(position, _)| position),
                "fraud_token": found.fraud.as_ref().map(|(_, token)| token),
            })
        });
        json!({
            "verdict": self.verdict(),
            "reason": self.reason(),
            "similarity": judgement.similarity,
            "threshold": self.threshold,
            "per_token_distance": judgement.per_token,
            "passes_only_as_short": judgement.is_mild(self.threshold),
            "positions": executor,
            "replayed_positions": validator,
            "logprobs_mode": self.mode_word(),
            "sampling": sampling,
            "second_check": {
                "mean_logprob_difference": judgement.difference,
                "says_fraud": judgement.second_check_says_fraud(),
                "enforced": false,
            },
            "refusal": match self.replayed {
                Replayed::Answered(_) | Replayed::NotAsked { .. } => None,
                Replayed::Refused { answer, .. } => Some(answer),
            },
            "model": self.info.served_as,
            "adapter": self.info.adapter,
        })
    }

    pub(super) fn text(&self) -> String {
        let judgement = &self.judgement;
        let (executor, validator) = self.counts();
        let mut text = String::new();
        let mut line = |name: &str, words: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{name:<12}{words}");
        };
        line("model", format!("{} on {}", self.info.served_as, self.info.adapter));
        let replayed = validator.map_or_else(|| "none".to_owned(), |count| count.to_string());
        let mode = self.mode_word();
        line("positions", format!("{executor}, replayed {replayed}; {mode} log probabilities"));
        if let (Some(similarity), Some(per_token)) = (judgement.similarity, judgement.per_token) {
            line("similarity", format!("{similarity:.7}; passes above {}", self.threshold));
            line("per token", format!("{per_token:.2e} mean relative difference"));
        }
        if let (Some(difference), Some(fraud)) =
            (judgement.difference, judgement.second_check_says_fraud())
        {
            let says = if fraud { "would be fraud" } else { "is honest" };
            line(
                "2nd check",
                format!("{difference:.4} mean difference {says} (a placeholder, decides nothing)"),
            );
        }
        match &self.sampling {
            None => line("sampling", "not said to be drawn by the contract".to_owned()),
            Some(found) => line("sampling", sampling_text(found)),
        }
        if judgement.is_mild(self.threshold) {
            let note =
                "passes only because fewer than 100 tokens are judged mildly: the lists differ";
            line("caution", note.to_owned());
        }
        let verdict = self.verdict().to_uppercase();
        line("verdict", format!("{verdict}: {}", self.reason()));
        text
    }
}

fn sampling_text(found: &replay::Replayed) -> String {
    let word = found.verdict.word();
    match (&found.fraud, &found.reason) {
        (Some((position, token)), _) => {
            format!("{word}: position {position} draws token {token}")
        }
        (None, Some(reason)) => format!("{word}: {reason}"),
        (None, None) => format!("{word}: {} positions drawn again", found.honest),
    }
}

fn reason_text(reason: &Reason, threshold: f64) -> String {
    match reason {
        Reason::Refused { status } => {
            format!("the replay was refused with status {status}, which accuses nobody")
        }
        Reason::NothingListed => "neither side has log probabilities to compare".to_owned(),
        Reason::ListedByOneSide => "only one side has log probabilities".to_owned(),
        Reason::NotNumeric { position } => {
            format!("the token at position {position} is not named by its id")
        }
        Reason::TooShort { executor, validator } => {
            format!("the answer has {executor} tokens, its replay {validator}")
        }
        Reason::OtherToken { position, executor, validator } => {
            format!("token {executor} at position {position} is {validator} in the replay")
        }
        Reason::TooManyClaimed { claimed, counted } => format!(
            "{} and {} tokens of prompt and answer are claimed, {} and {} counted",
            claimed.prompt_tokens,
            claimed.completion_tokens,
            counted.prompt_tokens,
            counted.completion_tokens
        ),
        Reason::NotComparable => "a position has no list to compare".to_owned(),
        Reason::Similarity => format!("by similarity, against {threshold}"),
    }
}
