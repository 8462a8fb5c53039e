use std::fs;

use roadbed_protocol::{RigEventReport, RigState, TelemetryBatch};

use super::*;

fn agent() -> AgentId {
    AgentId::new("box").unwrap()
}

fn rig() -> RigId {
    RigId::new("gpu-1").unwrap()
}

fn event(reason: &str) -> Entry {
    Entry::Event {
        at: UnixMillis(7),
        kind: EventKind::StateChanged { from: RigState::Idle, to: RigState::Starting },
        reason: reason.into(),
    }
}

#[tokio::test]
async fn rows_outlive_the_agent_and_are_replayed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    let id = journal.id().to_owned();
    for index in 0..5 {
        journal.append(&rig(), event(&format!("e{index}"))).await.unwrap();
    }
    journal.shut_down().await;
    assert_eq!(journal.append(&rig(), event("late")).await, Err(JournalError::Closed));

    let journal = Journal::open(folder.path(), &agent()).unwrap();
    assert_eq!(journal.id(), id);
    let rows = journal.rows_after(1, 3).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [2, 3, 4]);
    let report: RigEventReport = serde_json::from_slice(&rows[0].body).unwrap();
    assert_eq!((report.seq, report.reason.as_str(), report.journal), (2, "e1", id));
}

#[tokio::test]
async fn a_number_is_never_used_twice() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    journal.append(&rig(), event("one")).await.unwrap();
    assert_eq!(journal.append(&rig(), event("two")).await, Ok(2));
    journal.forget_up_to(2).await.unwrap();
    assert_eq!(journal.rows_after(0, 10).await, Ok(vec![]));
    journal.shut_down().await;
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    assert_eq!(journal.append(&rig(), event("three")).await, Ok(3));
    assert_eq!(*journal.newest().borrow(), 3);
}

#[tokio::test]
async fn a_full_outbox_gives_up_old_telemetry_and_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), &agent()).unwrap();
    store.outbox_bytes_max = 4_000;
    let journal = Journal::with_store(store).unwrap();
    let sample = TelemetrySample {
        at: UnixMillis(1),
        span: roadbed_protocol::Millis(1),
        power: roadbed_protocol::PowerReading {
            watts: roadbed_protocol::Watts(1),
            source: roadbed_protocol::PowerSource::Profile,
        },
        workload: None,
        state: RigState::Idle,
        hashrate: None,
        temperature: None,
        jobs: roadbed_protocol::JobCounters::default(),
    };
    journal.append(&rig(), event("first")).await.unwrap();
    for _ in 0..20 {
        journal.append(&rig(), Entry::Telemetry(vec![sample.clone(); 2])).await.unwrap();
    }
    let rows = journal.rows_after(0, 100).await.unwrap();
    assert_eq!(rows.len(), 21, "no number may be missing");
    assert_eq!(rows[0].class, RowClass::Event);
    let samples = |row: &OutboxRow| -> usize {
        serde_json::from_slice::<TelemetryBatch>(&row.body).unwrap().samples.len()
    };
    assert_eq!(samples(&rows[1]), 0, "the oldest is emptied");
    assert_eq!(samples(&rows[20]), 2, "the newest is kept");
}

#[tokio::test]
async fn an_artifact_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    assert_eq!(journal.recover_round("r"), Ok(StoredRound::default()));
    assert_eq!(journal.record_artifact("r", 0, 10, Some("v10")), Ok(true));
    assert_eq!(journal.record_artifact("r", 0, 10, Some("other")), Ok(false));
    assert_eq!(journal.record_artifact("r", 1, 9, None), Ok(false));
    assert_eq!(journal.record_artifact("r", 2, 8, Some("v8")), Ok(true));
    assert_eq!(journal.record_artifact("other", 0, 8, Some("w8")), Ok(true));
    assert_eq!(journal.mark_delivered("r", &[8, 99]), Ok(vec![8]));
    assert_eq!(journal.mark_delivered("r", &[8]), Ok(vec![]));
    // Killed between the insert and the sending: a new process finds what is open.
    journal.shut_down().await;
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    let undelivered = vec![Artifact { nonce: 10, body: "v10".into() }];
    assert_eq!(journal.recover_round("r"), Ok(StoredRound { next_index: 3, undelivered }));
}

#[tokio::test]
async fn old_rounds_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    for round in 0..=artifacts::ROUNDS_KEPT_MAX {
        journal.record_artifact(&round.to_string(), 0, 1, Some("v")).unwrap();
    }
    assert_eq!(journal.recover_round("0"), Ok(StoredRound::default()));
    assert_eq!(journal.recover_round("1").unwrap().next_index, 1);
}

#[tokio::test]
async fn values_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    assert_eq!(journal.get("a").await, Ok(None));
    journal.put("a", vec![1]).await.unwrap();
    journal.put("a", vec![2]).await.unwrap();
    assert_eq!(journal.get("a").await, Ok(Some(vec![2])));
}

#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE_NAME), b"this is no database, but long enough to be read")
        .unwrap();
    let journal = Journal::open(folder.path(), &agent()).unwrap();
    assert_eq!(journal.append(&rig(), event("one")).await, Ok(1));
    let kept = fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".damaged-"))
        .count();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn two_agents_never_share_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let first = Journal::open(folder.path(), &agent()).unwrap();
    first.append(&rig(), event("one")).await.unwrap();
    let second = Journal::open(folder.path(), &agent());
    assert!(matches!(second, Err(JournalError::Held { .. })), "{second:?}");
}
