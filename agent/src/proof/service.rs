//! The handle of the proof side: at most one round, a line of jobs, and what became of them.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roadbed_compute::poc::{Artifact, DecodeRefusal, Round, Scheme};
use roadbed_protocol::{ProofActivity, ProofRound, ProofStatus, UnixMillis};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::callback::client;
use super::delivery::{Courier, Parcel, RoundDelivery, generated_body, sent_form};
use super::journal::{ArtifactJournal, JournalFault, Recovered, StoredArtifact};
use super::request::{JobRequest, ProofRefusal, RoundRequest};
use super::round::{ActiveRound, RoundView};
use super::standing::Standing;
use super::stream::CallbackStream;
use super::validation::{JobOutcome, JobState, JobTable, JobView, validated_body};
use super::verdict::{Pass, claims, conclude, confirm, sound_weights};
use crate::clock::wall_now;
use crate::engine::{EngineFault, EngineService, ProofOrder, ProofStep};

/// How often artifacts are sent, and how long a job waits for a round to end; the network's own values by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofSettings {
    /// Wall time between two deliveries.
    pub send_interval: Duration,
    /// Wall time between the first two tries of a delivery; doubled with each, up to half a minute.
    pub retry_first: Duration,
    /// Wall time after which a job that cannot run fails.
    pub job_wait_max: Duration,
    /// Whether a job's `p_value_threshold` decides. The network's own engine does not know the field that its Network
    /// Node sends and decides by 0.01 instead, so it is passed over unless the operator says otherwise.
    pub apply_p_value_threshold: bool,
    /// Whether verdicts of fraud count where the weights here take fewer than 16 bits. Such a file is another model than
    /// the published one by the measure that the network detects fraud with: to it every honest host is a cheat.
    pub accuse_with_own_weights: bool,
}

impl Default for ProofSettings {
    fn default() -> Self {
        Self {
            send_interval: Duration::from_secs(5),
            retry_first: Duration::from_secs(1),
            job_wait_max: Duration::from_secs(60),
            apply_p_value_threshold: false,
            accuse_with_own_weights: false,
        }
    }
}

/// Told to whoever keeps the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofEvent {
    /// The Network Node has taken these.
    Delivered {
        /// Block hash of the round.
        block_hash: String,
        /// The nonces.
        nonces: Vec<u32>,
    },
    /// The Network Node does not want a payload (status 4xx). Told once for each payload.
    CallbackRefused {
        /// Block hash of the round.
        block_hash: String,
        /// What it answered.
        status: u16,
        /// Artifacts or verdicts in the payload.
        items: usize,
        /// Its words.
        reason: String,
    },
}

/// Work of the proof side since it began; never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProofCounters {
    /// Artifacts of rounds the Network Node has taken.
    pub delivered: u64,
    /// Deliveries that were not taken at the first try, each try counted.
    pub failed_posts: u64,
    /// Payloads that the Network Node does not want.
    pub refused_payloads: u64,
    /// Artifacts of rounds whose payload was refused again and again, also after another one was taken.
    pub refused: u64,
    /// Artifacts of rounds dropped because too many waited, or because nobody fetched them in time.
    pub dropped: u64,
    /// Artifacts of rounds that still waited when their round was stopped.
    pub discarded: u64,
}

struct Inner {
    engine: EngineService,
    journal: Arc<dyn ArtifactJournal>,
    courier: Courier,
    settings: ProofSettings,
    round: Mutex<Option<Arc<ActiveRound>>>,
    /// Held while a round is being started, so that two requests at once cannot both win.
    starting: tokio::sync::Mutex<()>,
    generating: watch::Sender<bool>,
    standing: Standing,
    jobs: Mutex<JobTable>,
    /// Replaced at every stop; jobs live under the one of their time.
    jobs_cancel: Mutex<CancellationToken>,
    /// Jobs run one by one, in the order they came.
    turn: Arc<Semaphore>,
}

/// The proof side of a rig. Cheap to clone.
#[derive(Clone)]
pub struct ProofService {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProofService {
    /// A proof side that idles.
    #[must_use]
    pub fn new(
        engine: EngineService,
        journal: Arc<dyn ArtifactJournal>,
        settings: ProofSettings,
        events: Option<mpsc::Sender<ProofEvent>>,
    ) -> Self {
        Self::delivering(engine, journal, settings, events, None)
    }

    /// The same; with a stream, payloads wait there to be fetched instead of being posted.
    #[must_use]
    pub fn delivering(
        engine: EngineService,
        journal: Arc<dyn ArtifactJournal>,
        settings: ProofSettings,
        events: Option<mpsc::Sender<ProofEvent>>,
        stream: Option<CallbackStream>,
    ) -> Self {
        let inner = Inner {
            engine,
            journal,
            courier: Courier {
                http: client(),
                counters: Arc::default(),
                events,
                retry_first: settings.retry_first,
                stream,
            },
            settings,
            round: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            generating: watch::Sender::new(false),
            standing: Standing::default(),
            jobs: Mutex::default(),
            jobs_cancel: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether DECODE rounds are served with the model that is up, and if not, why; nothing is up: nothing is said.
    #[must_use]
    pub fn decode(&self) -> Option<Result<(), DecodeRefusal>> {
        self.inner.engine.model().map(|model| model.decode.clone())
    }

    /// Begins a round, or goes on with it if the journal knows it.
    ///
    /// # Errors
    /// [`ProofRefusal`].
    pub async fn start_round(&self, request: RoundRequest) -> Result<(), ProofRefusal> {
        let inner = &self.inner;
        let _starting = inner.starting.lock().await;
        self.check(&request)?;
        if lock(&inner.round).as_ref().is_some_and(|round| round.is_generating()) {
            return Err(ProofRefusal::AlreadyGenerating);
        }
        // A round that failed may still be delivering; the new one takes its artifacts over from the journal.
        self.end_round();
        let recovered = self.recover(&request).await?;
        if recovered.next_index > 0 {
            tracing::info!(
                next_index = recovered.next_index,
                undelivered = recovered.undelivered.len(),
                "the round is known and goes on"
            );
        }
        let round = Arc::new(ActiveRound::new(request, Arc::clone(&inner.courier.counters)));
        let order = round.order(recovered, Arc::clone(&inner.journal))?;
        let ended = inner.engine.prove(order)?;
        *lock(&inner.round) = Some(Arc::clone(&round));
        inner.generating.send_replace(true);
        self.note();

        let delivery = RoundDelivery {
            request: round.request.clone(),
            buffer: Arc::clone(&round.buffer),
            journal: Arc::clone(&inner.journal),
            courier: inner.courier.clone(),
            interval: inner.settings.send_interval,
            cancel: round.cancel.clone(),
        };
        tokio::spawn(delivery.run());
        let service = self.clone();
        tokio::spawn(async move {
            let end = ended.await.unwrap_or(Err(EngineFault::ShutDown));
            if round.cancel.is_cancelled() {
                return;
            }
            match end {
                Ok(()) => tracing::info!("the round has no nonces left"),
                Err(fault) => tracing::error!(%fault, "the round ended early"),
            }
            round.generating.store(false, Ordering::Release);
            let current = lock(&service.inner.round).clone();
            if current.is_none_or(|current| Arc::ptr_eq(&current, &round)) {
                service.inner.generating.send_replace(false);
                service.note();
            }
        });
        Ok(())
    }

    /// Ends the round and all jobs; what was not sent stays in the journal. Safe to call in any state.
    pub fn stop(&self) {
        self.end_round();
        let cancel = std::mem::take(&mut *lock(&self.inner.jobs_cancel));
        cancel.cancel();
    }

    fn end_round(&self) {
        if let Some(round) = lock(&self.inner.round).take() {
            round.cancel.cancel();
        }
        self.inner.generating.send_replace(false);
        self.note();
    }

    /// The round under way, or the one that failed and still delivers.
    #[must_use]
    pub fn round(&self) -> Option<RoundView> {
        lock(&self.inner.round).as_ref().map(|round| round.view())
    }

    /// True while a round computes.
    #[must_use]
    pub fn is_generating(&self) -> bool {
        *self.inner.generating.borrow()
    }

    /// True while a job waits or runs.
    #[must_use]
    pub fn is_validating(&self) -> bool {
        lock(&self.inner.jobs).is_busy()
    }

    /// What it does and since when, by the wall clock, in the words of `pow/status`.
    #[must_use]
    pub fn status(&self) -> ProofStatus {
        let (activity, since) = self.note();
        let round = self.round().map(|view| ProofRound {
            block_hash: view.request.round.identity.block_hash,
            block_height: view.request.block_height,
            processed: view.processed,
            waiting: view.buffered as u64,
        });
        ProofStatus { activity, since, round }
    }

    fn note(&self) -> (ProofActivity, UnixMillis) {
        let activity = if self.inner.engine.model().is_none() {
            ProofActivity::Absent
        } else if self.is_generating() {
            ProofActivity::Generating
        } else if self.is_validating() {
            ProofActivity::Validating
        } else {
            ProofActivity::Idle
        };
        (activity, self.inner.standing.note(activity, wall_now()))
    }

    /// Nonces that wait in jobs.
    #[must_use]
    pub fn nonces_queued(&self) -> usize {
        lock(&self.inner.jobs).nonces_queued()
    }

    /// Work done so far.
    #[must_use]
    pub fn counters(&self) -> ProofCounters {
        let delivery = &self.inner.courier.counters;
        ProofCounters {
            delivered: delivery.delivered.load(Ordering::Relaxed),
            failed_posts: delivery.failed_posts.load(Ordering::Relaxed),
            refused_payloads: delivery.refused_payloads.load(Ordering::Relaxed),
            refused: delivery.refused.load(Ordering::Relaxed),
            dropped: delivery.dropped.load(Ordering::Relaxed),
            discarded: delivery.discarded.load(Ordering::Relaxed),
        }
    }

    /// Takes a job in and gives its id; [`ProofService::finished`] waits for it.
    ///
    /// # Errors
    /// [`ProofRefusal`].
    pub fn submit(&self, job: JobRequest) -> Result<String, ProofRefusal> {
        self.check(&job.request)?;
        let id = new_id()?;
        lock(&self.inner.jobs).admit(&id, &job)?;
        self.note();
        let cancel = lock(&self.inner.jobs_cancel).clone();
        let (service, for_task) = (self.clone(), id.clone());
        tokio::spawn(async move { service.run_job(for_task, job, cancel).await });
        Ok(id)
    }

    /// A job, if it is still known.
    #[must_use]
    pub fn job(&self, id: &str) -> Option<JobView> {
        lock(&self.inner.jobs).view(id)
    }

    /// Waits until a job is done, failed or cancelled.
    pub async fn finished(&self, id: &str) -> Option<JobView> {
        let mut state = lock(&self.inner.jobs).watch(id)?;
        let state = state.wait_for(JobState::is_final).await.ok()?.clone();
        let k_dim = lock(&self.inner.jobs).view(id).map_or(0, |view| view.k_dim);
        Some(JobView { id: id.to_owned(), state, k_dim })
    }

    fn check(&self, request: &RoundRequest) -> Result<(), ProofRefusal> {
        let model = self.inner.engine.model().ok_or(ProofRefusal::NoModel)?;
        let Round { scheme, seq_len, .. } = request.round;
        if let Scheme::Decode(_) = scheme {
            model.decode.clone()?;
        }
        let tokens = scheme.tokens(seq_len);
        if model.served_as != request.model || tokens > model.context_tokens {
            return Err(ProofRefusal::Mismatch {
                requested: request.model.clone(),
                deployed: model.served_as.clone(),
                seq_len: request.round.seq_len,
                context: model.context_tokens,
            });
        }
        Ok(())
    }

    async fn recover(&self, request: &RoundRequest) -> Result<Recovered, ProofRefusal> {
        let (journal, key) = (Arc::clone(&self.inner.journal), request.key());
        let recovered = tokio::task::spawn_blocking(move || journal.recover(&key)).await;
        Ok(recovered.unwrap_or_else(|error| Err(JournalFault(error.to_string())))?)
    }

    async fn run_job(&self, id: String, job: JobRequest, cancel: CancellationToken) {
        let set = |state: JobState| {
            lock(&self.inner.jobs).set(&id, state);
            self.note();
        };
        let outcome = tokio::select! {
            () = cancel.cancelled() => return set(JobState::Cancelled),
            outcome = self.compute_job(&id, &job, &cancel) => outcome,
        };
        match outcome {
            Ok(outcome) => {
                set(JobState::Completed(outcome.clone()));
                self.report_job(&id, &job, &outcome, &cancel).await;
            }
            Err(EngineFault::Cancelled) => set(JobState::Cancelled),
            Err(fault) => {
                tracing::error!(%fault, id, "a proof job failed; no verdict is given");
                set(JobState::Failed(fault.to_string()));
            }
        }
    }

    async fn compute_job(
        &self,
        id: &str,
        job: &JobRequest,
        cancel: &CancellationToken,
    ) -> Result<JobOutcome, EngineFault> {
        let inner = &self.inner;
        let failed = |reason: String| EngineFault::Failed { reason };
        let _turn = inner.turn.acquire().await.map_err(|_closed| EngineFault::ShutDown)?;
        let mut generating = inner.generating.subscribe();
        let idle = generating.wait_for(|generating| !generating);
        match tokio::time::timeout(inner.settings.job_wait_max, idle).await {
            Ok(_) => {}
            Err(_elapsed) => {
                let waited = inner.settings.job_wait_max.as_secs();
                return Err(failed(format!("a round was under way for {waited} s")));
            }
        }
        lock(&inner.jobs).set(id, JobState::Running);
        let weights = inner.engine.model().and_then(|model| model.weights);
        let first = self.pass(job, job.nonces.clone(), cancel).await?;
        let mut test = job.stat_test;
        if inner.settings.apply_p_value_threshold {
            test.fraud_threshold = job.p_value_threshold.unwrap_or(test.fraud_threshold);
        }
        let outcome = conclude(job, test, &first).map_err(failed)?;
        if let JobOutcome::Verdict(verdict) = &outcome
            && verdict.fraud_detected
        {
            if !inner.settings.accuse_with_own_weights {
                sound_weights(weights).map_err(failed)?;
            }
            // An accusation costs somebody an epoch: what it rests on is computed once more.
            let second = self.pass(job, verdict.mismatch_nonces.clone(), cancel).await?;
            confirm(job, test, verdict, &first, &second).map_err(failed)?;
        }
        Ok(outcome)
    }

    /// Computes some of a job's nonces.
    async fn pass(
        &self,
        job: &JobRequest,
        nonces: Vec<u32>,
        cancel: &CancellationToken,
    ) -> Result<Pass, EngineFault> {
        let asked = nonces.len();
        let computed: Arc<Mutex<Vec<Artifact>>> = Arc::default();
        let (kept, cancelled) = (Arc::clone(&computed), cancel.clone());
        let order = ProofOrder {
            round: job.request.round.clone(),
            nonces: Box::new(nonces.into_iter()),
            batch: job.request.batch,
            claims: claims(job),
            cancel: cancel.clone(),
            on_step: Box::new(move |step| {
                if cancelled.is_cancelled() {
                    return ControlFlow::Break(());
                }
                match step {
                    ProofStep::Artifact(artifact) => lock(&kept).push(artifact),
                    ProofStep::Dropped { .. } => {}
                }
                ControlFlow::Continue(())
            }),
        };
        self.inner.engine.prove(order)?.await.unwrap_or(Err(EngineFault::ShutDown))?;
        if cancel.is_cancelled() {
            return Err(EngineFault::Cancelled);
        }
        let artifacts = std::mem::take(&mut *lock(&computed));
        Ok(Pass { asked, artifacts })
    }

    /// Posts the outcome once it is there, if the job came with an address.
    async fn report_job(
        &self,
        id: &str,
        job: &JobRequest,
        outcome: &JobOutcome,
        cancel: &CancellationToken,
    ) {
        let Some(url) = &job.request.url else { return };
        let (end, body) = match outcome {
            JobOutcome::Verdict(verdict) => ("validated", validated_body(id, job, verdict)),
            JobOutcome::Artifacts(artifacts) => {
                let stored: Vec<StoredArtifact> = artifacts
                    .iter()
                    .map(|a| StoredArtifact { nonce: a.nonce, vector_b64: sent_form(a) })
                    .collect();
                ("generated", generated_body(&job.request, &stored, Some(id)))
            }
        };
        match body {
            Ok(body) => {
                let block_hash = &job.request.round.identity.block_hash;
                let (body, items) = (body.into(), job.nonces.len());
                let parcel = Parcel { url, end, body, block_hash, items, again: false };
                self.inner.courier.bring(parcel, cancel).await;
            }
            Err(error) => tracing::error!(%error, id, "cannot write an outcome as JSON"),
        }
    }
}

/// A random id in the form of a version 4 UUID.
fn new_id() -> Result<String, ProofRefusal> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| EngineFault::Failed { reason: format!("no random bytes: {error}") })?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}
