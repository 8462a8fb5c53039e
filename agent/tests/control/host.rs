//! An agent in this process, with one rig whose hardware obeys at once and remembers every call.

use std::sync::{Arc, Mutex};

use roadbed_agent::config::{
    AgentConfig, AsicConfig, AsicDriverKind, BrokerAddress, RigConfig, RigHardware,
};
use roadbed_agent::driver::{DriverEvent, DriverEvents, Observation, RigDriver};
use roadbed_agent::runtime::{self, AgentError};
use roadbed_protocol::{
    HashesPerSecond, MilliCelsius, Millis, MiningStep, PowerReading, PowerSource, RigKind,
    RigProfile, TrustedKeys, Watts, Workload,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::site::{AGENT_SECRET, Site, agent, farm, rig};

pub const FLOOR: u64 = 50;
pub const FULL: u64 = 3_000;

pub fn profile() -> RigProfile {
    RigProfile {
        model: "test".into(),
        kind: RigKind::Asic,
        firmware: "test".into(),
        source: "test".into(),
        status: "test".into(),
        floor_watts: Watts(FLOOR),
        nameplate_watts: Watts(3_500),
        mining: vec![MiningStep {
            watts: Watts(FULL),
            hashes_per_second: HashesPerSecond(100_000_000_000_000),
        }],
        ai_watts: None,
        start_seconds: 60,
        stop_seconds: 20,
        temperature_trip: MilliCelsius(95_000),
        temperature_safe: MilliCelsius(80_000),
    }
}

#[derive(Default)]
pub struct Bench {
    pub calls: Vec<String>,
    pub running: Option<Workload>,
    events: Option<DriverEvents>,
}

pub type SharedBench = Arc<Mutex<Bench>>;

struct BenchDriver(SharedBench);

impl BenchDriver {
    fn did(&self, call: &str, running: Option<Option<Workload>>, event: Option<DriverEvent>) {
        let mut bench = self.0.lock().unwrap();
        bench.calls.push(call.to_owned());
        if let Some(running) = running {
            bench.running = running;
        }
        if let (Some(event), Some(events)) = (event, &bench.events) {
            events.try_send(event).unwrap();
        }
    }
}

impl RigDriver for BenchDriver {
    fn probe(&mut self) {
        self.did("probe", None, Some(DriverEvent::Probed));
    }
    fn start(&mut self, workload: Workload) {
        let event = DriverEvent::Started { workload: workload.clone() };
        self.did(&format!("start {workload}"), Some(Some(workload)), Some(event));
    }
    fn hand_over(&mut self, to: Workload) {
        let event = DriverEvent::HandedOver { workload: to.clone() };
        self.did(&format!("hand over {to}"), Some(Some(to)), Some(event));
    }
    fn begin_drain(&mut self) {
        self.did("drain", None, Some(DriverEvent::Drained));
    }
    fn cancel_drain(&mut self) {
        self.did("cancel drain", None, None);
    }
    fn stop(&mut self, _force: bool) {
        self.did("stop", Some(None), Some(DriverEvent::Stopped));
    }
    fn hold_floor(&mut self) {
        self.did("hold floor", Some(None), None);
    }
    fn cut_power(&mut self) {
        self.did("cut power", Some(None), None);
    }
    fn observe(&mut self) -> Observation {
        let runs = self.0.lock().unwrap().running.is_some();
        Observation {
            power: Some(PowerReading {
                watts: Watts(if runs { FULL } else { FLOOR }),
                source: PowerSource::Firmware,
            }),
            hashrate: Some(HashesPerSecond(if runs { 100_000_000_000_000 } else { 0 })),
            temperature: Some(MilliCelsius(50_000)),
            engine: "bench".into(),
            ..Observation::default()
        }
    }
}

pub struct Host {
    pub bench: SharedBench,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Host {
    pub fn start(site: &Site) -> Self {
        let mut trusted_keys = TrustedKeys::default();
        trusted_keys.insert("controller", &site.signer.public_key()).unwrap();
        let config = AgentConfig {
            agent: agent(),
            farm: farm(),
            data_dir: site.data_dir(),
            secret: AGENT_SECRET,
            broker: BrokerAddress { host: "127.0.0.1".into(), port: site.address.port() },
            trusted_keys,
            clock: site.clock,
            telemetry_interval: Millis::from_secs(10),
            rigs: vec![RigConfig {
                id: rig(),
                profile: profile(),
                hardware: RigHardware::Asic(AsicConfig {
                    driver: AsicDriverKind::Luxos,
                    address: "127.0.0.1:1".parse().unwrap(),
                    password: None,
                }),
            }],
        };
        let bench = SharedBench::default();
        let shutdown = CancellationToken::new();
        let (for_task, token) = (Arc::clone(&bench), shutdown.clone());
        let task = tokio::spawn(async move {
            let mut build = |context: runtime::DriverContext<'_>| {
                for_task.lock().unwrap().events = Some(context.events);
                Ok(Box::new(BenchDriver(Arc::clone(&for_task))) as Box<dyn RigDriver>)
            };
            runtime::run(config, &mut build, token).await
        });
        Self { bench, shutdown, task }
    }

    pub fn calls(&self) -> Vec<String> {
        self.bench.lock().unwrap().calls.clone()
    }

    /// Something the hardware says by itself.
    pub fn say(&self, event: DriverEvent) {
        self.bench.lock().unwrap().events.as_ref().unwrap().try_send(event).unwrap();
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends the agent as a crash does: no last words, no last order.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}
