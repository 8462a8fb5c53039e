//! The replicas of a model: how each stands, what each has done, and what that makes of the whole.
//!
//! A model answers while one of its replicas does. One that is lost is loaded again while the others go on; the model is
//! lost when none is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadbed_compute::{AdapterSummary, BatchLoad};
use tokio::sync::watch;

use super::backend::ModelInfo;
use super::fault::EngineFault;
use super::service::{EngineState, EngineStats};

/// How one replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// It has no part in what is loaded.
    #[default]
    Unused,
    /// It is being loaded, for the first time or again.
    Loading {
        /// The name it will be served under.
        served_as: String,
    },
    /// It answers.
    Ready(Arc<ModelInfo>),
    /// It was lost, or could not be loaded.
    Lost {
        /// The name it was served under.
        served_as: String,
        /// What happened.
        fault: EngineFault,
    },
}

/// One replica as a status page shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaView {
    /// Its place among the replicas.
    pub number: usize,
    /// How it stands.
    pub standing: Standing,
    /// Its GPUs when it was last ready, in the order in which layers pass.
    pub adapters: Vec<AdapterSummary>,
    /// How full it is.
    pub load: BatchLoad,
    /// What it has done.
    pub stats: EngineStats,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) completions: AtomicU64,
    pub(super) tokens: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) artifacts: AtomicU64,
    pub(super) nonces_dropped: AtomicU64,
    /// Milliseconds of the replica's time spent on completions.
    pub(super) busy_millis: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> EngineStats {
        let mut stats = EngineStats::default();
        self.add_to(&mut stats);
        stats
    }

    fn add_to(&self, stats: &mut EngineStats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.completions += read(&self.completions);
        stats.tokens += read(&self.tokens);
        stats.prompt_tokens += read(&self.prompt_tokens);
        stats.refused += read(&self.refused);
        stats.cancelled += read(&self.cancelled);
        stats.failed += read(&self.failed);
        stats.artifacts += read(&self.artifacts);
        stats.nonces_dropped += read(&self.nonces_dropped);
    }
}

#[derive(Default)]
struct Seat {
    standing: Standing,
    adapters: Vec<AdapterSummary>,
    load: BatchLoad,
}

/// All replicas of an engine service; their number is that of its threads.
pub(super) struct Replicas {
    seats: Mutex<Vec<Seat>>,
    counters: Vec<Counters>,
    state: watch::Sender<EngineState>,
}

impl Replicas {
    pub(super) fn new(count: usize) -> Self {
        Self {
            seats: Mutex::new((0..count).map(|_| Seat::default()).collect()),
            counters: (0..count).map(|_| Counters::default()).collect(),
            state: watch::Sender::new(EngineState::Empty),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seat>> {
        // Every change is one store.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn state(&self) -> &watch::Sender<EngineState> {
        &self.state
    }

    pub(super) fn counters(&self, number: usize) -> &Counters {
        &self.counters[number]
    }

    pub(super) fn stats(&self) -> EngineStats {
        let mut stats = EngineStats::default();
        self.counters.iter().for_each(|counters| counters.add_to(&mut stats));
        stats
    }

    pub(super) fn busy_millis(&self) -> u64 {
        self.counters.iter().map(|c| c.busy_millis.load(Ordering::Relaxed)).sum()
    }

    /// Replicas that answer.
    pub(super) fn ready(&self) -> usize {
        self.lock().iter().filter(|seat| matches!(seat.standing, Standing::Ready(_))).count()
    }

    /// The GPUs of all replicas that answer.
    pub(super) fn ready_adapters(&self) -> Vec<AdapterSummary> {
        let ready = |seat: &&Seat| matches!(seat.standing, Standing::Ready(_));
        self.lock().iter().filter(ready).flat_map(|seat| seat.adapters.clone()).collect()
    }

    /// Whether a replica other than `number` answers.
    pub(super) fn another_ready(&self, number: usize) -> bool {
        let ready = |(at, seat): (usize, &Seat)| {
            at != number && matches!(seat.standing, Standing::Ready(_))
        };
        self.lock().iter().enumerate().any(ready)
    }

    /// Whether more than one replica has a part in what is loaded.
    pub(super) fn is_shared(&self) -> bool {
        self.lock().iter().filter(|seat| seat.standing != Standing::Unused).count() > 1
    }

    /// Whether any replica answers or is about to.
    pub(super) fn any_alive(&self) -> bool {
        self.lock().iter().any(|seat| match seat.standing {
            Standing::Ready(_) | Standing::Loading { .. } => true,
            Standing::Unused | Standing::Lost { .. } => false,
        })
    }

    /// Notes how a replica stands, and tells what it makes of the whole.
    pub(super) fn set(&self, number: usize, standing: Standing) {
        let mut seats = self.lock();
        let seat = &mut seats[number];
        match &standing {
            Standing::Ready(info) => seat.adapters.clone_from(&info.adapters),
            Standing::Unused => seat.adapters.clear(),
            Standing::Loading { .. } | Standing::Lost { .. } => {}
        }
        seat.standing = standing;
        let whole = whole(seats.iter().map(|seat| &seat.standing));
        // While the seats are locked, so that the newest word is the last one.
        self.state.send_replace(whole);
    }

    pub(super) fn set_load(&self, number: usize, load: BatchLoad) {
        self.lock()[number].load = load;
    }

    /// All replicas together.
    pub(super) fn load(&self) -> BatchLoad {
        let mut sum = BatchLoad::default();
        for BatchLoad { running, waiting, pages_free, pages } in self.lock().iter().map(|s| s.load)
        {
            sum.running += running;
            sum.waiting += waiting;
            sum.pages_free += pages_free;
            sum.pages += pages;
        }
        sum
    }

    /// Every replica that has a part in what is loaded.
    pub(super) fn views(&self) -> Vec<ReplicaView> {
        let view = |(number, seat): (usize, &Seat)| {
            let stats = self.counters[number].stats();
            let Seat { standing, adapters, load } = seat;
            let (standing, adapters) = (standing.clone(), adapters.clone());
            (standing != Standing::Unused).then_some(ReplicaView {
                number,
                standing,
                adapters,
                load: *load,
                stats,
            })
        };
        self.lock().iter().enumerate().filter_map(view).collect()
    }
}

/// What the replicas make of the whole.
fn whole<'s>(standings: impl Iterator<Item = &'s Standing> + Clone) -> EngineState {
    let ready = standings.clone().filter_map(|standing| match standing {
        Standing::Ready(info) => Some(info),
        Standing::Unused | Standing::Loading { .. } | Standing::Lost { .. } => None,
    });
    if let Some(first) = ready.clone().next() {
        let mut info = ModelInfo::clone(first);
        info.memory_bytes = ready.clone().map(|info| info.memory_bytes).sum();
        info.answers_max = ready.map(|info| info.answers_max).sum();
        return EngineState::Ready(Arc::new(info));
    }
    let mut state = EngineState::Empty;
    for standing in standings {
        match standing {
            Standing::Unused | Standing::Ready(_) => {}
            Standing::Loading { served_as } => {
                return EngineState::Loading { served_as: served_as.clone() };
            }
            Standing::Lost { served_as, fault } if state == EngineState::Empty => {
                state = EngineState::Failed { served_as: served_as.clone(), fault: fault.clone() };
            }
            Standing::Lost { .. } => {}
        }
    }
    state
}
