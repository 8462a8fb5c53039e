//! The engine thread: takes a turn from the queue, calls the backend, tells what came of it.
//!
//! A backend that panics (a driver that breaks its promises) costs the model, not the agent: the panic is caught, the
//! model is dropped and the state says so.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use roadbed_compute::{BatchLoad, FinishReason, Generation, SequenceId, Usage};

use super::answers::{Answering, Passed, Recipient, admit, prompt_ids};
use super::backend::{
    AnswerEvent, BackendLoader, EngineBackend, LoadRequest, ModelInfo, ProofStep,
};
use super::fault::EngineFault;
use super::job::{Control, Job, TextRequest, Tokenized};
use super::queue::{Busy, QueuedJob, QueuedProof, Turn};
use super::recovery::Recoveries;
use super::replay::score;
use super::service::{Counters, EngineState, Shared};

/// Runs until the queue is closed.
pub(super) fn work(shared: &Arc<Shared>, loader: Box<dyn BackendLoader>) {
    let mut worker = Worker {
        shared: Arc::clone(shared),
        loader,
        backend: None,
        loaded: None,
        recoveries: Recoveries::default(),
        token_bytes: None,
        answers: Vec::new(),
        answers_max: 0,
        held_up: false,
    };
    loop {
        let busy = Busy {
            answers: !worker.answers.is_empty(),
            // Without a model every job is answered at once.
            room: worker.answers.len() < worker.answers_max.max(1),
            held_up: worker.held_up,
        };
        let began = Instant::now();
        match shared.queue.next(busy) {
            Turn::Control(Control::Load { request, done }) => {
                // What runs is finished first, by the model it began with.
                while !worker.answers.is_empty() {
                    worker.step();
                }
                // Nobody may wait for it any more: it is loaded all the same, the state tells.
                drop(done.send(worker.load(&request)));
            }
            Turn::Control(Control::Unload { done }) => {
                worker.unload();
                let _gone = done.send(());
            }
            Turn::Job(queued) => {
                worker.held_up = !queued.job.is_generation();
                let began = Instant::now();
                worker.do_job(queued);
                shared.queue.chats_took(began.elapsed());
            }
            Turn::Step => {
                worker.held_up = false;
                worker.step();
                shared.queue.chats_took(began.elapsed());
            }
            Turn::Proof(queued) => {
                let began = Instant::now();
                worker.step_proof(queued);
                shared.queue.proofs_took(began.elapsed(), !worker.answers.is_empty());
            }
            Turn::Closed => break,
        }
        worker.tell_load();
    }
    worker.unload();
    let (jobs, proofs) = shared.queue.clear();
    jobs.into_iter().for_each(|queued| queued.job.refuse(EngineFault::ShutDown));
    for queued in proofs {
        drop(queued.proof.done.send(Err(EngineFault::ShutDown)));
    }
    shared.ended.send_replace(true);
}

struct Worker {
    shared: Arc<Shared>,
    loader: Box<dyn BackendLoader>,
    backend: Option<Box<dyn EngineBackend>>,
    /// How the model was loaded, to load it again when its device is lost.
    loaded: Option<LoadRequest>,
    recoveries: Recoveries,
    /// Bytes of every token id, for log probabilities; made when they are first asked for.
    token_bytes: Option<Arc<[Vec<u8>]>>,
    answers: Vec<Answering>,
    /// Answers that the loaded model takes together.
    answers_max: usize,
    /// The last turn was a job that held the answers up.
    held_up: bool,
}

impl Worker {
    fn load(&mut self, request: &LoadRequest) -> Result<ModelInfo, EngineFault> {
        // The old model first, or two would need memory at once.
        self.unload();
        let served_as = request.served_as.clone();
        self.shared.state.send_replace(EngineState::Loading { served_as: served_as.clone() });
        let loader = &mut self.loader;
        let loaded = guarded(|| {
            let backend = loader.load(request)?;
            backend.health()?;
            let info = backend.info();
            Ok((backend, info))
        });
        match loaded {
            Ok((backend, info)) => {
                self.backend = Some(backend);
                self.loaded = Some(request.clone());
                self.answers_max = info.answers_max;
                self.shared.state.send_replace(EngineState::Ready(Arc::new(info.clone())));
                Ok(info)
            }
            Err(fault) => {
                tracing::error!(model = %served_as, %fault, "loading failed");
                let failed = EngineState::Failed { served_as, fault: fault.clone() };
                self.shared.state.send_replace(failed);
                Err(fault)
            }
        }
    }

    fn token_bytes(&mut self, wanted: bool) -> Arc<[Vec<u8>]> {
        if !wanted {
            return Arc::from([]);
        }
        if let Some(bytes) = &self.token_bytes {
            return Arc::clone(bytes);
        }
        let bytes: Arc<[Vec<u8>]> = self.backend.as_ref().map_or_else(
            || Arc::from([]),
            |backend| {
                let count = u32::try_from(backend.info().vocabulary).unwrap_or(u32::MAX);
                (0..count).map(|id| backend.token_bytes(id)).collect()
            },
        );
        self.token_bytes = Some(Arc::clone(&bytes));
        bytes
    }

    fn unload(&mut self) {
        self.fail_answers(&EngineFault::Cancelled);
        self.token_bytes = None;
        self.loaded = None;
        self.answers_max = 0;
        if let Some(backend) = self.backend.take()
            && catch_unwind(AssertUnwindSafe(move || drop(backend))).is_err()
        {
            tracing::error!("the engine panicked while it was freed");
        }
        self.shared.state.send_replace(EngineState::Empty);
    }

    /// Runs `call` with the backend. A lost device or a panic costs the model, unless it can be loaded again.
    fn with_backend<T>(
        &mut self,
        call: impl FnOnce(&mut dyn EngineBackend) -> Result<T, EngineFault>,
    ) -> Result<T, EngineFault> {
        let Some(backend) = self.backend.as_mut() else { return Err(EngineFault::NoModel) };
        let result = guarded(|| call(backend.as_mut()));
        if let Err(fault @ EngineFault::DeviceLost { .. }) = &result {
            self.lost(fault);
        }
        result
    }

    /// As [`Self::with_backend`], and once more if the device was lost and is open again.
    fn with_backend_again<T>(
        &mut self,
        mut call: impl FnMut(&mut dyn EngineBackend) -> Result<T, EngineFault>,
    ) -> Result<T, EngineFault> {
        match self.with_backend(&mut call) {
            Err(EngineFault::DeviceLost { .. }) if self.backend.is_some() => {
                self.with_backend(&mut call)
            }
            result => result,
        }
    }

    /// Opens a lost device again and lets the answers go on, or tells everybody.
    fn lost(&mut self, fault: &EngineFault) {
        let served_as = backend_name(&self.shared);
        tracing::error!(model = %served_as, %fault, "the model is lost");
        let mut answers = std::mem::take(&mut self.answers);
        if let Some(request) = self.loaded.take()
            && self.recoveries.allow(Instant::now())
            && self.load(&request).is_ok()
        {
            tracing::warn!(model = %served_as, answers = answers.len(), "the model was loaded again");
            answers = self.go_on(answers);
        } else {
            self.unload();
            let failed = EngineState::Failed { served_as, fault: fault.clone() };
            self.shared.state.send_replace(failed);
        }
        // Whoever learns of it finds the state changed already.
        for answer in answers {
            self.end(answer, Err(fault.clone()));
        }
    }

    /// Begins answers again on a device opened anew; returns those that cannot.
    fn go_on(&mut self, answers: Vec<Answering>) -> Vec<Answering> {
        let mut left = Vec::new();
        for mut answer in answers {
            let backend = self.backend.as_mut().zip(answer.again());
            let admitted =
                backend.and_then(|(backend, request)| guarded(|| backend.admit(request)).ok());
            match admitted {
                Some(id) => {
                    answer.goes_on_as(id);
                    self.answers.push(answer);
                }
                None => left.push(answer),
            }
        }
        left
    }

    fn do_job(&mut self, queued: QueuedJob) {
        let QueuedJob { job, epoch, open } = queued;
        if job.is_abandoned() || !self.shared.is_current(epoch) {
            Counters::add(&self.shared.counters.cancelled, 1);
            job.refuse(EngineFault::Cancelled);
            return;
        }
        let began = Instant::now();
        match job {
            Job::Generate { request, tokens, done } => {
                self.begin(request, Recipient { tokens, done, epoch, open });
            }
            Job::Score { request, done } => {
                let bytes = self.token_bytes(true);
                let scored =
                    self.with_backend_again(|backend| score(backend, request.clone(), &bytes));
                self.count(scored.as_ref().map(|s| (FinishReason::Stop, s.usage)));
                self.count_time(began);
                drop(open);
                drop(done.send(scored));
            }
            Job::Tokenize { prompt, done } => {
                let ids = self.with_backend(|backend| {
                    let ids = prompt_ids(backend, prompt)?;
                    Ok(Tokenized { text: backend.detokenize(&ids), ids })
                });
                drop(open);
                drop(done.send(ids));
            }
        }
    }

    fn begin(&mut self, request: TextRequest, recipient: Recipient) {
        let bytes = self.token_bytes(request.top_logprobs.is_some());
        match self.with_backend_again(|backend| admit(backend, request.clone())) {
            Ok(admitted) => self.answers.push(Answering::new(admitted, recipient, bytes)),
            Err(fault) => {
                self.count(Err(&fault));
                recipient.send(Err(fault));
            }
        }
    }

    /// Drops the answers nobody wants any more, then works a step on the others.
    fn step(&mut self) {
        let shared = Arc::clone(&self.shared);
        let unwanted = |answer: &mut Answering| {
            !answer.recipient.is_there() || !shared.is_current(answer.recipient.epoch)
        };
        for answer in self.answers.extract_if(.., unwanted).collect::<Vec<_>>() {
            if let Some(generation) = self.cancel(&answer) {
                Counters::add(&shared.counters.tokens, generation.usage.completion_tokens);
            }
            self.end(answer, Err(EngineFault::Cancelled));
        }
        if self.answers.is_empty() {
            return;
        }
        let began = Instant::now();
        match self.with_backend(|backend| backend.step()) {
            Ok(events) => events.into_iter().for_each(|event| self.take(event)),
            // Whoever does not go on was told already.
            Err(EngineFault::DeviceLost { .. }) => {}
            Err(fault) => self.fail_answers(&fault),
        }
        self.count_time(began);
    }

    fn take(&mut self, event: AnswerEvent) {
        match event {
            AnswerEvent::Token { id, token } => {
                let Some(at) = self.answers.iter().position(|answer| answer.id == id) else {
                    return;
                };
                match self.answers[at].pass_on(token) {
                    Passed::On => {}
                    Passed::Unwanted => {
                        let answer = self.answers.swap_remove(at);
                        if let Some(generation) = self.cancel(&answer) {
                            self.end(answer, Ok(generation));
                        } else {
                            // It was complete; its last event follows.
                            self.answers.push(answer);
                        }
                    }
                    Passed::Different => {
                        let answer = self.answers.swap_remove(at);
                        self.cancel(&answer);
                        let reason = "the answer could not be continued after it".to_owned();
                        self.end(answer, Err(EngineFault::DeviceLost { reason }));
                    }
                }
            }
            AnswerEvent::Finished { id, generation } => self.end_of(id, Ok(generation)),
            AnswerEvent::Failed { id, fault } => self.end_of(id, Err(fault)),
        }
    }

    fn cancel(&mut self, answer: &Answering) -> Option<Generation> {
        self.with_backend(|backend| Ok(backend.cancel(answer.id))).ok().flatten()
    }

    fn end_of(&mut self, id: SequenceId, outcome: Result<Generation, EngineFault>) {
        if let Some(at) = self.answers.iter().position(|answer| answer.id == id) {
            let answer = self.answers.swap_remove(at);
            self.end(answer, outcome);
        }
    }

    fn end(&self, answer: Answering, outcome: Result<Generation, EngineFault>) {
        self.count(outcome.as_ref().map(|generation| (generation.finish, generation.usage)));
        match outcome {
            Ok(generation) => answer.finish(generation),
            Err(fault) => answer.recipient.send(Err(fault)),
        }
    }

    /// Ends all answers under way with one fault.
    fn fail_answers(&mut self, fault: &EngineFault) {
        for answer in std::mem::take(&mut self.answers) {
            self.cancel(&answer);
            self.end(answer, Err(fault.clone()));
        }
    }

    fn tell_load(&self) {
        let load = self.backend.as_ref().map_or_else(BatchLoad::default, |b| b.batch_load());
        if *self.shared.batch.borrow() != load {
            self.shared.batch.send_replace(load);
        }
    }

    fn count_time(&self, began: Instant) {
        let millis = usize::try_from(began.elapsed().as_millis());
        Counters::add(&self.shared.counters.busy_millis, millis.unwrap_or(usize::MAX));
    }

    fn count(&self, outcome: Result<(FinishReason, Usage), &EngineFault>) {
        let counters = &self.shared.counters;
        match outcome {
            Ok((finish, usage)) => {
                Counters::add(&counters.prompt_tokens, usage.prompt_tokens);
                Counters::add(&counters.tokens, usage.completion_tokens);
                match finish {
                    FinishReason::Stop | FinishReason::Length => {
                        Counters::add(&counters.completions, 1);
                    }
                    FinishReason::Cancelled => Counters::add(&counters.cancelled, 1),
                }
            }
            Err(EngineFault::Cancelled) => Counters::add(&counters.cancelled, 1),
            Err(EngineFault::BadRequest { .. }) => {}
            Err(
                EngineFault::NoModel
                | EngineFault::Draining
                | EngineFault::QueueFull { .. }
                | EngineFault::DeviceLost { .. }
                | EngineFault::ServerLost { .. }
                | EngineFault::Load { .. }
                | EngineFault::Failed { .. }
                | EngineFault::ShutDown,
            ) => Counters::add(&counters.failed, 1),
        }
    }

    /// One step of a proof: up to a batch of nonces.
    fn step_proof(&mut self, mut queued: QueuedProof) {
        let order = &mut queued.proof.order;
        let mut taken = Vec::new();
        let outcome = if self.shared.is_current(queued.epoch) {
            let counters = Arc::clone(&self.shared);
            self.with_backend(|backend| {
                let batch = backend.prepare_proof(&order.round)?.min(order.batch).max(1);
                taken.extend(order.nonces.by_ref().take(batch));
                if taken.is_empty() {
                    return Ok(ControlFlow::Break(()));
                }
                for step in backend.prove(&order.round, &taken)? {
                    let counter = match step {
                        ProofStep::Artifact(_) => &counters.counters.artifacts,
                        ProofStep::Dropped { .. } => &counters.counters.nonces_dropped,
                    };
                    Counters::add(counter, 1);
                    if (order.on_step)(step).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            })
        } else {
            Err(EngineFault::Cancelled)
        };
        let end = match outcome {
            Ok(ControlFlow::Continue(())) if self.shared.is_current(queued.epoch) => {
                self.shared.queue.put_back(queued);
                return;
            }
            Ok(ControlFlow::Continue(())) => Err(EngineFault::Cancelled),
            Ok(ControlFlow::Break(())) => Ok(()),
            Err(EngineFault::DeviceLost { .. }) if self.backend.is_some() => {
                // The device is open again, and none of the step's nonces counted.
                let order = &mut queued.proof.order;
                let rest = std::mem::replace(&mut order.nonces, Box::new(std::iter::empty()));
                order.nonces = Box::new(taken.into_iter().chain(rest));
                self.shared.queue.put_back(queued);
                return;
            }
            Err(fault) => Err(fault),
        };
        drop(queued.proof.done.send(end));
    }
}

fn backend_name(shared: &Shared) -> String {
    shared.state.borrow().model().map_or_else(String::new, |info| info.served_as.clone())
}

/// Runs `call`; a panic becomes a lost device, because what it left behind cannot be trusted.
fn guarded<T>(call: impl FnOnce() -> Result<T, EngineFault>) -> Result<T, EngineFault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let words = words.unwrap_or_else(|| "no message".into());
        Err(EngineFault::DeviceLost { reason: format!("the engine panicked: {words}") })
    })
}
