//! What is kept comes back, once, and nothing falls.

use farm_core::farm::Alert;
use farm_core::ledger::{Entry, Part};
use roadbed_protocol::{
    AgentId, Assignment, Cause, FarmId, MicrosPerMwh, Millis, Money, PowerSource, RigId,
    UnixMillis, WattMillis, Workload,
};

use super::*;

fn rig() -> RigId {
    RigId::new("asic-1").unwrap()
}

fn agent() -> AgentId {
    AgentId::new("box").unwrap()
}

fn assignment(generation: u64) -> Record {
    Record::Assignment(Assignment {
        farm: FarmId::new("west").unwrap(),
        rig: rig(),
        generation,
        workload: Workload::Mine { power_target: None },
        lease_until: UnixMillis(9),
        fallback: Workload::Curtailed,
        drain: Millis(1),
        cause: Cause::Plan,
        reason: "why".into(),
    })
}

fn entry(seq: u64) -> Entry {
    Entry {
        agent: Some(agent()),
        journal: "j".into(),
        seq,
        parts: vec![
            Part::Energy {
                rig: rig(),
                at: UnixMillis(5),
                span: Millis(10),
                energy: WattMillis(30_000),
                source: PowerSource::Firmware,
                price: Some(MicrosPerMwh(18_000_000)),
                cost: Money(7),
            },
            Part::Switch {
                rig: rig(),
                at: UnixMillis(6),
                from: None,
                to: Some(Workload::Curtailed),
                reason: "price".into(),
            },
        ],
    }
}

async fn keep(path: &Path, records: Vec<Record>) {
    let (store, _) = Store::open(path).unwrap();
    store.keep(records).await.unwrap();
}

#[tokio::test]
async fn everything_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    keep(
        &path,
        vec![
            assignment(3),
            Record::Entry(entry(1)),
            Record::Journal { agent: agent(), journal: "j".into(), seq: 1 },
            Record::Hold { rig: rig(), workload: Workload::Curtailed, operator: "ann".into() },
            Record::SignerCounter(10_000),
            Record::Alert {
                at: UnixMillis(1),
                alert: Alert { key: "k".into(), rig: None, active: true, text: "t".into() },
            },
        ],
    )
    .await;
    let (_, kept) = Store::open(&path).unwrap();
    assert_eq!(kept.memory.assignments.len(), 1);
    assert_eq!(kept.memory.assignments[0].generation, 3);
    assert_eq!(kept.memory.journals, [(agent(), "j".to_owned(), 1)]);
    assert_eq!(kept.memory.holds, [(rig(), Workload::Curtailed, "ann".to_owned())]);
    assert_eq!(kept.entries, [entry(1)]);
    assert_eq!(kept.signer_counter, 10_000);
}

#[tokio::test]
async fn a_row_that_comes_twice_counts_once_and_nothing_falls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let journal = |seq| Record::Journal { agent: agent(), journal: "j".into(), seq };
    keep(&path, vec![Record::Entry(entry(1)), assignment(5), journal(7)]).await;
    keep(&path, vec![Record::Entry(entry(1)), assignment(4), journal(6)]).await;
    keep(&path, vec![Record::SignerCounter(9), Record::SignerCounter(8)]).await;
    let (_, kept) = Store::open(&path).unwrap();
    assert_eq!(kept.entries.len(), 1);
    assert_eq!(kept.memory.assignments[0].generation, 5);
    assert_eq!(kept.memory.journals[0].2, 7);
    assert_eq!(kept.signer_counter, 9);
}

#[tokio::test]
async fn a_released_hold_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let hold = Record::Hold { rig: rig(), workload: Workload::Idle, operator: "ann".into() };
    keep(&path, vec![hold, Record::Release { rig: rig() }]).await;
    assert!(Store::open(&path).unwrap().1.memory.holds.is_empty());
}

#[test]
fn a_file_that_is_no_store_is_an_error_not_a_loss() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, vec![b'x'; 8_192]).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 8_192]);
}
