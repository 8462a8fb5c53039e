//! Model files that claim nonsense: every claim is refused with its name, and what is not refused
//! gives finite rotations.

use proptest::prelude::*;
use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::{Architecture, ModelConfig};

use crate::tiny_families::Recipe;

fn config(recipe: &Recipe) -> Result<ModelConfig, String> {
    let (bytes, _) = recipe.files();
    let file = GgufFile::from_bytes(bytes).map_err(|error| error.to_string())?;
    ModelConfig::from_source(&file).map_err(|error| error.to_string())
}

fn plain(architecture: Architecture) -> Recipe {
    Recipe::of(architecture, TensorType::F32)
}

#[test]
fn claims_that_cannot_be_met_are_refused_by_name() {
    let llama = || plain(Architecture::Llama);
    let cases = [
        (llama().with("rope.scaling.type", Field::Text("longrope")), "rope scaling 'longrope'"),
        (llama().with("attention.value_length", Field::U32(8)), "must be equal"),
        (llama().with("attention.head_count_kv", Field::U32(3)), "no multiple of 3"),
        (llama().with("block_count", Field::U32(3)), "blk.2.attn_norm.weight: missing"),
        (llama().with("block_count", Field::U32(1)), "blk.1."),
        (llama().with("embedding_length", Field::U32(96)), "expected"),
        (llama().with("expert_count", Field::U32(8)), "expert"),
        (llama().with("rope.dimension_count", Field::U32(7)), "7 rope dimensions"),
        (llama().with("rope.freq_base", Field::F32(-1.0)), "rope base is -1"),
        (llama().with_rope_factors(vec![0.0; 8]), "rope_freqs.weight"),
        (llama().with_rope_factors(vec![1.0; 3]), "expected 1 x 8"),
        (llama().with_biases(&["attn_norm"]), "blk.0.attn_norm.bias is not known"),
        (plain(Architecture::Qwen2).with("block_count", Field::Text("2")), "expected a count"),
        (plain(Architecture::Gemma2).with("attn_logit_softcapping", Field::F32(-1.0)), "softcap"),
    ];
    for (recipe, expected) in cases {
        let error = config(&recipe).unwrap_err();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn an_unknown_architecture_lists_the_known_ones() {
    let mut writer = GgufWriter::default();
    writer.field("general.architecture", &Field::Text("mamba"));
    let file = GgufFile::from_bytes(writer.finish()).unwrap();
    let error = ModelConfig::from_source(&file).unwrap_err().to_string();
    assert!(error.contains("'mamba'") && error.contains("gemma3"), "{error}");
}

#[test]
fn windows_and_rotations_are_those_of_the_layer() {
    let gemma = config(&plain(Architecture::Gemma3)).unwrap();
    let windows: Vec<usize> = (0..7).map(|layer| gemma.layer_window(layer)).collect();
    assert_eq!(windows, [6, 6, 6, 6, 6, 0, 6]);
    assert_eq!((gemma.layer_rope(0).base, gemma.layer_rope(0).factor), (10_000.0, 1.0));
    assert_eq!((gemma.layer_rope(5).base, gemma.layer_rope(5).factor), (1_000_000.0, 8.0));
    let window = Field::U32(4096);
    let mistral = plain(Architecture::Llama).with("attention.sliding_window", window.clone());
    assert_eq!(config(&mistral).unwrap().layer_window(1), 4096);
    let qwen = plain(Architecture::Qwen2).with("attention.sliding_window", window);
    assert_eq!(config(&qwen).unwrap().layer_window(1), 0);
}

const KEYS: [&str; 21] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
];

fn number() -> impl Strategy<Value = Field<'static>> {
    prop_oneof![
        any::<u32>().prop_map(Field::U32),
        (0_u32..70).prop_map(Field::U32),
        any::<f32>().prop_map(Field::F32),
        (-3_i32..40).prop_map(|e| Field::F32(10_f32.powi(e))),
        Just(Field::F32(0.0)),
        Just(Field::Bool(true)),
        Just(Field::Text("none")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn absurd_numbers_are_refused_or_harmless(
        architecture in proptest::sample::select(&Architecture::ALL[..]),
        changes in proptest::collection::vec((proptest::sample::select(&KEYS[..]), number()), 1..3),
        yarn in any::<bool>(),
    ) {
        let mut recipe = plain(architecture);
        if yarn {
            recipe = recipe.with("rope.scaling.type", Field::Text("yarn"));
        }
        for (key, field) in changes {
            recipe = recipe.with(key, field);
        }
        match config(&recipe) {
            Ok(config) => {
                for layer in [0, config.layers - 1] {
                    let angles = config.layer_rope(layer).angles(3, None);
                    prop_assert!(angles.iter().flatten().all(|part| part.is_finite()));
                }
                prop_assert!(config.score_scale.is_finite() && config.epsilon.is_finite());
            }
            Err(error) => prop_assert!(!error.is_empty()),
        }
    }
}
