//! `roadbed-agent serve`: the MLNode and OpenAI faces without a controller.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use roadbed_compute::list_adapters;
use roadbed_compute::poc::Codebook;
use roadbed_protocol::AgentId;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::embeddings::EmbeddingArgs;
use super::upstream::UpstreamArgs;
use crate::config::{Kv, LogprobsWord, MemoryBytes, Split};
use crate::engine::catalogue::ModelStore;
use crate::engine::startup::{load_request, named_gpus};
use crate::engine::upstream::{Bounds, UpstreamService};
use crate::engine::{EngineService, LoadRequest, WgpuLoader};
use crate::faces::pocstream::serve_callbacks;
use crate::faces::{
    AnswerDefaults, Faces, FacesSettings, Gate, GateControl, Node, NodeParts, UpFault, serve,
};
use crate::inference::Inference;
use crate::journal::Journal;
use crate::proof::{ArtifactJournal, CallbackStream, MemoryJournal, ProofService, ProofSettings};

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roadbed-agent serve --model smollm2-135m --listen 127.0.0.1:8080
  roadbed-agent serve --model smollm2-135m --listen 127.0.0.1:8080 --gpu all
  roadbed-agent serve --model /data/13b.gguf --listen 127.0.0.1:8080 --gpu 01:00.0 --gpu 02:00.0 --split layers
  roadbed-agent gpus")]
pub struct ServeArgs {
    /// Model file or catalogue name.
    #[arg(long, required_unless_present_any = ["upstream", "embeddings"])]
    pub model: Option<String>,
    /// Where to listen.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Name the model is served under; the network's governance name must be matched exactly.
    #[arg(long)]
    pub served_as: Option<String>,
    /// Longest sequence, prompt and answer together.
    #[arg(long)]
    pub context: Option<usize>,
    /// Memory the model may take on each GPU, such as 8GiB or 6500MB; what is left over keeps more answers under way.
    #[arg(long)]
    pub memory: Option<MemoryBytes>,
    /// How answers keep keys and values; shorter forms keep more answers under way. Proofs and replays
    /// always keep f32.
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    pub kv: Kv,
    /// What log probabilities tell of where a request does not say: the model itself, or what is drawn from, after
    /// penalties, temperature and filters. The hosts of the network give processed ones.
    #[arg(long, value_enum, default_value_t = LogprobsWord::Raw)]
    pub logprobs_mode: LogprobsWord,
    /// Draw by the network's deterministic sampling contract whenever a request names its inference (`X-Inference-Id`).
    #[arg(long)]
    pub deterministic_sampling: bool,
    /// A GPU to work on, by list position, name or PCI id; several times for several, or `all` for every card. The best
    /// one unless given.
    #[arg(long = "gpu", visible_alias = "adapter", value_name = "GPU")]
    pub gpus: Vec<String>,
    /// How the model is shared out over several GPUs: a replica on each, or its layers over all of them. `auto` is
    /// replicas where it fits one GPU, else layers over as few as hold it.
    #[arg(long, default_value_t = Split::Auto, value_name = "auto|replicas|layers")]
    pub split: Split,
    /// The network's codebook file: with it the model also proves in the scheme DECODE. Its digest is checked.
    #[arg(long, value_name = "FILE", conflicts_with = "upstream")]
    pub poc_codebook: Option<PathBuf>,
    /// Bearer token that requests must carry.
    #[arg(long, env = "ROADBED_AUTH_TOKEN", hide_env_values = true)]
    pub auth_token: Option<String>,
    /// Where a newer Network Node fetches PoC callbacks over gRPC; unencrypted, so bind it to the private side. They are
    /// posted to the callback address unless given.
    #[arg(long, value_name = "ADDR")]
    pub pocstream_listen: Option<SocketAddr>,
    /// Let the Network Node's `p_value_threshold` decide about fraud; the network's own engine passes it over and decides
    /// by 0.01.
    #[arg(long)]
    pub apply_p_value_threshold: bool,
    /// Report fraud although the weights take fewer than 16 bits: for networks where everybody has this very file. Without
    /// it such a rig accuses nobody: a validation that would is failed, and says why.
    #[arg(long, conflicts_with = "upstream")]
    pub accuse_with_own_weights: bool,
    /// A folder where artifacts are kept before they are sent, so that a proof goes on where it was after a crash. Without
    /// it they are kept in memory only. One process at a time may use it.
    #[arg(long, value_name = "DIR", conflicts_with = "upstream")]
    pub journal: Option<PathBuf>,
    /// Seconds between two deliveries of artifacts; the network's own nodes take 5.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub send_every: u64,
    /// Start with nothing loaded and wait for `inference/up`.
    #[arg(long)]
    pub stopped: bool,
    /// A server in the engine's place.
    #[command(flatten)]
    pub server: UpstreamArgs,
    /// An encoder beside the model.
    #[command(flatten)]
    pub encoder: EmbeddingArgs,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    // An encoder is small: it goes onto the first GPU.
    let memory_bytes = args.memory.map(|memory| memory.0);
    let first = args.gpus.first().filter(|word| *word != "all");
    let encoder = args.encoder.load(first.map(String::as_str), memory_bytes).await?;
    let taken_bytes = encoder.as_ref().map_or(0, |(_, info)| info.memory_bytes);
    let stop = CancellationToken::new();
    let stream = callbacks(&args, &stop).await?;
    let (inference, configured) = inference(&args, taken_bytes, stream).await?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let devices = tokio::task::spawn_blocking(list_adapters).await?;

    let node = Node::new(NodeParts {
        inference: inference.clone(),
        gate: GateControl::new(Gate::Open),
        configured: configured.clone(),
        store: ModelStore::from_environment().ok(),
        devices,
    });
    let node = node.with_answers(AnswerDefaults {
        logprobs_mode: args.logprobs_mode.into(),
        by_contract: args.deterministic_sampling,
    });
    let node = Arc::new(match &encoder {
        Some((service, _)) => node.with_embeddings(service.clone()),
        None => node,
    });
    let faces = Faces::new(Arc::clone(&node), FacesSettings::new(args.auth_token));
    tracing::info!(address = %listener.local_addr()?, "listening");
    let serving = tokio::spawn(serve(listener, faces, stop.clone()));
    let mut terminated = signal(SignalKind::terminate())?;
    let running = async {
        if !args.stopped && !configured.served_as.is_empty() {
            match node.up(&configured.served_as, None).await {
                // A Network Node may tell it to stop before it is up.
                Ok(()) | Err(UpFault::Stopped) => {}
                Err(fault) => return Err(fault.into()),
            }
            if let Some(info) = inference.model() {
                tracing::info!(model = info.served_as, adapter = %info.adapter, "ready");
            }
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    // A server may take minutes to come up; an end is heard all the while.
    let ended = tokio::select! {
        ended = running => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminated.recv() => Ok(()),
    };
    tracing::info!("stopping");
    // No new request, then no more work, then the connections that waited for it.
    stop.cancel();
    inference.shut_down().await;
    if let Some((service, _)) = encoder
        && let Err(fault) = service.unload().await
    {
        tracing::warn!(%fault, "the encoder had ended already");
    }
    serving.await??;
    ended
}

/// The line that a Network Node fetches callbacks from.
async fn callbacks(
    args: &ServeArgs,
    stop: &CancellationToken,
) -> anyhow::Result<Option<CallbackStream>> {
    let Some(address) = args.pocstream_listen else { return Ok(None) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for the callback stream"))?;
    let stream = CallbackStream::start()?;
    tracing::info!(address = %listener.local_addr()?, "the callback stream listens");
    let serving = serve_callbacks(listener, stream.clone(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "callbacks cannot be fetched any more");
        }
    });
    Ok(Some(stream))
}

/// Where artifacts are kept before they are sent.
fn journal(folder: Option<&Path>) -> anyhow::Result<Arc<dyn ArtifactJournal>> {
    let Some(folder) = folder else { return Ok(Arc::new(MemoryJournal::default())) };
    let name = AgentId::new("serve").map_err(|error| anyhow::anyhow!("{error}"))?;
    let journal = Journal::open(folder, &name)
        .with_context(|| format!("cannot keep artifacts in {}", folder.display()))?;
    Ok(Arc::new(journal))
}

/// What answers, and what it is to load; an encoder has taken some of the memory.
async fn inference(
    args: &ServeArgs,
    taken_bytes: u64,
    stream: Option<CallbackStream>,
) -> anyhow::Result<(Inference, LoadRequest)> {
    if let Some((config, served_as)) = args.server.config(args.served_as.as_deref()).await? {
        let server = UpstreamService::start(config, &served_as, Bounds::default());
        let server = server.map_err(|why| anyhow::anyhow!(why))?;
        return Ok((Inference::Upstream(server), LoadRequest::of_server(&served_as)));
    }
    let mut configured = match &args.model {
        Some(model) => load_request(model, None)?,
        // An encoder alone: no name matches, so nothing is loaded.
        None => LoadRequest::of_server(""),
    };
    configured.gpus = named_gpus(&args.gpus)?;
    configured.split = args.split;
    if let (Some(_), Some(served_as)) = (&args.model, &args.served_as) {
        configured.served_as.clone_from(served_as);
    }
    configured.context_tokens = args.context;
    configured.memory_bytes = args.memory.map(|MemoryBytes(all)| all.saturating_sub(taken_bytes));
    configured.kv = args.kv.into();
    let replicas = configured.gpus.len();
    let codebook = args.poc_codebook.as_deref().map(Codebook::read).transpose()?;
    let loader = WgpuLoader::of_this_machine().with_codebook(codebook);
    let engine =
        EngineService::start_over(loader, replicas).context("cannot start the engine threads")?;
    let journal = journal(args.journal.as_deref())?;
    let settings = ProofSettings {
        send_interval: Duration::from_secs(args.send_every),
        apply_p_value_threshold: args.apply_p_value_threshold,
        accuse_with_own_weights: args.accuse_with_own_weights,
        ..ProofSettings::default()
    };
    let proof = ProofService::delivering(engine.clone(), journal, settings, None, stream);
    Ok((Inference::Own { engine, proof }, configured))
}
