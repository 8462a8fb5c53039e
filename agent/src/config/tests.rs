use std::fs;
use std::path::PathBuf;

use super::*;

const PROFILE: &str = "
model: Antminer
kind: asic
firmware: LuxOS
source: test
status: planning values
floor_watts: 18
nameplate_watts: 3300
mining: [{watts: 2794, hashes_per_second: 121800000000000}]
start_seconds: 300
stop_seconds: 60
temperature_trip: 95000
temperature_safe: 80000
";

const AGENT: &str = "agent: hall-box
farm: demo
data_dir: data
key_file: agent.key
broker: {address: \"127.0.0.1:18830\"}
trusted_keys: [{kid: controller, key: KEY}]
clock: {rate: 288.0, farm_origin_ms: 0, wall_origin_ms: 0}
rigs:
  - id: asic-1
    profile: asic.yaml
    asic: {driver: luxos, address: \"127.0.0.11:4028\"}
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("asic.yaml", PROFILE);
        folder.write("agent.key", &"07".repeat(32));
        folder.close_key();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn close_key(&self) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(self.path("agent.key"), mode).unwrap();
        }
    }

    fn load(&self, text: &str) -> Result<AgentConfig, ConfigError> {
        let key = roadbed_protocol::login::public_key(&[7; 32]);
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.write("agent.yaml", &text.replace("KEY", &key));
        load(&self.path("agent.yaml"))
    }

    fn refusal(&self, text: &str) -> String {
        self.load(text).map(|_| ()).unwrap_err().to_string()
    }
}

#[test]
fn a_good_config_is_read_with_all_it_names() {
    let folder = Folder::new();
    let config = folder.load(AGENT).unwrap();
    assert_eq!(config.agent.as_str(), "hall-box");
    assert_eq!(config.secret, [7; 32]);
    assert_eq!(config.broker, BrokerAddress { host: "127.0.0.1".into(), port: 18_830 });
    assert_eq!(config.data_dir, folder.path("data"));
    assert_eq!(config.clock.rate(), 288.0);
    assert_eq!(config.rigs[0].profile.model, "Antminer");
    assert!(matches!(
        &config.rigs[0].hardware,
        RigHardware::Asic(AsicConfig { driver: AsicDriverKind::Luxos, .. })
    ));
}

#[test]
fn a_gpu_rig_with_a_pool_is_read() {
    let folder = Folder::new();
    let gpu = PROFILE.replace("kind: asic", "kind: gpu\nai_watts: 110");
    folder.write("gpu.yaml", &gpu);
    let text = AGENT.replace(
        "    profile: asic.yaml\n    asic: {driver: luxos, address: \"127.0.0.11:4028\"}",
        "    profile: gpu.yaml
    gpu: {model: m, served_as: org/m, adapter: auto, listen: \"127.0.0.1:18080\", sensor: simulated, embeddings: e}
    pool: {url: \"stratum+tcp://pool.example:3333\", user: u, password: x, threads: 2}",
    );
    let config = folder.load(&text).unwrap();
    let RigHardware::Gpu(gpu) = &config.rigs[0].hardware else { panic!("no GPU rig") };
    assert_eq!((gpu.sensor, gpu.served_as.as_str()), (SensorChoice::Simulated, "org/m"));
    let config_of = |gpus: &[&str], split| WgpuConfig {
        model: "m".into(),
        gpus: gpus.iter().map(ToString::to_string).collect(),
        split,
        context_tokens: None,
        memory: None,
        kv: Kv::F32,
        codebook: None,
        logprobs: LogprobsWord::Raw,
        deterministic_sampling: false,
    };
    let own = |gpus: &[&str], split| EngineConfig::Wgpu(config_of(gpus, split));
    assert_eq!(gpu.engine, own(&["auto"], Split::Auto));
    let bounded = EngineConfig::Wgpu(WgpuConfig {
        context_tokens: Some(4096),
        memory: Some(MemoryBytes(6 << 30)),
        kv: Kv::Q8,
        codebook: Some("/etc/book.pt".into()),
        logprobs: LogprobsWord::Processed,
        deterministic_sampling: true,
        ..config_of(&["auto"], Split::Auto)
    });
    assert_eq!(gpu.embeddings.as_deref(), Some("e"));
    let several = |lines: &str| folder.load(&text.replace("adapter: auto", lines));
    for (lines, expected) in [
        ("gpus: [all]", own(&["all"], Split::Auto)),
        ("gpus: [01:00.0, radeon], split: layers", own(&["01:00.0", "radeon"], Split::Layers)),
        ("split: replicas", own(&["auto"], Split::Replicas)),
        (
            "context: 4096, memory: 6GiB, kv: q8, codebook: /etc/book.pt, logprobs_mode: processed, \
             deterministic_sampling: true",
            bounded,
        ),
    ] {
        let config = several(lines).unwrap();
        let RigHardware::Gpu(gpu) = &config.rigs[0].hardware else { panic!("no GPU rig") };
        assert_eq!(gpu.engine, expected);
    }
    assert!(!gpu.accuse_with_own_weights && !gpu.apply_p_value_threshold);
    let verdicts = "accuse_with_own_weights: true, apply_p_value_threshold: true";
    let RigHardware::Gpu(told) = &several(verdicts).unwrap().rigs[0].hardware else { panic!() };
    assert!(told.accuse_with_own_weights && told.apply_p_value_threshold);
    for (lines, words) in [
        ("adapter: auto, gpus: [all]", "belongs to a rig of one GPU"),
        ("gpus: []", "is empty"),
        ("split: tensor", "none of auto, replicas, layers"),
        ("kv: q4", "none of f32, f16, q8"),
        ("logprobs_mode: logits", "none of raw, processed"),
        ("memory: 6gib", "expected for example 8GiB"),
        ("context: 0", "a whole number from 1"),
    ] {
        let refusal = several(lines).err().unwrap().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
    let mining = gpu.mining.as_ref().unwrap();
    let pool = PoolConfig::new("stratum+tcp://pool.example:3333".parse().unwrap(), "u", "x");
    let own = MiningConfig { threads: 2, gpus: vec![], pools: vec![pool] };
    assert_eq!(mining, &RigMining::BuiltIn(own));
}

#[test]
fn a_list_of_pools_is_read_and_its_mistakes_are_named() {
    let folder = Folder::new();
    folder.write("gpu.yaml", &PROFILE.replace("kind: asic", "kind: gpu\nai_watts: 110"));
    folder.write("ca.pem", "certificates");
    let load = |mining: &str| {
        let text = AGENT.replace(
            "    profile: asic.yaml\n    asic: {driver: luxos, address: \"127.0.0.11:4028\"}",
            &format!(
                "    profile: gpu.yaml\n    gpu: {{model: m, served_as: org/m, adapter: auto, listen: \"127.0.0.1:18080\"}}\n    {mining}"
            ),
        );
        folder.load(&text)
    };
    let config = load(
        "mining:
      threads: 3
      gpus: [auto]
      pools:
      - {url: \"stratum+tcp://one:1\", user: \"{farm}.{rig}.{workload}\", weight: 3, suggest_difficulty: 1e-3}
      - {url: \"stratum+tcp://two:2\", user: u, priority: 1, subscribe_extranonce: true}
      - {url: \"stratum+ssl://three:3\", user: u, tls: {ca_file: ca.pem}, minimum_difficulty: 8}
      - {url: \"stratum+ssl://four:4\", user: u, tls: {insecure: true}, follow_to_other_hosts: true}",
    )
    .unwrap();
    let RigHardware::Gpu(gpu) = &config.rigs[0].hardware else { panic!("no GPU rig") };
    let Some(RigMining::BuiltIn(mining)) = &gpu.mining else { panic!("{:?}", gpu.mining) };
    assert_eq!((mining.threads, mining.gpus.len()), (3, 1));
    let [one, two, three, four] = &mining.pools[..] else { panic!("{mining:?}") };
    let name = format!("{}.{}.{{workload}}", config.farm, config.rigs[0].id);
    assert_eq!((one.user.as_str(), one.priority, one.weight.get()), (name.as_str(), 1, 3));
    assert_eq!(one.suggest_difficulty, Difficulty::new(1e-3));
    assert!(two.priority == 1 && two.subscribe_extranonce && two.weight.get() == 1);
    assert_eq!(
        (three.priority, &three.trust),
        (3, &PoolTrust::Authorities(b"certificates".to_vec()))
    );
    assert!(four.trust == PoolTrust::Anybody && four.follow_to_other_hosts);
    for (pools, words) in [
        ("", "0 pools"),
        ("{url: \"http://x:1\", user: u}", "expected stratum+tcp://host:port"),
        ("{url: \"stratum2+tcp://x:1\", user: u}", "names no authority key"),
        ("{url: \"stratum+tcp://x:1\", user: \"{owner}.x\"}", "none of {rig}, {farm}, {workload}"),
        ("{url: \"stratum+tcp://x:1\", user: \"\"}", "is empty"),
        ("{url: \"stratum+tcp://x:1\", user: u, tls: {insecure: true}}", "stratum+ssl"),
        (
            "{url: \"stratum+ssl://x:1\", user: u, tls: {insecure: true, fingerprint: \"00\"}}",
            "64 hex digits",
        ),
        (
            "{url: \"stratum+ssl://x:1\", user: u, tls: {insecure: true, ca_file: ca.pem}}",
            "not several",
        ),
        ("{url: \"stratum+ssl://x:1\", user: u, tls: {ca_file: none.pem}}", "none.pem"),
        ("{url: \"stratum+tcp://x:1\", user: u, weight: 0}", "a whole number from 1"),
        ("{url: \"stratum+tcp://x:1\", user: u, suggest_difficulty: 0}", "a number above 0"),
    ] {
        let refusal = load(&format!("mining: {{pools: [{pools}]}}")).err().unwrap().to_string();
        assert!(refusal.contains(words), "{pools}: {refusal}");
    }
    let config = load(
        "mining: {external: {miner: t-rex, algorithm: kawpow, program: bin/t-rex, gpus: [0, 2], floor: 1000,
          share_every_seconds: 30, pool: {url: \"stratum+tcp://one:1\", user: \"{farm}.{rig}.{workload}\"}}}",
    );
    let config = config.unwrap();
    let RigHardware::Gpu(gpu) = &config.rigs[0].hardware else { panic!("no GPU rig") };
    let Some(RigMining::External(external)) = &gpu.mining else { panic!("{:?}", gpu.mining) };
    assert!(external.program.ends_with("/bin/t-rex") && external.floor.0 == 1_000, "{external:?}");
    assert_eq!(external.pool.as_ref().map(|pool| &pool.user), Some(&name));
    for (external, words) in [
        ("miner: claymore", "there are xmrig"),
        ("miner: t-rex", "expected a pool"),
        ("miner: t-rex, algorithm: sha256d, pool: {url: \"stratum+tcp://x:1\", user: u}", "it has"),
        ("miner: t-rex, args: [\"{colour}\"]", "colour"),
        ("miner: t-rex, args: [a], profiles: nowhere", "nowhere"),
    ] {
        let refusal = load(&format!("mining: {{external: {{{external}}}}}")).err().unwrap();
        assert!(refusal.to_string().contains(words), "{external}: {refusal}");
    }
    let both = load("mining: {threads: 1, external: {miner: t-rex, args: [a]}}").err().unwrap();
    assert!(both.to_string().contains("one of both"), "{both}");
    let none = load("mining: {threads: 0, pools: [{url: \"stratum+tcp://x:1\", user: u}]}");
    assert!(none.err().unwrap().to_string().contains("no GPU hashes"));
}

const GPU: &str = "    profile: gpu.yaml
    gpu:
      served_as: org/m
      listen: \"127.0.0.1:18080\"
      engine:
        kind: openai-upstream
        url: http://127.0.0.1:8000/v1
        model: /models/m
        concurrent: 8
        api_key_file: agent.key
        command: [vllm, serve, /models/m]
        env: {CUDA_VISIBLE_DEVICES: \"0\"}
        folder: srv
        start_seconds: 600
        stop_seconds: 5
";

fn gpu_agent(folder: &Folder, gpu: &str) -> String {
    folder.write("gpu.yaml", &PROFILE.replace("kind: asic", "kind: gpu\nai_watts: 110"));
    let asic = "    profile: asic.yaml\n    asic: {driver: luxos, address: \"127.0.0.11:4028\"}\n";
    let text = AGENT.replace(asic, gpu);
    assert_ne!(text, AGENT);
    text
}

#[test]
fn a_server_in_the_engines_place_is_read() {
    let folder = Folder::new();
    let config = folder.load(&gpu_agent(&folder, GPU)).unwrap();
    let RigHardware::Gpu(gpu) = &config.rigs[0].hardware else { panic!("no GPU rig") };
    let EngineConfig::Upstream(upstream) = &gpu.engine else { panic!("no server") };
    assert_eq!(upstream.url.to_string(), "http://127.0.0.1:8000");
    assert_eq!(upstream.api_key, Some("07".repeat(32)));
    assert_eq!((upstream.model.as_deref(), upstream.concurrent), (Some("/models/m"), 8));
    assert_eq!(upstream.start_wait.as_secs(), 600);
    let command = upstream.command.as_ref().unwrap();
    assert_eq!((command.program.as_str(), command.args.len()), ("vllm", 2));
    assert_eq!(command.env, [("CUDA_VISIBLE_DEVICES".to_owned(), "0".to_owned())]);
    assert_eq!(command.folder, Some(folder.path("srv")));
    assert_eq!(command.stop_wait.as_secs(), 5);
}

#[test]
fn an_engine_that_cannot_be_is_named_with_its_place() {
    let folder = Folder::new();
    let word = |from: &str, to: &str| {
        let text = gpu_agent(&folder, &GPU.replace(from, to));
        folder.refusal(&text)
    };
    for (from, to, words) in [
        ("openai-upstream", "vllm", &["agent.yaml:", "kind", "`openai-upstream`"][..]),
        ("http://127.0.0.1:8000/v1", "8000", &["agent.yaml:16:", "url", "http://127.0.0.1:8000"]),
        ("concurrent: 8", "concurrent: 0", &["agent.yaml:18:", "concurrent", "from 1 to"]),
        ("start_seconds: 600", "startup: 600", &["agent.yaml:23:", "startup"]),
        ("[vllm, serve, /models/m]", "[]", &["gpu.engine.command", "is empty"]),
        ("        command: [vllm, serve, /models/m]\n", "", &["gpu.engine.env", "`command:`"]),
        ("        url: http://127.0.0.1:8000/v1\n", "", &["gpu.engine.url", "is missing"]),
        ("api_key_file: agent.key", "api_key_file: none.key", &["none.key", "cannot be read"]),
        ("      served_as", "      model: m\n      served_as", &["gpu.model", "engine.model"]),
        ("      served_as", "      kv: f16\n      served_as", &["gpu.kv", "wgpu engine"]),
        (
            "      served_as",
            "      embeddings: e\n      served_as",
            &["gpu.embeddings", "wgpu engine"],
        ),
        ("kind: openai-upstream", "kind: wgpu", &["gpu.engine.url", "this engine is wgpu"]),
    ] {
        let refusal = word(from, to);
        for word in words {
            assert!(refusal.contains(word), "{to}: {refusal}");
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let folder = Folder::new();
    for (from, to, words) in [
        ("farm: demo", "farm: De mo", &["agent.yaml:2:", "farm", "a-z, 0-9"][..]),
        ("rate: 288.0", "rate: -1", &["agent.yaml:7:", "clock", "above 0"]),
        ("127.0.0.1:18830", "nowhere", &["agent.yaml:5:", "address", "host:port"]),
        ("driver: luxos", "driver: luxor", &["agent.yaml:11:", "driver", "`luxos` or `vnish`"]),
        ("key: KEY", "key: abc", &["agent.yaml:6:", "key", "64 hex digits"]),
        ("data_dir: data", "datadir: data", &["agent.yaml:3:", "datadir"]),
        ("asic.yaml", "none.yaml", &["none.yaml", "cannot be read"]),
        ("asic: {", "gpu: {", &["agent.yaml:11:", "gpu"]),
        ("[{kid: controller, key: KEY}]", "[]", &["trusted_keys", "at least the controller's"]),
    ] {
        let text = AGENT.replace(from, to);
        assert_ne!(text, AGENT, "{from}");
        let refusal = folder.refusal(&text);
        for word in words {
            assert!(refusal.contains(word), "{to}: {refusal}");
        }
    }
    let twice = format!("{AGENT}{}", &AGENT[AGENT.find("  - id").unwrap()..]);
    assert!(folder.refusal(&twice).contains("asic-1 is listed twice"));
}

#[test]
fn a_profile_must_fit_its_rig_and_its_own_rules() {
    let folder = Folder::new();
    folder.write("asic.yaml", &PROFILE.replace("floor_watts: 18", "floor_watts: 9999"));
    let refusal = folder.refusal(AGENT);
    assert!(refusal.contains("asic.yaml: floor_watts"), "{refusal}");
    folder.write("asic.yaml", &PROFILE.replace("kind: asic", "kind: gpu\nai_watts: 100"));
    let refusal = folder.refusal(AGENT);
    assert!(refusal.contains("rigs[asic-1].profile"), "{refusal}");
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    fs::set_permissions(folder.path("agent.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(folder.refusal(AGENT).contains("chmod 600"));
    folder.write("agent.key", "short");
    folder.close_key();
    assert!(folder.refusal(AGENT).contains("64 hex digits"));
}

proptest::proptest! {
    #[test]
    fn noise_is_an_error_and_never_a_panic(cut in 0_usize..AGENT.len(), noise in "[ -~\n]{0,30}") {
        let folder = Folder::new();
        let text = format!("{}{noise}{}", &AGENT[..cut], &AGENT[cut..]);
        // Either outcome is fine; that there is one is the claim.
        drop(folder.load(&text));
    }
}
