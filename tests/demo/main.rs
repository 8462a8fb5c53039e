//! End to end: the demo farm, shortened, as a user starts it.
//!
//! Three binaries, real sockets, the real model on the real or software GPU. A test binary of its own, because it runs on
//! a fast clock and must not share the processor with two hundred simulated farms.

#[cfg(test)]
mod demo {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// The folder all three binaries are built into.
    fn binaries() -> PathBuf {
        Path::new(env!("CARGO_BIN_EXE_roadbed-standins")).parent().unwrap().to_owned()
    }

    /// From a cheap morning through the dearest hours: mining, serving and a whole Proof of Compute window.
    #[test]
    fn every_claim_of_a_shortened_day_holds() {
        let folder = tempfile::tempdir().unwrap();
        let roadbed = binaries().join("roadbed");
        assert!(
            roadbed.exists() && binaries().join("roadbed-agent").exists(),
            "build all binaries first: cargo test --workspace does"
        );
        let output = Command::new(roadbed)
            .args(["demo", "--json", "--from", "07:00", "--hours", "14", "--minutes", "5"])
            .arg("--work-dir")
            .arg(folder.path())
            .output()
            .unwrap();
        let decisions = String::from_utf8_lossy(&output.stderr);
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("no summary: {error}\n{decisions}"));
        let failed: Vec<String> = summary["claims"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|claim| claim["held"] != true)
            .map(|claim| format!("{}: {}", claim["name"], claim["evidence"]))
            .collect();
        assert!(failed.is_empty(), "{}\n{decisions}", failed.join("\n"));
        assert!(output.status.success(), "exit code without a failed claim\n{decisions}");
    }
}
