//! `roadbed-agent infval`: was this answer made by this model? As a validator of the network asks.
//!
//! The executor's request is sent once more, with its tokens to be scored instead of drawn, to this program's own OpenAI
//! face over a socket of this machine: the same path on which a Network Node's validation arrives. Its answer and the
//! executor's are then compared.

mod executed;
mod report;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::Args;
use roadbed_compute::LogprobsMode;
use roadbed_compute::infval::judgement::is_processed;
use roadbed_compute::infval::{Judgement, Sides, judge, replay, threshold};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::engine::startup::{load_request, loaded};
use crate::engine::{EngineService, LoadRequest, ModelInfo};
use crate::faces::{
    AnswerDefaults, Faces, FacesSettings, Gate, GateControl, Node, NodeParts, serve,
};
use crate::inference::Inference;
use crate::proof::{MemoryJournal, ProofService, ProofSettings};
use executed::{Executed, Told};
use report::{Replayed, Report};

/// Exit code when the answer is not this model's, or was not drawn as it was promised.
const FRAUD: u8 = 2;

/// Arguments of `infval`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is one JSON document:
  {\"request\": {..}, \"response\": {..}, \"inference_id\": \"..\"}
with the bodies of a chat or text completion as they were sent; a streamed response is {\"events\": [\"data: {..}\", ..]}.
The response must have `logprobs` with `top_logprobs`, its tokens as ids (\"1234\"). `inference_id` may be left out.

Exit codes: 0 pass, 2 fraud (other tokens, lists too different, or a draw that does not repeat), 1 no verdict.

Examples:
  roadbed-agent infval --model smollm2-135m --executed answer.json
  roadbed-agent infval --model ./MiniMax-M2.7 --executed answer.json --threshold 0.922 --json")]
pub struct InfvalArgs {
    /// Model file, folder or catalogue name: the one that the executor claims to have.
    #[arg(long)]
    pub model: String,
    /// Request and response of the executor.
    #[arg(long, value_name = "FILE")]
    pub executed: PathBuf,
    /// Similarity above which the answer passes [default: the network's for a model of this name, else 0.99].
    #[arg(long, value_name = "0..1", value_parser = share)]
    pub threshold: Option<f64>,
    /// Pin an adapter by list position, name or PCI id.
    #[arg(long)]
    pub adapter: Option<String>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    (0.0..=1.0).contains(&value).then_some(value).ok_or_else(|| "expected 0 to 1".into())
}

/// Runs the command; the exit code tells the verdict.
///
/// # Errors
/// No verdict could be reached.
pub async fn run(args: InfvalArgs) -> anyhow::Result<ExitCode> {
    let executed = Executed::read(&args.executed)?;
    let configured = load_request(&args.model, args.adapter.as_deref())?;
    let (engine, info) = loaded(configured.clone()).await?;
    let mode = match is_processed(&executed.told.positions) {
        true => LogprobsMode::Processed,
        false => LogprobsMode::Raw,
    };
    let count = executed.told.positions.len();
    tracing::info!(tokens = count, ?mode, "replaying");
    let replayed = ask(&engine, configured, &info, &executed, mode).await;
    engine.shut_down().await;
    let replayed = replayed?;
    let of_name = executed.model.as_deref().and_then(threshold::of_model);
    let threshold = args.threshold.or(of_name).unwrap_or(threshold::DEFAULT);
    let report = Report {
        judgement: match &replayed {
            Replayed::Answered(told) => judge(
                &Sides {
                    executor: &executed.told.positions,
                    validator: &told.positions,
                    claimed: executed.told.counted,
                    counted: told.counted,
                },
                threshold,
            ),
            Replayed::Refused { judgement, .. } | Replayed::NotAsked { judgement } => {
                judgement.clone()
            }
        },
        sampling: executed.sampled.as_ref().map(replay),
        threshold,
        mode,
        executed: &executed,
        replayed: &replayed,
        info: &info,
    };
    if args.json {
        println!("{}", report.document());
    } else {
        print!("{}", report.text());
    }
    Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::from(FRAUD) })
}

/// Has the answer replayed by a face of our own.
async fn ask(
    engine: &EngineService,
    configured: LoadRequest,
    info: &ModelInfo,
    executed: &Executed,
    logprobs_mode: LogprobsMode,
) -> anyhow::Result<Replayed> {
    if let Some(judgement) = Judgement::of_executor(&executed.told.positions) {
        return Ok(Replayed::NotAsked { judgement });
    }
    let journal = Arc::new(MemoryJournal::default());
    let proof = ProofService::new(engine.clone(), journal, ProofSettings::default(), None);
    let node = Node::new(NodeParts {
        inference: Inference::Own { engine: engine.clone(), proof },
        gate: GateControl::new(Gate::Open),
        configured,
        store: None,
        devices: vec![],
    });
    let node = node.with_answers(AnswerDefaults { logprobs_mode, ..AnswerDefaults::default() });
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(here).await.context("cannot listen on this machine")?;
    let url = format!("http://{}{}", listener.local_addr()?, executed.path());
    let stop = CancellationToken::new();
    let faces = Faces::new(Arc::new(node), FacesSettings::default());
    let serving = tokio::spawn(serve(listener, faces, stop.clone()));
    let answer = send(&url, executed, &info.served_as).await;
    stop.cancel();
    serving.await??;
    answer
}

async fn send(url: &str, executed: &Executed, served_as: &str) -> anyhow::Result<Replayed> {
    let body = executed.replay_request(served_as).to_string();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.post(url).body(body).send().await.context("the replay was not answered")?;
    let status = answer.status().as_u16();
    let text = answer.text().await.context("the replay's answer broke off")?;
    if let Some(judgement) = Judgement::of_refusal(status) {
        return Ok(Replayed::Refused { judgement, answer: text });
    }
    ensure!(status == 200, "the replay failed with status {status}: {text}");
    let answer: Value = serde_json::from_str(&text).context("the replay's answer is no JSON")?;
    Ok(Replayed::Answered(Told::read(&answer)))
}
