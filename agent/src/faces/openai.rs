//! The OpenAI face: chat and text completions, streamed or whole, and the replay a validator asks for.
//!
//! The Network Node sends its customers' requests here too, with log probabilities always on, and checks other rigs'
//! answers by `enforced_tokens`: then nothing is sampled, the given answer is scored.

mod answer;
mod choice;
mod contract;
mod embeddings;
mod form;
mod message;
mod passage;
mod reply;
mod request;
mod sampling;
mod stream;
mod text;
mod tool;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use roadbed_compute::grammar::Grammar;
use roadbed_compute::{FinishReason, Generation, LogprobsMode, Sampling, Timings, Usage};
use serde_json::{Value, json};

use super::body::read_body;
use super::door::WholeBody;
use super::node::{Node, OwnNode};
use super::path_end::PathEnd;
use super::reply::{no_backend, openai_bad_body, openai_error, openai_fault};
use crate::engine::{Answer, EngineFault, ModelInfo, Prompt, ScoreRequest, TextRequest, TokenText};
use crate::grammar::{GrammarError, GrammarSpec};
use answer::{AnswerReader, Said};
use choice::{Choice, Echo, Event, Events, Source, UsageSum, events};
use reply::{ReplyForm, Shape, unix_seconds};
use request::{Completion, read_chat, read_text};

pub(super) use embeddings::count as count_embeddings;
pub(super) use passage::routes as passing_routes;
pub(super) use sampling::logprobs_mode;

type Behind = State<Arc<OwnNode>>;

/// Which inference of the chain a request is; the network's own header.
const INFERENCE_ID: &str = "x-inference-id";

/// All OpenAI paths, answered by our own engine.
pub(super) fn routes() -> Router<Arc<OwnNode>> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/embeddings", post(embed))
        .merge(text::routes())
}

fn model_view(info: &ModelInfo) -> Value {
    json!({
        "id": info.served_as, "object": "model", "created": unix_seconds(),
        "owned_by": "roadbed", "root": info.served_as, "parent": null,
        "max_model_len": info.context_tokens,
    })
}

async fn models(State(node): Behind) -> Response {
    models_page(&node)
}

async fn model(State(node): Behind, PathEnd(id): PathEnd) -> Response {
    model_page(&node, &id)
}

/// The list of what is up: the model that generates text, the encoder.
fn models_page(node: &Node) -> Response {
    let encoder = node.encoder().map(|info| embeddings::view(&info));
    let views: Vec<Value> =
        node.model().iter().map(|info| model_view(info)).chain(encoder).collect();
    if views.is_empty() {
        return no_backend();
    }
    Json(json!({"object": "list", "data": views})).into_response()
}

/// The model of this name.
fn model_page(node: &Node, id: &String) -> Response {
    if let Some(info) = node.encoder().filter(|info| info.served_as == *id) {
        return Json(embeddings::view(&info)).into_response();
    }
    let Some(info) = node.model() else { return no_chat(node) };
    match refuse_other(&info, Some(id)) {
        Some(refusal) => refusal,
        None => Json(model_view(&info)).into_response(),
    }
}

/// The answer where a model that generates text is needed and none is up.
fn no_chat(node: &Node) -> Response {
    let Some(info) = node.encoder() else { return no_backend() };
    let message =
        format!("no model that generates text is up; `{}` gives embeddings", info.served_as);
    openai_error(StatusCode::NOT_FOUND, "not_found_error", &message, Some("model"))
}

/// The answer to a request for another model than the served one.
fn refuse_other(info: &ModelInfo, wanted: Option<&String>) -> Option<Response> {
    let wanted = wanted.filter(|model| **model != info.served_as)?;
    let message =
        format!("the model `{wanted}` does not exist here; served is `{}`", info.served_as);
    Some(openai_error(StatusCode::NOT_FOUND, "not_found_error", &message, Some("model")))
}

async fn embed(State(node): Behind, body: WholeBody) -> Response {
    if let Some(service) = node.embeddings() {
        return embeddings::answer(&node, service, &body).await;
    }
    let Some(info) = node.model() else { return no_backend() };
    embeddings::generates_text(&info.served_as)
}

async fn chat(State(node): Behind, headers: HeaderMap, body: WholeBody) -> Response {
    let Some(info) = node.model() else { return no_chat(&node) };
    match read_body(&body, read_chat) {
        Ok(completion) => answer(&node, &info, &headers, completion, Shape::Chat).await,
        Err(fault) => openai_bad_body(&fault),
    }
}

async fn completion(State(node): Behind, headers: HeaderMap, body: WholeBody) -> Response {
    let Some(info) = node.model() else { return no_chat(&node) };
    match read_body(&body, read_text) {
        Ok(completion) => answer(&node, &info, &headers, completion, Shape::Text).await,
        Err(fault) => openai_bad_body(&fault),
    }
}

async fn answer(
    node: &OwnNode,
    info: &ModelInfo,
    headers: &HeaderMap,
    completion: Completion,
    shape: Shape,
) -> Response {
    if let Some(refusal) = refuse_other(info, completion.model.as_ref()) {
        return refusal;
    }
    match try_answer(node, info, headers, completion, shape).await {
        Ok(response) => response,
        Err(fault) => openai_fault(&fault),
    }
}

async fn try_answer(
    node: &OwnNode,
    info: &ModelInfo,
    headers: &HeaderMap,
    mut completion: Completion,
    shape: Shape,
) -> Result<Response, EngineFault> {
    let asked = Instant::now();
    let form = ReplyForm::new(shape, info, &completion)?;
    let usual = node.answering();
    let logprobs_mode = completion.logprobs_mode.unwrap_or(usual.logprobs_mode);
    if let Some(score) = completion.score {
        let scored = node.engine.score(ScoreRequest { logprobs_mode, ..score }).await?;
        return Ok(Json(form.scored(&scored)).into_response());
    }
    completion.text.logprobs_mode = logprobs_mode;
    let header_id = headers.get(INFERENCE_ID).and_then(|id| id.to_str().ok());
    let terms = contract::terms(&completion, header_id, usual.by_contract)?;
    let (draw, view) = terms.map(|terms| (terms.draw, terms.view)).unzip();
    completion.text.sampling.contract = draw;
    let form = form.drawn_by(view);
    if let Some(spec) = completion.form.take() {
        completion.text.grammar = Some(compile(info, spec).await?);
    }
    let mut choices = vec![];
    let mut sources = vec![];
    for prompt in &completion.prompts {
        let echo = match completion.echo {
            true => echo(node, prompt.clone(), completion.text.top_logprobs).await?,
            false => Echo::default(),
        };
        for number in 0..completion.answers {
            let reader = match shape {
                Shape::Chat => AnswerReader::chat(completion.tools.as_ref()),
                Shape::Text => AnswerReader::plain(),
            };
            choices.push(Choice::new(echo.clone(), reader));
            sources.push(match completion.text.max_tokens {
                Some(0) => Source::Empty(Box::new(nothing_after(&echo))),
                Some(_) | None => {
                    let mut text =
                        TextRequest { prompt: prompt.clone(), ..completion.text.clone() };
                    text.sampling.seed = text.sampling.seed.wrapping_add(number as u64);
                    Source::Running(node.engine.generate(text)?)
                }
            });
        }
    }
    let events = events(sources, node.metrics.times(), asked);
    if completion.stream {
        let (answers, usage) = (completion.answers, completion.include_usage);
        return Ok(stream::respond(events, form, choices, answers, usage).await);
    }
    let whole = gather(events, &form, choices, completion.answers).await?;
    Ok(Json(whole).into_response())
}

/// Compiles the form of an answer, off the threads that others wait for.
async fn compile(info: &ModelInfo, spec: GrammarSpec) -> Result<Grammar, EngineFault> {
    let field = "response_format";
    let Some(grammars) = info.grammars.clone() else {
        return Err(EngineFault::bad_request(field, "this engine cannot keep to a form"));
    };
    match tokio::task::spawn_blocking(move || grammars.compile(&spec)).await {
        Ok(Ok(grammar)) => Ok(grammar),
        Ok(Err(error @ (GrammarError::TooLarge { .. } | GrammarError::Unsupported(_)))) => {
            Err(EngineFault::bad_request(field, error.to_string()))
        }
        Ok(Err(error @ GrammarError::Vocabulary(_))) => {
            Err(EngineFault::Failed { reason: error.to_string() })
        }
        Err(panic) => Err(EngineFault::Failed { reason: panic.to_string() }),
    }
}

/// A prompt as a part of its answers, with the log probabilities of its tokens if they are wanted.
async fn echo(node: &OwnNode, prompt: Prompt, top: Option<usize>) -> Result<Echo, EngineFault> {
    // As it was sent: the tokens may begin with one that the model wants and nobody wrote.
    let given = if let Prompt::Text(text) = &prompt { Some(text.clone()) } else { None };
    let tokenized = node.engine.tokenize(prompt).await?;
    let (ids, text) = (tokenized.ids, given.unwrap_or(tokenized.text));
    let Some(top) = top else { return Ok(Echo { text, tokens: vec![], ids }) };
    let Some((first, rest)) = ids.split_first() else { return Ok(Echo::default()) };
    let first_text = node.engine.tokenize(Prompt::Ids(vec![*first])).await?.text;
    let alone = TokenText {
        id: *first,
        bytes: first_text.into_bytes(),
        logprob: f32::NAN,
        top: vec![],
        drawn_from: vec![],
    };
    let mut tokens = vec![alone];
    if !rest.is_empty() {
        let request = ScoreRequest {
            prompt: Prompt::Ids(vec![*first]),
            continuation: Prompt::Ids(rest.to_vec()),
            top,
            logprobs_mode: LogprobsMode::Raw,
            sampling: Sampling::GREEDY,
            extent: None,
        };
        tokens.extend(node.engine.score(request).await?.tokens);
    }
    Ok(Echo { text, tokens, ids })
}

/// The answer of no tokens.
fn nothing_after(echo: &Echo) -> Answer {
    Answer {
        prompt_ids: echo.ids.clone(),
        generation: Generation {
            ids: vec![],
            text: String::new(),
            finish: FinishReason::Length,
            usage: Usage { prompt_tokens: echo.ids.len(), completion_tokens: 0 },
            logprobs: vec![],
            timings: Timings::default(),
        },
        tokens: vec![],
    }
}

/// Waits for all answers; the first that fails ends the others.
async fn gather(
    mut events: Events,
    form: &ReplyForm,
    mut choices: Vec<Choice>,
    answers: usize,
) -> Result<Value, EngineFault> {
    let mut usage = UsageSum::default();
    let mut prompt_ids = vec![];
    let mut views: Vec<Value> = vec![Value::Null; choices.len()];
    while let Some(event) = events.next().await {
        let (index, answer) = match event {
            // Read whole at the end.
            Event::Token(..) => continue,
            Event::End(index, answer) => (index, answer?),
        };
        let Some(choice) = choices.get_mut(index) else { continue };
        usage.add(index, answers, answer.generation.usage);
        let (read, finish) = choice.end(&answer);
        let echo = std::mem::take(&mut choice.echo);
        let said = Said { content: echo.text + &read.content, ..read };
        let tokens: Vec<TokenText> = echo.tokens.into_iter().chain(answer.tokens).collect();
        views[index] = form.choice(index, &said, &tokens, &answer.generation.ids, finish);
        if index == 0 {
            prompt_ids = answer.prompt_ids;
        }
    }
    Ok(form.whole(views, usage.sum(), &prompt_ids))
}
