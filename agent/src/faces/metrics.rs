//! What `/metrics` shows of serving: how many requests ended how, and how long customers waited.
//!
//! Prometheus text, format 0.0.4. Nothing in it grows with the number of customers or models.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper edges of the waits, in seconds: from a small model on a good card to a queue on a slow one.
const EDGES_WAIT: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0];
/// Upper edges of the time per token, in seconds.
const EDGES_TOKEN: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Counts of durations by size.
struct Histogram {
    edges: &'static [f64],
    /// One more than edges: the last has no upper edge.
    counts: Vec<AtomicU64>,
    sum_micros: AtomicU64,
}

impl Histogram {
    fn new(edges: &'static [f64]) -> Self {
        let counts = (0..=edges.len()).map(|_| AtomicU64::new(0)).collect();
        Self { edges, counts, sum_micros: AtomicU64::new(0) }
    }

    fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = self.edges.partition_point(|edge| *edge < seconds);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, page: &mut Page, name: &str, help: &str) {
        page.head(name, help, "histogram");
        let mut below = 0;
        let edges = self.edges.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (edge, count) in edges.zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            page.line(&format!("{name}_bucket{{le=\"{edge}\"}} {below}"));
        }
        let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed));
        page.line(&format!("{name}_sum {}", sum.as_secs_f64()));
        page.line(&format!("{name}_count {below}"));
    }
}

/// How long customers wait. Cheap to clone.
#[derive(Clone)]
pub(super) struct ServingTimes(Arc<Times>);

struct Times {
    first: Histogram,
    further: Histogram,
    whole: Histogram,
}

impl ServingTimes {
    /// The first token of an answer came this long after it was asked for.
    pub(super) fn first_token(&self, waited: Duration) {
        self.0.first.observe(waited);
    }

    /// An answer of so many tokens was complete this long after its first.
    pub(super) fn further_tokens(&self, took: Duration, tokens: usize) {
        let steps = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        if steps > 0 {
            self.0.further.observe(took / steps);
        }
    }
}

/// What the faces count.
pub(super) struct Metrics {
    times: ServingTimes,
    /// Requests by path and status; both come from small sets.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let times = Times {
            first: Histogram::new(&EDGES_WAIT),
            further: Histogram::new(&EDGES_TOKEN),
            whole: Histogram::new(&EDGES_WAIT),
        };
        Self { times: ServingTimes(Arc::new(times)), requests: Mutex::default() }
    }
}

impl Metrics {
    pub(super) const fn times(&self) -> &ServingTimes {
        &self.times
    }

    /// A request was answered; `took` is the time to the whole answer, or to the status of a stream.
    pub(super) fn answered(&self, path: &str, status: u16, took: Duration) {
        let path = match path {
            "/v1/chat/completions" => "/v1/chat/completions",
            "/v1/completions" => "/v1/completions",
            "/v1/embeddings" => "/v1/embeddings",
            "/v1/rerank" => "/v1/rerank",
            "/v1/score" => "/v1/score",
            "/tokenize" | "/v1/tokenize" => "/tokenize",
            "/detokenize" | "/v1/detokenize" => "/detokenize",
            "/v1/models" => "/v1/models",
            _ => "other",
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((path, status)).or_default() += 1;
        drop(requests);
        if path.ends_with("/completions") {
            self.times.0.whole.observe(took);
        }
    }

    pub(super) fn write(&self, page: &mut Page) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !requests.is_empty() {
            let name = "roadbed_http_requests_total";
            page.head(name, "Requests answered", "counter");
            for ((path, status), count) in requests {
                page.line(&format!("{name}{{path=\"{path}\",status=\"{status}\"}} {count}"));
            }
        }
        let times = &self.times.0;
        let name = "roadbed_time_to_first_token_seconds";
        times.first.write(page, name, "From the request to the first token of an answer");
        let name = "roadbed_time_per_output_token_seconds";
        times.further.write(page, name, "Mean time of the further tokens of an answer");
        let name = "roadbed_request_duration_seconds";
        let help = "From the request to the whole answer, or to the status of a stream";
        times.whole.write(page, name, help);
    }
}

/// A page of Prometheus text under way.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn gauge(&mut self, name: &str, help: &str, labels: &str, value: u64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.head(name, help, "gauge");
        self.line(&format!("{name}{labels} {value}"));
    }

    /// One family with a line for each set of labels.
    pub(super) fn family<'l>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        values: impl Iterator<Item = (&'l String, u64)>,
    ) {
        self.head(name, help, kind);
        values.for_each(|(labels, value)| self.line(&format!("{name}{{{labels}}} {value}")));
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(&format!("{name} {value}"));
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(&format!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_below_their_edges() {
        let metrics = Metrics::default();
        for millis in [10, 11, 1_000_000] {
            metrics.times().first_token(Duration::from_millis(millis));
        }
        metrics.times().further_tokens(Duration::from_millis(9), 10);
        metrics.times().further_tokens(Duration::from_secs(9), 1);
        metrics.answered("/v1/chat/completions", 200, Duration::from_secs(1));
        metrics.answered("/secret/path", 404, Duration::from_secs(1));
        let mut page = Page::default();
        metrics.write(&mut page);
        for line in [
            "roadbed_time_to_first_token_seconds_bucket{le=\"0.01\"} 1",
            "roadbed_time_to_first_token_seconds_bucket{le=\"0.025\"} 2",
            "roadbed_time_to_first_token_seconds_bucket{le=\"+Inf\"} 3",
            "roadbed_time_to_first_token_seconds_sum 1000.021",
            "roadbed_time_to_first_token_seconds_count 3",
            "roadbed_time_per_output_token_seconds_bucket{le=\"0.001\"} 1",
            "roadbed_time_per_output_token_seconds_count 1",
            "roadbed_http_requests_total{path=\"/v1/chat/completions\",status=\"200\"} 1",
            "roadbed_http_requests_total{path=\"other\",status=\"404\"} 1",
            "roadbed_request_duration_seconds_count 1",
        ] {
            assert!(page.text.lines().any(|have| have == line), "{line} in {}", page.text);
        }
    }
}
