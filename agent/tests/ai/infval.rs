//! Inference validation from end to end: answers of a tiny model, drawn by the contract, replayed by the face and judged by
//! `infval`, and what a dishonest executor would send.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use roadbed_agent::engine::startup::load_request;
use roadbed_agent::engine::{EngineService, WgpuLoader};
use roadbed_agent::faces::{
    AnswerDefaults, Faces, FacesSettings, Gate, GateControl, Node, NodeParts, serve,
};
use roadbed_agent::inference::Inference;
use roadbed_agent::proof::{MemoryJournal, ProofService};
use roadbed_compute::gguf::TensorType;
use roadbed_compute::synthetic::{Architecture, Shape, Synthetic};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{quick, read};

fn tiny(folder: &Path, seed: u64) -> PathBuf {
    let shape = Shape::named("tiny").unwrap();
    let model = Synthetic { architecture: Architecture::Llama, shape, kind: TensorType::F16, seed };
    let path = folder.join(format!("tiny-{seed}.gguf"));
    let mut file = std::fs::File::create(&path).unwrap();
    model.write(&mut file, &mut |_| {}).unwrap();
    path
}

/// A served model.
struct Executor {
    engine: EngineService,
    base: String,
    model: String,
    http: reqwest::Client,
    stop: CancellationToken,
}

impl Executor {
    async fn start(model: &Path, answers: AnswerDefaults) -> Self {
        let mut configured = load_request(model.to_str().unwrap(), None).unwrap();
        configured.context_tokens = Some(256);
        let served_as = configured.served_as.clone();
        let engine = EngineService::start(WgpuLoader::default()).unwrap();
        engine.load(configured.clone()).await.unwrap();
        let journal = Arc::new(MemoryJournal::default());
        let proof = ProofService::new(engine.clone(), journal, quick(), None);
        let node = Node::new(NodeParts {
            inference: Inference::Own { engine: engine.clone(), proof },
            gate: GateControl::new(Gate::Open),
            configured,
            store: None,
            devices: vec![],
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let faces = Faces::new(Arc::new(node.with_answers(answers)), FacesSettings::default());
        tokio::spawn(serve(listener, faces, stop.clone()));
        Self { engine, base, model: served_as, http: reqwest::Client::new(), stop }
    }

    async fn ask(&self, request: &Value, inference_id: Option<&str>) -> (u16, Value) {
        let post = self.http.post(format!("{}/v1/completions", self.base));
        let post = match inference_id {
            Some(id) => post.header("X-Inference-Id", id),
            None => post,
        };
        read(post.body(request.to_string()).send().await.unwrap()).await
    }

    async fn end(self) {
        self.stop.cancel();
        self.engine.shut_down().await;
    }
}

/// As a Network Node asks.
fn request(model: &str, more: Value) -> Value {
    let mut request = json!({
        "model": model, "prompt": [1, 40, 41, 42], "temperature": 0.8, "top_k": 20, "seed": 7,
        "logprobs": 5, "return_token_ids": true, "skip_special_tokens": false, "max_tokens": 40,
        "min_tokens": 40,
    });
    for (name, value) in more.as_object().unwrap() {
        request[name.as_str()] = value.clone();
    }
    request
}

fn enforced(answer: &Value) -> Value {
    let tokens = answer["choices"][0]["token_ids"].as_array().unwrap().iter();
    json!({"tokens": tokens.map(|id| json!({"token": id.to_string()})).collect::<Vec<_>>()})
}

fn lists(answer: &Value) -> &Vec<Value> {
    answer["choices"][0]["logprobs"]["top_logprobs"].as_array().unwrap()
}

/// Exit code, standard output, standard error.
fn infval(model: &Path, executed: &Path, more: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_roadbed-agent"))
        .args(["infval", "--model", model.to_str().unwrap()])
        .args(["--executed", executed.to_str().unwrap()])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn an_answer_passes_and_what_is_not_the_models_or_not_drawn_so_is_fraud() {
    let folder = tempfile::tempdir().unwrap();
    let (model, other) = (tiny(folder.path(), 1), tiny(folder.path(), 2));
    let executor = Executor::start(&model, AnswerDefaults::default()).await;
    let terms = json!({"contract_version": "1.0.0", "inference_id": "chain-abc"});
    // Long enough that the network's divisor of 100 hides nothing.
    let long = json!({"deterministic_sampling": terms, "min_tokens": 120, "max_tokens": 120});
    let asked = request(&executor.model, long);
    let (status, answer) = executor.ask(&asked, None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(executor.ask(&asked, None).await.1["choices"], answer["choices"], "a draw repeats");
    let (_, another) = executor
        .ask(&request(&executor.model, json!({"deterministic_sampling": true})), Some("chain-xyz"))
        .await;
    assert_eq!(another["deterministic_sampling"]["inference_id"], "chain-xyz");
    let tokens = |answer: &Value| answer["choices"][0]["token_ids"].clone();
    assert_ne!(tokens(&another), tokens(&answer), "the inference's id is part of the seed");
    let first = &answer["choices"][0]["logprobs"]["drawn_from"][0];
    assert_eq!(first.as_object().unwrap().len(), 20, "{first}");
    executor.end().await;

    let saved = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut document = json!({"request": asked, "response": answer});
        change(&mut document);
        let path = folder.path().join(name);
        std::fs::write(&path, document.to_string()).unwrap();
        path
    };
    let honest = saved("honest.json", &|_| {});
    let (code, out, err) = infval(&model, &honest, &["--json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(report["similarity"].as_f64().unwrap() >= 0.9999, "{report}");
    assert!(report["per_token_distance"].as_f64().unwrap() < 1e-4, "{report}");
    assert_eq!(report["sampling"]["verdict"], "honest");
    assert_eq!((&report["sampling"]["honest"], &report["positions"]), (&json!(120), &json!(120)));
    assert_eq!(report["second_check"]["enforced"], false);

    // Another token of the same list: the model's lists are still its own where they are before it.
    let swapped = saved("swapped.json", &|document| {
        let logprobs = &mut document["response"]["choices"][0]["logprobs"];
        let drawn = logprobs["tokens"][118].clone();
        let listed = logprobs["top_logprobs"][118].as_object().unwrap();
        let instead = listed.keys().find(|id| **id != drawn).unwrap().clone();
        logprobs["tokens"][118] = json!(instead);
    });
    let (code, out, err) = infval(&model, &swapped, &[]);
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.contains("fraud: position 118 draws token"), "{out}");
    assert!(out.contains("FRAUD: its tokens are not those that its draw gives"), "{out}");

    // Another model, which does not say that it drew by the contract.
    let (code, out, err) = infval(&other, &honest, &["--json"]);
    assert_eq!(code, 2, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(report["similarity"].as_f64().unwrap() < 0.99, "{report}");
    assert_eq!(report["second_check"]["says_fraud"], true);
    assert_eq!(report["sampling"]["verdict"], "honest", "lists tell nothing of their model");

    let worded = saved("worded.json", &|document| {
        document["response"]["choices"][0]["logprobs"]["tokens"][3] = json!("word");
    });
    let (code, out, _) = infval(&model, &worded, &[]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("position 3 is not named by its id"), "{out}");
    let nothing = saved("nothing.json", &|document| document["response"] = json!({}));
    assert_eq!(infval(&model, &nothing, &[]).0, 2);
    let (code, _, err) = infval(&model, &folder.path().join("absent.json"), &[]);
    assert!(code == 1 && err.contains("absent.json"), "{err}");
}

#[tokio::test]
async fn processed_lists_are_of_what_is_drawn_from_and_a_replay_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let defaults = AnswerDefaults {
        logprobs_mode: roadbed_compute::LogprobsMode::Processed,
        by_contract: true,
    };
    let executor = Executor::start(&tiny(folder.path(), 1), defaults).await;
    for wishes in [
        json!({"top_k": 3}),
        json!({"top_k": -1, "top_p": 0.5}),
        json!({"top_k": -1, "min_p": 0.2}),
        json!({"top_k": -1}),
        json!({"temperature": 0}),
        json!({"top_k": 3, "repetition_penalty": 1.3, "frequency_penalty": 0.5}),
    ] {
        let mut asked = request(&executor.model, wishes.clone());
        let (status, answer) = executor.ask(&asked, None).await;
        assert_eq!(status, 200, "{wishes} {answer}");
        assert!(answer.get("deterministic_sampling").is_none(), "no inference was named");
        asked["enforced_tokens"] = enforced(&answer);
        let (status, replay) = executor.ask(&asked, None).await;
        assert_eq!(status, 200, "{wishes} {replay}");
        assert_eq!(replay["choices"][0]["token_ids"], answer["choices"][0]["token_ids"]);
        assert_eq!(replay["choices"][0]["finish_reason"], "length");
        assert_eq!(replay["usage"], answer["usage"]);
        for (ours, theirs) in lists(&answer).iter().zip(lists(&replay)) {
            let (ours, theirs) = (ours.as_object().unwrap(), theirs.as_object().unwrap());
            assert_eq!(ours.len(), 5, "{ours:?}");
            for (id, logprob) in ours {
                let theirs = theirs.get(id).unwrap_or_else(|| panic!("{wishes}: {id} {theirs:?}"));
                let difference = logprob.as_f64().unwrap() - theirs.as_f64().unwrap();
                assert!(difference.abs() < 1e-3, "{wishes} {ours:?} {theirs:?}");
            }
        }
        if wishes["top_k"] == 3 {
            for list in lists(&answer) {
                let values = list.as_object().unwrap().values();
                let out = values.filter(|logprob| **logprob == json!(-9999.0)).count();
                assert_eq!(out, 2, "{list}");
            }
        }
        // The model itself, where the request says so.
        asked["logprobs_mode"] = json!("raw");
        let (_, raw) = executor.ask(&asked, None).await;
        let least = |list: &Value| {
            let values = list.as_object().unwrap().values();
            values.map(|logprob| logprob.as_f64().unwrap()).fold(0.0, f64::min)
        };
        assert!(lists(&raw).iter().all(|list| least(list) > -100.0));
    }
    // The node's own wish: whoever names an inference gets a draw that can be repeated.
    let (_, drawn) = executor.ask(&request(&executor.model, json!({})), Some("chain-abc")).await;
    assert_eq!(drawn["deterministic_sampling"]["contract_version"], "1.0.0");
    for (wishes, says) in [
        (json!({"deterministic_sampling": {"contract_version": "2.0.0"}}), "1.0.0"),
        (json!({"deterministic_sampling": {"inference_id": "a b"}}), "printable"),
        (json!({"deterministic_sampling": true}), "inference id"),
        (json!({"deterministic_sampling": 5}), "dictionary"),
        (json!({"logprobs_mode": "raw_logits"}), "processed"),
    ] {
        let (status, answer) = executor.ask(&request(&executor.model, wishes), None).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
    // At temperature 0 and without top_k or min_p there is nothing that could be repeated.
    for wishes in [json!({"temperature": 0}), json!({"top_k": -1})] {
        let asked = request(&executor.model, wishes);
        let (status, answer) = executor.ask(&asked, Some("chain-abc")).await;
        assert!(status == 200 && answer.get("deterministic_sampling").is_none(), "{answer}");
    }
    // An end that is wanted at once comes when the least length is reached.
    let ends = json!({"min_tokens": 5, "max_tokens": 9, "logit_bias": {"258": 100}});
    let (_, answer) = executor.ask(&request(&executor.model, ends), None).await;
    let count = answer["choices"][0]["token_ids"].as_array().unwrap().len();
    assert_eq!((count, &answer["choices"][0]["finish_reason"]), (6, &json!("stop")), "{answer}");
    executor.end().await;
}
