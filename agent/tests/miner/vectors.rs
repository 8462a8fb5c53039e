//! The published Stratum jobs through the whole session: what it sends is what the vectors say.

use roadbed_agent::config::PoolConfig;
use roadbed_agent::miner::dialect::{Action, Dialect};
use roadbed_agent::miner::stratum1::Session;
use roadbed_agent::miner::work::{Find, WorkNumbers};
use roadbed_compute::hash::{CpuBackend, Roll, ScanRequest, hex, scan};
use roadbed_protocol::Millis;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

fn sent(actions: &[Action]) -> Option<Value> {
    actions.iter().find_map(|action| match action {
        Action::Send(line) => serde_json::from_slice(line).ok(),
        Action::Hash(_) | Action::Rest | Action::Close { .. } => None,
    })
}

fn line(session: &mut Session, line: &str) -> Vec<Action> {
    session.bytes(Millis(0), format!("{line}\n").as_bytes())
}

fn hex_word(value: &Value) -> u32 {
    u32::from_str_radix(value.as_str().unwrap(), 16).unwrap()
}

#[test]
fn every_published_job_is_mined_and_submitted_as_published() {
    let path = format!("{}/../tests/data/mining/stratum_v1_jobs.json", env!("CARGO_MANIFEST_DIR"));
    let cases: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let name = &case["name"];
        let submit = case["submit_params"].as_array().unwrap();
        let now = Millis(0);
        let address = "stratum+tcp://pool:3333".parse().unwrap();
        let login = PoolConfig::new(address, submit[0].as_str().unwrap(), "x");
        let mut session = Session::new(login, WorkNumbers::of_pool(0));
        session.connected(now);
        let mask = &case["version_rolling_mask"];
        let granted = if mask.is_null() {
            json!({"id": 1, "error": [20, "Unknown method", null]})
        } else {
            json!({"id": 1, "result": {"version-rolling": true, "version-rolling.mask": mask}})
        };
        line(&mut session, &granted.to_string());
        line(&mut session, &json!({"id": 2, "result": case["subscribe_result"]}).to_string());
        line(&mut session, &json!({"id": 3, "result": true}).to_string());
        let call =
            |method: &str, params: Value| json!({"method": method, "params": params}).to_string();
        line(&mut session, &call("mining.set_difficulty", json!([case["set_difficulty"]])));
        let actions = line(&mut session, &call("mining.notify", case["notify_params"].clone()));
        let Some(Action::Hash(work)) = actions.first() else { panic!("{name}: {actions:?}") };

        let roll = Roll {
            extranonce2: hex::decode("x", case["extranonce2_hex"].as_str().unwrap(), 8).unwrap(),
            ntime: hex_word(&submit[3]),
            version_bits: hex_word(&case["version_bits_hex"]),
            version_mask: work.version_mask,
        };
        let start = u32::try_from(case["scan_start"].as_u64().unwrap()).unwrap();
        let header = work.header(&roll).prefix();
        let request = ScanRequest { header, target: work.target, start, count: 1 << 32 };
        let mut nonce = None;
        let mut first = |hit: roadbed_compute::hash::Hit| {
            nonce = Some(hit.nonce);
            ControlFlow::Break(())
        };
        scan(&mut CpuBackend::best(), &request, &AtomicBool::new(false), &mut first).unwrap();
        let find = Find { work: work.number, roll, nonce: nonce.unwrap() };
        let line = sent(&session.found(now, &find)).unwrap();
        assert_eq!(line["params"], json!(submit), "{name}");
    }
}
