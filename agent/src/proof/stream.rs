//! Callbacks that wait until a Network Node fetches them: the pull side of delivery, without a wire.
//!
//! A newer Network Node dials its MLNodes and asks for callbacks instead of listening for them, so a rig behind a NAT needs
//! no way back. Ids are `{boot id}-{number}`; a callback is kept until it is acknowledged, so it may come twice and is
//! never lost while this process lives. What outlives the process is in the journal.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::{oneshot, watch};

/// Callbacks kept at most, as in the network's own nodes; the oldest are dropped.
pub const CALLBACKS_MAX: usize = 16_384;

/// One callback as it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// Names it in an acknowledgement.
    pub id: String,
    /// The path it would have been posted to.
    pub path: String,
    /// The JSON that would have been posted.
    pub body: Bytes,
}

struct Waiting {
    number: u64,
    path: String,
    body: Bytes,
    taken: oneshot::Sender<()>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Number of the newest callback; the first is 1.
    newest: u64,
    /// Which consumer is the newest one.
    consumer: u64,
}

struct Line {
    boot_id: String,
    state: Mutex<State>,
    /// Counts changes, so that a consumer that waits sees each.
    changed: watch::Sender<u64>,
}

/// The callbacks of this process. Cheap to clone.
#[derive(Clone)]
pub struct CallbackStream(Arc<Line>);

/// A callback that was put in line.
pub(super) struct Ticket {
    number: u64,
    /// Resolves when it was acknowledged; an error when it was dropped.
    pub(super) taken: oneshot::Receiver<()>,
}

impl CallbackStream {
    /// An empty line under a new boot id.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn start() -> std::io::Result<Self> {
        let boot = crate::random::hex::<8>();
        boot.map(Self::of_boot).map_err(|error| std::io::Error::other(error.to_string()))
    }

    fn of_boot(boot_id: String) -> Self {
        let (state, changed) = (Mutex::default(), watch::Sender::new(0));
        Self(Arc::new(Line { boot_id, state, changed }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) {
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn add(&self, path: String, body: Bytes) -> Ticket {
        self.add_within(path, body, CALLBACKS_MAX)
    }

    fn add_within(&self, path: String, body: Bytes, most: usize) -> Ticket {
        let (sender, taken) = oneshot::channel();
        let mut state = self.lock();
        state.newest += 1;
        let number = state.newest;
        state.waiting.push_back(Waiting { number, path, body, taken: sender });
        while state.waiting.len() > most {
            if let Some(dropped) = state.waiting.pop_front() {
                tracing::error!(path = dropped.path, "a callback nobody fetched is dropped");
            }
        }
        drop(state);
        self.change();
        Ticket { number, taken }
    }

    /// Takes a callback out of the line: nobody wants it to be sent any more.
    pub(super) fn withdraw(&self, ticket: &Ticket) {
        self.lock().waiting.retain(|waiting| waiting.number != ticket.number);
    }

    /// Notes that a Network Node has these. Ids that are not known, such as those of an earlier process, are passed over.
    pub fn acknowledge(&self, ids: &[String]) {
        let numbers: Vec<u64> = ids.iter().filter_map(|id| self.number(id)).collect();
        self.take_out(|number| numbers.contains(&number));
    }

    fn take_out(&self, is_taken: impl Fn(u64) -> bool) {
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.waiting);
        for one in waiting {
            if is_taken(one.number) {
                // A round that was stopped does not wait for it.
                let _ = one.taken.send(());
            } else {
                state.waiting.push_back(one);
            }
        }
    }

    /// The number of an id of this process.
    fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&self.0.boot_id)?.strip_prefix('-')?.parse().ok()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Begins to hand callbacks out, the oldest first; whoever was given them before is given no more. An id of this
    /// process says that everything up to it has arrived.
    #[must_use]
    pub fn open(&self, resume_after_id: &str) -> Feed {
        if let Some(number) = self.number(resume_after_id) {
            self.take_out(|other| other <= number);
        }
        let mut state = self.lock();
        state.consumer += 1;
        let consumer = state.consumer;
        drop(state);
        self.change();
        Feed { stream: self.clone(), consumer, sent: 0, changed: self.0.changed.subscribe() }
    }
}

/// What one consumer is handed.
pub struct Feed {
    stream: CallbackStream,
    consumer: u64,
    sent: u64,
    changed: watch::Receiver<u64>,
}

impl Feed {
    /// The next callback, once there is one; nothing when a newer consumer has come.
    pub async fn next(&mut self) -> Option<Callback> {
        loop {
            self.changed.borrow_and_update();
            {
                let state = self.stream.lock();
                if state.consumer != self.consumer {
                    return None;
                }
                if let Some(one) = state.waiting.iter().find(|one| one.number > self.sent) {
                    self.sent = one.number;
                    return Some(Callback {
                        id: format!("{}-{}", self.stream.0.boot_id, one.number),
                        path: one.path.clone(),
                        body: one.body.clone(),
                    });
                }
            }
            self.changed.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn stream() -> CallbackStream {
        CallbackStream::of_boot("0123456789abcdef".into())
    }

    fn add(stream: &CallbackStream, name: &str) -> Ticket {
        stream.add(format!("/{name}"), Bytes::from_static(b"{}"))
    }

    fn next(feed: &mut Feed) -> Option<Option<String>> {
        feed.next().now_or_never().map(|next| next.map(|callback| callback.id))
    }

    fn id(number: u64) -> String {
        format!("0123456789abcdef-{number}")
    }

    #[test]
    fn what_is_not_acknowledged_comes_again() {
        let stream = stream();
        let mut tickets: Vec<Ticket> = ["a", "b", "c"].map(|name| add(&stream, name)).into();
        let mut feed = stream.open("");
        for number in 1..=3 {
            assert_eq!(next(&mut feed), Some(Some(id(number))));
        }
        assert_eq!(next(&mut feed), None);
        stream.acknowledge(&[id(2), "fedcba9876543210-1".into(), "nonsense".into()]);
        assert_eq!(tickets[1].taken.try_recv(), Ok(()));
        let mut again = stream.open("fedcba9876543210-3");
        // The newest consumer ends the older one, and another boot's id says nothing.
        assert_eq!(next(&mut feed), Some(None));
        assert_eq!(next(&mut again), Some(Some(id(1))));
        assert_eq!(next(&mut again), Some(Some(id(3))));
        let mut resumed = stream.open(&id(1));
        assert_eq!(tickets[0].taken.try_recv(), Ok(()));
        assert_eq!(next(&mut resumed), Some(Some(id(3))));
        stream.withdraw(&tickets[2]);
        assert_eq!(stream.waiting(), 0);
        assert!(tickets[2].taken.try_recv().is_err());
    }

    #[test]
    fn a_full_line_drops_the_oldest_and_its_sender_hears_it() {
        let stream = stream();
        let mut first = stream.add_within("/a".into(), Bytes::new(), 2);
        let mut second = stream.add_within("/b".into(), Bytes::new(), 2);
        let _third = stream.add_within("/c".into(), Bytes::new(), 2);
        assert_eq!(first.taken.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(second.taken.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(next(&mut stream.open("")), Some(Some(id(2))));
    }

    #[tokio::test]
    async fn a_consumer_waits_for_what_comes() {
        let stream = stream();
        let mut feed = stream.open("");
        let adding = async { add(&stream, "late") };
        let (callback, _ticket) = tokio::join!(feed.next(), adding);
        assert_eq!(callback.unwrap().path, "/late");
    }
}
