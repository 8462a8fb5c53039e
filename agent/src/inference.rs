//! What answers on this rig, our own engine or an external server, behind one pair of hands.
//!
//! Both have the same states, the same drain and the same unload, so whoever switches the rig need not know which it
//! is. What they answer with differs too much to hide: the faces have a set of paths for each.

use std::sync::Arc;

use roadbed_protocol::ProofStatus;
use tokio::sync::watch;

use crate::engine::upstream::{ProofPaths, UpstreamService};
use crate::engine::{
    EngineFault, EngineService, EngineState, EngineStats, LoadRequest, MeasuredRate, ModelInfo,
    Occupancy, ReplicaView, Standing,
};
use crate::proof::{ProofCounters, ProofService};

/// See the module head. Cheap to clone.
#[derive(Clone)]
pub enum Inference {
    /// Our own engine.
    Own {
        /// Runs the model.
        engine: EngineService,
        /// Proves with it.
        proof: ProofService,
    },
    /// A server in its place.
    Upstream(UpstreamService),
}

impl Inference {
    /// Makes the model answer. A server knows its model by itself and takes nothing but its name from `request`.
    ///
    /// # Errors
    /// [`EngineFault::Load`].
    pub async fn load(&self, request: LoadRequest) -> Result<Arc<ModelInfo>, EngineFault> {
        match self {
            Self::Own { engine, .. } => engine.load(request).await,
            Self::Upstream(server) => server.load().await,
        }
    }

    /// Cancels all work and frees the model; the GPU memory that is ours to free is free when this returns.
    ///
    /// # Errors
    /// [`EngineFault::ShutDown`] if nothing is left to unload.
    pub async fn unload(&self) -> Result<(), EngineFault> {
        match self {
            Self::Own { engine, .. } => engine.unload().await,
            Self::Upstream(server) => server.unload().await,
        }
    }

    /// Cancels everything that runs or waits; the model stays.
    pub fn stop_work(&self) {
        match self {
            Self::Own { engine, .. } => engine.stop_work(),
            Self::Upstream(server) => server.stop_work(),
        }
    }

    /// Ends all proofs; what was not sent stays in the journal.
    pub async fn stop_proofs(&self) {
        match self {
            Self::Own { proof, .. } => proof.stop(),
            Self::Upstream(server) => server.stop_proofs().await,
        }
    }

    /// Whether it can work, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        match self {
            Self::Own { engine, .. } => engine.state(),
            Self::Upstream(server) => server.state(),
        }
    }

    /// What answers.
    #[must_use]
    pub fn model(&self) -> Option<Arc<ModelInfo>> {
        match self {
            Self::Own { engine, .. } => engine.model(),
            Self::Upstream(server) => server.model(),
        }
    }

    /// Whether new chats are taken. A draining rig takes none.
    pub fn set_accepting(&self, accepting: bool) {
        match self {
            Self::Own { engine, .. } => engine.set_accepting(accepting),
            Self::Upstream(server) => server.set_accepting(accepting),
        }
    }

    /// Chats that wait or run.
    #[must_use]
    pub fn open_jobs(&self) -> usize {
        match self {
            Self::Own { engine, .. } => engine.open_jobs(),
            Self::Upstream(server) => server.open_jobs(),
        }
    }

    /// Returns when no chat waits or runs.
    pub async fn drained(&self) {
        match self {
            Self::Own { engine, .. } => engine.drained().await,
            Self::Upstream(server) => server.drained().await,
        }
    }

    /// Replicas of the model that answer, and how many there are; of a server, one while it answers.
    #[must_use]
    pub fn replicas_ready(&self) -> (usize, usize) {
        match self {
            Self::Own { engine, .. } => {
                let replicas = engine.replicas();
                let ready = |r: &&ReplicaView| matches!(r.standing, Standing::Ready(_));
                (replicas.iter().filter(ready).count(), replicas.len())
            }
            Self::Upstream(server) => (usize::from(server.model().is_some()), 1),
        }
    }

    /// How full it is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        match self {
            Self::Own { engine, .. } => engine.occupancy(),
            Self::Upstream(server) => server.occupancy(),
        }
    }

    /// Work done so far.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        match self {
            Self::Own { engine, .. } => engine.stats(),
            Self::Upstream(server) => server.stats(),
        }
    }

    /// What became of this agent's artifacts; a server delivers its own.
    #[must_use]
    pub fn proof_counters(&self) -> ProofCounters {
        match self {
            Self::Own { proof, .. } => proof.counters(),
            Self::Upstream(_) => ProofCounters::default(),
        }
    }

    /// What it does of proofs and since when, by the wall clock; a server is asked itself.
    #[must_use]
    pub fn proof_status(&self) -> Option<ProofStatus> {
        match self {
            Self::Own { proof, .. } => Some(proof.status()),
            Self::Upstream(_) => None,
        }
    }

    /// How fast it proves, as measured, the newest figure first; a server's own figures are not known here.
    #[must_use]
    pub fn proof_rates(&self) -> Vec<MeasuredRate> {
        match self {
            Self::Own { engine, .. } => engine.proof_rates(),
            Self::Upstream(_) => vec![],
        }
    }

    /// Which kind of engine, as reports and metrics name it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Own { .. } => "wgpu",
            Self::Upstream(_) => "openai-upstream",
        }
    }

    /// What does the work now, for reports.
    #[must_use]
    pub fn description(&self) -> String {
        match self {
            Self::Own { engine, .. } => match engine.model() {
                None => "wgpu".into(),
                Some(info) => {
                    let names: Vec<&str> = info.adapters.iter().map(|a| a.name.as_str()).collect();
                    let names = names.join(" + ");
                    match self.replicas_ready() {
                        (_, 1) => format!("wgpu on {names}"),
                        (ready, count) => format!("wgpu, {ready} of {count} replicas on {names}"),
                    }
                }
            },
            Self::Upstream(server) => {
                let proves = server.proofs() != ProofPaths::Absent;
                let proves = if proves { ", proofs its own" } else { "" };
                format!("openai-upstream at {}{proves}", server.url())
            }
        }
    }

    /// Ends it and waits until the GPU is let go, so that the process may exit.
    pub async fn shut_down(self) {
        match self {
            Self::Own { engine, proof } => {
                proof.stop();
                engine.shut_down().await;
            }
            Self::Upstream(server) => server.shut_down().await,
        }
    }
}
