//! The tokenizer of a synthetic model: one token a byte, the tokens of a chat, and names up to the
//! size of the vocabulary. Every text can be encoded, and whatever the model says is bytes.

use crate::gguf::writer::{Field, GgufWriter};
use crate::tokenizer::byte_to_char;

/// ChatML, which its control tokens suit.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' \
+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Kinds of tokens in `tokenizer.ggml.token_type` (llama.cpp `llama.h`, `llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The 256 bytes come first, then these.
const CONTROLS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Writes tokens, template and special ids.
pub fn write(file: &mut GgufWriter, vocabulary: usize) {
    let bytes = (0..=u8::MAX).map(|byte| (byte_to_char(byte).to_string(), NORMAL));
    let controls = CONTROLS.into_iter().map(|name| (name.to_owned(), CONTROL));
    let unused = (0..).map(|number| (format!("<|unused_{number}|>"), UNUSED));
    let (tokens, kinds): (Vec<String>, Vec<i32>) =
        bytes.chain(controls).chain(unused).take(vocabulary).unzip();
    let fields = [
        ("tokenizer.ggml.model", Field::Text("gpt2")),
        ("tokenizer.ggml.pre", Field::Text("smollm")),
        ("tokenizer.ggml.tokens", Field::Texts(&tokens)),
        ("tokenizer.ggml.token_type", Field::I32s(&kinds)),
        ("tokenizer.ggml.merges", Field::Texts(&[])),
        ("tokenizer.ggml.bos_token_id", Field::U32(256)),
        ("tokenizer.ggml.eos_token_id", Field::U32(258)),
        ("tokenizer.ggml.add_bos_token", Field::Bool(false)),
        ("tokenizer.chat_template", Field::Text(TEMPLATE)),
    ];
    for (key, field) in &fields {
        file.field(key, field);
    }
}
