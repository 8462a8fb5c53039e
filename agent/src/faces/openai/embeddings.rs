//! `/v1/embeddings`: texts or token ids in, one vector each out, in OpenAI's form.
//!
//! A text longer than the model reads is refused, as OpenAI does, unless the request allows it to be cut
//! (`truncate_prompt_tokens`, vLLM's field). Whether vectors have unit length is the model's own affair.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::body::{Fields, read_body};
use super::super::metrics::Page as MetricsPage;
use super::super::node::Node;
use super::super::reply::{no_backend, openai_bad_body, openai_error, openai_fault};
use super::reply::unix_seconds;
use crate::embedding::{
    Embedded, EmbedderInfo, EmbeddingInput, EmbeddingRequest, EmbeddingService,
};

/// Texts of one request, OpenAI's own limit.
const TEXTS_MAX: usize = 2048;

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Floats,
    /// Base64 of little-endian f32, what OpenAI's own client asks for.
    Base64,
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    model: Option<String>,
    inputs: Vec<EmbeddingInput>,
    encoding: Encoding,
    dimensions: Option<usize>,
    truncate_tokens: Option<usize>,
}

#[derive(Serialize)]
struct Page<'a> {
    object: &'static str,
    data: Vec<Row>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Row {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// The entry of `/v1/models`.
pub(super) fn view(info: &EmbedderInfo) -> Value {
    json!({
        "id": info.served_as, "object": "model", "created": unix_seconds(),
        "owned_by": "roadbed", "root": info.served_as, "parent": null,
        "max_model_len": info.tokens_max, "dimensions": info.dimensions,
    })
}

/// The answer of a node that has an encoder.
pub(super) async fn answer(node: &Node, service: &EmbeddingService, body: &[u8]) -> Response {
    let Some(info) = service.model() else { return no_backend() };
    let asked = match read_body(body, read) {
        Ok(asked) => asked,
        Err(fault) => return openai_bad_body(&fault),
    };
    if let Some(refusal) = refuse(node, &info, &asked) {
        return refusal;
    }
    let request = EmbeddingRequest { inputs: asked.inputs, truncate_tokens: asked.truncate_tokens };
    match service.embed(request).await {
        Ok(embedded) => Json(page(&info, embedded, asked.encoding)).into_response(),
        Err(fault) => openai_fault(&fault),
    }
}

/// What `/metrics` shows of it.
pub(in crate::faces) fn count(page: &mut MetricsPage, service: &EmbeddingService) {
    let stats = service.stats();
    for (name, help, value) in [
        ("requests", "Requests for embeddings answered", stats.requests),
        ("texts", "Texts embedded", stats.texts),
        ("tokens", "Tokens read for embeddings", stats.tokens),
        ("refused", "Requests for embeddings refused by a full queue", stats.refused),
        ("passes", "Passes over texts", stats.passes),
    ] {
        page.counter(&format!("roadbed_embedding_{name}_total"), help, value);
    }
    let waiting = service.waiting() as u64;
    page.gauge(
        "roadbed_embedding_requests_waiting",
        "Requests for embeddings that wait",
        "",
        waiting,
    );
}

/// Why the model cannot do what is asked of it, if it cannot.
fn refuse(node: &Node, info: &EmbedderInfo, asked: &Asked) -> Option<Response> {
    if let Some(wanted) = asked.model.as_ref().filter(|model| **model != info.served_as) {
        if let Some(chat) = node.model().filter(|chat| chat.served_as == *wanted) {
            return Some(generates_text(&chat.served_as));
        }
        let message = format!(
            "the model `{wanted}` does not exist here; `{}` gives embeddings",
            info.served_as
        );
        return Some(openai_error(
            StatusCode::NOT_FOUND,
            "not_found_error",
            &message,
            Some("model"),
        ));
    }
    let wanted = asked.dimensions.filter(|wanted| *wanted != info.dimensions)?;
    let message = format!(
        "dimensions: embeddings of `{}` have {} dimensions and are not made to be cut to {wanted}",
        info.served_as, info.dimensions
    );
    Some(openai_error(
        StatusCode::BAD_REQUEST,
        "invalid_request_error",
        &message,
        Some("dimensions"),
    ))
}

/// The answer of a model that is no encoder.
pub(super) fn generates_text(served_as: &str) -> Response {
    let message = format!(
        "`{served_as}` generates text; how to make one vector of its states is nowhere agreed, so this engine gives no embeddings of it"
    );
    openai_error(StatusCode::BAD_REQUEST, "invalid_request_error", &message, Some("model"))
}

fn page(info: &EmbedderInfo, embedded: Embedded, encoding: Encoding) -> Page<'_> {
    let vector = |floats: Vec<f32>| match encoding {
        Encoding::Floats => Vector::Floats(floats),
        Encoding::Base64 => {
            let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    };
    let row = |(index, floats)| Row { object: "embedding", index, embedding: vector(floats) };
    Page {
        object: "list",
        data: embedded.vectors.into_iter().enumerate().map(row).collect(),
        model: &info.served_as,
        usage: Usage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
    }
}

fn read(fields: &Fields<'_>) -> Option<Asked> {
    let model = fields.optional("model");
    let inputs = inputs(fields);
    let encoding = match fields.optional::<String>("encoding_format").as_deref() {
        None | Some("float") => Encoding::Floats,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            fields.complain("encoding_format", "enum", "Input should be 'float' or 'base64'");
            Encoding::Floats
        }
    };
    let truncate_tokens = match fields.optional::<i64>("truncate_prompt_tokens") {
        None => None,
        Some(-1) => Some(usize::MAX),
        Some(tokens) => usize::try_from(tokens).ok().filter(|tokens| *tokens > 0).or_else(|| {
            let message = "Input should be 1 or more, or -1 for as many as the model reads";
            fields.complain("truncate_prompt_tokens", "out_of_range", message);
            None
        }),
    };
    let dimensions = fields.optional("dimensions");
    Some(Asked { model, inputs: inputs?, encoding, dimensions, truncate_tokens })
}

/// A text, token ids, or a list of either.
fn inputs(fields: &Fields<'_>) -> Option<Vec<EmbeddingInput>> {
    const FORMS: &str =
        "Input should be a text, a list of texts, a list of token ids, or a list of such lists";
    let wrong = |kind, message: &str| {
        fields.complain("input", kind, message);
        None
    };
    let Some(value) = fields.value("input") else { return wrong("missing", "Field required") };
    let read = match value {
        Value::String(text) => Some(vec![EmbeddingInput::Text(text.clone())]),
        Value::Array(list) if list.is_empty() => {
            return wrong("too_short", "Input should not be empty");
        }
        Value::Array(list) if list.iter().all(Value::is_number) => {
            ids(list).map(|ids| vec![EmbeddingInput::Ids(ids)])
        }
        Value::Array(list) if list.len() > TEXTS_MAX => {
            return wrong("too_long", &format!("Input should have at most {TEXTS_MAX} texts"));
        }
        Value::Array(list) => list
            .iter()
            .map(|one| match one {
                Value::String(text) => Some(EmbeddingInput::Text(text.clone())),
                Value::Array(list) => ids(list).map(EmbeddingInput::Ids),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    read.or_else(|| wrong("input_type", FORMS))
}

fn ids(list: &[Value]) -> Option<Vec<u32>> {
    list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::body::BodyFault;
    use super::*;

    fn asked(body: &Value) -> Result<Asked, BodyFault> {
        read_body(body.to_string().as_bytes(), read)
    }

    #[test]
    fn every_form_of_input_is_read() {
        let inputs = |input: Value| asked(&json!({ "input": input })).unwrap().inputs;
        let text = |text: &str| EmbeddingInput::Text(text.into());
        assert_eq!(inputs(json!("a")), [text("a")]);
        assert_eq!(inputs(json!(["a", ""])), [text("a"), text("")]);
        assert_eq!(inputs(json!([1, 2])), [EmbeddingInput::Ids(vec![1, 2])]);
        let lists = inputs(json!([[1], [2, 3]]));
        assert_eq!(lists, [EmbeddingInput::Ids(vec![1]), EmbeddingInput::Ids(vec![2, 3])]);
        assert_eq!(inputs(json!(vec!["a"; TEXTS_MAX])).len(), TEXTS_MAX);
    }

    #[test]
    fn what_is_no_input_is_refused_by_its_place() {
        let bodies = [
            json!({}),
            json!({"input": null}),
            json!({"input": []}),
            json!({"input": 7}),
            json!({"input": {}}),
            json!({"input": [1, "a"]}),
            json!({"input": [-1]}),
            json!({"input": [[1.5]]}),
            json!({"input": [null]}),
            json!({"input": vec!["a"; TEXTS_MAX + 1]}),
        ];
        for body in bodies {
            let BodyFault::Fields(problems) = asked(&body).unwrap_err() else { panic!("{body}") };
            assert_eq!((problems.len(), problems[0].place_text().as_str()), (1, "input"), "{body}");
        }
        for (field, value) in [
            ("encoding_format", json!("hex")),
            ("truncate_prompt_tokens", json!(0)),
            ("truncate_prompt_tokens", json!(-2)),
            ("dimensions", json!(-1)),
            ("model", json!(7)),
        ] {
            let BodyFault::Fields(problems) =
                asked(&json!({"input": "a", field: value})).unwrap_err()
            else {
                panic!("{field}")
            };
            assert_eq!(problems[0].place_text(), field);
        }
    }

    #[test]
    fn options_are_read() {
        let body = json!({
            "input": "a", "model": "m", "encoding_format": "base64", "dimensions": 4,
            "truncate_prompt_tokens": -1, "user": "u",
        });
        let asked = asked(&body).unwrap();
        assert_eq!((asked.model.as_deref(), asked.dimensions), (Some("m"), Some(4)));
        assert_eq!((asked.encoding, asked.truncate_tokens), (Encoding::Base64, Some(usize::MAX)));
    }
}
