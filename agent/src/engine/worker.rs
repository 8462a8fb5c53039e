//! An engine thread, one for each replica of the model: takes a turn from the queue, calls the backend, tells what came of it.
//!
//! A backend that panics (a driver that breaks its promises) costs the model, not the agent: the panic is caught, the
//! model is dropped and the state says so.

mod proof;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roadbed_compute::{BatchLoad, FinishReason, Generation, SequenceId, Usage};

use super::answers::{Answering, Passed, Recipient, admit, prompt_ids};
use super::backend::{AnswerEvent, EngineBackend, LoadRequest};
use super::change::Change;
use super::fault::EngineFault;
use super::job::{Job, TextRequest, Tokenized};
use super::queue::{Busy, QueuedJob, Turn};
use super::recovery::Recoveries;
use super::replay::score;
use super::replica::{Counters, Standing};
use super::service::Shared;
use proof::Walking;

/// Runs replica `number` until the queue is closed.
pub(super) fn work(shared: &Arc<Shared>, number: usize) {
    let mut worker = Worker {
        shared: Arc::clone(shared),
        number,
        backend: None,
        loaded: None,
        recoveries: Recoveries::default(),
        token_bytes: None,
        answers: Vec::new(),
        answers_max: 0,
        held_up: false,
        walking: None,
    };
    loop {
        let busy = worker.busy();
        let began = Instant::now();
        match shared.queue.next(number, busy) {
            Turn::Change(change) => worker.change(&change),
            Turn::Job(queued) => {
                worker.held_up = !queued.job.is_generation();
                let began = Instant::now();
                worker.do_job(queued);
                shared.queue.chats_took(number, began.elapsed());
            }
            Turn::GoOn(answer) => worker.take_over(answer),
            Turn::Step => {
                worker.held_up = false;
                worker.step();
                shared.queue.chats_took(number, began.elapsed());
            }
            Turn::Proof(proof) => {
                let began = Instant::now();
                worker.step_proof(proof);
                shared.queue.proofs_took(number, began.elapsed(), !worker.answers.is_empty());
            }
            Turn::Walk => {
                let began = Instant::now();
                worker.walk_on();
                shared.queue.proofs_took(number, began.elapsed(), !worker.answers.is_empty());
            }
            Turn::Mend => worker.mend(),
            Turn::Closed => break,
        }
        worker.tell_load();
    }
    worker.unload();
    shared.refuse_all(&EngineFault::ShutDown);
    shared.queue.abandon();
    shared.threads.send_modify(|threads| *threads = threads.saturating_sub(1));
}

struct Worker {
    shared: Arc<Shared>,
    /// Which replica it is.
    number: usize,
    backend: Option<Box<dyn EngineBackend>>,
    /// How the model was loaded, or should have been: to load it again when its device is lost.
    loaded: Option<LoadRequest>,
    recoveries: Recoveries,
    /// Bytes of every token id, for log probabilities; made when they are first asked for.
    token_bytes: Option<Arc<[Vec<u8>]>>,
    answers: Vec<Answering>,
    /// Answers that the loaded model takes together.
    answers_max: usize,
    /// The last turn was a job that held the answers up.
    held_up: bool,
    /// Nonces of a DECODE round on their way.
    walking: Option<Walking>,
}

impl Worker {
    fn busy(&self) -> Busy {
        let alive = self.backend.is_some();
        Busy {
            alive,
            answers: self.answers.len(),
            room: self.answers.len() < self.answers_max,
            pages_free: self.backend.as_ref().map_or(0, |b| b.batch_load().pages_free),
            held_up: self.held_up,
            walking: self.walking.is_some(),
            mend_at: match (alive, &self.loaded) {
                (false, Some(_)) => Some(self.recoveries.next(Instant::now())),
                (true, _) | (false, None) => None,
            },
        }
    }

    fn counters(&self) -> &Counters {
        self.shared.replicas.counters(self.number)
    }

    fn stand(&self, standing: Standing) {
        self.shared.replicas.set(self.number, standing);
    }

    /// Carries out this replica's part of a change.
    fn change(&mut self, change: &Change) {
        // What runs is finished first, by the model it began with.
        while change.load.is_some() && !self.answers.is_empty() {
            self.step();
        }
        self.unload();
        if let Some((request, break_off)) = &change.load
            && self.shared.queue.meet()
        {
            let shared = Arc::clone(&self.shared);
            let place = || guarded(|| shared.loader().place(request));
            let own = match change.placement.get_or_init(place) {
                Ok(groups) => groups.get(self.number).map(|gpus| {
                    self.load(LoadRequest { gpus: gpus.clone(), ..request.clone() }, break_off)
                }),
                // One of them says it for all.
                Err(fault) if self.number == 0 => {
                    self.lose(request.served_as.clone(), fault.clone());
                    Some(Err(fault.clone()))
                }
                Err(_) => None,
            };
            if let Some(Err(fault)) = own {
                change.failed(fault);
            }
        }
        if self.shared.queue.changed(self.number, self.busy()) {
            change.tell(self.shared.replicas.ready() > 0);
        }
    }

    fn load(
        &mut self,
        request: LoadRequest,
        break_off: &Arc<AtomicBool>,
    ) -> Result<(), EngineFault> {
        let served_as = request.served_as.clone();
        self.stand(Standing::Loading { served_as: served_as.clone() });
        let loaded = guarded(|| {
            if break_off.load(Ordering::Acquire) {
                return Err(EngineFault::Cancelled);
            }
            let backend = self.shared.loader().load(&request, break_off)?;
            backend.health()?;
            let info = backend.info();
            Ok((backend, info))
        });
        self.loaded = Some(request);
        match loaded {
            Ok((backend, info)) => {
                self.backend = Some(backend);
                self.answers_max = info.answers_max;
                self.shared.pace.forget(self.number);
                self.stand(Standing::Ready(Arc::new(info)));
                Ok(())
            }
            Err(fault) => {
                if fault == EngineFault::Cancelled {
                    tracing::info!(model = %served_as, "loading was broken off");
                } else {
                    tracing::error!(model = %served_as, replica = self.number, %fault, "loading failed");
                }
                self.lose(served_as, fault.clone());
                Err(fault)
            }
        }
    }

    /// There is no model here any more. While others have it, it is loaded again when the recovery rule allows; else
    /// that is left to whoever watches the rig.
    fn lose(&mut self, served_as: String, fault: EngineFault) {
        if !self.shared.replicas.is_shared() {
            self.loaded = None;
        }
        self.stand(Standing::Lost { served_as, fault });
    }

    /// Loads a lost replica again.
    fn mend(&mut self) {
        if self.recoveries.allow(Instant::now())
            && let Some(request) = self.loaded.clone()
            && self.load(request, &self.shared.break_off()).is_ok()
        {
            tracing::warn!(replica = self.number, "the replica is back");
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
        self.loaded = None;
        self.free();
        self.stand(Standing::Unused);
    }

    fn free(&mut self) {
        if let Some(walking) = self.walking.take() {
            walking.put_back();
        }
        self.token_bytes = None;
        self.answers_max = 0;
        if let Some(backend) = self.backend.take()
            && catch_unwind(AssertUnwindSafe(move || drop(backend))).is_err()
        {
            tracing::error!("the engine panicked while it was freed");
        }
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

    /// Hands the answers to other replicas, if there are, and opens the lost device again; if it was the only one, lets
    /// the answers go on here, or tells everybody.
    fn lost(&mut self, fault: &EngineFault) {
        let served_as = self.loaded.as_ref().map_or_else(String::new, |r| r.served_as.clone());
        tracing::error!(model = %served_as, replica = self.number, %fault, "the model is lost");
        let mut answers = std::mem::take(&mut self.answers);
        self.free();
        self.shared.queue.away(self.number);
        if self.shared.replicas.another_ready(self.number) {
            // Before another replica can have ended one of them: whoever has his answer finds the state changed.
            self.stand(Standing::Lost { served_as: served_as.clone(), fault: fault.clone() });
            let again = |answer: &mut Answering| answer.again().is_some();
            self.shared.queue.push_orphans(answers.extract_if(.., again).collect());
        }
        if let Some(request) = self.loaded.clone()
            && self.recoveries.allow(Instant::now())
            && self.load(request, &self.shared.break_off()).is_ok()
        {
            tracing::warn!(model = %served_as, answers = answers.len(), "the model was loaded again");
            answers = self.go_on(answers);
        } else {
            self.lose(served_as, fault.clone());
        }
        // Whoever learns of it finds the state changed already.
        for answer in answers {
            self.end(answer, Err(fault.clone()));
        }
    }

    /// Goes on with an answer of a replica that was lost.
    fn take_over(&mut self, answer: Answering) {
        for answer in self.go_on(vec![answer]) {
            let reason = "its replica, and no other could take the answer over".to_owned();
            self.end(answer, Err(EngineFault::DeviceLost { reason }));
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
            Counters::add(&self.counters().cancelled, 1);
            job.refuse(EngineFault::Cancelled);
            return;
        }
        let began = Instant::now();
        match job {
            Job::Generate { request, tokens, done } => {
                self.begin(request, Recipient { tokens, done, epoch, open });
            }
            Job::Score { request, done } => {
                // What a walk keeps is where the replay will write; a stop order ends it on the way.
                while self.walking.is_some() {
                    self.walk_on();
                }
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
                Counters::add(&self.counters().tokens, generation.usage.completion_tokens);
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
        self.shared.replicas.set_load(self.number, load);
    }

    fn count_time(&self, began: Instant) {
        let millis = usize::try_from(began.elapsed().as_millis());
        Counters::add(&self.counters().busy_millis, millis.unwrap_or(usize::MAX));
    }

    fn count(&self, outcome: Result<(FinishReason, Usage), &EngineFault>) {
        let counters = self.counters();
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
