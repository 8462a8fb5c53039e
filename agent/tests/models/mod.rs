//! `roadbed-agent models` against a Hub that misbehaves on purpose, through the library and through the real binary.

mod commands;
mod hub;
pub(crate) mod proxy;

use std::path::PathBuf;
use std::time::Duration;

use roadbed_agent::engine::catalogue::ModelStore;
use roadbed_agent::engine::pull::{
    Hub, HubPull, HubSource, Patience, PullError, PullStep, Pulled, pull_from_hub,
};

use hub::{HubStandIn, Trick, sum};

/// Large enough that it comes in several pieces.
fn weights() -> Vec<u8> {
    (0..300_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

struct Bench {
    hub: HubStandIn,
    store: ModelStore,
    token: Option<String>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::at(folder.path().join("models"));
        Self { hub: HubStandIn::start(files).await, store, token: None, _folder: folder }
    }

    async fn one() -> Self {
        Self::with(&[("m.gguf", &weights())]).await
    }

    async fn pull(&self, name: &str) -> Result<Pulled, PullError> {
        let patience = Patience {
            tries_max: 3,
            first_wait: Duration::from_millis(1),
            wait_max: Duration::from_secs(5),
            silence_max: Duration::from_secs(20),
        };
        let hub = Hub::new(&self.hub.endpoint(), self.token.clone(), patience).unwrap();
        let source: HubSource = name.parse().unwrap();
        let mut last = 0;
        let mut told = |step: PullStep| match step {
            PullStep::At(bytes) | PullStep::Ends(bytes) => last = bytes,
            PullStep::Said(_) | PullStep::Begins { .. } => {}
        };
        pull_from_hub(HubPull { hub: &hub, store: &self.store, source: &source }, &mut told).await
    }

    fn folder(&self) -> PathBuf {
        self.store.root().join("org--repo")
    }

    fn parts(&self) -> usize {
        let entries = std::fs::read_dir(self.folder()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).count()
    }

    /// The ranges asked for, one per request.
    fn ranges(&self) -> Vec<Option<String>> {
        self.hub.seen().into_iter().map(|(range, _)| range).collect()
    }

    #[track_caller]
    fn assert_whole(&self, pulled: &Pulled) {
        assert_eq!(pulled.path, self.folder().join("m.gguf"));
        assert!(std::fs::read(&pulled.path).unwrap() == weights(), "the file is not the file");
        assert_eq!(pulled.files[0].sha256, sum(&weights()));
        assert_eq!(self.parts(), 0);
        assert_eq!(self.store.find("hf:org/repo").unwrap().path, pulled.path);
    }
}

fn from(byte: usize) -> Option<String> {
    Some(format!("bytes={byte}-"))
}

#[tokio::test]
async fn a_broken_line_costs_nothing_that_was_here() {
    let bench = Bench::one().await;
    bench.hub.plays(&[Trick::Drop(100_000), Trick::EndEarly(50_000)]);
    let pulled = bench.pull("hf:org/repo").await.unwrap();
    bench.assert_whole(&pulled);
    let ranges = bench.ranges();
    // How much of the first answer arrived before the break is the network's business.
    assert_eq!((ranges.len(), &ranges[0]), (3, &None));
    let start = |range: &Option<String>| -> usize {
        range.as_ref().map_or(0, |range| range["bytes=".len()..range.len() - 1].parse().unwrap())
    };
    assert!(start(&ranges[1]) <= 100_000);
    assert_eq!(start(&ranges[2]), start(&ranges[1]) + 50_000);
    // Again: nothing is fetched.
    bench.pull("hf:org/repo").await.unwrap();
    assert_eq!(bench.ranges().len(), 3);
}

#[tokio::test]
async fn a_pull_that_gave_up_goes_on_later() {
    let bench = Bench::one().await;
    bench.hub.plays(&[Trick::EndEarly(70_000), Trick::Status(500, None), Trick::Status(502, None)]);
    let said = bench.pull("hf:org/repo").await.unwrap_err().to_string();
    assert!(said.contains("HTTP 502") && said.contains("3 times in a row"), "{said}");
    assert_eq!(bench.parts(), 1);
    assert!(bench.store.find("hf:org/repo").is_err(), "a part is no model");
    bench.hub.plays(&[]);
    let pulled = bench.pull("hf:org/repo").await.unwrap();
    bench.assert_whole(&pulled);
    assert_eq!(bench.ranges().last().unwrap(), &from(70_000));
}

#[tokio::test]
async fn servers_that_cannot_go_on_begin_again() {
    for trick in [Trick::IgnoreRange, Trick::WrongRange, Trick::Status(416, None)] {
        let bench = Bench::one().await;
        bench.hub.plays(&[Trick::EndEarly(70_000), trick.clone()]);
        let pulled = bench.pull("hf:org/repo").await.unwrap();
        bench.assert_whole(&pulled);
        assert_eq!(bench.ranges()[1], from(70_000), "{trick:?}");
    }
}

#[tokio::test]
async fn what_is_not_the_file_is_thrown_away() {
    let bench = Bench::one().await;
    bench.hub.plays(&[Trick::OtherBytes]);
    let error = bench.pull("hf:org/repo").await.unwrap_err();
    assert!(matches!(&error, PullError::WrongSum { expected, .. } if *expected == sum(&weights())));
    assert_eq!(bench.parts(), 0);
    // A part that was spoilt on the disk is noticed, and the file fetched once more.
    bench.hub.plays(&[Trick::EndEarly(70_000), Trick::Status(404, None)]);
    assert!(matches!(bench.pull("hf:org/repo").await, Err(PullError::NotFound { .. })));
    let part = std::fs::read_dir(bench.folder()).unwrap().flatten();
    let part =
        part.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "part"));
    std::fs::write(part.unwrap(), b"spoilt").unwrap();
    let pulled = bench.pull("hf:org/repo").await.unwrap();
    bench.assert_whole(&pulled);

    let bench = Bench::one().await;
    bench.hub.lies_about_the_sum();
    assert!(matches!(bench.pull("hf:org/repo").await, Err(PullError::WrongSum { .. })));
    assert!(bench.store.find("hf:org/repo").is_err());
}

#[tokio::test]
async fn a_file_of_another_size_is_refused_before_it_fills_the_disk() {
    let bench = Bench::one().await;
    bench.hub.plays(&[Trick::Longer]);
    let error = bench.pull("hf:org/repo").await.unwrap_err();
    assert!(matches!(error, PullError::WrongSize { found: 1_200_001, expected: 1_200_000, .. }));
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let said = async |status: u16, after: Option<u64>| {
        let bench = Bench::one().await;
        bench.hub.lists_with(&vec![Trick::Status(status, after); 3]);
        bench.pull("hf:org/repo").await.unwrap_err().to_string()
    };
    assert!(said(401, None).await.contains("set HF_TOKEN"));
    assert!(said(403, None).await.contains("set HF_TOKEN"));
    assert!(said(404, None).await.contains("check the spelling"));
    assert!(said(418, None).await.contains("HTTP 418"));
    let busy = said(429, Some(3600)).await;
    assert!(
        busy.contains("429") && busy.contains("1 times in a row, and asks to come back in 3600 s"),
        "{busy}"
    );
    // A short wait is waited.
    let bench = Bench::one().await;
    bench.hub.lists_with(&[Trick::Status(503, Some(0)), Trick::Status(429, Some(0))]);
    bench.pull("hf:org/repo").await.unwrap();
}

#[tokio::test]
async fn the_token_is_sent_home_and_nowhere_else() {
    let mut bench = Bench::one().await;
    bench.hub.wants("secret");
    assert!(matches!(bench.pull("hf:org/repo").await, Err(PullError::Denied { status: 401, .. })));
    bench.token = Some("secret".into());
    bench.hub.says_sums_in_headers_only();
    bench.hub.plays(&[Trick::Elsewhere]);
    let pulled = bench.pull("hf:org/repo").await.unwrap();
    bench.assert_whole(&pulled);
    let tokens: Vec<Option<String>> =
        bench.hub.seen().into_iter().map(|(_, token)| token).collect();
    assert_eq!(tokens, [Some("Bearer secret".into()), None]);
    // The sum came with the redirect, and counts.
    std::fs::remove_dir_all(bench.folder()).unwrap();
    bench.hub.plays(&[Trick::Elsewhere, Trick::OtherBytes]);
    let error = bench.pull("hf:org/repo").await.unwrap_err();
    assert!(matches!(error, PullError::WrongSum { .. }), "{error}");
    assert!(!error.to_string().contains("signature"), "{error}");
    // Round and round.
    bench.hub.plays(&[Trick::RedirectLoop]);
    let error = bench.pull("hf:org/repo").await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[tokio::test]
async fn hostile_names_never_become_files() {
    let bench = Bench::one().await;
    for name in ["../../evil.gguf", "/tmp/evil.gguf", "a\\..\\evil.gguf"] {
        bench.hub.lists_also(name);
    }
    let said = bench.pull("hf:org/repo").await.unwrap_err().to_string();
    assert!(said.contains("several models") && !said.contains("evil"), "{said}");
    bench.assert_whole(&bench.pull("hf:org/repo:m.gguf").await.unwrap());
}

#[tokio::test]
async fn a_folder_of_safetensors_comes_whole() {
    let files: [(&str, &[u8]); 5] = [
        ("config.json", br#"{"model_type": "llama", "torch_dtype": "bfloat16"}"#),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("tokenizer.json", b"{}"),
        ("pytorch_model.bin", b"never"),
    ];
    let bench = Bench::with(&files).await;
    let pulled = bench.pull("hf:org/repo").await.unwrap();
    assert_eq!(pulled.path, bench.folder());
    let names: Vec<&str> = pulled.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, files[..4].iter().map(|(name, _)| *name).collect::<Vec<_>>());
    assert_eq!(bench.store.find("org/repo").unwrap().path, bench.folder());
    // One that is gone is fetched alone.
    std::fs::remove_file(bench.folder().join("tokenizer.json")).unwrap();
    bench.pull("hf:org/repo").await.unwrap();
    assert_eq!(bench.ranges().len(), 5);
}
