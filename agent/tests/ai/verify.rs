//! `poc verify` by the real binary: what it prints, and the exit code that is its verdict.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Nonces of the golden set that are computed: each costs half a second on a software adapter.
const FIRST: &str = "2";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/poc/golden_smollm2.json")
}

/// The golden set, changed, in a folder.
fn changed(folder: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut golden: Value = serde_json::from_slice(&std::fs::read(golden()).unwrap()).unwrap();
    change(&mut golden);
    let path = folder.join("changed.json");
    std::fs::write(&path, golden.to_string()).unwrap();
    path
}

/// Exit code, standard output, standard error.
fn agent(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_roadbed-agent"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn verify(golden: &Path, model: &str, more: &[&str]) -> (i32, String, String) {
    let golden = golden.to_str().unwrap();
    agent(
        &[&["poc", "verify", "--golden", golden, "--model", model, "--first", FIRST], more]
            .concat(),
    )
}

#[test]
fn the_golden_set_passes_and_that_of_another_block_is_fraud() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = verify(&golden(), "smollm2-135m", &["--json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["verdict"], &report["n_mismatch"]), (&json!("pass"), &json!(0)));
    assert_eq!((&report["p_value"], &report["dist_threshold"]), (&json!(1.0), &json!(0.2)));
    assert_eq!(report["weights"], "Q4_1");
    assert_eq!(report["nonces"].as_array().unwrap().len(), 2);
    // A sound engine in f32: as far as halves are from what they round.
    assert!(report["distance_max"].as_f64().unwrap() <= 0.001, "{report}");

    let other = changed(folder.path(), |golden| golden["block_hash"] = json!("4E1A"));
    let (code, out, err) = verify(&other, "smollm2-135m", &[]);
    assert_eq!(code, 2, "{err}");
    assert_eq!(out.matches("MISMATCH").count(), 2, "{out}");
    assert!(out.contains("2 of 2 nonces mismatch beyond 0.2") && out.contains("FRAUD"), "{out}");
    assert!(out.contains("the weights here are Q4_1, fewer than 16 bits"), "{out}");
}

#[test]
fn without_a_verdict_nobody_is_accused() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("tiny.gguf");
    let other = other.to_str().unwrap();
    assert_eq!(agent(&["models", "synth", "--shape", "tiny", "--quant", "q8_0", other]).0, 0);
    // Another model is refused before it is loaded, unless it is meant.
    let (code, _, err) = verify(&golden(), other, &[]);
    assert_eq!(code, 1);
    assert!(err.contains("SmolLM2-135M-Instruct") && err.contains("--any-model"), "{err}");
    assert_eq!(verify(&golden(), other, &["--any-model"]).0, 2);
    // Two mismatches of two are no fraud where nearly every honest nonce mismatches.
    assert_eq!(verify(&golden(), other, &["--any-model", "--p-mismatch", "0.9"]).0, 0);

    let garbage = folder.path().join("garbage.json");
    std::fs::write(&garbage, b"\xff\x00no json").unwrap();
    for (golden, words) in [
        (folder.path().join("absent.json"), "cannot open"),
        (garbage, "cannot read"),
        (changed(folder.path(), |golden| golden["artifacts"] = json!([])), "no artifacts"),
    ] {
        let (code, _, err) = verify(&golden, "smollm2-135m", &[]);
        assert!(code == 1 && err.contains(words), "{code}: {err}");
    }
    let longer = changed(folder.path(), |golden| golden["seq_len"] = json!(1_000_000));
    let (code, _, err) = verify(&longer, other, &["--any-model"]);
    assert!(code == 1 && err.contains("seq_len 1000000"), "{code}: {err}");
    // A mistyped option is no verdict either.
    assert_eq!(verify(&golden(), other, &["--p-mismatch", "7"]).0, 1);
    assert_eq!(agent(&["poc", "verify", "--help"]).0, 0);
}
