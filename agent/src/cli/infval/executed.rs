//! What an executor was asked and answered, from a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use roadbed_compute::infval::decimal::python_text;
use roadbed_compute::infval::{
    Claimed, Filters, Listed, Position, SampledAnswer, SampledPosition, seed,
};
use serde_json::{Map, Value, json};

/// Larger than any answer: a whole context of tokens with twenty alternatives each takes a tenth of it.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// One answer with its request.
pub(super) struct Executed {
    request: Map<String, Value>,
    /// The model's name in the request.
    pub(super) model: Option<String>,
    pub(super) told: Told,
    /// What is needed to draw it again, if it says that it was drawn by the contract.
    pub(super) sampled: Option<SampledAnswer>,
}

/// What an answer tells of its tokens.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) positions: Vec<Position>,
    /// The texts that each token was drawn from.
    drawn_from: Vec<Option<BTreeMap<String, String>>>,
    pub(super) counted: Option<Claimed>,
}

impl Executed {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
        ensure!(bytes <= FILE_BYTES_MAX, "{name} has {bytes} bytes; at most {FILE_BYTES_MAX}");
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let document: Value =
            serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
        Self::of(&document).with_context(|| format!("{name} is no executed answer"))
    }

    fn of(document: &Value) -> anyhow::Result<Self> {
        let request = document["request"].as_object().context("`request` is no object")?.clone();
        ensure!(
            request.contains_key("messages") || request.contains_key("prompt"),
            "`request` has neither `messages` nor `prompt`"
        );
        let response = &document["response"];
        ensure!(response.is_object(), "`response` is no object");
        let parts = parts(response)?;
        let mut told = Told::default();
        parts.iter().for_each(|part| told.add(part));
        let sampled = parts
            .iter()
            .map(|part| &part["deterministic_sampling"])
            .find(|terms| terms.is_object())
            .and_then(|terms| sampled(&request, terms, document, &told));
        let model = request.get("model").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { request, model, told, sampled })
    }

    /// Where the request belongs.
    pub(super) fn path(&self) -> &'static str {
        let chat = self.request.contains_key("messages");
        if chat { "/v1/chat/completions" } else { "/v1/completions" }
    }

    /// The request with its answer to be scored, as the network's validators send it.
    pub(super) fn replay_request(&self, served_as: &str) -> Value {
        let mut request = self.request.clone();
        let enforced = |position: &Position| {
            let top = position.top.iter().map(|listed| listed.id.to_string());
            json!({"token": position.token, "top_tokens": top.collect::<Vec<_>>()})
        };
        let tokens: Vec<Value> = self.told.positions.iter().map(enforced).collect();
        request.insert("model".into(), json!(served_as));
        request.insert("stream".into(), json!(false));
        request.shift_remove("stream_options");
        request.shift_remove("deterministic_sampling");
        request.insert("enforced_tokens".into(), json!({ "tokens": tokens }));
        Value::Object(request)
    }
}

/// The parts of a response: itself, or the chunks of a stream.
fn parts(response: &Value) -> anyhow::Result<Vec<Value>> {
    let Some(events) = response.get("events").and_then(Value::as_array) else {
        return Ok(vec![response.clone()]);
    };
    let datas = events.iter().filter_map(Value::as_str).flat_map(str::lines);
    datas
        .filter_map(|line| line.strip_prefix("data:").map(str::trim))
        .filter(|data| !data.is_empty() && *data != "[DONE]")
        .map(|data| serde_json::from_str(data).context("an event of the stream is no JSON"))
        .collect()
}

/// What is needed to draw an answer again.
fn sampled(
    request: &Map<String, Value>,
    terms: &Value,
    document: &Value,
    told: &Told,
) -> Option<SampledAnswer> {
    let text = |name: &str| terms[name].as_str().unwrap_or_default().to_owned();
    // What the chain says goes before what the executor says.
    let asked = request.get("deterministic_sampling").map(|asked| &asked["inference_id"]);
    let known = [Some(&document["inference_id"]), asked, Some(&terms["inference_id"])];
    let inference_id = known.into_iter().flatten().find_map(Value::as_str)?;
    let number = |name: &str| request.get(name).and_then(Value::as_f64);
    let filters = Filters::new(
        number("temperature").unwrap_or(1.0),
        number("top_p"),
        request.get("top_k").and_then(Value::as_i64),
        number("min_p"),
    );
    let user_seed = request.get("seed").and_then(Value::as_i64);
    let base_seed = user_seed.and_then(|seed| seed::derive(seed, inference_id).ok())?;
    let positions = told.positions.iter().zip(&told.drawn_from).map(|(position, listed)| {
        SampledPosition { token: position.token.clone(), listed: listed.clone() }
    });
    Some(SampledAnswer {
        version: text("contract_version"),
        seed_domain: text("seed_domain"),
        base_seed,
        filters,
        positions: positions.collect(),
    })
}

impl Told {
    pub(super) fn read(answer: &Value) -> Self {
        let mut told = Self::default();
        told.add(answer);
        told
    }

    /// Adds a part. Where there are several choices, the first counts, as with the network's validators.
    fn add(&mut self, part: &Value) {
        let count = |name: &str| part["usage"][name].as_u64();
        let counts = count("prompt_tokens").zip(count("completion_tokens"));
        if let Some((prompt_tokens, completion_tokens)) = counts {
            self.counted = Some(Claimed { prompt_tokens, completion_tokens });
        }
        let first = |choice: &&Value| choice["index"].as_u64().unwrap_or(0) == 0;
        let choice = part["choices"].as_array().and_then(|choices| choices.iter().find(first));
        let logprobs = choice.map_or(&Value::Null, |choice| &choice["logprobs"]);
        for entry in logprobs["content"].as_array().into_iter().flatten() {
            let listed = entry["top_logprobs"].as_array().into_iter().flatten();
            let pairs = listed.map(|top| (top["token"].as_str(), top["logprob"].as_f64()));
            self.push(&entry["token"], pairs, &entry["drawn_from"]);
        }
        for (at, token) in logprobs["tokens"].as_array().into_iter().flatten().enumerate() {
            let listed = logprobs["top_logprobs"][at].as_object().into_iter().flatten();
            let pairs = listed.map(|(name, logprob)| (Some(name.as_str()), logprob.as_f64()));
            self.push(token, pairs, &logprobs["drawn_from"][at]);
        }
    }

    fn push<'a>(
        &mut self,
        token: &Value,
        listed: impl Iterator<Item = (Option<&'a str>, Option<f64>)>,
        drawn_from: &Value,
    ) {
        let plain = |name: &str| name.strip_prefix("token_id:").unwrap_or(name).to_owned();
        let mut position =
            Position { token: plain(token.as_str().unwrap_or_default()), top: vec![] };
        let mut texts = BTreeMap::new();
        for (name, logprob) in listed {
            let (Some(name), Some(logprob)) = (name, logprob) else { continue };
            match plain(name).parse() {
                Ok(id) => position.top.push(Listed { id, logprob }),
                // A word among the alternatives is as bad as one in the token's place.
                Err(_) => position.token = name.to_owned(),
            }
            texts.insert(plain(name), python_text(logprob));
        }
        let read = drawn_from.as_object().map(|listed| {
            let text = |(id, text): (&String, &Value)| {
                (id.clone(), text.as_str().unwrap_or_default().to_owned())
            };
            listed.iter().map(text).collect()
        });
        // An executor that gives no texts drew from the numbers that it gave.
        self.drawn_from.push(read.or_else(|| (!texts.is_empty()).then_some(texts)));
        self.positions.push(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: &str) -> Value {
        let top = json!([{"token": id, "logprob": -0.5}, {"token": "9", "logprob": -1.5}]);
        json!({"token": id, "logprob": -0.5, "top_logprobs": top})
    }

    fn chunk(id: &str) -> Value {
        json!({"choices": [{"index": 0, "logprobs": {"content": [entry(id)]}}]})
    }

    #[test]
    fn whole_and_streamed_answers_tell_the_same() {
        let request = json!({"messages": [], "model": "m", "seed": 1, "stream": true});
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 2});
        let whole = json!({"choices": [{"logprobs": {"content": [entry("5"), entry("6")]}}],
            "usage": usage});
        let last = json!({"choices": [], "usage": usage});
        let events: Vec<String> = [chunk("5"), chunk("6"), last]
            .iter()
            .map(|chunk| format!("data: {chunk}\n\n"))
            .chain(["data: [DONE]".to_owned()])
            .collect();
        let read = |response: Value| {
            Executed::of(&json!({"request": request, "response": response})).unwrap()
        };
        let (whole, streamed) = (read(whole), read(json!({ "events": events })));
        assert_eq!(whole.told.positions, streamed.told.positions);
        assert_eq!(whole.told.positions[1].token, "6");
        let counted = Claimed { prompt_tokens: 3, completion_tokens: 2 };
        assert_eq!((whole.told.counted, streamed.told.counted), (Some(counted), Some(counted)));
        let replay = whole.replay_request("mine");
        assert_eq!((&replay["model"], &replay["stream"]), (&json!("mine"), &json!(false)));
        let enforced = json!({"tokens": [{"token": "5", "top_tokens": ["5", "9"]},
            {"token": "6", "top_tokens": ["6", "9"]}]});
        assert_eq!(replay["enforced_tokens"], enforced);
    }

    #[test]
    fn words_in_place_of_ids_are_found() {
        let told = Told::read(&chunk("word"));
        assert_eq!(told.positions[0].token, "word");
        let mut other = chunk("token_id:7");
        assert_eq!(Told::read(&other).positions[0].token, "7");
        other["choices"][0]["logprobs"]["content"][0]["top_logprobs"][1]["token"] = json!("word");
        assert_eq!(Told::read(&other).positions[0].token, "word");
    }

    #[test]
    fn other_documents_are_refused_with_what_is_wrong() {
        let refused = |document: Value| Executed::of(&document).err().unwrap().to_string();
        assert!(refused(json!([])).contains("`request`"));
        assert!(refused(json!({"request": {}, "response": {}})).contains("neither"));
        assert!(refused(json!({"request": {"prompt": "a"}})).contains("`response`"));
        let events = json!({"events": ["data: {"]});
        let broken = json!({"request": {"prompt": "a"}, "response": events});
        assert!(refused(broken).contains("no JSON"));
    }

    proptest! {
        #[test]
        fn any_response_is_read_or_refused(text in "[\\[\\]{}\",:0-9a-z.-]{0,60}") {
            let value: Value = serde_json::from_str(&text).unwrap_or(json!(text));
            for response in [json!({"choices": value}), json!({"choices": [{"logprobs": value}]}),
                json!({"events": value}), json!({"choices": [{"logprobs": {"content": value}}]})]
            {
                drop(Executed::of(&json!({"request": {"prompt": "a"}, "response": response})));
            }
        }
    }
}
