//! `roadbed-agent generate`: one chat answer.

use clap::Args;
use roadbed_compute::{Message, Sampling};
use serde_json::{Map, Value, json};

use crate::engine::startup::{load_request, loaded};
use crate::engine::{Answer, ModelInfo, Prompt, TextRequest};

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Model file or catalogue name.
    #[arg(long)]
    pub model: String,
    /// System message.
    #[arg(long)]
    pub system: Option<String>,
    /// User message.
    #[arg(long)]
    pub user: String,
    /// Most tokens to generate.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Sampling temperature; 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Keep the likeliest tokens up to this sum of probability.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Keep this many tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub top_k: u32,
    /// Keep tokens at least this likely relative to the likeliest.
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// The same seed gives the same answer.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Top log probabilities shown per token.
    #[arg(long)]
    pub logprobs: Option<usize>,
    /// Pin an adapter by list position, name or PCI id.
    #[arg(long)]
    pub adapter: Option<String>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: GenerateArgs) -> anyhow::Result<()> {
    let (engine, info) = loaded(load_request(&args.model, args.adapter.as_deref())?).await?;
    let system = args.system.as_deref().map(|text| Message::new("system", text));
    let messages: Vec<Message> =
        system.into_iter().chain([Message::new("user", &args.user)]).collect();
    let request = TextRequest {
        max_tokens: usize::try_from(args.max_tokens).ok(),
        sampling: Sampling {
            temperature: args.temperature,
            top_p: args.top_p,
            top_k: args.top_k,
            min_p: args.min_p,
            seed: args.seed,
            ..Sampling::GREEDY
        },
        top_logprobs: args.logprobs,
        ..TextRequest::greedy(Prompt::Chat(messages.into()))
    };
    let answer = match engine.generate(request) {
        Ok(running) => running.finish().await,
        Err(fault) => Err(fault),
    };
    engine.shut_down().await;
    let answer = answer?;
    if args.json {
        println!("{}", document(&answer, &info));
    } else {
        println!("{}", answer.generation.text);
    }
    Ok(())
}

fn document(answer: &Answer, info: &ModelInfo) -> Value {
    let generation = &answer.generation;
    let logprobs: Vec<Value> = generation
        .logprobs
        .iter()
        .map(|position| {
            let top: Vec<Value> =
                position.top.iter().map(|top| json!([top.id, top.logprob])).collect();
            json!({"id": position.id, "logprob": position.logprob, "top": top})
        })
        .collect();
    let timings = &generation.timings;
    let mut document = Map::new();
    document.insert("prompt_ids".into(), json!(answer.prompt_ids));
    document.insert("ids".into(), json!(generation.ids));
    document.insert("text".into(), json!(generation.text));
    document.insert("logprobs".into(), json!(logprobs));
    document.insert("finish".into(), json!(generation.finish));
    document.insert("adapter".into(), json!(info.adapter));
    document.insert(
        "timings".into(),
        json!({
            "prefill_seconds": timings.prefill.as_secs_f64(),
            "decode_seconds": timings.decode.as_secs_f64(),
            "decode_tokens_per_second": timings.decode_tokens_per_second(generation.ids.len()),
        }),
    );
    Value::Object(document)
}
