//! A stand-in for a language-model engine: byte tokens, an alphabet for an answer, artifacts computed from the nonce.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use roadbed_agent::engine::{
    BackendLoader, EngineBackend, EngineFault, LoadRequest, ModelInfo, ProofStep,
};
use roadbed_agent::grammar::GrammarCompiler;
use roadbed_compute::poc::{Artifact, Round, artifact::encode};
use roadbed_compute::{
    AdapterKind, AdapterSummary, Conversation, FinishReason, GenerateRequest, Generation,
    PositionLogprobs, Timings, TokenEvent, TokenLogprob, Usage,
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

    fn pass(&self) {
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
    /// Waited at before every token and after the first.
    pub tokens: Hold,
    /// Waited at before every nonce.
    pub nonces: Hold,
    /// Answers go on until somebody says stop.
    pub endless: AtomicBool,
    pub lose_device: AtomicBool,
    pub panic: AtomicBool,
    pub refuse_load: AtomicBool,
    pub loads: AtomicU64,
    /// Nonces proved, in order.
    pub proved: Mutex<Vec<u32>>,
    /// This nonce gives NaN.
    pub nan_nonce: Mutex<Option<u32>>,
    /// Tokens handed out.
    pub spoken: AtomicU64,
}

pub struct StandInLoader(pub Arc<Script>);

impl BackendLoader for StandInLoader {
    fn load(&mut self, request: &LoadRequest) -> Result<Box<dyn EngineBackend>, EngineFault> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        if self.0.refuse_load.load(Ordering::SeqCst) {
            return Err(EngineFault::Load { reason: "told so".into() });
        }
        let context_tokens = request.context_tokens.unwrap_or(CONTEXT);
        Ok(Box::new(StandIn {
            script: Arc::clone(&self.0),
            served_as: request.served_as.clone(),
            context_tokens,
            grammars: grammars(),
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
    script: Arc<Script>,
    served_as: String,
    context_tokens: usize,
    grammars: GrammarCompiler,
}

/// Over the bytes.
fn grammars() -> GrammarCompiler {
    let bytes = (0..=u8::MAX).map(|byte| Some(vec![byte]));
    GrammarCompiler::new(bytes.chain([None]).collect(), &[END])
}

impl StandIn {
    fn check(&self) -> Result<(), EngineFault> {
        assert!(!self.script.panic.load(Ordering::SeqCst), "told to panic");
        if self.script.lose_device.load(Ordering::SeqCst) {
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
    }
}

/// The vector of a nonce, for an identity.
pub fn vector(round: &Round, nonce: u32) -> Vec<f32> {
    let salt = round.identity.block_hash.len() as f32 + round.seq_len as f32;
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
            context_tokens: self.context_tokens,
            vocabulary: 257,
            end_ids: vec![END],
            memory_bytes: 0,
            grammars: Some(self.grammars.clone()),
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

    fn generate(
        &mut self,
        request: &GenerateRequest,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineFault> {
        self.check()?;
        let (mut ids, mut text, mut logprobs) = (vec![], String::new(), vec![]);
        let mut finish = FinishReason::Length;
        let endless = self.script.endless.load(Ordering::SeqCst);
        let alphabets = if endless { usize::MAX } else { 1 };
        let letters = std::iter::repeat_n(ALPHABET, alphabets).flat_map(str::bytes);
        for (index, id) in letters.map(u32::from).chain([END]).enumerate() {
            if endless {
                std::thread::sleep(std::time::Duration::from_millis(1));
            } else if index == request.max_tokens {
                break;
            }
            self.script.tokens.pass();
            self.check()?;
            ids.push(id);
            let piece = if id == END { String::new() } else { self.detokenize(&[id]) };
            text.push_str(&piece);
            let place = request.top_logprobs.map(|top| position(id, top));
            let stop = request.stop.iter().find(|stop| text.ends_with(stop.as_str()));
            let shown = if stop.is_some() { "" } else { piece.as_str() };
            let event = TokenEvent { index, id, text: shown, logprobs: place.as_ref() };
            let flow = on_token(event);
            self.script.spoken.fetch_add(1, Ordering::SeqCst);
            logprobs.extend(place);
            if let Some(stop) = stop {
                text.truncate(text.len() - stop.len());
            }
            if id == END || stop.is_some() {
                finish = FinishReason::Stop;
                break;
            }
            if flow.is_break() {
                finish = FinishReason::Cancelled;
                break;
            }
        }
        let usage = Usage { prompt_tokens: request.prompt_ids.len(), completion_tokens: ids.len() };
        Ok(Generation { ids, text, finish, usage, logprobs, timings: Timings::default() })
    }

    fn score(
        &mut self,
        _prompt_ids: &[u32],
        continuation_ids: &[u32],
        top: usize,
    ) -> Result<Vec<PositionLogprobs>, EngineFault> {
        self.check()?;
        Ok(continuation_ids.iter().map(|&id| position(id, top)).collect())
    }

    fn prepare_proof(&mut self, _round: &Round) -> Result<usize, EngineFault> {
        Ok(2)
    }

    fn prove(&mut self, round: &Round, nonces: &[u32]) -> Result<Vec<ProofStep>, EngineFault> {
        self.script.nonces.pass();
        self.check()?;
        // As long as a GPU would take at least, or an endless round would fill the memory.
        std::thread::sleep(std::time::Duration::from_millis(1));
        self.script.proved.lock().unwrap().extend(nonces);
        let nan = *self.script.nan_nonce.lock().unwrap();
        let step = |&nonce: &u32| {
            if nan == Some(nonce) {
                return ProofStep::Dropped { nonce };
            }
            let vector = vector(round, nonce);
            let vector_b64 = encode(&vector).unwrap();
            ProofStep::Artifact(Artifact { nonce, vector, vector_b64 })
        };
        Ok(nonces.iter().map(step).collect())
    }
}
