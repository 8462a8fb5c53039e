//! The built agent with its journal on disk, killed by the system in the middle of a stage: nothing is written after the
//! signal, and the next process has the disk alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farm_tests::gonka::{GonkaConfig, GonkaNode};
use roadbed_compute::gguf::TensorType;
use roadbed_compute::synthetic::{Architecture, Shape, Synthetic};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rig::{
    Home, MODEL, artifacts, config, is_whole, last_stage, nonces, registration, until, until_async,
    validated,
};

/// One life of `roadbed-agent serve`; killed with this value.
struct Process {
    child: Child,
    /// Its log, line by line.
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts it and waits until its model answers.
    async fn start(home: &Path, address: SocketAddr) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_roadbed-agent"))
            .args(["serve", "--send-every", "1", "--context", "256", "--served-as", MODEL])
            // The network's artifacts are of this very file.
            .arg("--accuse-with-own-weights")
            .arg("--model")
            .arg(home.join("tiny.gguf"))
            .arg("--journal")
            .arg(home.join("journal"))
            .arg("--listen")
            .arg(address.to_string())
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("ROADBED_LOG", "info")
            // A software adapter: others want to work too.
            .env("LP_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, lines) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        let process = Self { child, log };
        until_async("the model", async || process.is_up(address).await.then_some(())).await;
        process
    }

    async fn is_up(&self, address: SocketAddr) -> bool {
        // Asking twice a hundredth of a second would be work of its own.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = reqwest::get(format!("http://{address}/v1/models")).await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// The position that a known round went on from.
    fn went_on_from(&self) -> Option<u64> {
        let log = self.log.lock().unwrap();
        let line = log.iter().find(|line| line.contains("the round is known and goes on"))?;
        let (_, behind) = line.split_once("next_index=")?;
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn tiny_model(path: &Path) {
    let model = Synthetic {
        architecture: Architecture::Llama,
        shape: Shape::named("tiny").unwrap(),
        kind: TensorType::Q8_0,
        seed: 4,
    };
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    model.write(&mut file, &mut |_| {}).unwrap();
    file.flush().unwrap();
}

/// Nonces the process has worked on since it was asked for the round.
async fn processed(address: SocketAddr) -> Option<u64> {
    let url = format!("http://{address}/api/v1/inference/pow/status");
    let status: Value = reqwest::get(url).await.ok()?.json().await.ok()?;
    status.pointer("/backends/0/stats/total_processed")?.as_u64()
}

#[tokio::test]
async fn a_process_killed_in_the_middle_goes_on_from_its_journal() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(&folder.path().join("tiny.gguf"));
    let address = Home::new().await.address;
    let first = Process::start(folder.path(), address).await;

    let mut config = GonkaConfig { validation_sample: 4, ..config() };
    // Long enough that a second has few of them.
    config.models[0].seq_len = 128;
    config.nodes = vec![registration("rig-0", address)];
    let stop = CancellationToken::new();
    let node = GonkaNode::start(config, None, &stop, &TaskTracker::new()).await.unwrap();
    node.step_to(1_000).await;
    artifacts(&node, 1).await;
    // A delivery that is refused is behind one that was taken, and noted as taken.
    node.with(|world| world.refuse = Some(503));
    until("a refusal", || last_stage(&node).refused.get(&503).copied()).await;
    let held = nonces(&node, 0, "rig-0");
    let computed = until_async("nonces that were not delivered", async || {
        processed(address).await.filter(|&count| count > held.len() as u64 + 2)
    })
    .await;
    drop(first);
    // Nobody answers; the status query sees it.
    node.step_to(1_004).await;
    assert!(node.status().unreached > 0);
    node.with(|world| world.refuse = None);

    let second = Process::start(folder.path(), address).await;
    node.step_to(1_006).await;
    assert_eq!(last_stage(&node).starts, 2);
    let went_on_from = until("the old round", || second.went_on_from()).await;
    assert!(went_on_from >= computed, "{went_on_from} of {computed}");
    artifacts(&node, went_on_from + 1).await;
    validated(&node, 1_013, 1_030).await;
    let own = nonces(&node, 0, "rig-0");
    assert!(is_whole(&own, 1, 1) && held.is_subset(&own), "{own:?}");
    assert_eq!(last_stage(&node).duplicates, 0, "nothing twice");
    assert_eq!(node.status().errors, Vec::<String>::new());
    drop(second);
}
