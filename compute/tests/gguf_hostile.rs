//! The reader against files from strangers: truncated, mutated, lying. It must answer with an error or
//! with tensors inside the file, never panic, and never reserve memory on the file's word.

use proptest::prelude::*;
use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::gguf::{GgufError, GgufFile, TensorType};

fn sample() -> Vec<u8> {
    let words: Vec<String> = ["a", "b", "ab"].map(str::to_owned).into();
    let weights: Vec<f32> = (0..128).map(|i| i as f32 / 7.0 - 9.0).collect();
    let mut writer = GgufWriter::default();
    writer
        .field("general.architecture", &Field::Text("llama"))
        .field("llama.block_count", &Field::U32(2))
        .field("llama.eps", &Field::F32(1e-5))
        .field("tokenizer.ggml.add_bos_token", &Field::Bool(false))
        .field("tokenizer.ggml.tokens", &Field::Texts(&words))
        .field("tokenizer.ggml.token_type", &Field::I32s(&[1, 1, 3]));
    for kind in [TensorType::F32, TensorType::F16, TensorType::Q4_1, TensorType::Q8_0] {
        writer.tensor(&format!("t.{kind}"), kind, 64, &weights).unwrap();
    }
    writer.finish()
}

/// Opens and touches everything that was accepted.
fn exercise(bytes: Vec<u8>) -> Result<(), GgufError> {
    let size = bytes.len();
    let file = GgufFile::from_bytes(bytes)?;
    for tensor in file.tensors() {
        assert!(file.data(tensor).len() <= size);
        let weights = file.weights(tensor);
        assert_eq!(weights.len(), tensor.rows * tensor.columns);
    }
    Ok(())
}

#[test]
fn what_is_written_is_read() {
    let file = GgufFile::from_bytes(sample()).unwrap();
    assert_eq!(file.metadata.require_string("general.architecture").unwrap(), "llama");
    assert_eq!(file.metadata.require_count("llama.block_count").unwrap(), 2);
    let exact = file.weights(file.tensor("t.F32").unwrap());
    for (name, tolerance) in [("t.F16", 5e-3), ("t.Q8_0", 4e-2), ("t.Q4_1", 0.2)] {
        let tensor = file.require_tensor(name).unwrap();
        assert_eq!((tensor.rows, tensor.columns), (2, 64));
        for (got, want) in file.weights(tensor).iter().zip(&exact) {
            assert!((got - want).abs() <= tolerance, "{name}: {got} for {want}");
        }
    }
    let missing = file.require_tensor("t.none").unwrap_err();
    assert!(missing.to_string().contains("t.none"), "{missing}");
    let wrong = file.metadata.require_string("llama.block_count").unwrap_err();
    assert!(wrong.to_string().contains("expected a string"), "{wrong}");
}

#[test]
fn every_truncation_is_an_error() {
    let whole = sample();
    for length in 0..whole.len() {
        assert!(exercise(whole[..length].to_vec()).is_err(), "{length} bytes were accepted");
    }
}

#[test]
fn absurd_counts_are_refused_at_once() {
    let header = |tensors: u64, entries: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes.extend([0xFF; 64]);
        bytes
    };
    for (tensors, entries) in [(u64::MAX, 0), (0, u64::MAX), (1 << 40, 1), (1, 1 << 40), (0, 1)] {
        let error = exercise(header(tensors, entries)).unwrap_err();
        assert!(matches!(error, GgufError::Malformed { .. }), "{error}");
    }
    assert!(exercise(b"GGUF\x63\0\0\0".to_vec()).is_err());
    assert!(exercise(b"NOPE".to_vec()).is_err());
}

#[test]
fn tensors_outside_the_file_are_named() {
    let mut writer = GgufWriter::default();
    writer.encoded_tensor("too.long", TensorType::F32, 1 << 20, 1, vec![0; 64]);
    let error = exercise(writer.finish()).unwrap_err();
    assert!(error.to_string().contains("too.long"), "{error}");
    let mut writer = GgufWriter::default();
    writer.encoded_tensor("overflow", TensorType::F32, usize::MAX, usize::MAX, vec![]);
    assert!(exercise(writer.finish()).is_err());
    let mut writer = GgufWriter::default();
    writer.encoded_tensor("ragged", TensorType::Q4_1, 33, 1, vec![0; 64]);
    let error = exercise(writer.finish()).unwrap_err();
    assert!(error.to_string().contains("no whole number"), "{error}");
}

/// Two files of a model; the second can be told to claim something else.
fn write_split(
    folder: &std::path::Path,
    second_no: u32,
    second_tensor: &str,
) -> std::path::PathBuf {
    let path = |number: u32| folder.join(format!("m-0000{number}-of-00002.gguf"));
    for (number, name) in [(0, "first"), (1, second_tensor)] {
        let mut writer = GgufWriter::default();
        let claimed = if number == 0 { 0 } else { second_no };
        writer.field("split.no", &Field::U32(claimed)).field("split.count", &Field::U32(2));
        if number == 0 {
            writer.field("split.tensors.count", &Field::U32(2));
        }
        writer.tensor(name, TensorType::F32, 2, &[number as f32, 7.0]).unwrap();
        std::fs::write(path(number + 1), writer.finish()).unwrap();
    }
    path(1)
}

#[test]
fn a_model_in_several_files_is_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_split(folder.path(), 1, "second");
    let file = GgufFile::open(&first).unwrap();
    for (name, weights) in [("first", [0.0, 7.0]), ("second", [1.0, 7.0])] {
        assert_eq!(file.weights(file.require_tensor(name).unwrap()), weights);
    }
    let refused = |path: &std::path::Path, word: &str| {
        let error = GgufFile::open(path).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}: no '{word}'");
    };
    let second = folder.path().join("m-00002-of-00002.gguf");
    refused(&second, "-00001-of-00002.gguf");
    write_split(folder.path(), 0, "second");
    refused(&first, "is not part 1 of 2");
    write_split(folder.path(), 1, "first");
    refused(&first, "a file before it");
    std::fs::remove_file(&second).unwrap();
    refused(&first, "m-00002-of-00002.gguf");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = sample();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = exercise(bytes);
    }

    #[test]
    fn noise_after_the_magic_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(noise);
        let _ = exercise(bytes);
    }
}
