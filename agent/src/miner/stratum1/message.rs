//! Lines of a Stratum V1 server, read with tolerance.
//!
//! Stratum V1 is JSON-RPC as every pool understands it: ids come as numbers, as text or as null,
//! `params` may be missing, errors are lists, objects or text. What can be understood is; the rest
//! is one countable error, never a panic.

use serde_json::Value;

/// Longest text of a server kept for logs.
const TEXT_CHARACTERS_MAX: usize = 160;

/// One line of a server.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerLine {
    /// An answer to one of our requests.
    Answer {
        /// Id of the request.
        id: u64,
        /// What it gave, or why not.
        outcome: Result<Value, Refusal>,
    },
    /// Something the server tells or asks by itself; `id` is there when it wants an answer.
    Call {
        /// Id as it came, to be sent back unchanged.
        id: Option<Value>,
        /// The method.
        method: String,
        /// Its parameters; null when there are none.
        params: Value,
    },
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stratum's code, when there is one.
    pub code: Option<i64>,
    /// The server's words, cut and cleaned.
    pub text: String,
}

/// A line that is no Stratum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {excerpt:?}")]
pub struct LineError {
    /// What is wrong.
    pub why: &'static str,
    /// Its beginning.
    pub excerpt: String,
}

/// Reads one line, without its end.
///
/// # Errors
/// [`LineError`] when it is neither an answer nor a call.
pub fn read(line: &str) -> Result<ServerLine, LineError> {
    let wrong = |why| LineError { why, excerpt: clean(line) };
    let value: Value = serde_json::from_str(line).map_err(|_| wrong("no JSON"))?;
    if !value.is_object() {
        return Err(wrong("no object"));
    }
    let id = value.get("id").filter(|id| !id.is_null());
    if let Some(method) = value.get("method").and_then(Value::as_str) {
        let params = value.get("params").cloned().unwrap_or(Value::Null);
        return Ok(ServerLine::Call { id: id.cloned(), method: method.to_owned(), params });
    }
    let Some(id) = id.and_then(as_number) else {
        return Err(wrong("neither a method nor the id of a request"));
    };
    let outcome = match value.get("error") {
        None | Some(Value::Null | Value::Bool(false)) => {
            Ok(value.get("result").cloned().unwrap_or(Value::Null))
        }
        Some(error) => Err(refusal(error)),
    };
    Ok(ServerLine::Answer { id, outcome })
}

/// Some servers send our id back as text.
fn as_number(id: &Value) -> Option<u64> {
    id.as_u64().or_else(|| id.as_str()?.trim().parse().ok())
}

/// `[code, "text", traceback]`, `{"code": .., "message": ..}` or a bare text.
fn refusal(error: &Value) -> Refusal {
    let at = |index: usize, name: &str| error.get(index).or_else(|| error.get(name));
    let code = at(0, "code").and_then(Value::as_i64);
    let text = error.as_str().or_else(|| at(1, "message").and_then(Value::as_str));
    Refusal { code, text: text.map_or_else(|| clean(&error.to_string()), clean) }
}

/// A number that may come as text; only finite ones.
#[must_use]
pub fn number(value: &Value) -> Option<f64> {
    value
        .as_f64()
        .or_else(|| value.as_str()?.trim().parse().ok())
        .filter(|number: &f64| number.is_finite())
}

/// Text of a server, safe and short enough for a log.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().take(TEXT_CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_come_in_many_coats() {
        for (line, want) in [
            (r#"{"id":3,"result":true,"error":null}"#, Ok(json!(true))),
            (r#"{"id":"3","result":true}"#, Ok(json!(true))),
            (r#"{"id":3,"error":false}"#, Ok(Value::Null)),
            (
                r#"{"id":3,"result":null,"error":[21,"Job not found",null]}"#,
                Err(Refusal { code: Some(21), text: "Job not found".into() }),
            ),
            (
                r#"{"id":3,"error":{"code":-1,"message":"stale"}}"#,
                Err(Refusal { code: Some(-1), text: "stale".into() }),
            ),
            (r#"{"id":3,"error":"no"}"#, Err(Refusal { code: None, text: "no".into() })),
            (r#"{"id":3,"error":7}"#, Err(Refusal { code: None, text: "7".into() })),
        ] {
            assert_eq!(read(line).unwrap(), ServerLine::Answer { id: 3, outcome: want }, "{line}");
        }
    }

    #[test]
    fn calls_keep_the_id_they_came_with() {
        let call = |line| match read(line).unwrap() {
            ServerLine::Call { id, method, params } => (id, method, params),
            ServerLine::Answer { .. } => panic!("{line}"),
        };
        let (id, method, params) = call(r#"{"id":null,"method":"mining.notify","params":[1]}"#);
        assert_eq!((id, method.as_str(), params), (None, "mining.notify", json!([1])));
        let (id, ..) = call(r#"{"id":"x","method":"client.get_version"}"#);
        assert_eq!(id, Some(json!("x")));
    }

    #[test]
    fn the_rest_is_one_error() {
        for line in ["", "{", "[]", "7", "null", "{}", r#"{"id":null,"result":true}"#, "\u{0}"] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,200}") {
            let _ = read(&line);
        }
    }
}
