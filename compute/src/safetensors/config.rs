//! From a Hugging Face `config.json` to GGUF's metadata keys, and the values it leaves to its readers.
//!
//! What is absent has the default of the `transformers` configuration class. What would change the
//! computation in a way the engine does not know is refused. Sources: huggingface/transformers,
//! `models/*/configuration_*.py` and `modeling_rope_utils.py`; llama.cpp, `conversion/*.py`, for keys.

use std::f64::consts::TAU;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::SafetensorsError;
use crate::gguf::{Metadata, Value};
use crate::llm::{Activation, Architecture, Windows};

#[derive(Deserialize)]
struct Config {
    model_type: String,
    #[serde(rename = "_name_or_path")]
    name: Option<String>,
    num_hidden_layers: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    max_position_embeddings: u64,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<RopeScaling>,
    rope_parameters: Option<RopeParameters>,
    partial_rotary_factor: Option<f64>,
    use_sliding_window: Option<bool>,
    sliding_window: Option<u64>,
    layer_types: Option<Vec<String>>,
    #[serde(alias = "_sliding_window_pattern")]
    sliding_window_pattern: Option<usize>,
    query_pre_attn_scalar: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    tie_word_embeddings: Option<bool>,
    quantization_config: Option<IgnoredAny>,
}

/// `rope_scaling` of older files; newer ones say the base in it too and call it `rope_parameters`.
#[derive(Clone, Default, Deserialize)]
struct RopeScaling {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<u64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RopeParameters {
    PerLayer { full_attention: RopeScaling, sliding_attention: RopeScaling },
    Alike(RopeScaling),
}

/// Whose names a folder's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Graph {
    Language(Architecture),
    Encoder,
}

/// What a folder's config says.
#[derive(Debug)]
pub(super) struct Described {
    pub graph: Graph,
    pub metadata: Metadata,
    /// Factors that divide the rotations' frequencies, one per pair (Llama 3.1's way to stretch).
    pub rope_factors: Option<Vec<f32>>,
    /// The output matrix is the embedding table even if the folder stores one.
    pub tied: bool,
    /// Floats per head.
    pub head: usize,
}

fn bad(reason: impl Into<String>) -> SafetensorsError {
    SafetensorsError::Config { reason: reason.into() }
}

/// Reads the text of a `config.json`; `fallback_name` serves if it has no name.
pub(super) fn read(text: &str, fallback_name: &str) -> Result<Described, SafetensorsError> {
    let config: Config = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    let architecture = architecture(&config.model_type)?;
    config.refuse_unknown(architecture)?;
    let word = architecture.word();
    let mut metadata = Metadata::default();
    let mut put = |key: String, value: Value| metadata.insert(key, value);
    let key = |name: &str| format!("{word}.{name}");
    let name = config.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(fallback_name);
    put("general.architecture".to_owned(), Value::String(word.to_owned()));
    put("general.name".to_owned(), Value::String(name.to_owned()));
    let kv_heads = config.num_key_value_heads.unwrap_or(config.num_attention_heads);
    let head = config.head(architecture)?;
    let counts = [
        ("block_count", config.num_hidden_layers),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", kv_heads),
        ("attention.key_length", head),
        ("attention.value_length", head),
        ("context_length", config.max_position_embeddings),
    ];
    for (name, value) in counts {
        put(key(name), Value::Unsigned(value));
    }
    // Qwen stores a window that it does not use.
    if architecture.family().windows != Windows::Never
        && let Some(window) = config.sliding_window
    {
        put(key("attention.sliding_window"), Value::Unsigned(window));
    }
    let (rope, local_base) = config.rope();
    let dimensions = head as f64 * config.partial_rotary_factor.unwrap_or(1.0);
    let base = rope.rope_theta.or(config.rope_theta).unwrap_or(10_000.0);
    put(key("rope.dimension_count"), Value::Unsigned(dimensions as u64));
    let floats = [
        ("attention.layer_norm_rms_epsilon", Some(config.rms_norm_eps.unwrap_or(1e-6))),
        ("rope.freq_base", Some(base)),
        ("rope.freq_base_swa", local_base),
        ("attention.scale", config.query_pre_attn_scalar.map(|scalar| 1.0 / scalar.sqrt())),
        ("attn_logit_softcapping", config.attn_logit_softcapping),
        ("final_logit_softcapping", config.final_logit_softcapping),
    ];
    for (name, value) in floats {
        if let Some(value) = value {
            put(key(name), Value::Float(value));
        }
    }
    let mut rope_factors = None;
    match rope.rope_type.as_deref() {
        None | Some("default") => {}
        Some("linear") => {
            put(key("rope.scaling.type"), Value::String("linear".to_owned()));
            put(key("rope.scaling.factor"), Value::Float(rope.factor()?));
        }
        Some("llama3") => rope_factors = Some(rope.llama3_factors(base, dimensions as usize)?),
        Some("yarn") => {
            for (name, value) in rope.yarn(config.max_position_embeddings)? {
                put(key(name), value);
            }
        }
        Some(other) => {
            return Err(bad(format!(
                "rope scaling '{other}'; default, linear, llama3 and yarn are known"
            )));
        }
    }
    let gemma = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
    Ok(Described {
        graph: Graph::Language(architecture),
        metadata,
        rope_factors,
        tied: config.tie_word_embeddings.unwrap_or(gemma),
        head: usize::try_from(head).map_err(|_| bad("head_dim is too large"))?,
    })
}

fn architecture(model_type: &str) -> Result<Architecture, SafetensorsError> {
    Ok(match model_type {
        // Mistral's graph is Llama's with a window.
        "llama" | "mistral" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        "gemma2" => Architecture::Gemma2,
        "gemma3_text" => Architecture::Gemma3,
        other => {
            return Err(bad(format!(
                "model_type '{other}'; known are llama, mistral, qwen2, qwen3, gemma2 and gemma3_text, and the encoders bert and roberta"
            )));
        }
    })
}

impl Config {
    fn refuse_unknown(&self, architecture: Architecture) -> Result<(), SafetensorsError> {
        if self.quantization_config.is_some() {
            return Err(bad(
                "quantization_config: the weights are packed in a way this engine does not know; take \
                 the original model or a GGUF file",
            ));
        }
        if self.use_sliding_window == Some(true) {
            return Err(bad("use_sliding_window is true; such a model is not known"));
        }
        let (wanted, names): (Activation, &[&str]) = match architecture.family().activation {
            Activation::Silu => (Activation::Silu, &["silu", "swish"]),
            Activation::Gelu => {
                (Activation::Gelu, &["gelu_pytorch_tanh", "gelu", "gelu_new", "gelu_fast"])
            }
        };
        // Gemma 2 says "gelu" in hidden_act and means the approximation of hidden_activation.
        if let Some(given) = self.hidden_activation.as_ref().or(self.hidden_act.as_ref())
            && !names.contains(&given.as_str())
        {
            return Err(bad(format!("activation '{given}'; a {wanted:?} was expected")));
        }
        let Windows::AllButLast { period, .. } = architecture.family().windows else {
            return Ok(());
        };
        let as_known = |(layer, kind): (usize, &String)| {
            (kind == "sliding_attention") == (layer % period < period - 1)
        };
        if self.sliding_window_pattern.is_some_and(|given| given != period)
            || !self.layer_types.iter().flatten().enumerate().all(as_known)
        {
            return Err(bad(format!("layers with a window are not all but every {period}th")));
        }
        Ok(())
    }

    /// Floats per head.
    fn head(&self, architecture: Architecture) -> Result<u64, SafetensorsError> {
        let default = match architecture {
            Architecture::Llama | Architecture::Qwen2 => None,
            Architecture::Qwen3 | Architecture::Qwen3Moe => Some(128),
            Architecture::Gemma2 | Architecture::Gemma3 => Some(256),
        };
        self.head_dim
            .or(default)
            .or_else(|| self.hidden_size.checked_div(self.num_attention_heads))
            .ok_or_else(|| bad("num_attention_heads is 0"))
    }

    /// How pairs turn, and the base in layers with a window if they have their own.
    fn rope(&self) -> (RopeScaling, Option<f64>) {
        match &self.rope_parameters {
            Some(RopeParameters::PerLayer { full_attention, sliding_attention }) => {
                (full_attention.clone(), sliding_attention.rope_theta)
            }
            Some(RopeParameters::Alike(alike)) => (alike.clone(), self.rope_local_base_freq),
            None => (self.rope_scaling.clone().unwrap_or_default(), self.rope_local_base_freq),
        }
    }
}

impl RopeScaling {
    fn factor(&self) -> Result<f64, SafetensorsError> {
        self.factor
            .filter(|factor| *factor >= 1.0)
            .ok_or_else(|| bad("rope scaling wants a factor of at least 1"))
    }

    /// `_compute_llama3_parameters`: slow pairs turn `factor` times slower, fast ones do not, and in
    /// between it fades.
    fn llama3_factors(&self, base: f64, dimensions: usize) -> Result<Vec<f32>, SafetensorsError> {
        let factor = self.factor()?;
        let need = |what: &str, value: Option<f64>| {
            value
                .filter(|value| *value > 0.0)
                .ok_or_else(|| bad(format!("rope scaling 'llama3' wants a {what} above 0")))
        };
        let low = need("low_freq_factor", self.low_freq_factor)?;
        let high = need("high_freq_factor", self.high_freq_factor)?;
        let context = need(
            "original_max_position_embeddings",
            self.original_max_position_embeddings.map(|tokens| tokens as f64),
        )?;
        if high <= low {
            return Err(bad("rope scaling: high_freq_factor is not above low_freq_factor"));
        }
        // Heads are bounded where the model's shape is checked; here by what anyone could mean.
        let pairs = dimensions.min(1 << 16) / 2;
        Ok((0..pairs)
            .map(|pair| {
                let turns = context * base.powf(-2.0 * pair as f64 / dimensions as f64) / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 / ((1.0 - kept) / factor + kept)) as f32
            })
            .collect())
    }

    fn yarn(&self, context: u64) -> Result<Vec<(&'static str, Value)>, SafetensorsError> {
        let factor = self.factor()?;
        let original = self.original_max_position_embeddings.unwrap_or(context);
        let magnitude = |multiplier: f64| 0.1 * multiplier * factor.ln() + 1.0;
        let attention = match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(attention), _, _) => attention,
            (None, Some(one), Some(all)) => magnitude(one) / magnitude(all),
            (None, _, _) => magnitude(1.0),
        };
        Ok(vec![
            ("rope.scaling.type", Value::String("yarn".to_owned())),
            ("rope.scaling.factor", Value::Float(factor)),
            ("rope.scaling.original_context_length", Value::Unsigned(original)),
            ("rope.scaling.yarn_beta_fast", Value::Float(self.beta_fast.unwrap_or(32.0))),
            ("rope.scaling.yarn_beta_slow", Value::Float(self.beta_slow.unwrap_or(1.0))),
            // The reader multiplies the usual magnitude in.
            ("rope.scaling.attn_factor", Value::Float(attention / magnitude(1.0))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn llama() -> Json {
        json!({
            "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5, "rope_theta": 5e5, "hidden_act": "silu", "rope_scaling": null
        })
    }

    fn with(changes: Json) -> Result<Described, SafetensorsError> {
        let mut config = llama();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        read(&config.to_string(), "folder")
    }

    #[test]
    fn a_plain_model_keeps_its_numbers() {
        let described = with(json!({})).unwrap();
        let metadata = &described.metadata;
        assert_eq!(metadata.require_string("general.name").unwrap(), "folder");
        assert_eq!(metadata.require_count("llama.attention.key_length").unwrap(), 16);
        assert_eq!(metadata.float("llama.rope.freq_base").unwrap(), Some(5e5));
        assert_eq!((described.head, described.tied), (16, false));
        assert!(described.rope_factors.is_none());
    }

    #[test]
    fn llama3_stretches_slow_pairs_only() {
        let scaling = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        });
        let described = with(json!({ "rope_scaling": scaling, "head_dim": 128 })).unwrap();
        let factors = described.rope_factors.unwrap();
        // The tensor rope_freqs.weight of published Llama 3.1 files: ones, a slope, eights.
        assert_eq!((factors.len(), factors[0], factors[28], factors[63]), (64, 1.0, 1.0, 8.0));
        assert!(factors.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(described.metadata.get("llama.rope.scaling.type").is_none());
    }

    #[test]
    fn yarn_and_linear_become_keys() {
        let yarn =
            json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128 });
        let metadata = with(json!({ "rope_scaling": yarn })).unwrap().metadata;
        assert_eq!(metadata.string("llama.rope.scaling.type").unwrap(), Some("yarn"));
        assert_eq!(metadata.float("llama.rope.scaling.attn_factor").unwrap(), Some(1.0));
        let linear = json!({ "rope_type": "linear", "factor": 2.0, "rope_theta": 7.0 });
        let metadata = with(json!({ "rope_parameters": linear })).unwrap().metadata;
        assert_eq!(metadata.float("llama.rope.scaling.factor").unwrap(), Some(2.0));
        assert_eq!(metadata.float("llama.rope.freq_base").unwrap(), Some(7.0));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let cases = [
            (json!({ "model_type": "mixtral" }), "mixtral"),
            (json!({ "rope_scaling": { "rope_type": "longrope" } }), "longrope"),
            (json!({ "rope_scaling": { "rope_type": "linear", "factor": 0.0 } }), "factor"),
            (json!({ "hidden_act": "relu" }), "relu"),
            (json!({ "quantization_config": { "quant_method": "awq" } }), "quantization_config"),
            (json!({ "use_sliding_window": true }), "use_sliding_window"),
            (json!({ "num_attention_heads": 0 }), "num_attention_heads"),
            (json!({ "hidden_size": "many" }), "hidden_size"),
            (
                json!({ "model_type": "gemma2", "hidden_act": "gelu", "layer_types": ["full_attention"] }),
                "window",
            ),
        ];
        for (changes, word) in cases {
            let error = with(changes).unwrap_err().to_string();
            assert!(error.contains(word) || error.contains("expected u64"), "{error}: no {word}");
        }
    }
}
