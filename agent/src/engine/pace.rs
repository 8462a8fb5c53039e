//! How fast this rig proves: nonces a minute, measured on real rounds and kept from one start to the next.
//!
//! The planner lives on this figure, so it is never taken from a data sheet. A replica's speed is the median of its
//! recent steps, without the first of a round, which makes the round ready; the rig's is the sum over its replicas. Time
//! is the wall's, whatever clock the farm goes by: a GPU does not hurry because a demo does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roadbed_compute::AdapterSummary;
use roadbed_compute::poc::{Round, Scheme};
use roadbed_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::clock::wall_now;
use crate::measured::{self, Figure};

/// Steps a median is taken of: enough to pass over a few that something else disturbed.
const STEPS_KEPT: usize = 31;
/// Steps before a replica's speed counts.
const STEPS_MIN: usize = 3;
/// Between two writings of the file while a round goes on; a figure lost in between is measured again.
const WRITE_EVERY: Duration = Duration::from_secs(10);
const FILE: &str = "proof-rates.json";

/// What one figure is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RateOf {
    /// The name the model is served under.
    pub model: String,
    /// Tokens of a nonce's prefill.
    pub seq_len: usize,
    /// Steps behind it: 0 in the scheme PREFILL.
    #[serde(default)]
    pub max_tokens: usize,
    /// The GPUs that proved together, by [`adapter_label`], in order of their labels.
    pub adapters: Vec<String>,
}

impl RateOf {
    /// Of a round on some GPUs.
    #[must_use]
    pub fn new<'a>(
        model: &str,
        round: &Round,
        adapters: impl IntoIterator<Item = &'a AdapterSummary>,
    ) -> Self {
        let mut adapters: Vec<String> = adapters.into_iter().map(adapter_label).collect();
        adapters.sort_unstable();
        let max_tokens = match round.scheme {
            Scheme::Prefill => 0,
            Scheme::Decode(terms) => terms.max_tokens,
        };
        Self { model: model.to_owned(), seq_len: round.seq_len, max_tokens, adapters }
    }
}

/// A figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredRate {
    /// What it is about.
    #[serde(flatten)]
    pub of: RateOf,
    /// Thousandths of a nonce per wall minute.
    pub millinonces_per_minute: u64,
    /// By the wall.
    pub measured_at: UnixMillis,
}

/// A GPU as figures name it: by its slot where that is known, so that a card in another slot is another card.
#[must_use]
pub fn adapter_label(adapter: &AdapterSummary) -> String {
    match &adapter.pci_bus_id {
        Some(pci) => format!("{} ({pci})", adapter.name),
        None => adapter.name.clone(),
    }
}

/// Lengths that a report tells of: what a benchmark measures, and what networks ask for, some times over.
const LENGTHS_TOLD_MAX: usize = 8;

/// Of all figures, newest first, those of a model in the scheme PREFILL on some of a rig's GPUs: one for each length, the
/// newest.
pub fn of_rig<'r>(
    rates: &'r [MeasuredRate],
    model: &'r str,
    gpus: &'r [String],
) -> impl Iterator<Item = &'r MeasuredRate> {
    let is_ours = move |rate: &&MeasuredRate| {
        let here = rate.of.adapters.iter().all(|adapter| gpus.contains(adapter));
        rate.of.model == model && rate.of.max_tokens == 0 && here
    };
    let mut lengths = BTreeSet::new();
    let is_newest = move |rate: &&MeasuredRate| lengths.insert(rate.of.seq_len);
    rates.iter().filter(is_ours).filter(is_newest).take(LENGTHS_TOLD_MAX)
}

impl Figure for MeasuredRate {
    const WHAT: &'static str = "proof rates";
    const FILE_BYTES_MAX: u64 = 1 << 18;

    fn is_of_same(&self, other: &Self) -> bool {
        self.of == other.of
    }

    fn measured_at(&self) -> UnixMillis {
        self.measured_at
    }
}

/// The recent steps of one replica.
struct Steps {
    round: Round,
    /// Nonces a minute of each.
    speeds: VecDeque<f64>,
}

#[derive(Default)]
struct Inner {
    /// Newest first.
    rates: Vec<MeasuredRate>,
    replicas: BTreeMap<usize, Steps>,
    written: Option<Instant>,
    unwritten: bool,
}

/// All figures of an engine.
pub(crate) struct ProofPace {
    file: Option<PathBuf>,
    inner: Mutex<Inner>,
}

impl ProofPace {
    /// Goes on with what is kept in `folder`. A file that cannot be used is passed over: everything in it is measured
    /// again.
    pub(crate) fn open(folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join(FILE));
        let rates = file.as_deref().map(measured::read).unwrap_or_default();
        Self { file, inner: Mutex::new(Inner { rates, ..Inner::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica took a step of `nonces` nonces; `gpus` are those of all replicas that prove.
    pub(super) fn stepped(
        &self,
        replica: usize,
        model: &str,
        round: &Round,
        gpus: &[AdapterSummary],
        nonces: usize,
        took: Duration,
    ) {
        let mut inner = self.lock();
        let steps = inner.replicas.get_mut(&replica).filter(|steps| steps.round == *round);
        let Some(steps) = steps else {
            // It uploaded the round's vectors, and on some drivers compiled the last kernels.
            let first = Steps { round: round.clone(), speeds: VecDeque::new() };
            inner.replicas.insert(replica, first);
            return;
        };
        let seconds = took.as_secs_f64();
        if nonces == 0 || seconds <= 0.0 {
            return;
        }
        if steps.speeds.len() == STEPS_KEPT {
            steps.speeds.pop_front();
        }
        steps.speeds.push_back(nonces as f64 * 60.0 / seconds);
        let of_round = inner.replicas.values().filter(|steps| steps.round == *round);
        let known = of_round.filter(|steps| steps.speeds.len() >= STEPS_MIN);
        let total: f64 = known.map(|steps| median(&steps.speeds)).sum();
        if total > 0.0 {
            inner.note(RateOf::new(model, round, gpus), (total * 1000.0) as u64, wall_now());
        }
        self.write_if_due(&mut inner);
    }

    /// A replica's GPU or model is another: its next step is a first one.
    pub(super) fn forget(&self, replica: usize) {
        self.lock().replicas.remove(&replica);
    }

    /// Notes a figure that was measured elsewhere, and keeps it.
    pub(crate) fn note(&self, of: RateOf, millinonces_per_minute: u64) {
        let mut inner = self.lock();
        inner.note(of, millinonces_per_minute, wall_now());
        inner.written = None;
        self.write_if_due(&mut inner);
    }

    /// Keeps what is not yet kept, at the end of a round.
    pub(super) fn keep(&self) {
        let mut inner = self.lock();
        inner.written = None;
        self.write_if_due(&mut inner);
    }

    /// Every figure, the newest first.
    pub(super) fn rates(&self) -> Vec<MeasuredRate> {
        self.lock().rates.clone()
    }

    fn write_if_due(&self, inner: &mut Inner) {
        let due = inner.written.is_none_or(|at| at.elapsed() >= WRITE_EVERY);
        let Some(file) = self.file.as_deref().filter(|_| inner.unwritten && due) else { return };
        inner.written = Some(Instant::now());
        inner.unwritten = false;
        measured::write(file, &inner.rates);
    }
}

impl Inner {
    fn note(&mut self, of: RateOf, millinonces_per_minute: u64, measured_at: UnixMillis) {
        measured::put(&mut self.rates, MeasuredRate { of, millinonces_per_minute, measured_at });
        self.unwritten = true;
    }
}

fn median(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use roadbed_compute::AdapterKind;
    use roadbed_compute::poc::Identity;

    use super::*;
    use crate::measured::FIGURES_MAX as RATES_MAX;
    use std::fs;

    fn gpu(name: &str, pci: Option<&str>) -> AdapterSummary {
        AdapterSummary {
            index: 0,
            name: name.into(),
            backend: "vulkan".into(),
            kind: AdapterKind::Discrete,
            pci_bus_id: pci.map(str::to_owned),
            driver: "1".into(),
        }
    }

    fn round(block: &str, seq_len: usize) -> Round {
        let identity = Identity { block_hash: block.into(), public_key: "k".into() };
        Round { identity, seq_len, k_dim: 12, stronger_rng: false, scheme: Scheme::Prefill }
    }

    /// Seconds of steps of two nonces each, the first of the round included.
    fn steps(pace: &ProofPace, replica: usize, round: &Round, seconds: &[u64]) {
        for seconds in seconds {
            let gpus = [gpu("b", Some("02:00.0")), gpu("a", None)];
            pace.stepped(replica, "m", round, &gpus, 2, Duration::from_secs(*seconds));
        }
    }

    #[test]
    fn a_rate_is_the_median_of_steps_behind_the_first() {
        let pace = ProofPace::open(None);
        let first = round("b1", 64);
        steps(&pace, 0, &first, &[500, 4, 4]);
        assert_eq!(pace.rates(), []);
        steps(&pace, 0, &first, &[900]);
        let rate = |pace: &ProofPace| pace.rates()[0].millinonces_per_minute;
        assert_eq!(rate(&pace), 30_000);
        assert_eq!(pace.rates()[0].of.adapters, ["a", "b (02:00.0)"]);
        // A second card as fast: together twice.
        steps(&pace, 1, &first, &[500, 4, 4, 4]);
        assert_eq!(rate(&pace), 60_000);
        // The next block begins anew, and until it has a figure the last one stands.
        steps(&pace, 0, &round("b2", 64), &[500, 8]);
        assert_eq!(rate(&pace), 60_000);
        steps(&pace, 0, &round("b2", 64), &[8, 8]);
        assert_eq!((rate(&pace), pace.rates().len()), (15_000, 1));
        // Another length is another figure, and the newest comes first.
        steps(&pace, 0, &round("b3", 256), &[500, 30, 30, 30]);
        assert_eq!((rate(&pace), pace.rates().len()), (4_000, 2));
        pace.forget(0);
        steps(&pace, 0, &round("b3", 256), &[1]);
        assert_eq!(rate(&pace), 4_000);
    }

    #[test]
    fn a_rig_tells_one_figure_for_each_length() {
        let of = |model: &str, seq_len, gpus: &[&str]| {
            let gpus: Vec<AdapterSummary> = gpus.iter().map(|name| gpu(name, None)).collect();
            RateOf::new(model, &round("b", seq_len), &gpus)
        };
        let mut of_decode = of("m", 32, &["a"]);
        of_decode.max_tokens = 256;
        let pace = ProofPace::open(None);
        for (of, rate) in [
            (of("m", 256, &["a"]), 1),
            (of("m", 256, &["a", "b"]), 2),
            (of("m", 1024, &["a", "b"]), 3),
            (of("other", 64, &["a"]), 4),
            (of("m", 64, &["a", "away"]), 5),
            (of_decode, 6),
        ] {
            pace.note(of, rate);
        }
        let gpus = ["a".to_owned(), "b".to_owned()];
        let rates = pace.rates();
        let told: Vec<(usize, u64)> = of_rig(&rates, "m", &gpus)
            .map(|rate| (rate.of.seq_len, rate.millinonces_per_minute))
            .collect();
        assert_eq!(told, [(1024, 3), (256, 2)]);
        assert_eq!(of_rig(&rates, "m", &[]).count(), 0);
        (0..50).for_each(|length| pace.note(of("m", length, &["a"]), 1));
        assert_eq!(of_rig(&pace.rates(), "m", &gpus).count(), LENGTHS_TOLD_MAX);
    }

    #[test]
    fn rates_are_kept_and_a_damaged_file_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || ProofPace::open(Some(folder.path()));
        let gpus = [gpu("a", None)];
        let of = |seq_len| RateOf::new("m", &round("b", seq_len), &gpus);
        let (one, other) = (open(), open());
        one.note(of(64), 5_000);
        // Another process, which has not seen it.
        other.note(of(256), 700);
        let kept = open().rates();
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().any(|rate| rate.of == of(64) && rate.millinonces_per_minute == 5_000));
        // What was not yet written is at the end of the round.
        steps(&one, 0, &round("b", 8), &[9, 1, 1, 1]);
        assert_eq!(open().rates().len(), 2);
        one.keep();
        assert_eq!(open().rates().len(), 3);

        for damaged in
            ["", "{\"version\": 1, \"rates\": [7]}", "{\"version\": 9, \"rates\": []}", "\u{0}"]
        {
            fs::write(folder.path().join(FILE), damaged).unwrap();
            assert_eq!(open().rates(), [], "{damaged}");
        }
        let pace = open();
        pace.note(of(64), 1);
        assert_eq!(open().rates(), pace.rates());
        for seq_len in 0..2 * RATES_MAX {
            pace.note(of(seq_len), 1);
        }
        assert_eq!(open().rates().len(), RATES_MAX);
    }
}
