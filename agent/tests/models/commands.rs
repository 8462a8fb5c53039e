//! The real binary: what it prints, what it leaves, what its exit code says.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use farm_tests::tls_front::{CERTIFICATES, tls_front};
use serde_json::Value;

use super::hub::{HubStandIn, Trick};
use super::proxy::ProxyStandIn;
use super::weights;

struct Ran {
    ok: bool,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        assert!(self.ok, "{}", self.err);
        serde_json::from_str(&self.out).unwrap()
    }
}

async fn agent(models: &Path, endpoint: &str, args: &[&str]) -> Ran {
    agent_with(models, endpoint, args, &[]).await
}

async fn agent_with(models: &Path, endpoint: &str, args: &[&str], more: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadbed-agent"));
    for proxy in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(proxy);
    }
    command
        .args(args)
        .envs(more.iter().copied())
        .env("ROADBED_MODELS", models)
        .env("HF_ENDPOINT", endpoint)
        .env_remove("HF_TOKEN")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Output { status, stdout, stderr } = output.unwrap();
    Ran {
        ok: status.success(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

#[tokio::test]
async fn a_model_comes_is_listed_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let made = folder.path().join("tiny.gguf");
    let made_text = made.to_str().unwrap();
    let nowhere = "http://127.0.0.1:9";
    let synth = ["models", "synth", "--shape", "tiny", "--quant", "q8_0", "--json", made_text];
    let ran = agent(&models, nowhere, &synth).await;
    assert!(ran.ok, "{}", ran.err);
    assert_eq!(ran.json()["parameters"], 1_312_000);
    assert!(ran.err.contains("100 %"), "{}", ran.err);
    let again = agent(&models, nowhere, &synth).await;
    assert!(!again.ok && again.err.contains("exists already"));

    let data = std::fs::read(&made).unwrap();
    let hub = HubStandIn::start(&[("tiny.Q8_0.gguf", &data)]).await;
    hub.plays(&[Trick::EndEarly(1000)]);
    let endpoint = hub.endpoint();
    let pulled = agent(&models, &endpoint, &["models", "pull", "hf:org/repo", "--json"]).await;
    assert!(pulled.ok, "{}", pulled.err);
    let path = pulled.json()["path"].as_str().unwrap().to_owned();
    assert!(std::fs::read(&path).unwrap() == data);
    // No terminal: lines, not a bar.
    assert!(pulled.err.contains("tiny.Q8_0.gguf  100 %") && !pulled.err.contains('\r'));

    let listed = agent(&models, &endpoint, &["models", "list", "--json"]).await.json();
    let model = &listed["models"][0];
    assert_eq!((&model["name"], &model["here"]), (&"hf:org/repo".into(), &true.into()));
    assert_eq!((&model["arch"], &model["quant"]), (&"llama".into(), &"Q8_0".into()));
    let text = agent(&models, &endpoint, &["models", "list"]).await.out;
    assert!(text.contains("hf:org/repo") && text.contains("models pull smollm2-135m"), "{text}");

    let ids =
        agent(&models, &endpoint, &["tokenize", "--model", "hf:org/repo", "--text", "AB"]).await;
    assert_eq!(ids.out.trim(), "65 66");

    let asked = agent(&models, &endpoint, &["models", "rm", "hf:org/repo"]).await;
    assert!(!asked.ok && asked.err.contains("--yes") && Path::new(&path).exists());
    let outside = agent(&models, &endpoint, &["models", "rm", "--yes", made_text]).await;
    assert!(!outside.ok && outside.err.contains("outside") && made.exists());
    let gone = agent(&models, &endpoint, &["models", "rm", "--yes", "--json", "hf:org/repo"]).await;
    assert!(gone.ok && !Path::new(&path).exists(), "{}", gone.err);
}

#[tokio::test]
async fn failures_are_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let hub = HubStandIn::start(&[("m.gguf", &weights())]).await;
    let endpoint = hub.endpoint();
    let fails = async |args: &[&str], expected: &str| {
        let ran = agent(folder.path(), &endpoint, args).await;
        assert!(!ran.ok && ran.err.contains(expected), "{args:?}: {}", ran.err);
        assert!(ran.out.is_empty());
    };
    hub.plays(&[Trick::OtherBytes, Trick::Status(500, None)]);
    fails(&["models", "pull", "hf:org/repo"], "it was thrown away").await;
    fails(&["models", "pull", "--tries", "1", "hf:org/repo"], "HTTP 500").await;
    fails(&["models", "pull", "hf:org/nothing"], "does not exist (HTTP 404)").await;
    fails(&["models", "pull", "hf:org/../x"], "other characters").await;
    fails(&["models", "pull", "no-such-name"], "smollm2-135m").await;
    fails(&["models", "rm", "--yes", "no-such-name"], "models list").await;
    fails(&["models", "synth", "--shape", "2b", "x.gguf"], "known: tiny, 135m").await;
    for command in ["pull", "list", "rm", "synth"] {
        let help = agent(folder.path(), &endpoint, &["models", command, "--help"]).await;
        assert!(help.ok && help.out.contains("Examples:\n  roadbed-agent models"), "{command}");
    }
}

/// `hub.test` resolves nowhere: what arrives came through the proxy, and what the proxy passed on was TLS.
#[tokio::test]
async fn a_pull_goes_through_the_proxy_and_tls_goes_all_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let data = weights();
    let hub = HubStandIn::start(&[("m.gguf", &data)]).await;
    let front = tls_front(hub.address).await.unwrap();
    let proxy = ProxyStandIn::start(front, Some("Basic cmlnOnNlY3JldA==")).await;
    let pull = ["models", "pull", "--tries", "1", "--json", "hf:org/repo"];
    let ca = format!("{CERTIFICATES}/ca.pem");
    let through = async |proxy: &str, ca: &str, expected: &str| {
        let more = [("HTTPS_PROXY", proxy), ("SSL_CERT_FILE", ca)];
        let ran = agent_with(folder.path(), "https://hub.test", &pull, &more).await;
        assert!(!ran.ok && ran.err.contains(expected), "{expected}: {}", ran.err);
        assert!(!ran.err.contains("secret"), "{}", ran.err);
    };
    let address = proxy.address;
    through(&format!("http://{address}"), &ca, "proxy authorization required").await;
    through(&format!("socks5://{address}"), &ca, "name one by http in HTTPS_PROXY").await;
    let right = format!("http://rig:secret@{address}");
    // Somebody in the middle has a certificate that nobody vouches for.
    let other_ca = folder.path().join("other.pem");
    std::fs::copy(format!("{CERTIFICATES}/hub.pem"), &other_ca).unwrap();
    through(&right, other_ca.to_str().unwrap(), "certificate").await;
    // What answers behind the tunnel speaks no TLS.
    let elsewhere = ProxyStandIn::start(hub.address, None).await;
    through(&format!("http://{}", elsewhere.address), &ca, "corrupt message").await;

    let more = [("HTTPS_PROXY", right.as_str()), ("SSL_CERT_FILE", &ca)];
    let ran = agent_with(folder.path(), "https://hub.test", &pull, &more).await;
    assert!(std::fs::read(ran.json()["path"].as_str().unwrap()).unwrap() == data);
    let seen = proxy.seen.lock().unwrap();
    assert!(seen.iter().all(|line| line == "CONNECT hub.test:443 HTTP/1.1"), "{seen:?}");
}
