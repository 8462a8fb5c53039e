//! A rig as the gateway knows it: where it answers, what it serves now, and how much of it is in use.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::HeaderValue;
use axum::http::uri::Authority;
use roadbed_protocol::RigId;
use serde_json::Value;

/// Looks in a row that must fail before a rig counts as down, as in the network's own fan-out.
const FAILURES_MAX: u32 = 3;

/// A GPU rig behind the gateway.
pub(super) struct Rig {
    pub(super) id: RigId,
    pub(super) authority: Authority,
    /// `Bearer ..`, added to every request.
    pub(super) authorization: Option<HeaderValue>,
    /// The model it is configured for.
    pub(super) model: String,
    standing: Mutex<Standing>,
    open: AtomicUsize,
    /// Tick of its last request, so that equals take turns.
    used: AtomicU64,
    pub(super) counters: Counters,
}

/// What was passed to a rig since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) unanswered: AtomicU64,
}

/// Whether a rig answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Health {
    /// Nobody looked yet.
    #[default]
    Unknown,
    /// It does.
    Up,
    /// It did not, three times in a row.
    Down,
}

#[derive(Default)]
struct Standing {
    health: Health,
    failures: u32,
    /// Entries of its `/v1/models`.
    models: Vec<Value>,
}

impl Rig {
    pub(super) fn new(
        id: RigId,
        authority: Authority,
        authorization: Option<HeaderValue>,
        model: String,
    ) -> Self {
        Self {
            id,
            authority,
            authorization,
            model,
            standing: Mutex::default(),
            open: AtomicUsize::new(0),
            used: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look that found it well; what it was before.
    pub(super) fn found_well(&self, models: Vec<Value>) -> Health {
        let mut standing = self.standing();
        let was = standing.health;
        *standing = Standing { health: Health::Up, failures: 0, models };
        was
    }

    /// A look that did not; true if it counts as down from now on.
    pub(super) fn found_ill(&self) -> bool {
        let mut standing = self.standing();
        standing.failures = standing.failures.saturating_add(1);
        if standing.failures < FAILURES_MAX || standing.health == Health::Down {
            return false;
        }
        *standing =
            Standing { health: Health::Down, failures: standing.failures, ..Standing::default() };
        true
    }

    pub(super) fn health(&self) -> Health {
        self.standing().health
    }

    /// Worth asking: not known to be down.
    pub(super) fn may_answer(&self) -> bool {
        self.health() != Health::Down
    }

    /// What it listed as its models.
    pub(super) fn models(&self) -> Vec<Value> {
        self.standing().models.clone()
    }

    /// Whether it answers for this model now; before the first look, whether it is configured to.
    pub(super) fn serves(&self, model: &str) -> bool {
        let standing = self.standing();
        match standing.health {
            Health::Unknown => self.model == model,
            Health::Up => standing.models.iter().any(|entry| entry["id"] == model),
            Health::Down => false,
        }
    }

    /// Whether it answers for any model now.
    pub(super) fn serves_any(&self) -> bool {
        let standing = self.standing();
        standing.health == Health::Unknown || !standing.models.is_empty()
    }

    /// Requests under way.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Tick of its last request.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A request under way at a rig; ends when dropped.
pub(super) struct Visit(pub(super) Arc<Rig>);

impl Visit {
    /// Counts a request in.
    pub(super) fn begin(rig: &Arc<Rig>) -> Self {
        static TICKS: AtomicU64 = AtomicU64::new(1);
        rig.open.fetch_add(1, Ordering::Relaxed);
        rig.used.store(TICKS.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        rig.counters.requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(rig))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn three_failures_in_a_row_are_down_and_one_success_is_up() {
        let rig = Rig::new(
            RigId::new("gpu-1").unwrap(),
            Authority::from_static("127.0.0.1:1"),
            None,
            "m".into(),
        );
        assert!(rig.serves("m") && rig.may_answer(), "nobody looked yet");
        assert!(!rig.found_ill() && !rig.found_ill());
        assert_eq!(rig.found_well(vec![json!({"id": "n"})]), Health::Unknown);
        assert!(rig.serves("n") && !rig.serves("m"));
        assert!(!rig.found_ill() && !rig.found_ill() && rig.may_answer());
        assert!(rig.found_ill() && !rig.may_answer() && !rig.serves("n"));
        assert!(!rig.found_ill(), "told once");
        assert_eq!(rig.found_well(vec![]), Health::Down);
        assert!(rig.may_answer() && !rig.serves_any());
        let visit = Visit::begin(&rig.into());
        assert_eq!(visit.0.open(), 1);
    }
}
