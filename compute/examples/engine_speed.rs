//! Times a whole model on one adapter: load, prefill, decode, proof passes.
//!
//! `cargo run --release -p roadbed-compute --example engine_speed MODEL [adapter] [prompt] [new]`
//!
//! MODEL is a GGUF file or `synthetic:LAYERS,HIDDEN,FFN,HEADS,KV_HEADS,VOCABULARY`: weights of that
//! shape in Q4_1 with a constant pattern, for measuring speed without a download.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::{EngineError, ProofEmbeddings, ProofInputs};
use roadbed_compute::{Engine, EngineOptions, GenerateRequest, Gpu};

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

fn main() -> Result<(), EngineError> {
    let mut arguments = std::env::args().skip(1);
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
        })?;
        let rate = sequences as f64 / started.elapsed().as_secs_f64();
        println!("proof passes of {tokens} tokens: {rate:.2} a second");
    }
    Ok(())
}
