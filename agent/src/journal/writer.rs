//! The thread that owns the file: takes what waits, writes it in one transaction, answers after the commit.

use roadbed_protocol::RigId;
use tokio::sync::{mpsc, watch};

use super::Entry;
use super::artifacts::StoredRound;
use super::error::JournalError;
use super::outbox::OutboxRow;
use super::store::Store;

/// Requests that share one commit at most: enough to spread the cost of a sync, few enough that none waits long.
const GROUP_MAX: usize = 256;

/// Told the outcome once the commit is known.
pub(super) type Reply<T> = Box<dyn FnOnce(Result<T, JournalError>) + Send>;

/// What a handle may ask.
pub(super) enum Request {
    Work(Work),
    Close { reply: Box<dyn FnOnce() + Send> },
}

/// One piece of work on the file.
pub(super) enum Work {
    Append {
        rig: RigId,
        entry: Entry,
        reply: Reply<u64>,
    },
    RowsAfter {
        after: u64,
        limit: usize,
        reply: Reply<Vec<OutboxRow>>,
    },
    ForgetUpTo {
        seq: u64,
        reply: Reply<()>,
    },
    Put {
        key: String,
        value: Vec<u8>,
        reply: Reply<()>,
    },
    Get {
        key: String,
        reply: Reply<Option<Vec<u8>>>,
    },
    RecordArtifact {
        round: String,
        index: u64,
        nonce: u32,
        body: Option<String>,
        reply: Reply<bool>,
    },
    RecoverRound {
        round: String,
        reply: Reply<StoredRound>,
    },
    MarkDelivered {
        round: String,
        nonces: Vec<u32>,
        reply: Reply<Vec<u32>>,
    },
}

impl Work {
    /// True when losing it in a power cut only costs work that comes out the same when it is done again. Everything
    /// else must be on the disk before anybody hears of it: a row number or a generation must never run twice.
    const fn can_be_redone(&self) -> bool {
        match self {
            Self::RecordArtifact { .. }
            | Self::RecoverRound { .. }
            | Self::MarkDelivered { .. }
            | Self::RowsAfter { .. }
            | Self::ForgetUpTo { .. }
            | Self::Get { .. } => true,
            Self::Append { .. } | Self::Put { .. } => false,
        }
    }
}

/// An answer that is given once the commit is known.
type Answer = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Works until the last handle is gone or one of them closes the journal.
pub(super) fn work(
    mut store: Store,
    mut requests: mpsc::Receiver<Request>,
    newest: &watch::Sender<u64>,
) {
    while let Some(first) = requests.blocking_recv() {
        let mut group = Vec::new();
        let mut close = None;
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Work(work) => group.push(work),
                Request::Close { reply } => close = Some(reply),
            }
            if close.is_none() && group.len() < GROUP_MAX {
                next = requests.try_recv().ok();
            }
        }
        if !group.is_empty() {
            write_group(&mut store, group, newest);
        }
        if let Some(reply) = close {
            requests.close();
            drop(store);
            reply();
            return;
        }
    }
}

/// One transaction. The first failure undoes the whole group, because a disk that refuses one row is not to be trusted
/// with its neighbours; every caller is told. The newest number is told before any answer, so that whoever has one never
/// sees an older.
fn write_group(store: &mut Store, group: Vec<Work>, newest: &watch::Sender<u64>) {
    let mut answers: Vec<Answer> = Vec::with_capacity(group.len());
    let lasting = !group.iter().all(Work::can_be_redone);
    let mut failure = store.begin(lasting).err();
    for work in group {
        let (answer, failed) = perform(store, work, failure.as_ref());
        answers.push(answer);
        failure = failure.or(failed);
    }
    let outcome = match failure {
        Some(error) => Err(error),
        None => store.commit(),
    };
    if let Err(error) = &outcome {
        store.roll_back();
        tracing::error!("{error}");
    }
    newest.send_if_modified(|known| {
        let risen = *known != store.newest();
        *known = store.newest();
        risen
    });
    for answer in answers {
        answer(outcome.clone());
    }
}

fn perform(
    store: &mut Store,
    work: Work,
    failure: Option<&JournalError>,
) -> (Answer, Option<JournalError>) {
    match work {
        Work::Append { rig, entry, reply } => settle(reply, failure, || store.append(&rig, entry)),
        Work::RowsAfter { after, limit, reply } => {
            settle(reply, failure, || store.rows_after(after, limit))
        }
        Work::ForgetUpTo { seq, reply } => settle(reply, failure, || store.forget_up_to(seq)),
        Work::Put { key, value, reply } => settle(reply, failure, || store.put(&key, &value)),
        Work::Get { key, reply } => settle(reply, failure, || store.get(&key)),
        Work::RecordArtifact { round, index, nonce, body, reply } => {
            settle(reply, failure, || store.record_artifact(&round, index, nonce, body.as_deref()))
        }
        Work::RecoverRound { round, reply } => {
            settle(reply, failure, || store.recover_round(&round))
        }
        Work::MarkDelivered { round, nonces, reply } => {
            settle(reply, failure, || store.mark_delivered(&round, &nonces))
        }
    }
}

/// Does the work unless the group has failed already, and makes the answer that waits for the commit.
fn settle<T: Send + 'static>(
    reply: Reply<T>,
    failure: Option<&JournalError>,
    work: impl FnOnce() -> Result<T, JournalError>,
) -> (Answer, Option<JournalError>) {
    let result = match failure {
        Some(error) => Err(error.clone()),
        None => work(),
    };
    let failed = result.as_ref().err().cloned();
    let answer = Box::new(move |committed: Result<(), JournalError>| reply(committed.and(result)));
    (answer, failed)
}
