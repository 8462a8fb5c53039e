//! The embedding thread: takes requests in, runs passes over their texts, tells what came of it.
//!
//! A backend that panics or loses its device costs the model, not the agent; it is loaded again as often as
//! [`Recoveries`] allows, and the requests under way go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::backend::{EmbedderInfo, EmbeddingBackend, EmbeddingLoader};
use super::service::{
    Control, Counters, Embedded, EmbeddingInput, EmbeddingRequest, Queued, Shared, State, Turn,
};
use crate::engine::{EngineFault, LoadRequest, Recoveries};

/// Requests whose texts share passes; more have their places in the queue.
const REQUESTS_UNDER_WAY_MAX: usize = 16;

/// Runs until the queue is closed.
pub(super) fn work(shared: &Arc<Shared>, loader: Box<dyn EmbeddingLoader>) {
    let mut worker = Worker {
        shared: Arc::clone(shared),
        loader,
        loaded: None,
        recoveries: Recoveries::default(),
        under_way: Vec::new(),
        turn: 0,
    };
    loop {
        let under_way = worker.under_way.len();
        match shared.next(under_way, REQUESTS_UNDER_WAY_MAX - under_way) {
            Turn::Control(Control::Load { request, done }) => {
                worker.end_all(&EngineFault::Cancelled);
                // Nobody may wait for it any more: it is loaded all the same, the state tells.
                drop(done.send(worker.load(*request)));
            }
            Turn::Control(Control::Unload { done }) => {
                worker.unload(&EngineFault::Cancelled);
                let _gone = done.send(());
            }
            Turn::Work(requests) => {
                let began = Instant::now();
                requests.into_iter().for_each(|queued| worker.take_in(queued));
                worker.pass();
                let millis = usize::try_from(began.elapsed().as_millis()).unwrap_or(usize::MAX);
                Counters::add(&shared.counters.busy_millis, millis);
            }
            Turn::Closed => break,
        }
    }
    worker.unload(&EngineFault::ShutDown);
}

struct Loaded {
    backend: Box<dyn EmbeddingBackend>,
    info: Arc<EmbedderInfo>,
    /// How it was loaded, to load it again when its device is lost.
    request: LoadRequest,
}

/// A request some of whose texts are still to be embedded.
struct UnderWay {
    texts: Vec<Vec<u32>>,
    /// As many as are done.
    vectors: Vec<Vec<f32>>,
    done: oneshot::Sender<Result<Embedded, EngineFault>>,
}

struct Worker {
    shared: Arc<Shared>,
    loader: Box<dyn EmbeddingLoader>,
    loaded: Option<Loaded>,
    recoveries: Recoveries,
    under_way: Vec<UnderWay>,
    /// Whose text comes first in the next pass.
    turn: usize,
}

impl Worker {
    fn load(&mut self, request: LoadRequest) -> Result<Arc<EmbedderInfo>, EngineFault> {
        // The old model first, or two would need memory at once.
        self.drop_model();
        let loader = &mut self.loader;
        let loaded = guarded(|| {
            let backend = loader.load(&request)?;
            let info = Arc::new(backend.info());
            Ok((backend, info))
        });
        match loaded {
            Ok((backend, info)) => {
                self.loaded = Some(Loaded { backend, info: Arc::clone(&info), request });
                self.shared.state.send_replace(State::Ready(Arc::clone(&info)));
                Ok(info)
            }
            Err(fault) => {
                tracing::error!(model = request.served_as, %fault, "loading the encoder failed");
                Err(fault)
            }
        }
    }

    fn drop_model(&mut self) {
        self.shared.state.send_replace(State::Empty);
        if let Some(loaded) = self.loaded.take()
            && catch_unwind(AssertUnwindSafe(move || drop(loaded))).is_err()
        {
            tracing::error!("the encoder panicked while it was freed");
        }
    }

    /// Ends everything and frees the model.
    fn unload(&mut self, fault: &EngineFault) {
        self.drop_model();
        self.end_all(fault);
        for queued in self.shared.clear() {
            drop(queued.done.send(Err(fault.clone())));
        }
    }

    fn end_all(&mut self, fault: &EngineFault) {
        for request in self.under_way.drain(..) {
            drop(request.done.send(Err(fault.clone())));
        }
    }

    fn take_in(&mut self, queued: Queued) {
        let Queued { request, done, .. } = queued;
        if done.is_closed() {
            return;
        }
        let Some(loaded) = &self.loaded else {
            drop(done.send(Err(EngineFault::NoModel)));
            return;
        };
        match guarded(|| texts(&*loaded.backend, &loaded.info, request)) {
            Ok(texts) => self.under_way.push(UnderWay { texts, vectors: Vec::new(), done }),
            Err(fault) => drop(done.send(Err(fault))),
        }
    }

    /// Embeds as many texts as fit a pass, one of each request after another.
    fn pass(&mut self) {
        self.under_way.retain(|request| !request.done.is_closed());
        let Some(loaded) = &mut self.loaded else { return };
        let chosen = choose(&self.under_way, self.turn, |lengths| loaded.backend.fitting(lengths));
        self.turn = self.turn.wrapping_add(1);
        if !chosen.is_empty() {
            let texts: Vec<&[u32]> =
                chosen.iter().map(|(r, t)| self.under_way[*r].texts[*t].as_slice()).collect();
            let backend = &mut loaded.backend;
            match guarded(|| backend.pass(&texts)) {
                Ok(vectors) => {
                    Counters::add(&self.shared.counters.passes, 1);
                    Counters::add(&self.shared.counters.texts, vectors.len());
                    let tokens = texts.iter().map(|text| text.len()).sum();
                    Counters::add(&self.shared.counters.tokens, tokens);
                    for ((request, _), vector) in chosen.into_iter().zip(vectors) {
                        self.under_way[request].vectors.push(vector);
                    }
                }
                Err(fault @ EngineFault::DeviceLost { .. }) => self.lost(&fault),
                Err(fault) => self.end_all(&fault),
            }
        }
        for request in self.under_way.extract_if(.., |r| r.vectors.len() == r.texts.len()) {
            Counters::add(&self.shared.counters.requests, 1);
            let tokens = request.texts.iter().map(Vec::len).sum();
            drop(request.done.send(Ok(Embedded { vectors: request.vectors, tokens })));
        }
    }

    /// Opens a lost device again, so that the requests under way go on, or tells everybody.
    fn lost(&mut self, fault: &EngineFault) {
        let Some(request) = self.loaded.as_ref().map(|loaded| loaded.request.clone()) else {
            return;
        };
        tracing::error!(model = request.served_as, %fault, "the encoder is lost");
        if self.recoveries.allow(Instant::now()) && self.load(request).is_ok() {
            tracing::warn!(requests = self.under_way.len(), "the encoder was loaded again");
        } else {
            self.unload(fault);
        }
    }
}

/// The texts of the next pass, as (request, text): in rounds, the next text of each request, as long as they fit.
/// The texts of a request are always taken in order.
fn choose(
    under_way: &[UnderWay],
    turn: usize,
    fitting: impl Fn(&[usize]) -> usize,
) -> Vec<(usize, usize)> {
    let mut chosen = Vec::new();
    let mut lengths = Vec::new();
    for round in 0.. {
        let before = chosen.len();
        for place in 0..under_way.len() {
            let number = (place + turn) % under_way.len();
            let next = under_way[number].vectors.len() + round;
            let Some(text) = under_way[number].texts.get(next) else { continue };
            lengths.push(text.len());
            if fitting(&lengths) < lengths.len() {
                return chosen;
            }
            chosen.push((number, next));
        }
        if chosen.len() == before {
            break;
        }
    }
    chosen
}

/// Token ids of all texts of a request, each checked.
fn texts(
    backend: &dyn EmbeddingBackend,
    info: &EmbedderInfo,
    request: EmbeddingRequest,
) -> Result<Vec<Vec<u32>>, EngineFault> {
    let several = request.inputs.len() > 1;
    let text = |(place, input): (usize, EmbeddingInput)| {
        let bad = |reason: String| {
            let field = if several { format!("input.{place}") } else { "input".to_owned() };
            Err(EngineFault::BadRequest { field, reason })
        };
        let mut ids = match input {
            EmbeddingInput::Text(text) => backend.tokenize(&text)?,
            EmbeddingInput::Ids(ids) => ids,
        };
        if let Some(tokens) = request.truncate_tokens {
            backend.truncate(&mut ids, tokens.min(info.tokens_max));
        }
        if ids.is_empty() {
            return bad("it has no tokens".into());
        }
        if ids.len() > info.tokens_max {
            return bad(format!(
                "its {} tokens are more than the {} that the model reads; shorten it, or let it be cut with \"truncate_prompt_tokens\": -1",
                ids.len(),
                info.tokens_max
            ));
        }
        match ids.iter().find(|id| **id as usize >= info.vocabulary) {
            Some(id) => bad(format!("token id {id} is not below {}", info.vocabulary)),
            None => Ok(ids),
        }
    };
    request.inputs.into_iter().enumerate().map(text).collect()
}

/// Runs `call`; a panic in it is a lost device.
fn guarded<T>(call: impl FnOnce() -> Result<T, EngineFault>) -> Result<T, EngineFault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_panic| {
        Err(EngineFault::DeviceLost { reason: "the encoder panicked; see the log above".into() })
    })
}
