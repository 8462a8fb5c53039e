//! The demo's files: the shipped profiles, site, policy and prices, with fresh keys, free ports and a fast clock.
//!
//! The site is `profiles/demo-site.yaml` itself, read as any site is; only what cannot be known in advance is put in.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use roadbed_protocol::{AgentId, RigKind, RigProfile, login};

use super::DemoSettings;
use super::day::Day;
use crate::config::{Site, hex, read_or_create_secret};
use crate::controller::KEY_ID;

/// The shipped files, by their name in the work directory.
const SHIPPED: [(&str, &str); 6] = [
    ("site.yaml", include_str!("../../../profiles/demo-site.yaml")),
    ("demo-policy.yaml", include_str!("../../../profiles/demo-policy.yaml")),
    ("gpu-software.yaml", include_str!("../../../profiles/gpu-software.yaml")),
    (
        "antminer-s19k-pro-luxos.yaml",
        include_str!("../../../profiles/antminer-s19k-pro-luxos.yaml"),
    ),
    ("antminer-s21-pro-vnish.yaml", include_str!("../../../profiles/antminer-s21-pro-vnish.yaml")),
    ("prices/ercot-2021-10-25.csv", include_str!("../../../profiles/prices/ercot-2021-10-25.csv")),
];
/// Positions of the prefill that is proved: that of the golden vectors.
const SEQ_LEN: u32 = 64;
/// Artifacts sent to validation: each is a forward pass, and a software adapter does about one in two seconds.
const VALIDATION_SAMPLE: u32 = 4;
/// Difficulty of a share: about two million hashes, a fraction of a second of one processor core.
const SHARE_DIFFICULTY: &str = "0.0005";
/// Wall milliseconds between the customer's questions.
const CUSTOMER_PAUSE_MS: u32 = 5_000;
/// Tokens of the longest answer.
const ANSWER_TOKENS_MAX: u32 = 24;
/// Wall seconds between two telemetry samples of a rig.
const TELEMETRY_WALL_SECONDS: f64 = 2.0;
/// First address of the emulated miners; each has its own, as in a hall.
const MINER_HOST_FIRST: u8 = 11;

/// The folder everything of a demo lies in.
pub(super) struct WorkDir(PathBuf);

/// The files the processes are started with.
pub(super) struct Files {
    pub site: PathBuf,
    pub standins: PathBuf,
    pub agents: Vec<(String, PathBuf)>,
    pub status_url: String,
    pub gateway_url: String,
}

/// Loopback addresses nobody uses now.
struct Ports {
    broker: SocketAddr,
    status: SocketAddr,
    pool: SocketAddr,
    callback: SocketAddr,
    faces: SocketAddr,
    /// Of the controller's gateway: what Network Node and customer are given.
    gateway: SocketAddr,
}

/// The shipped site, to read the day from before anything is written.
pub(super) fn template() -> anyhow::Result<Site> {
    let folder = WorkDir::create(None)?;
    folder.write_shipped()?;
    let site = Site::load(&folder.0.join("site.yaml"));
    let _ = std::fs::remove_dir_all(&folder.0);
    Ok(site?)
}

impl WorkDir {
    /// Makes the folder, or takes an empty or former one.
    pub fn create(wished: Option<PathBuf>) -> anyhow::Result<Self> {
        let path = match wished {
            Some(path) => path,
            None => {
                let mut noise = [0_u8; 6];
                getrandom::fill(&mut noise)
                    .map_err(|error| anyhow::anyhow!("no entropy: {error}"))?;
                let name: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
                std::env::temp_dir().join(format!("roadbed-demo-{name}"))
            }
        };
        std::fs::create_dir_all(&path)
            .with_context(|| format!("work directory {}", path.display()))?;
        let path = std::fs::canonicalize(&path)?;
        for former in ["state", "gpu-box", "hall-box"] {
            let _ = std::fs::remove_dir_all(path.join(former));
        }
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }

    fn write_shipped(&self) -> anyhow::Result<()> {
        for (name, text) in SHIPPED {
            self.put(name, text)?;
        }
        Ok(())
    }

    fn put(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Writes everything a demo of that day needs.
    pub fn write(&self, settings: &DemoSettings, day: &Day) -> anyhow::Result<Files> {
        self.write_shipped()?;
        let ports = Ports::find()?;
        let site_path = self.0.join("site.yaml");
        let template = Site::load(&site_path)?;
        let mut text = std::fs::read_to_string(&site_path)?;
        text = with_line(&text, "broker_listen: ", &ports.broker.to_string())?;
        for agent in &template.agents {
            let secret = read_or_create_secret(&self.0.join(format!("{}.key", agent.id)))?;
            let key = hex(&login::public_key(&secret));
            text = with_key(&text, &agent.id, &key)?;
        }
        text = with_face(&text, &template, ports.faces)?;
        let _ = writeln!(text, "\ngateway:\n  listen: {}", ports.gateway);
        text.push_str(&clock_section(day));
        self.put("site.yaml", &text)?;
        let site = Site::load(&site_path)?;
        let controller = read_or_create_secret(&site.key_file)?;
        let controller_key = hex(&login::public_key(&controller));
        let standins = self.put("standins.yaml", &standins(&site, day, &ports))?;
        let mut agents = Vec::new();
        for agent in &site.agents {
            let text = agent_file(settings, &site, day, &ports, &agent.id, &controller_key);
            let path = self.put(&format!("{}.yaml", agent.id), &text)?;
            agents.push((agent.id.to_string(), path));
        }
        let status_url = format!("http://{}/status", ports.status);
        let gateway_url = format!("http://{}", ports.gateway);
        Ok(Files { site: site_path, standins, agents, status_url, gateway_url })
    }
}

impl Ports {
    /// Binds all at once, so that no port is given twice, notes them and lets them go.
    fn find() -> anyhow::Result<Self> {
        let mut held = Vec::new();
        let mut free = || -> anyhow::Result<SocketAddr> {
            let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
            let address = listener.local_addr()?;
            held.push(listener);
            Ok(address)
        };
        Ok(Self {
            broker: free()?,
            status: free()?,
            pool: free()?,
            callback: free()?,
            faces: free()?,
            gateway: free()?,
        })
    }
}

/// The text with the value of the one line that begins with `key` replaced.
fn with_line(text: &str, key: &str, value: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        text.lines().any(|line| line.starts_with(key)),
        "demo-site.yaml has no line {key:?}"
    );
    let line = |line: &str| {
        if line.starts_with(key) { format!("{key}{value}\n") } else { format!("{line}\n") }
    };
    Ok(text.lines().map(line).collect())
}

/// The text with the public key on the line after the agent's id replaced.
fn with_key(text: &str, agent: &AgentId, key: &str) -> anyhow::Result<String> {
    let head = format!("  - id: {agent}\n    public_key: ");
    let (before, rest) =
        text.split_once(&head).with_context(|| format!("demo-site.yaml has no agent {agent}"))?;
    let (_, after) = rest.split_once('\n').unwrap_or((rest, ""));
    Ok(format!("{before}{head}\"{key}\"\n{after}"))
}

/// The text with the address of the GPU rig's agent put into its line, for the gateway.
fn with_face(text: &str, template: &Site, faces: SocketAddr) -> anyhow::Result<String> {
    let rig = gpu(template).context("demo-site.yaml has no GPU rig")?;
    let head = format!("  - {{id: {}, ", rig.id);
    anyhow::ensure!(text.contains(&head), "demo-site.yaml has no line {head:?}");
    Ok(text.replacen(&head, &format!("{head}ai_url: \"http://{faces}\", "), 1))
}

fn gpu(site: &Site) -> Option<&crate::config::SiteRig> {
    site.rigs.iter().find(|rig| rig.profile.kind == RigKind::Gpu)
}

fn clock_section(day: &Day) -> String {
    let clock = day.clock;
    format!(
        "\nclock: {{rate: {}, farm_origin_ms: {}, wall_origin_ms: {}}}\n",
        clock.rate, clock.farm_origin_ms, clock.wall_origin_ms
    )
}

/// Address of a miner by its place in the site.
fn miner_address(place: usize, profile: &RigProfile) -> (&'static str, String) {
    let host = usize::from(MINER_HOST_FIRST) + place;
    // 4028 is LuxOS' port; VNish listens on 80, which an unprivileged demo cannot.
    if is_luxos(profile) {
        ("luxos", format!("127.0.0.{host}:4028"))
    } else {
        ("vnish", format!("127.0.0.{host}:8080"))
    }
}

fn is_luxos(profile: &RigProfile) -> bool {
    profile.firmware.to_lowercase().starts_with("luxos")
}

fn miners(site: &Site) -> impl Iterator<Item = (usize, &crate::config::SiteRig)> {
    site.rigs.iter().filter(|rig| rig.profile.kind == RigKind::Asic).enumerate()
}

fn standins(site: &Site, day: &Day, ports: &Ports) -> String {
    let mut text = format!("status_listen: {}\n{}", ports.status, clock_section(day));
    let _ = write!(
        text,
        "pool: {{listen: \"{}\", difficulty: {SHARE_DIFFICULTY}}}\nasics:\n",
        ports.pool
    );
    for (place, rig) in miners(site) {
        let (family, address) = miner_address(place, &rig.profile);
        let steps: Vec<String> = rig
            .profile
            .mining
            .iter()
            .map(|step| {
                let giga = step.hashes_per_second.0 / 1_000_000_000;
                format!(
                    "{{watts: {}, terahash: {}.{:03}}}",
                    step.watts.0,
                    giga / 1_000,
                    giga % 1_000
                )
            })
            .collect();
        let _ = writeln!(
            text,
            "  - {{id: {}, family: {family}, listen: \"{address}\", floor_watts: {}, wake_seconds: {}, steps: [{}]}}",
            rig.id,
            rig.profile.floor_watts.0,
            rig.profile.start_seconds / 2,
            steps.join(", ")
        );
    }
    let model = gpu(site).and_then(|rig| rig.model.clone()).unwrap_or_default();
    let rig = gpu(site).map_or("", |rig| rig.id.as_str());
    // Nobody outside is told where the rig itself listens: everything goes through the gateway.
    let gateway = ports.gateway;
    let _ = writeln!(
        text,
        "network_node:\n  callback_listen: {}\n  mlnode_url: http://{gateway}/rigs/{rig}\n  model: {model}\n  seq_len: {SEQ_LEN}\n  validation_sample: {VALIDATION_SAMPLE}\n  windows:",
        ports.callback
    );
    for (index, window) in day.windows.iter().enumerate() {
        // Every round of a chain has its own block hash. The last window proves the one whose golden vectors are known.
        let hash = if index + 1 == day.windows.len() {
            String::new()
        } else {
            format!(", block_hash: \"{:064X}\"", window.from.0)
        };
        let _ = writeln!(
            text,
            "    - {{from_ms: {}, generate_until_ms: {}, until_ms: {}{hash}}}",
            window.from.0, window.generate_until.0, window.until.0
        );
    }
    if day.windows.is_empty() {
        text.push_str("    []\n");
    }
    let _ = writeln!(
        text,
        "customer: {{base_url: \"http://{gateway}\", model: {model}, pause_wall_ms: {CUSTOMER_PAUSE_MS}, max_tokens: {ANSWER_TOKENS_MAX}}}"
    );
    text
}

fn agent_file(
    settings: &DemoSettings,
    site: &Site,
    day: &Day,
    ports: &Ports,
    agent: &AgentId,
    controller_key: &str,
) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of at most 1440, times two"
    )]
    let telemetry = (day.clock.rate * TELEMETRY_WALL_SECONDS).ceil() as u64;
    let mut text = format!(
        "agent: {agent}\nfarm: {}\ndata_dir: {agent}\nkey_file: {agent}.key\nbroker: {{address: \"{}\"}}\ntrusted_keys: [{{kid: {KEY_ID}, key: \"{controller_key}\"}}]\ntelemetry_seconds: {telemetry}\n{}rigs:\n",
        site.farm,
        ports.broker,
        clock_section(day)
    );
    for rig in site.rigs_of(agent) {
        let profile = rig.profile_path.display();
        let _ = write!(text, "  - id: {}\n    profile: {profile}\n", rig.id);
        match rig.profile.kind {
            RigKind::Asic => {
                let place = miners(site)
                    .find(|(_, miner)| miner.id == rig.id)
                    .map_or(0, |(place, _)| place);
                let (driver, address) = miner_address(place, &rig.profile);
                let password = if driver == "vnish" { ", password: admin" } else { "" };
                let _ = writeln!(
                    text,
                    "    asic: {{driver: {driver}, address: \"{address}\"{password}}}"
                );
            }
            RigKind::Gpu => {
                let served_as = rig.model.as_deref().unwrap_or_default();
                let _ = writeln!(
                    text,
                    "    gpu: {{model: {:?}, served_as: {served_as}, adapter: {:?}, listen: \"{}\", sensor: simulated, accuse_with_own_weights: true}}\n    pool: {{url: \"stratum+tcp://{}\", user: {}.{}, password: x, threads: 1}}",
                    settings.model, settings.adapter, ports.faces, ports.pool, site.farm, rig.id
                );
            }
        }
    }
    text
}
