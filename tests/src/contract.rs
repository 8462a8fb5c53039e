//! The MLNode contract as one table: requests, the state a node is in when they arrive, and what must come back.
//!
//! The table is `tests/data/gonka/contract.json` (its README says how it reads). Whatever claims to be an MLNode is a
//! [`Subject`]: it brings itself into a state the table names and says where it listens. So one table judges the face
//! of a rig, the gateway's face of the same rig and the fan-out over many, and a difference among them has to be
//! written down in the table, with its reason.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The table.
const TABLE: &str = include_str!("../data/gonka/contract.json");
/// Longest wait for a row that is repeated until it holds: far longer than a stand-in engine needs.
const UNTIL_MAX: Duration = Duration::from_secs(30);
const UNTIL_PAUSE: Duration = Duration::from_millis(10);
/// Characters of an answer shown with a failure.
const SHOWN_MAX: usize = 600;

/// Which kind of MLNode is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Face {
    /// An agent's own face.
    Rig,
    /// The gateway's face of one rig.
    GatewayRig,
    /// The gateway as one MLNode over all rigs.
    FanOut,
}

/// Where a node listens, now that it is in the state asked for.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Base address of management and inference routes, without a slash at its end.
    pub base_url: String,
    /// What each `{{word}}` of the table stands for.
    pub words: BTreeMap<String, Value>,
}

/// Something that claims to be an MLNode.
pub trait Subject {
    /// Which kind.
    fn face(&self) -> Face;
    /// Brings the node into a named state, fresh; `None` if this subject cannot be in it.
    fn bring(&mut self, given: &str) -> impl Future<Output = Option<Ground>> + Send;
}

/// What came of the table.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows that were sent.
    pub rows: usize,
    /// Rows that did not hold, each with its request and its answer.
    pub failures: Vec<String>,
    /// States the subject cannot be in.
    pub states_left_out: Vec<String>,
    /// Rows the table itself leaves out for this face, with the reason.
    pub rows_left_out: Vec<String>,
}

impl Report {
    /// Every failure, one under the other; empty if there is none.
    #[must_use]
    pub fn faults(&self) -> String {
        self.failures.join("\n\n")
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// The state of the node before the first row; later rows find what the earlier ones left.
    given: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What this row shows.
    says: String,
    method: String,
    path: String,
    /// Sent as JSON; without a Content-Type, as Go's client does, unless one is given.
    #[serde(default)]
    body: Option<Value>,
    /// Sent as it is.
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    token: Option<String>,
    status: u16,
    /// Part of the JSON that comes back.
    #[serde(default)]
    answer: Option<Value>,
    /// Part of the text that comes back; empty for an empty body.
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// JSON pointers into the answer, kept under a word for later rows.
    #[serde(default)]
    keep: BTreeMap<String, String>,
    /// Repeated until it holds.
    #[serde(default)]
    until: bool,
    #[serde(default)]
    except: BTreeMap<Face, Except>,
}

/// How a face differs from the table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Except {
    /// Why it may.
    why: String,
    /// What it answers instead; the row is left out if nothing is said.
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    answer: Option<Value>,
}

fn scenarios() -> Vec<Scenario> {
    match serde_json::from_str(TABLE) {
        Ok(scenarios) => scenarios,
        // The table is part of this program.
        Err(error) => vec![Scenario { given: format!("contract.json: {error}"), rows: vec![] }],
    }
}

/// Sends the whole table to a subject.
pub async fn run(subject: &mut impl Subject) -> Report {
    let mut report = Report::default();
    let face = subject.face();
    let http = Client::builder().no_proxy().build().unwrap_or_default();
    for scenario in scenarios() {
        if scenario.rows.is_empty() {
            report.failures.push(scenario.given);
            continue;
        }
        let Some(ground) = subject.bring(&scenario.given).await else {
            report.states_left_out.push(scenario.given);
            continue;
        };
        let mut words = ground.words;
        for row in scenario.rows {
            let Some(row) = row.for_face(face, &mut report) else { continue };
            report.rows += 1;
            if let Err(fault) = row.check(&http, &ground.base_url, &mut words).await {
                report.failures.push(format!("given {}: {}: {fault}", scenario.given, row.says));
            }
        }
    }
    report
}

impl Row {
    fn for_face(mut self, face: Face, report: &mut Report) -> Option<Self> {
        let Some(except) = self.except.remove(&face) else { return Some(self) };
        let Some(status) = except.status else {
            report.rows_left_out.push(format!("{}: {}", self.says, except.why));
            return None;
        };
        self.status = status;
        self.answer = except.answer;
        self.text = None;
        self.headers.clear();
        Some(self)
    }

    async fn check(
        &self,
        http: &Client,
        base_url: &str,
        words: &mut BTreeMap<String, Value>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + UNTIL_MAX;
        loop {
            let held = self.send(http, base_url, words).await;
            if held.is_ok() || !self.until || Instant::now() > deadline {
                return held;
            }
            tokio::time::sleep(UNTIL_PAUSE).await;
        }
    }

    async fn send(
        &self,
        http: &Client,
        base_url: &str,
        words: &mut BTreeMap<String, Value>,
    ) -> Result<(), String> {
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|e| e.to_string())?;
        let path = text_with(&self.path, words)?;
        let mut request = http.request(method, format!("{base_url}{path}"));
        if let Some(kind) = &self.content_type {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match (&self.body, &self.raw) {
            (Some(body), _) => Some(value_with(body, words)?.to_string()),
            (None, raw) => raw.clone(),
        };
        let sent = body.clone().unwrap_or_default();
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.map_err(|error| format!("no answer: {error:?}"))?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let text = answer.text().await.map_err(|error| format!("no body: {error:?}"))?;
        let told = |what: String| {
            let (sent, came) = (shortened(&sent), shortened(&text));
            format!("{} {path} {sent}\n  {what}\n  came: {status} {came}", self.method)
        };
        if status != self.status {
            return Err(told(format!("status {} expected", self.status)));
        }
        for (name, wanted) in &self.headers {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            if !value.is_some_and(|value| matches_text(value, wanted)) {
                return Err(told(format!("header {name}: {wanted} expected, {value:?} came")));
            }
        }
        if let Some(wanted) = &self.text {
            let wanted = text_with(wanted, words)?;
            let holds = if wanted.is_empty() { text.is_empty() } else { text.contains(&wanted) };
            if !holds {
                return Err(told(format!("text {wanted:?} expected")));
            }
        }
        if self.answer.is_none() && self.keep.is_empty() {
            return Ok(());
        }
        let value: Value =
            serde_json::from_str(&text).map_err(|e| told(format!("no JSON: {e}")))?;
        if let Some(wanted) = &self.answer {
            let wanted = value_with(wanted, words)?;
            holds(&value, &wanted, "").map_err(told)?;
        }
        for (word, pointer) in &self.keep {
            let kept =
                value.pointer(pointer).ok_or_else(|| told(format!("nothing at {pointer}")))?;
            words.insert(word.clone(), kept.clone());
        }
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// A word stands for its value where a text is nothing but `{{word}}`, and for its text inside one.
fn value_with(value: &Value, words: &BTreeMap<String, Value>) -> Result<Value, String> {
    match value {
        Value::String(text) => {
            let word = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            match word.filter(|word| !word.contains("{{")) {
                Some(word) => {
                    words.get(word).cloned().ok_or_else(|| format!("no word {word} is given"))
                }
                None => Ok(Value::String(text_with(text, words)?)),
            }
        }
        Value::Array(list) => list.iter().map(|value| value_with(value, words)).collect(),
        Value::Object(object) => {
            if let Some(count) = object.get("<count>").and_then(Value::as_u64) {
                return Ok((0..count).map(Value::from).collect());
            }
            let with = |(name, value): (&String, &Value)| {
                value_with(value, words).map(|value| (name.clone(), value))
            };
            object.iter().map(with).collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
    }
}

fn text_with(text: &str, words: &BTreeMap<String, Value>) -> Result<String, String> {
    let mut written = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (word, after) = after.split_once("}}").ok_or_else(|| format!("{text}: no }}}}"))?;
        let value = words.get(word).ok_or_else(|| format!("no word {word} is given"))?;
        written.push_str(before);
        match value.as_str() {
            Some(value) => written.push_str(value),
            None => written.push_str(&value.to_string()),
        }
        rest = after;
    }
    written.push_str(rest);
    Ok(written)
}

/// `<any>`, `<digits>`, or the text itself.
fn matches_text(value: &str, wanted: &str) -> bool {
    match wanted {
        "<any>" => true,
        "<digits>" => !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()),
        _ => value == wanted,
    }
}

/// Whether every field of `wanted` is in `whole`; lists must be of one length. `Err` says where they part.
fn holds(whole: &Value, wanted: &Value, place: &str) -> Result<(), String> {
    let expected = |what: &str| Err(format!("{place}: {what} expected, {whole} came"));
    match wanted {
        Value::String(kind) if kind.starts_with('<') => {
            let is = match kind.as_str() {
                "<any>" => true,
                "<number>" => whole.is_number(),
                "<number or null>" => whole.is_number() || whole.is_null(),
                "<text>" => whole.is_string(),
                "<list>" => whole.is_array(),
                "<bool>" => whole.is_boolean(),
                _ => return Err(format!("{place}: {kind} is no kind of value")),
            };
            if is { Ok(()) } else { expected(kind) }
        }
        Value::Object(wanted) => {
            let Value::Object(own) = whole else { return expected("an object") };
            for (name, value) in wanted {
                let place = format!("{place}/{name}");
                let own = own.get(name).ok_or_else(|| format!("{place} is missing"))?;
                holds(own, value, &place)?;
            }
            Ok(())
        }
        Value::Array(wanted) => {
            let Value::Array(own) = whole else { return expected("a list") };
            if own.len() != wanted.len() {
                return expected(&format!("a list of {}", wanted.len()));
            }
            for (at, (own, value)) in own.iter().zip(wanted).enumerate() {
                holds(own, value, &format!("{place}/{at}"))?;
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            if whole == wanted {
                Ok(())
            } else {
                expected(&wanted.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_can_be_read_and_says_what_it_leaves_out() {
        let scenarios = scenarios();
        let rows: Vec<&Row> = scenarios.iter().flat_map(|scenario| &scenario.rows).collect();
        assert!(rows.len() > 100, "{}: {:?}", rows.len(), scenarios.first());
        let mut said = BTreeSet::new();
        for (scenario, row) in scenarios.iter().flat_map(|s| s.rows.iter().map(move |r| (s, r))) {
            assert!(said.insert((&scenario.given, &row.says)), "twice: {}", row.says);
            assert!(row.except.values().all(|except| !except.why.is_empty()), "{}", row.says);
        }
    }

    #[test]
    fn a_difference_is_found_where_it_is() {
        let whole = json!({"a": [{"b": 1, "c": null}, "x"], "d": 2.5});
        assert!(holds(&whole, &json!({"a": [{"b": "<number>"}, "<text>"]}), "").is_ok());
        for (wanted, place) in [
            (json!({"a": [{"b": 2}, "x"]}), "/a/0/b"),
            (json!({"a": [{"b": 1}]}), "/a"),
            (json!({"e": "<any>"}), "/e"),
            (json!({"d": "<text>"}), "/d"),
            (json!({"d": "<nonsense>"}), "/d"),
        ] {
            let said = holds(&whole, &wanted, "").unwrap_err();
            assert!(said.starts_with(place), "{said}");
        }
    }

    #[test]
    fn words_are_put_in() {
        let words = BTreeMap::from([("n".to_owned(), json!(7)), ("s".to_owned(), json!("x"))]);
        let put = |value| value_with(&value, &words);
        assert_eq!(put(json!(["{{n}}", "a{{s}}b{{n}}"])), Ok(json!([7, "axb7"])));
        assert_eq!(put(json!({"nonces": {"<count>": 3}})), Ok(json!({"nonces": [0, 1, 2]})));
        assert!(put(json!("{{unknown}}")).is_err());
        assert!(put(json!("{{s")).is_err());
    }
}
