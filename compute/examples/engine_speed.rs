//! Times a whole model on one adapter: load, prefill, decode, proof passes.
//!
//! `cargo run --release -p roadbed-compute --example engine_speed MODEL [adapter] [prompt] [new]`
//!
//! With `--sequences N` it times N answers together instead, and one alone before them. With `--stages 2,1,3` it
//! times the model on one card and split over several, which all are the one adapter opened again. "Normalised"
//! is what two idle cores would give: tokens / (CPU seconds of this process / 2).
//!
//! MODEL is a GGUF file or `synthetic:LAYERS,HIDDEN,FFN,HEADS,KV_HEADS,VOCABULARY`: weights of that
//! shape in Q4_1 with a constant pattern, for measuring speed without a download.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::{EngineError, ProofEmbeddings, ProofInputs, ProofPlace};
use roadbed_compute::{
    AdapterChoice, Card, Engine, EngineOptions, GenerateRequest, Gpu, SequenceEvent,
};

/// Sequences and tokens of the timed proof batch.
const PROOF: (usize, usize) = (4, 64);

fn synthetic(shape: &str) -> Result<GgufFile, EngineError> {
    let numbers: Vec<usize> = shape.split(',').filter_map(|n| n.parse().ok()).collect();
    let [layers, hidden, ffn, heads, kv_heads, vocabulary] = numbers[..] else {
        return Err(EngineError::UnsupportedModel {
            reason: format!("'{shape}' is not six numbers"),
        });
    };
    let mut writer = GgufWriter::default();
    for (key, value) in [
        ("block_count", layers),
        ("context_length", 4096),
        ("embedding_length", hidden),
        ("feed_forward_length", ffn),
        ("attention.head_count", heads),
        ("attention.head_count_kv", kv_heads),
    ] {
        writer.field(&format!("llama.{key}"), &Field::U32(value as u32));
    }
    writer.field("general.architecture", &Field::Text("llama"));
    let kv = hidden / heads * kv_heads;
    let mut matrix = |name: &str, columns: usize, rows: usize| {
        // Scale 2^-8 and offset -8 * 2^-8: levels centred on zero.
        let block = [0x00, 0x1C, 0x00, 0xA8];
        let mut data = Vec::with_capacity(rows * columns / 32 * 20);
        for i in 0..rows * columns / 32 {
            data.extend(block);
            data.extend([(i * 37 + 11) as u8; 16]);
        }
        writer.encoded_tensor(&format!("{name}.weight"), TensorType::Q4_1, columns, rows, data);
    };
    matrix("token_embd", hidden, vocabulary);
    matrix("output", hidden, vocabulary);
    for i in 0..layers {
        for (name, columns, rows) in [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, kv),
            ("attn_v", hidden, kv),
            ("attn_output", hidden, hidden),
            ("ffn_gate", hidden, ffn),
            ("ffn_up", hidden, ffn),
            ("ffn_down", ffn, hidden),
        ] {
            matrix(&format!("blk.{i}.{name}"), columns, rows);
        }
    }
    let ones = vec![1.0; hidden];
    let mut names = vec!["output_norm.weight".to_owned()];
    for i in 0..layers {
        names.push(format!("blk.{i}.attn_norm.weight"));
        names.push(format!("blk.{i}.ffn_norm.weight"));
    }
    for name in names {
        writer.tensor(&name, TensorType::F32, hidden, &ones)?;
    }
    Ok(GgufFile::from_bytes(writer.finish())?)
}

/// CPU seconds of all threads of this process (proc(5): fields 14 and 15, in hundredths); 0 elsewhere.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    fields.take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Decodes `sequences` answers together, round by round; returns normalised tokens per second.
fn together(
    engine: &mut Engine,
    sequences: usize,
    prompt: usize,
    new: usize,
) -> Result<f64, EngineError> {
    let vocabulary = engine.info().vocabulary;
    let mut best = 0.0_f64;
    for round in 0..3 {
        let mut ids = Vec::new();
        for sequence in 0..sequences {
            let first = round * sequences + sequence + 7919 * sequences;
            ids.push(engine.admit(GenerateRequest {
                prompt_ids: (0..prompt).map(|i| ((i + first) * 31 % vocabulary) as u32).collect(),
                max_tokens: usize::MAX,
                ignore_end: true,
                ..GenerateRequest::default()
            })?);
        }
        // From the moment when all of them decode.
        let (mut begun, mut tokens) = (0, 0);
        let mut started = None;
        while tokens < sequences * new {
            for event in engine.step()? {
                match event {
                    SequenceEvent::Token { token, .. } => {
                        begun += usize::from(token.index == 0);
                        tokens += usize::from(started.is_some());
                    }
                    SequenceEvent::Finished { .. } => {}
                    SequenceEvent::Failed { error, .. } => return Err(error),
                }
            }
            if begun == sequences && started.is_none() {
                started = Some((Instant::now(), cpu_seconds()));
            }
        }
        let Some((wall, cpu)) = started else { continue };
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        for id in ids {
            engine.cancel(id);
        }
        let (by_wall, normalised) = (tokens as f64 / wall, tokens as f64 / (cpu / 2.0));
        println!(
            "{sequences} together: {tokens} tokens, {by_wall:.1} tokens/s, normalised {normalised:.1}"
        );
        best = best.max(normalised);
    }
    Ok(best)
}

/// Times reading and writing of one answer, for every number of stages in turn, three rounds of each.
fn split(
    file: &GgufFile,
    choice: &AdapterChoice,
    stages: &[usize],
    prompt: usize,
    new: usize,
) -> Result<(), EngineError> {
    let mut engines = Vec::new();
    for count in stages {
        let card = || Ok(Card { gpu: Gpu::open(choice)?, memory_bytes: None });
        let cards = (0..*count).map(|_| card()).collect::<Result<Vec<_>, EngineError>>()?;
        let options = EngineOptions::default();
        engines.push((count, Engine::load_over(file, "split", &cards, &options, &|_| ())?));
    }
    // The first round compiles kernels.
    for round in 0..4 {
        for (count, engine) in &mut engines {
            let vocabulary = engine.info().vocabulary;
            let request = GenerateRequest {
                prompt_ids: (0..prompt).map(|i| ((i + round) * 31 % vocabulary) as u32).collect(),
                max_tokens: new,
                ignore_end: true,
                ..GenerateRequest::default()
            };
            let start = (Instant::now(), cpu_seconds());
            let mut first = start;
            engine.generate(&request, &mut |event| {
                if event.index == 0 {
                    first = (Instant::now(), cpu_seconds());
                }
                ControlFlow::Continue(())
            })?;
            if round == 0 {
                continue;
            }
            let read_wall = (first.0 - start.0).as_secs_f64();
            let (wall, cpu) = (first.0.elapsed().as_secs_f64(), cpu_seconds() - first.1);
            println!(
                "{count} stages: prefill {:.1} tokens/s, normalised {:.1}; decode {:.1}, normalised {:.1}",
                prompt as f64 / read_wall,
                prompt as f64 / ((first.1 - start.1) / 2.0),
                (new - 1) as f64 / wall,
                (new - 1) as f64 / (cpu / 2.0)
            );
        }
    }
    Ok(())
}

fn main() -> Result<(), EngineError> {
    let mut sequences = 0_usize;
    let mut stages = Vec::new();
    let mut plain = Vec::new();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--sequences" => {
                sequences = given.next().and_then(|n| n.parse().ok()).unwrap_or(8);
            }
            "--stages" => {
                let list = given.next().unwrap_or_default();
                stages = list.split(',').filter_map(|n| n.parse().ok()).collect();
            }
            _ => plain.push(argument),
        }
    }
    let mut arguments = plain.into_iter();
    let model = arguments.next().unwrap_or_default();
    let Ok(choice) = arguments.next().unwrap_or_default().parse();
    let mut number = |default: usize| {
        let text = arguments.next();
        text.and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (prompt, new) = (number(128), number(64));
    let file = match model.strip_prefix("synthetic:") {
        Some(shape) => synthetic(shape)?,
        None => GgufFile::open(Path::new(&model))?,
    };
    if !stages.is_empty() {
        return split(&file, &choice, &stages, prompt, new);
    }
    let started = Instant::now();
    let gpu = Gpu::open(&choice)?;
    let mut engine = Engine::load_file(&file, &model, gpu, &EngineOptions::default())?;
    let info = engine.info();
    println!("{}", info.adapter);
    println!(
        "weights {} MB, working {} MB, loaded in {:.1?}",
        info.weight_bytes >> 20,
        info.working_bytes >> 20,
        started.elapsed()
    );
    let (hidden, vocabulary, weight_bytes) = (info.hidden, info.vocabulary, info.weight_bytes);
    if sequences > 0 {
        let alone = together(&mut engine, 1, prompt, new)?;
        let all = together(&mut engine, sequences, prompt, new)?;
        println!("{sequences} together / 1, best of three, normalised: {:.2}", all / alone);
        return Ok(());
    }
    for round in 0..3_usize {
        // Each round has another first token, so that nothing is reused.
        let request = GenerateRequest {
            prompt_ids: (0..prompt).map(|i| ((i + round) * 31 % vocabulary) as u32).collect(),
            max_tokens: new,
            ignore_end: true,
            ..GenerateRequest::default()
        };
        let answer = engine.generate(&request, &mut |_| ControlFlow::Continue(()))?;
        let prefill = prompt as f64 / answer.timings.prefill.as_secs_f64();
        let decode = answer.timings.decode_tokens_per_second(answer.ids.len());
        println!(
            "prefill {prompt}: {prefill:.1} tokens/s; decode {new}: {decode:.1} tokens/s = {:.1} GB/s of weights",
            decode * weight_bytes as f64 / 1e9
        );
        let (sequences, tokens) = PROOF;
        let rows = vec![0.5; sequences * tokens * hidden];
        let started = Instant::now();
        engine.prove_hidden(&ProofInputs {
            sequences,
            tokens,
            embeddings: ProofEmbeddings::Host(&rows),
            reflections: None,
            place: ProofPlace::Whole,
            experts: &[],
        })?;
        let rate = sequences as f64 / started.elapsed().as_secs_f64();
        println!("proof passes of {tokens} tokens: {rate:.2} a second");
    }
    Ok(())
}
