//! The store holds what it was given, once, over a restart.

use farm_core::farm::Alert;
use farm_core::ledger::{Entry, Part};
use farm_core::plan::Plan;
use roadbed_protocol::{
    AgentId, Assignment, Cause, FarmId, FeederId, MicrosPerMwh, Millis, Money, PowerSource, RigId,
    UnixMillis, WattMillis, Watts, Workload, WorkloadKind,
};

use super::*;

fn rig() -> RigId {
    RigId::new("asic-1").unwrap()
}

fn agent() -> AgentId {
    AgentId::new("hall-box").unwrap()
}

fn assignment(generation: u64) -> Record {
    Record::Assignment(Assignment {
        farm: FarmId::new("demo").unwrap(),
        rig: rig(),
        generation,
        workload: Workload::Mine { power_target: Some(Watts(1_916)) },
        lease_until: UnixMillis(9),
        fallback: Workload::Curtailed,
        drain: Millis(1),
        cause: Cause::Plan,
        reason: "cheap".into(),
    })
}

fn booked(seq: u64) -> Entry {
    Entry {
        agent: Some(agent()),
        journal: "j".into(),
        seq,
        parts: vec![
            Part::Energy {
                rig: rig(),
                at: UnixMillis(5),
                span: Millis(1_000),
                energy: WattMillis(u128::from(u64::MAX) + 7),
                source: PowerSource::Firmware,
                price: Some(MicrosPerMwh(-3)),
                cost: Money(-1),
            },
            Part::Income {
                rig: rig(),
                at: UnixMillis(5),
                kind: WorkloadKind::Mine,
                money: Money(8),
                assumed: true,
            },
            Part::Switch {
                rig: rig(),
                at: UnixMillis(5),
                from: None,
                to: Some(Workload::Curtailed),
                reason: "dear".into(),
            },
            Part::Artifacts { rig: rig(), block_hash: "ab".into(), nonces: vec![1, 2] },
            Part::Breach {
                feeder: FeederId::new("site").unwrap(),
                at: UnixMillis(5),
                power: Watts(2),
                limit: Watts(1),
            },
        ],
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/state.db");
    let (store, kept) = Store::open(&path).unwrap();
    assert_eq!(kept, Kept::default());
    let hold = Record::Hold { rig: rig(), workload: Workload::Idle, operator: "eva".into() };
    let alert = Alert { key: "silent".into(), rig: Some(rig()), active: true, text: "t".into() };
    let plan = Plan { id: 4, made_at: UnixMillis(3), ..Plan::default() };
    store
        .keep(vec![
            Record::SignerCounter(10_000),
            assignment(7),
            Record::Entry(booked(1)),
            Record::Entry(booked(1)),
            Record::Journal { agent: agent(), journal: "j".into(), seq: 1 },
            hold,
            Record::Alert { at: UnixMillis(1), alert },
            Record::Plan { plan, notes: Vec::new(), sheds: Vec::new() },
        ])
        .await
        .unwrap();
    drop(store);
    let (_store, kept) = Store::open(&path).unwrap();
    assert_eq!(kept.signer_counter, 10_000);
    assert_eq!(kept.entries, vec![booked(1)]);
    assert_eq!(kept.memory.assignments[0].generation, 7);
    assert_eq!(kept.memory.plan_id, 4);
    assert_eq!(kept.memory.journals, vec![(agent(), "j".into(), 1)]);
    assert_eq!(kept.memory.holds, vec![(rig(), Workload::Idle, "eva".into())]);
    assert_eq!(alerts(&path).unwrap().len(), 1);
    assert_eq!(plans(&path).unwrap()[0].id, 4);
}

#[tokio::test]
async fn what_may_only_rise_never_falls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (store, _) = Store::open(&path).unwrap();
    let journal = |seq| Record::Journal { agent: agent(), journal: "j".into(), seq };
    store.keep(vec![assignment(7), journal(9), Record::SignerCounter(5)]).await.unwrap();
    store.keep(vec![assignment(6), journal(2), Record::SignerCounter(4)]).await.unwrap();
    store.keep(vec![Record::Release { rig: rig() }]).await.unwrap();
    drop(store);
    let kept = read_kept(&path).unwrap();
    assert_eq!(kept.memory.assignments[0].generation, 7);
    assert_eq!(kept.memory.journals[0].2, 9);
    assert_eq!(kept.signer_counter, 5);
}

/// Schema 1 as the first version wrote it, row for row; this text never changes.
const SCHEMA_1: &str = r#"
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE plan (
    id INTEGER PRIMARY KEY, made_at INTEGER NOT NULL, plan TEXT NOT NULL
) STRICT;
CREATE TABLE assignment (
    rig TEXT PRIMARY KEY, generation INTEGER NOT NULL, assignment TEXT NOT NULL
) STRICT;
CREATE TABLE entry (
    agent TEXT NOT NULL, journal TEXT NOT NULL, seq INTEGER NOT NULL, parts TEXT NOT NULL,
    PRIMARY KEY (agent, journal, seq)
) STRICT;
CREATE TABLE journal (
    agent TEXT NOT NULL, journal TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (agent, journal)
) STRICT;
CREATE TABLE alert (
    at INTEGER NOT NULL, key TEXT NOT NULL, rig TEXT, active INTEGER NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE hold (
    rig TEXT PRIMARY KEY, workload TEXT NOT NULL, operator TEXT NOT NULL
) STRICT;
INSERT INTO counter VALUES ('signer', 20000);
INSERT INTO journal VALUES ('hall-box', 'j', 1);
INSERT INTO hold VALUES ('asic-1', '{"kind":"idle"}', 'eva');
INSERT INTO alert VALUES (5, 'silent', 'asic-1', 1, 'gone');
INSERT INTO entry VALUES ('hall-box', 'j', 1, '[{"artifacts":{"rig":"asic-1","block_hash":"ab","nonces":[1,2]}}]');
PRAGMA user_version = 1;
"#;

#[tokio::test]
async fn a_file_of_the_first_schema_is_taken_over_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(SCHEMA_1).unwrap();
    drop(connection);

    let (store, kept) = Store::open(&path).unwrap();
    assert_eq!(kept.signer_counter, 20_000);
    assert_eq!(kept.memory.holds, vec![(rig(), Workload::Idle, "eva".into())]);
    assert_eq!(kept.memory.journals, vec![(agent(), "j".into(), 1)]);
    let artifacts = Part::Artifacts { rig: rig(), block_hash: "ab".into(), nonces: vec![1, 2] };
    assert_eq!(kept.entries[0].parts, [artifacts]);
    assert_eq!((kept.gonka.len(), alerts(&path).unwrap().len()), (0, 1));
    // What only the newer schema has can be written, and the file is of that schema from now on.
    let body = "{}".to_owned();
    store
        .keep(vec![Record::Gonka { key: "params".into(), at: UnixMillis(9), body }])
        .await
        .unwrap();
    drop(store);
    let kept = read_kept(&path).unwrap();
    assert_eq!((kept.gonka[0].key.as_str(), kept.signer_counter), ("params", 20_000));
    let connection = rusqlite::Connection::open(&path).unwrap();
    let version: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 2);
}

#[test]
fn a_newer_or_broken_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    Store::open(&path).map(drop).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, .. })));
    std::fs::write(folder.path().join("noise.db"), vec![7_u8; 9_000]).unwrap();
    assert!(Store::open(&folder.path().join("noise.db")).is_err());
}
