//! A stand-in for a language-model engine: byte tokens, an alphabet for an answer, artifacts computed from the nonce.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use roadbed_agent::engine::{
    AnswerEvent, BackendLoader, EngineBackend, EngineFault, LoadRequest, ModelInfo, ProofStep,
};
use roadbed_agent::grammar::GrammarCompiler;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::grammar::{Grammar, GrammarState};
use roadbed_compute::poc::{Artifact, DecodeRefusal, Round, artifact::encode};
use roadbed_compute::{
    AdapterKind, AdapterSummary, BatchLoad, Conversation, FinishReason, GenerateRequest,
    Generation, NewToken, PositionLogprobs, Scoring, SequenceId, Timings, TokenLogprob, Usage,
};

/// Ends an answer. The ids below are bytes.
pub const END: u32 = 256;
/// Answers end by themselves after the alphabet.
pub const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";
pub const CONTEXT: usize = 256;

/// A door that the engine thread waits at.
#[derive(Default)]
pub struct Hold {
    shut: Mutex<bool>,
    waited_at: AtomicBool,
    opened: Condvar,
}

impl Hold {
    pub fn shut(&self) {
        *self.shut.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.shut.lock().unwrap() = false;
        self.opened.notify_all();
    }

    /// True once the engine thread has stood before the shut door.
    pub fn was_waited_at(&self) -> bool {
        self.waited_at.load(Ordering::SeqCst)
    }

    /// As [`Hold::pass`]; false if it was broken off before the door.
    pub fn pass_unless(&self, break_off: &AtomicBool) -> bool {
        let mut shut = self.shut.lock().unwrap();
        while *shut && !break_off.load(Ordering::SeqCst) {
            self.waited_at.store(true, Ordering::SeqCst);
            shut = self.opened.wait_timeout(shut, Duration::from_millis(2)).unwrap().0;
        }
        !*shut
    }

    pub fn pass(&self) {
        let mut shut = self.shut.lock().unwrap();
        while *shut {
            self.waited_at.store(true, Ordering::SeqCst);
            shut = self.opened.wait(shut).unwrap();
        }
    }
}

/// What the stand-in does beyond answering.
#[derive(Default)]
pub struct Script {
    /// Waited at before a model is loaded.
    pub loading: Hold,
    /// A load is not broken off, as one in a driver that hangs.
    pub hangs: AtomicBool,
    /// Waited at before every token and after the first.
    pub tokens: Hold,
    /// Waited at before every nonce.
    pub nonces: Hold,
    /// What is answered instead of the alphabet.
    pub says: Mutex<Option<String>>,
    /// Answers go on until somebody says stop.
    pub endless: AtomicBool,
    pub lose_device: AtomicBool,
    /// Lost at the next call only.
    pub lose_device_once: AtomicBool,
    /// Lost at each of these calls, counted from the first.
    pub lose_device_at: Mutex<Vec<u64>>,
    /// Calls so far.
    pub calls: AtomicU64,
    pub panic: AtomicBool,
    pub refuse_load: AtomicBool,
    pub loads: AtomicU64,
    /// Passes that a DECODE walk takes.
    pub walk_passes: AtomicU64,
    /// Passes walked so far.
    pub walked: AtomicU64,
    /// Nonces proved, in order.
    pub proved: Mutex<Vec<u32>>,
    /// A nonce that was proved before comes out otherwise.
    pub wavers: AtomicBool,
    /// This nonce gives NaN.
    pub nan_nonce: Mutex<Option<u32>>,
    /// Tokens handed out.
    pub spoken: AtomicU64,
    /// Answers under way together; 0 is one.
    pub answers_max: AtomicU64,
    /// What its weights are said to be when it is loaded; F32 unless told.
    pub weights: Mutex<Option<TensorType>>,
}

pub struct StandInLoader(pub Arc<Script>);

impl BackendLoader for StandInLoader {
    fn load(
        &mut self,
        request: &LoadRequest,
        break_off: &Arc<AtomicBool>,
    ) -> Result<Box<dyn EngineBackend>, EngineFault> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        if self.0.hangs.load(Ordering::SeqCst) {
            self.0.loading.pass();
        } else if !self.0.loading.pass_unless(break_off) {
            return Err(EngineFault::Cancelled);
        }
        if self.0.refuse_load.load(Ordering::SeqCst) {
            return Err(EngineFault::Load { reason: "told so".into() });
        }
        let context_tokens = request.context_tokens.unwrap_or(CONTEXT);
        Ok(Box::new(StandIn {
            script: Arc::clone(&self.0),
            served_as: request.served_as.clone(),
            context_tokens,
            grammars: grammars(),
            answers: vec![],
            admitted: 0,
            walking: vec![],
            passes: 0,
        }))
    }
}

pub fn adapter() -> AdapterSummary {
    AdapterSummary {
        index: 0,
        name: "Stand-in \"GPU\"".into(),
        backend: "none".into(),
        kind: AdapterKind::Software,
        pci_bus_id: None,
        driver: "stand-in 1".into(),
    }
}

struct StandIn {
    /// Nonces on their way, and how far they have come.
    walking: Vec<u32>,
    passes: u64,
    script: Arc<Script>,
    served_as: String,
    context_tokens: usize,
    grammars: GrammarCompiler,
    answers: Vec<Speaking>,
    admitted: u64,
}

/// Over the bytes.
fn grammars() -> GrammarCompiler {
    let bytes = (0..=u8::MAX).map(|byte| Some(vec![byte]));
    GrammarCompiler::new(bytes.chain([None]).collect(), &[END])
}

/// The letter that ends a form soonest; `None` at its end.
fn shortest(form: &mut dyn GrammarState) -> Option<u8> {
    let allowed = form.allowed().unwrap();
    if allowed.contains(END) {
        return None;
    }
    let wanted = b"}]\"".iter().copied().chain((0..=u8::MAX).rev());
    let letter = wanted.into_iter().find(|byte| allowed.contains(u32::from(*byte)));
    form.take(u32::from(letter.unwrap())).unwrap();
    letter
}

/// An answer under way.
struct Speaking {
    id: SequenceId,
    request: GenerateRequest,
    says: Vec<u8>,
    /// Followed instead of saying anything.
    form: Option<Box<dyn GrammarState>>,
    ids: Vec<u32>,
    text: String,
    logprobs: Vec<PositionLogprobs>,
}

impl Speaking {
    /// Says the next letter, and why it was the last if it was.
    fn speak(&mut self, endless: bool) -> (NewToken, Option<FinishReason>) {
        let index = self.ids.len();
        let letter = match &mut self.form {
            Some(form) => shortest(form.as_mut()),
            None if endless => self.says.get(index % self.says.len()).copied(),
            None => self.says.get(index).copied(),
        };
        let id = letter.map_or(END, u32::from);
        self.ids.push(id);
        let piece = letter.map_or_else(String::new, |letter| char::from(letter).to_string());
        self.text.push_str(&piece);
        let logprobs = self.request.top_logprobs.map(|top| position(id, top));
        self.logprobs.extend(logprobs.clone());
        let stop = self.request.stop.iter().find(|stop| self.text.ends_with(stop.as_str()));
        let stopped = stop.map(|stop| self.text.len() - stop.len());
        let text = if stopped.is_some() { String::new() } else { piece };
        if let Some(at) = stopped {
            self.text.truncate(at);
        }
        let finish = if id == END || stopped.is_some() {
            Some(FinishReason::Stop)
        } else {
            let full = !endless && self.ids.len() == self.request.max_tokens;
            full.then_some(FinishReason::Length)
        };
        (NewToken { index, id, text, logprobs }, finish)
    }

    fn end(self, finish: FinishReason) -> Generation {
        let usage = Usage {
            prompt_tokens: self.request.prompt_ids.len(),
            completion_tokens: self.ids.len(),
        };
        Generation {
            ids: self.ids,
            text: self.text,
            finish,
            usage,
            logprobs: self.logprobs,
            timings: Timings::default(),
        }
    }
}

impl StandIn {
    fn check(&self) -> Result<(), EngineFault> {
        assert!(!self.script.panic.load(Ordering::SeqCst), "told to panic");
        let call = self.script.calls.fetch_add(1, Ordering::SeqCst);
        let once = self.script.lose_device_once.swap(false, Ordering::SeqCst)
            || self.script.lose_device_at.lock().unwrap().contains(&call);
        if once || self.script.lose_device.load(Ordering::SeqCst) {
            return Err(EngineFault::DeviceLost { reason: "told so".into() });
        }
        Ok(())
    }
}

/// Log probabilities of the stand-in: the id itself decides.
fn position(id: u32, top: usize) -> PositionLogprobs {
    let one = |id: u32| TokenLogprob { id, logprob: -(id as f32) / 256.0 };
    PositionLogprobs {
        id,
        logprob: one(id).logprob,
        top: (0..top as u32).map(|k| one((id + k) % 257)).collect(),
        drawn_from: vec![],
    }
}

/// The vector of a nonce, for an identity.
pub fn vector(round: &Round, nonce: u32) -> Vec<f32> {
    let identity = round.identity.block_hash.bytes().chain(round.identity.public_key.bytes());
    let mixed = identity.fold(0_u32, |sum, byte| (31 * sum + u32::from(byte)) % 9_973);
    let salt = (mixed % 997) as f32 + round.seq_len as f32;
    let raw: Vec<f32> =
        (0..round.k_dim).map(|k| ((nonce as f32 + 1.0) * (k as f32 + salt)).sin()).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.iter().map(|x| x / length).collect()
}

impl EngineBackend for StandIn {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            served_as: self.served_as.clone(),
            adapter: adapter(),
            adapters: vec![adapter()],
            context_tokens: self.context_tokens,
            vocabulary: 257,
            end_ids: vec![END],
            weights: Some(self.script.weights.lock().unwrap().unwrap_or(TensorType::F32)),
            memory_bytes: 0,
            grammars: Some(self.grammars.clone()),
            answers_max: self.script.answers_max.load(Ordering::SeqCst).max(1) as usize,
            decode: Err(DecodeRefusal::NoCodebook),
        }
    }

    fn health(&self) -> Result<(), EngineFault> {
        self.check()
    }

    fn tokenize_prompt(&self, text: &str) -> Result<Vec<u32>, EngineFault> {
        self.tokenize(text)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineFault> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn token_bytes(&self, id: u32) -> Vec<u8> {
        u8::try_from(id).into_iter().collect()
    }

    fn detokenize(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn render_chat(&self, conversation: &Conversation) -> Result<String, EngineFault> {
        Ok(conversation.messages.iter().map(|m| format!("{}:{}\n", m.role, m.content)).collect())
    }

    fn admit(&mut self, request: GenerateRequest) -> Result<SequenceId, EngineFault> {
        self.check()?;
        let id = SequenceId(self.admitted);
        self.admitted += 1;
        let (ids, text, logprobs) = (vec![], String::new(), vec![]);
        let says = self.script.says.lock().unwrap().clone();
        let says = says.unwrap_or_else(|| ALPHABET.to_owned()).into_bytes();
        let form = request.grammar.as_ref().map(Grammar::start);
        self.answers.push(Speaking { id, request, says, form, ids, text, logprobs });
        Ok(id)
    }

    fn step(&mut self) -> Result<Vec<AnswerEvent>, EngineFault> {
        self.check()?;
        self.script.tokens.pass();
        self.check()?;
        let endless = self.script.endless.load(Ordering::SeqCst);
        if endless {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let mut events = vec![];
        for mut answer in std::mem::take(&mut self.answers) {
            let id = answer.id;
            if !endless && answer.request.max_tokens == 0 {
                let generation = answer.end(FinishReason::Length);
                events.push(AnswerEvent::Finished { id, generation });
                continue;
            }
            let (token, finish) = answer.speak(endless);
            self.script.spoken.fetch_add(1, Ordering::SeqCst);
            events.push(AnswerEvent::Token { id, token });
            match finish {
                Some(finish) => {
                    let generation = answer.end(finish);
                    events.push(AnswerEvent::Finished { id, generation });
                }
                None => self.answers.push(answer),
            }
        }
        Ok(events)
    }

    fn cancel(&mut self, id: SequenceId) -> Option<Generation> {
        let at = self.answers.iter().position(|answer| answer.id == id)?;
        Some(self.answers.remove(at).end(FinishReason::Cancelled))
    }

    fn batch_load(&self) -> BatchLoad {
        let running = self.answers.len();
        BatchLoad { running, waiting: 0, pages_free: 100 - running, pages: 100 }
    }

    fn score(
        &mut self,
        _prompt_ids: &[u32],
        continuation_ids: &[u32],
        scoring: &Scoring,
    ) -> Result<Vec<PositionLogprobs>, EngineFault> {
        self.check()?;
        Ok(continuation_ids.iter().map(|&id| position(id, scoring.top)).collect())
    }

    fn prepare_proof(&mut self, _round: &Round) -> Result<usize, EngineFault> {
        Ok(2)
    }

    fn prove(&mut self, round: &Round, nonces: &[u32]) -> Result<Vec<ProofStep>, EngineFault> {
        self.script.nonces.pass();
        self.check()?;
        // As long as a GPU would take at least, or an endless round would fill the memory.
        std::thread::sleep(std::time::Duration::from_millis(1));
        let wavers = self.script.wavers.load(Ordering::SeqCst);
        let before = if wavers { self.script.proved.lock().unwrap().clone() } else { vec![] };
        self.script.proved.lock().unwrap().extend(nonces);
        let nan = *self.script.nan_nonce.lock().unwrap();
        let step = |&nonce: &u32| {
            if nan == Some(nonce) {
                return ProofStep::Dropped { nonce };
            }
            let wavers = before.contains(&nonce);
            let vector = vector(round, if wavers { nonce + 1_000 } else { nonce });
            let vector_b64 = encode(&vector).unwrap();
            let (points, comparison) = (vec![], None);
            ProofStep::Artifact(Artifact { nonce, vector, vector_b64, points, comparison })
        };
        Ok(nonces.iter().map(step).collect())
    }

    fn begin_walk(&mut self, _round: &Round, nonces: &[u32]) -> Result<(), EngineFault> {
        self.check()?;
        (self.walking, self.passes) = (nonces.to_vec(), 0);
        Ok(())
    }

    /// Its points are the nonce's lowest byte, as often as it was walked.
    fn walk_on(&mut self) -> Result<Option<Vec<ProofStep>>, EngineFault> {
        self.script.nonces.pass();
        self.check()?;
        std::thread::sleep(std::time::Duration::from_millis(1));
        self.passes += 1;
        self.script.walked.fetch_add(1, Ordering::SeqCst);
        if self.passes < self.script.walk_passes.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let walked = std::mem::take(&mut self.walking);
        self.script.proved.lock().unwrap().extend(&walked);
        let step = |&nonce: &u32| {
            let points = vec![nonce as u8; self.passes as usize];
            let (vector, vector_b64, comparison) = (vec![], String::new(), None);
            ProofStep::Artifact(Artifact { nonce, vector, vector_b64, points, comparison })
        };
        Ok(Some(walked.iter().map(step).collect()))
    }
}
