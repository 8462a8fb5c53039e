//! `/v1/embeddings` over real sockets, with a stand-in encoder whose every vector is known.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use roadbed_agent::embedding::{
    EmbedderInfo, EmbeddingBackend, EmbeddingInput, EmbeddingLoader, EmbeddingRequest,
    EmbeddingService, REQUESTS_QUEUED_MAX,
};
use roadbed_agent::engine::{EngineFault, LoadRequest};
use serde_json::{Value, json};

use super::stand_in::{Hold, adapter};
use super::{MODEL, Rig, RigParts, load_request, rig, until};

const ENCODER: &str = "org/encoder";
const DIMENSIONS: usize = 4;
const TOKENS_MAX: usize = 16;
const PASS_TOKENS: usize = 32;
const VOCABULARY: usize = 300;
/// Around a text, whose tokens are its bytes.
const FRAME: [u32; 2] = [256, 257];

/// What the stand-in does beyond embedding.
#[derive(Default)]
struct Script {
    /// Waited at before every pass.
    passes: Hold,
    /// Texts of every pass.
    seen: Mutex<Vec<Vec<Vec<u32>>>>,
    lose_device: AtomicU64,
    panic: AtomicBool,
    loads: AtomicU64,
    refuse_load: AtomicBool,
}

struct StandInLoader(Arc<Script>);

impl EmbeddingLoader for StandInLoader {
    fn load(&mut self, request: &LoadRequest) -> Result<Box<dyn EmbeddingBackend>, EngineFault> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        if self.0.refuse_load.load(Ordering::SeqCst) {
            return Err(EngineFault::Load { reason: "told so".into() });
        }
        let served_as = request.served_as.clone();
        Ok(Box::new(StandIn { script: Arc::clone(&self.0), served_as }))
    }
}

struct StandIn {
    script: Arc<Script>,
    served_as: String,
}

fn vector(ids: &[u32]) -> Vec<f32> {
    let sum: u32 = ids.iter().sum();
    vec![ids.len() as f32, ids[0] as f32, ids[ids.len() - 1] as f32, sum as f32 / 7.0]
}

impl EmbeddingBackend for StandIn {
    fn info(&self) -> EmbedderInfo {
        EmbedderInfo {
            served_as: self.served_as.clone(),
            adapter: adapter(),
            dimensions: DIMENSIONS,
            tokens_max: TOKENS_MAX,
            vocabulary: VOCABULARY,
            memory_bytes: 1,
        }
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineFault> {
        let mut ids = vec![FRAME[0]];
        ids.extend(text.bytes().map(u32::from));
        ids.push(FRAME[1]);
        Ok(ids)
    }

    fn truncate(&self, ids: &mut Vec<u32>, tokens: usize) {
        if ids.len() > tokens {
            ids.truncate(tokens - 1);
            ids.push(FRAME[1]);
        }
    }

    fn fitting(&self, lengths: &[usize]) -> usize {
        let mut sum = 0;
        lengths
            .iter()
            .take_while(|length| {
                sum += **length;
                sum <= PASS_TOKENS
            })
            .count()
    }

    fn pass(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineFault> {
        self.script.passes.pass();
        let left = |left: u64| left.checked_sub(1);
        let lost = self.script.lose_device.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        if lost.is_ok() {
            return Err(EngineFault::DeviceLost { reason: "told so".into() });
        }
        assert!(!self.script.panic.load(Ordering::SeqCst), "told so");
        assert!(texts.iter().map(|text| text.len()).sum::<usize>() <= PASS_TOKENS);
        let all = texts.iter().map(|text| text.to_vec()).collect();
        self.script.seen.lock().unwrap().push(all);
        Ok(texts.iter().map(|text| vector(text)).collect())
    }
}

async fn service() -> (EmbeddingService, Arc<Script>) {
    let script = Arc::new(Script::default());
    let service = EmbeddingService::start(StandInLoader(Arc::clone(&script))).unwrap();
    service.load(LoadRequest { served_as: ENCODER.into(), ..load_request() }).await.unwrap();
    (service, script)
}

/// An encoder that is loaded.
pub async fn loaded() -> EmbeddingService {
    service().await.0
}

async fn rig_with_encoder(loaded: bool) -> Rig {
    let (service, _) = service().await;
    Rig::start(RigParts { embeddings: Some(service), loaded, ..RigParts::default() }).await
}

fn texts(texts: &[&str]) -> EmbeddingRequest {
    let text = |text: &&str| EmbeddingInput::Text((*text).into());
    EmbeddingRequest { inputs: texts.iter().map(text).collect(), truncate_tokens: None }
}

/// The embedding of a text alone.
fn of(text: &str) -> Vec<f32> {
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    vector(&[&FRAME[..1], &ids, &FRAME[1..]].concat())
}

fn floats(row: &Value) -> Vec<f32> {
    serde_json::from_value(row["embedding"].clone()).unwrap()
}

#[tokio::test]
async fn every_form_of_input_is_embedded() {
    let rig = rig_with_encoder(true).await;
    let (status, answer) =
        rig.post("/v1/embeddings", json!({"model": ENCODER, "input": "ab"})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(ENCODER)));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    assert_eq!(floats(&answer["data"][0]), of("ab"));
    // Many texts in many passes, in their order.
    let words: Vec<String> = (0..50).map(|i| "x".repeat(i % 14)).collect();
    let (_, answer) = rig.post("/v1/embeddings", json!({"input": words})).await;
    for (index, word) in words.iter().enumerate() {
        let row = &answer["data"][index];
        assert_eq!((&row["index"], &row["object"]), (&json!(index), &json!("embedding")));
        assert_eq!(floats(row), of(word));
    }
    // Ids are taken as they are.
    let (_, answer) = rig.post("/v1/embeddings", json!({"input": [[7, 8], [9]]})).await;
    assert_eq!(
        (floats(&answer["data"][0]), floats(&answer["data"][1])),
        (vector(&[7, 8]), vector(&[9]))
    );
    let (_, answer) =
        rig.post("/v1/embeddings", json!({"input": [1, 2], "encoding_format": "base64"})).await;
    let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let read: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(read, vector(&[1, 2]));
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_in_openais_form() {
    let rig = rig_with_encoder(true).await;
    let long = "x".repeat(TOKENS_MAX - 1);
    let cases = [
        (json!({}), 400, "input", "Field required"),
        (json!({"input": []}), 400, "input", "not be empty"),
        (json!({"input": ["a", [1]], "encoding_format": "hex"}), 400, "encoding_format", "float"),
        (json!({"input": [["a"]]}), 400, "input", "token ids"),
        (json!({"input": [[]]}), 400, "input", "no tokens"),
        (json!({"input": [300]}), 400, "input", "not below 300"),
        (json!({"input": long}), 400, "input", "17 tokens are more than the 16"),
        (json!({"input": ["a", long]}), 400, "input.1", "truncate_prompt_tokens"),
        (json!({"input": "a", "dimensions": 2}), 400, "dimensions", "have 4 dimensions"),
        (json!({"input": "a", "model": "other"}), 404, "model", ENCODER),
        (json!({"input": "a", "model": MODEL}), 400, "model", "generates text"),
    ];
    for (body, wanted, place, words) in cases {
        let (status, answer) = rig.post("/v1/embeddings", body.clone()).await;
        let error = &answer["error"];
        assert_eq!((status, &error["param"]), (wanted, &json!(place)), "{body}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}: {answer}");
    }
    for (tokens, kept) in [(-1, 14), (5, 3)] {
        let body = json!({"input": long, "truncate_prompt_tokens": tokens, "dimensions": 4});
        let (status, answer) = rig.post("/v1/embeddings", body).await;
        assert_eq!((status, floats(&answer["data"][0])), (200, of(&"x".repeat(kept))));
    }
}

#[tokio::test]
async fn models_are_named_and_told_apart() {
    let rig = rig_with_encoder(true).await;
    let (_, list) = rig.get("/v1/models").await;
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [MODEL, ENCODER]);
    let (_, one) = rig.get(&format!("/v1/models/{ENCODER}")).await;
    assert_eq!((&one["max_model_len"], &one["dimensions"]), (&json!(16), &json!(4)));
    let message = json!([{"role": "user", "content": "hi"}]);
    let chat = |model: &str| json!({"model": model, "messages": message});
    assert_eq!(rig.post("/v1/chat/completions", chat(ENCODER)).await.0, 404);
    let metrics = rig.send(Method::GET, "/metrics", None).await.text().await.unwrap();
    assert!(metrics.contains("roadbed_embedding_texts_total 0"), "{metrics}");

    // Alone: no model to chat with.
    let alone = rig_with_encoder(false).await;
    let (status, answer) = alone.post("/v1/chat/completions", chat(MODEL)).await;
    assert_eq!((status, &answer["error"]["param"]), (404, &json!("model")), "{answer}");
    let (_, list) = alone.get("/v1/models").await;
    assert_eq!(list["data"][0]["id"], ENCODER);
    assert_eq!(alone.post("/v1/embeddings", json!({"input": "a"})).await.0, 200);

    // A model without an encoder says so, as ever.
    let (status, answer) = rig_without().await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("generates text"), "{answer}");
}

async fn rig_without() -> (u16, Value) {
    rig().await.post("/v1/embeddings", json!({"input": "a"})).await
}

#[tokio::test]
async fn a_short_request_does_not_wait_for_a_long_one() {
    let (service, script) = service().await;
    script.passes.shut();
    let long: Vec<String> = (0..100).map(|i| format!("long {i:03}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let spawn = |request| {
        let service = service.clone();
        tokio::spawn(async move { service.embed(request).await })
    };
    let first = spawn(texts(&long));
    until("the first pass", || script.passes.was_waited_at().then_some(())).await;
    let second = spawn(texts(&["short"]));
    until("the second request", || (service.waiting() == 1).then_some(())).await;
    script.passes.open();
    assert_eq!(second.await.unwrap().unwrap().vectors, [of("short")]);
    let embedded = first.await.unwrap().unwrap();
    assert_eq!((embedded.vectors.len(), embedded.tokens), (100, 1000));
    assert!(long.iter().zip(&embedded.vectors).all(|(text, vector)| *vector == of(text)));
    let seen = script.seen.lock().unwrap();
    let short = seen.iter().position(|pass| pass.iter().any(|ids| ids.len() == 7));
    assert_eq!(short, Some(1), "it shares the next pass");
    assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), 101);
}

#[tokio::test]
async fn a_full_queue_refuses_and_who_leaves_takes_his_texts_along() {
    let (service, script) = service().await;
    script.passes.shut();
    let spawn = |text: &str| {
        let (service, request) = (service.clone(), texts(&[text]));
        tokio::spawn(async move { service.embed(request).await })
    };
    let first = spawn("first");
    until("the first pass", || script.passes.was_waited_at().then_some(())).await;
    let waiting: Vec<_> = (0..REQUESTS_QUEUED_MAX).map(|_| spawn("waits")).collect();
    until("a full queue", || (service.waiting() == REQUESTS_QUEUED_MAX).then_some(())).await;
    let refused = service.embed(texts(&["late"])).await.unwrap_err();
    let EngineFault::QueueFull { queued, retry_seconds } = refused else { panic!("{refused}") };
    assert_eq!((queued, service.stats().refused), (REQUESTS_QUEUED_MAX, 1));
    assert!((1..=60).contains(&retry_seconds));
    for task in waiting {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    script.passes.open();
    assert_eq!(first.await.unwrap().unwrap().vectors, [of("first")]);
    assert_eq!(service.embed(texts(&["last"])).await.unwrap().vectors, [of("last")]);
    let seen: Vec<usize> = script.seen.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(seen, [1, 1], "nobody's texts were embedded");
}

#[tokio::test]
async fn a_lost_device_is_opened_again_and_given_up_after_some_times() {
    let (service, script) = service().await;
    script.lose_device.store(1, Ordering::SeqCst);
    assert_eq!(service.embed(texts(&["a"])).await.unwrap().vectors, [of("a")]);
    assert_eq!(script.loads.load(Ordering::SeqCst), 2);
    script.panic.store(true, Ordering::SeqCst);
    let fault = service.embed(texts(&["a"])).await.unwrap_err();
    assert!(matches!(fault, EngineFault::DeviceLost { .. }), "{fault}");
    assert_eq!(service.embed(texts(&["a"])).await.unwrap_err(), EngineFault::NoModel);
    script.panic.store(false, Ordering::SeqCst);
    // Loaded again by whoever watches the rig; then freed.
    let again = || LoadRequest { served_as: ENCODER.into(), ..load_request() };
    service.load(again()).await.unwrap();
    assert_eq!(service.embed(texts(&["b"])).await.unwrap().vectors, [of("b")]);
    script.refuse_load.store(true, Ordering::SeqCst);
    assert!(matches!(service.load(again()).await, Err(EngineFault::Load { .. })));
    assert!(service.model().is_none());
    service.unload().await.unwrap();
}
